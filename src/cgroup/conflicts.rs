//! Resolves conflicts between lines of one rule that name different cgroups in the same hierarchy.
//! Pure.
//!
//! With a hierarchy for each controller, every line of a legacy rule has its own. Where controllers
//! share one, as all do on v2, a process cannot be in the cgroups of two lines: they would move it
//! back and forth.

use super::mounts::{Hierarchies, Version};
use crate::rules::{PathBase, Target};

/// Two lines of a rule with conflicting destinations in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictingTargets {
    /// The destination that is ignored in the hierarchy.
    pub loser: String,
    /// The destination that is used.
    pub winner: String,
    /// The index of the hierarchy in [`Hierarchies`].
    pub hierarchy: usize,
}

impl Hierarchies {
    /// Assigns each hierarchy to the last line of a legacy rule that names it, where cgrulesengd
    /// leaves the process as well. Returns the conflicts.
    pub fn settle(&self, targets: &mut Vec<Target>) -> Vec<ConflictingTargets> {
        let mut conflict = Vec::new();
        if targets.len() < 2 || targets.iter().any(|target| target.below == PathBase::Root) {
            return conflict;
        }
        // A line without a hierarchy fails, and cgrulesengd does not process the lines after it.
        let runs = targets.iter().position(|target| self.span_of(target).0.is_empty());
        let runs = runs.unwrap_or(targets.len());
        for index in (1..runs).rev() {
            let (before, from) = targets.split_at_mut(index);
            let Some(last) = from.first() else { continue };
            for target in before {
                self.yield_to(target, last, &mut conflict);
            }
        }
        targets.retain(|target| !target.controllers.is_empty());
        conflict
    }

    /// Removes the hierarchies of a later line from an earlier one, unless both name the same
    /// cgroup.
    fn yield_to(
        &self,
        target: &mut Target,
        later: &Target,
        conflict: &mut Vec<ConflictingTargets>,
    ) {
        let shared = self.span_of(later).0;
        let is_same = target.destination.pieces() == later.destination.pieces();
        for hierarchy in self.span_of(target).0.indexes().filter(|&index| shared.has(index)) {
            if is_same {
                self.enable_both(target, later, hierarchy);
                continue;
            }
            self.take_from(target, hierarchy);
            let loser = target.destination.as_str();
            let winner = later.destination.as_str();
            conflict.push(ConflictingTargets {
                loser: loser.to_owned(),
                winner: winner.to_owned(),
                hierarchy,
            });
        }
    }

    /// Adds the controllers of a later line for the same cgroup, because the first line opens it
    /// and must name all controllers to be enabled on v2.
    fn enable_both(&self, target: &mut Target, later: &Target, hierarchy: usize) {
        let is_unified = self[hierarchy].version == Version::V2;
        for name in later.controllers.iter().filter(|_| is_unified) {
            let is_known = target.controllers.iter().any(|own| own == name || own == "*");
            if !is_known && self.with(name) == Some(hierarchy) {
                target.controllers.push(name.clone());
            }
        }
    }

    fn take_from(&self, target: &mut Target, hierarchy: usize) {
        if target.controllers.iter().any(|name| name == "*") {
            let others = self.span_of(target).0.indexes().filter(|&index| index != hierarchy);
            target.controllers =
                others.flat_map(|index| self[index].controllers.iter().cloned()).collect();
        } else {
            target.controllers.retain(|name| self.with(name) != Some(hierarchy));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::mounts::hierarchies;
    use super::*;
    use crate::rules::destination::{Destination, DestinationPart};

    const MOUNTS: &str = "\
32 31 0:28 / /cpu rw - cgroup cgroup rw,cpuacct,cpu
33 31 0:29 / /pids rw - cgroup cgroup rw,pids
34 31 0:30 / /unified rw - cgroup2 cgroup2 rw
";

    /// Parses `controllers path`.
    fn target(line: &str) -> Target {
        let (names, path) = line.trim().split_once(' ').unwrap();
        let pieces = vec![DestinationPart::Literal(path.trim_start_matches('/').to_owned())];
        Target {
            destination: Destination::from_pieces(path, pieces),
            controllers: names.split(',').map(str::to_owned).collect(),
            below: PathBase::Top,
            creates: false,
        }
    }

    /// Resolves `controllers path; controllers path`. Returns the remaining targets and the
    /// conflicts.
    fn settled(own: &str, lines: &str) -> (String, Vec<String>) {
        let mut host = hierarchies(MOUNTS, own);
        if let Some(unified) = host.unified_mut() {
            unified.controllers = ["memory", "io"].map(str::to_owned).to_vec();
        }
        let mut targets: Vec<Target> = lines.split(';').map(target).collect();
        let conflict = host.settle(&mut targets);
        let targets = targets.iter().map(|target| {
            format!("{} {}", target.controllers.join(","), target.destination.as_str())
        });
        let conflicts = conflict.into_iter().map(|conflict| {
            format!("{}<{} in {}", conflict.loser, conflict.winner, host[conflict.hierarchy].listed)
        });
        (targets.collect::<Vec<_>>().join("; "), conflicts.collect())
    }

    const V2: &str = "0::/\n";
    const HYBRID: &str = "2:pids:/\n1:cpu,cpuacct:/\n0::/\n";

    fn is(own: &str, lines: &str, left: &str, conflict: &[&str]) {
        let (targets, said) = settled(own, lines);
        assert_eq!((&*targets, said), (left, conflict.iter().map(|&text| text.into()).collect()));
    }

    #[test]
    fn the_last_line_has_the_hierarchy() {
        is(V2, "memory a; io b", "io b", &["a<b in "]);
        is(V2, "memory a; io b; memory c", "memory c", &["a<c in ", "b<c in "]);
        is(V2, "* a; io b", "io b", &["a<b in "]);
        is(HYBRID, "cpu,pids a; cpuacct b", "pids a; cpuacct b", &["a<b in cpu,cpuacct"]);
        is(HYBRID, "pids a; pids b", "pids b", &["a<b in pids"]);
    }

    #[test]
    fn all_that_is_left_of_every_controller_is_named() {
        is(HYBRID, "* a; pids b", "cpu,cpuacct,memory,io a; pids b", &["a<b in pids"]);
    }

    #[test]
    fn lines_with_a_hierarchy_each_are_left_alone() {
        for lines in ["cpu a; pids b", "memory a", "cpu a; io b; pids a"] {
            is(HYBRID, lines, lines, &[]);
        }
    }

    #[test]
    fn two_lines_for_one_group_are_enabled_together() {
        is(V2, "memory a; io /a", "memory,io a; io /a", &[]);
        is(HYBRID, "cpu,memory a; pids,io a", "cpu,memory,io a; pids,io a", &[]);
    }

    #[test]
    fn what_is_never_run_takes_nothing() {
        is(V2, "memory a; nosuch b; io c", "memory a; nosuch b; io c", &[]);
    }
}
