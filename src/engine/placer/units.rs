//! Decides whether a process may leave its systemd unit.

use std::fs::File;
use std::io::Read;

use ::log::Level;

use super::labels::{ProcessLabel, RuleLabel};
use super::{PlacedProcess, Placer};
use crate::cgroup::config;
use crate::cgroup::mounts::{HierarchySet, Version};
use crate::cgroup::tree::CurrentCgroup;
use crate::cgroup::unit::Unit;
use crate::control::failures::PlacementFailure;
use crate::event::Pid;
use crate::kernel::process::{ProcFs, path_in};
use crate::policy::Policy;
use crate::rules::{LeaveUnits, Rule};
use crate::sys;
use crate::telemetry::log::field;

/// Buffer size that is sufficient to see whether a list has two PIDs.
const TWO: usize = 32;

/// Checks whether the process stays in the slice of its user, which a table limits. Called only for
/// processes that are about to be moved.
pub(super) fn stays_in_slice(
    now: CurrentCgroup<'_>,
    policy: &Policy,
    rule: &Rule,
    subject: &PlacedProcess<'_>,
) -> bool {
    let tables = policy.configs.user_slices();
    if tables.is_empty() {
        return false;
    }
    let path = now.text.and_then(|text| path_in(text, b"")).unwrap_or_default();
    config::keeping_table(tables, rule, path, policy.accountable(subject.handle.uid), subject.user)
        .is_some()
}

impl Placer {
    /// Checks whether the process stays in its systemd unit, because its rule does not allow to
    /// leave it.
    pub(super) fn stays_in_unit(
        &mut self,
        now: CurrentCgroup<'_>,
        policy: &Policy,
        proc: &mut ProcFs,
        (span, rule): (HierarchySet, &Rule),
        subject: &PlacedProcess<'_>,
    ) -> bool {
        // Called only for processes that are about to be moved: those in place need no check.
        if !self.has_systemd || rule.leave_units == LeaveUnits::Yes || !self.concerns_units(span) {
            return false;
        }
        // Copied into a reused buffer, which is taken out while it is borrowed.
        let mut place = std::mem::take(&mut self.place);
        place.clear();
        let path = now.text.and_then(|text| path_in(text, b"")).unwrap_or_default();
        // Names of units are valid UTF-8; names of cgroups that a unit creates below its own need
        // not be.
        place.extend(path.utf8_chunks().next().map(|chunk| chunk.valid()));
        let roots = policy.roots();
        let stays = self.stays_in(Unit::of(&place, &roots), proc, rule, subject);
        self.place = place;
        stays
    }

    fn stays_in(
        &mut self,
        unit: Unit<'_>,
        proc: &mut ProcFs,
        rule: &Rule,
        subject: &PlacedProcess<'_>,
    ) -> bool {
        let pid = subject.evaluation.pid;
        let is_service = || {
            subject.handle.uid.0 == 0 && proc.parent(pid).is_some_and(|parent| parent.get() == 1)
        };
        if !unit.loses(|group| self.is_last(group, pid), is_service) {
            return false;
        }
        let stays = rule.leave_units == LeaveUnits::No;
        if stays {
            self.metrics.kept_in_unit.increment();
            let name = unit.name().unwrap_or_default().to_owned();
            self.failures.push((PlacementFailure::InUnit(name), self.path.clone()));
        }
        self.say_unit(unit, stays, rule, subject);
        stays
    }

    /// Checks for the v2 hierarchy, in which systemd manages its units, on hybrid hosts as well.
    fn concerns_units(&self, span: HierarchySet) -> bool {
        let trees = self.tree.hierarchies();
        span.indexes().any(|index| trees.get(index).is_some_and(|tree| tree.version == Version::V2))
    }

    /// Checks whether the cgroup contains no other process.
    fn is_last(&self, group: &str, pid: Pid) -> bool {
        let Some(tree) = self.tree.hierarchies().unified() else { return false };
        let file = tree.mount_point.join(group.trim_start_matches('/')).join("cgroup.procs");
        let mut start = [0; TWO];
        let Ok(length) = File::open(file).and_then(|mut file| file.read(&mut start)) else {
            return false;
        };
        has_only(&start[..length], pid)
    }

    fn say_unit(&mut self, unit: Unit<'_>, stays: bool, rule: &Rule, subject: &PlacedProcess<'_>) {
        let name = unit.name().unwrap_or_default();
        let Some(left_out) = self.limiter.admit(&(name, &rule.name), sys::monotonic()) else {
            return;
        };
        let name = name.escape_debug();
        let why = match unit {
            Unit::Session(..) => {
                "it is the last process of the session, and systemd closes an empty session"
            }
            Unit::None | Unit::OfUser(_) | Unit::ForOthers(_) | Unit::Other(_) => {
                "outside the unit its limits would not apply and stopping it would not kill the \
                 process"
            }
        };
        let who = ProcessLabel(subject);
        let by = RuleLabel(rule);
        let decided = self.decided(field::UNIT, rule, subject);
        if stays {
            decided.say(
                Level::Warn,
                format_args!(
                    "{who} stays in {name}: {why}; set leave_units = true in {by} to allow it{left_out}"
                ),
            );
        } else {
            decided.say(
                Level::Warn,
                format_args!("{who} leaves {name}, as with cgrulesengd: {why}; {by}{left_out}"),
            );
        }
    }
}

/// Checks whether the beginning of a list of PIDs contains `pid` only.
fn has_only(list: &[u8], pid: Pid) -> bool {
    list.strip_suffix(b"\n").is_some_and(|list| list == pid.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_with_one_process_is_told_from_others() {
        let pid = Pid::new(41).unwrap();
        assert!(has_only(b"41\n", pid));
        for list in [&b""[..], b"41\n42\n", b"4", b"411\n", b"40\n41\n", b"40\n"] {
            assert!(!has_only(list, pid));
        }
    }
}
