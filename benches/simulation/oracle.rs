//! The promise, checked when the daemon is idle and the kernel silent: every process is where the
//! rules say, or is excused.

use cgruled::rules::names::UserIdentity;
use cgruled::telemetry::metrics::Metrics;

use super::machine::Machine;
use super::process::{OWN, Process};
use super::programs::{PROGRAMS, Program};
use super::rules::{self, SimRule};
use super::services::Key;
use super::situations::Situation;

impl Machine {
    /// Checks everything at rest.
    pub(crate) fn check_rest(&mut self, metrics: &Metrics, is_long: bool) {
        self.counts.hit(Situation::Rests);
        for pid in self.pids.clone() {
            let Some(process) = self.find(pid).cloned() else { continue };
            if process.is_zombie || process.is_kernel_thread || pid == 1 || pid == OWN {
                continue;
            }
            self.check_process(&process, is_long);
        }
        if self.dropped_at > self.scanned_at {
            self.violate("events were lost, and no scan followed".to_owned());
        }
        self.check_counters(metrics);
    }

    fn check_process(&mut self, process: &Process, is_long: bool) {
        let ids = process.acting();
        let uid = ids.0;
        if self
            .services
            .lookups
            .iter()
            .any(|one| one.key == Key::User(uid) || one.key == Key::Group(ids.1))
        {
            return;
        }
        let mut candidates = vec![ids];
        if process.has_leader_exited {
            candidates.extend(process.threads.iter().map(|one| (one.uid, one.gid)));
            candidates.extend(&process.acted);
        }
        let mut wanted = Vec::new();
        let mut cases = Vec::new();
        for ids in candidates {
            for exe in self.programs_of(process) {
                cases.extend(self.possible_ancestors(process).map(|below| (ids, exe, below)));
            }
        }
        for ((uid, gid), exe, below) in cases {
            let identity = self.known_identity(uid);
            let place = &*self.cgroups.get(process.groups[0]).path;
            let set = self.active.set;
            let rule = rules::first(set, (uid, gid), exe, &identity, (place, below));
            if self.is_in_place(process, rule, (uid, gid), &identity) {
                // A move by mistake has become the right one.
                if let Some(own) = self.find_mut(process.pid).filter(|_| rule.is_some()) {
                    own.mistaken = None;
                }
                return;
            }
            if self.stays_in_unit(process, rule, uid) {
                return self.counts.hit(Situation::InUnit);
            }
            wanted.push(rule.and_then(|rule| self.path_of(*rule, (uid, gid), &identity)));
        }
        if self.is_excused(process, is_long) {
            return;
        }
        let path = self.cgroups.get(process.groups[0]).path.to_string();
        let pid = process.pid;
        let program = PROGRAMS[process.program].link;
        self.violate(format!(
            "at rest, process {pid} (uid {}, gid {}, {program}) is in {path}, and not in {wanted:?}",
            ids.0, ids.1
        ));
    }

    fn known_identity(&self, uid: u32) -> UserIdentity {
        let known = self.active.believed.iter().find(|one| one.uid.0 == uid);
        known.cloned().unwrap_or_else(|| rules::identity(uid))
    }

    /// Returns the destination of a rule, by what the name service told.
    fn path_of(&self, rule: SimRule, ids: (u32, u32), identity: &UserIdentity) -> Option<String> {
        let named = self.active.named_groups.iter().find(|one| one.0 == ids.1);
        let group = match named {
            Some((_, name)) => name.as_deref(),
            None => rules::group_name(ids.1),
        };
        rule.path(ids, group, identity)
    }

    /// Returns the programs by which the process may be decided.
    fn programs_of(&self, process: &Process) -> Vec<Option<Program>> {
        let program = PROGRAMS[process.program];
        let uid = process.acting().0;
        let is_slow = self.services.blocked.iter().any(|one| one.uid == uid);
        match process.hang {
            Some(next) => vec![Some(program), Some(PROGRAMS[next]), None],
            None if program.is_hidden => vec![None],
            // Its user has reads that block, and too many examinations.
            None if is_slow => vec![Some(program), None],
            None => vec![Some(program)],
        }
    }

    /// Checks whether the process is where this rule says.
    fn is_in_place(
        &self,
        process: &Process,
        rule: Option<&SimRule>,
        (uid, gid): (u32, u32),
        identity: &UserIdentity,
    ) -> bool {
        let Some(rule) = rule.filter(|rule| rule.to.is_some()) else {
            return process.mistaken.is_none_or(|before| before == process.groups)
                || self.is_with_origin(process);
        };
        let Some(path) = self.path_of(*rule, (uid, gid), identity) else { return true };
        let span = if rule.has_v1 && self.config.has_v1 { 2 } else { 1 };
        let is_in = |hierarchy: usize| {
            let group = self.cgroups.get(process.groups[hierarchy]);
            *group.path == *path
        };
        (0..span).all(is_in)
    }

    /// Checks whether a process that was moved by mistake is where the one that created it is. The daemon returns it
    /// there: it cannot know that another process moved it between its birth and the mistake, which are less than
    /// 100 us apart. Nothing shows where it was born if its creator has exited.
    fn is_with_origin(&self, process: &Process) -> bool {
        let creator = self.by_identity(process.creators[0]);
        let origins = [self.find(process.parent), creator];
        creator.is_none() || origins.into_iter().flatten().any(|one| one.groups == process.groups)
    }

    /// Checks whether it keeps its unit, or is a job of another user.
    fn stays_in_unit(&self, process: &Process, rule: Option<&SimRule>, uid: u32) -> bool {
        let place = &self.cgroups.get(process.groups[0]).path;
        let leaves = rule.is_some_and(|rule| rule.leaves_units);
        let is_unit = place.starts_with("/system.slice/") && !leaves;
        let is_others = place
            .split_once("/user@")
            .is_some_and(|(_, rest)| !rest.starts_with(&format!("{uid}.service")));
        self.config.runs_systemd && (is_unit || is_others)
    }

    fn is_excused(&mut self, process: &Process, is_long: bool) -> bool {
        let excuses = process.excuses;
        if process.is_pinned || excuses.was_pinned || excuses.may_be_pinned {
            self.counts.hit(Situation::Pinned);
            return true;
        }
        let is_left = excuses.moves > 1 && excuses.is_moved_by_root && !self.config.reports_only;
        excuses.is_displaced || is_left || excuses.is_refused && !(excuses.is_retried && is_long)
    }

    fn check_counters(&mut self, metrics: &Metrics) {
        let tally = self.tally;
        let dropped = self.event_socket.dropped + self.fork_socket.dropped - self.dropped_before;
        for (name, counter, own) in [
            ("events", metrics.events.get(), tally.events),
            ("forks", metrics.forks.get(), tally.forks),
            ("placed", metrics.placed.get(), tally.moved),
            ("lost_events", metrics.lost_events.get(), dropped),
            ("reloads", metrics.reloads.get(), tally.policies + 1),
        ] {
            if counter != own {
                self.violate(format!("the counter {name} is {counter} instead of {own}"));
            }
        }
    }
}
