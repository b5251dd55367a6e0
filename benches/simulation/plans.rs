//! Plans at rest: the engine is asked what a reload of other files would change, and then reloads them. Each process
//! must be where the plan said.

use std::collections::HashMap;

use cgruled::control::difference::DecisionChange;
use cgruled::control::plan::{Plan, PlanReply};
use cgruled::rules::names::UserIdentity;
use crossbeam_channel::Receiver;

use super::machine::Machine;
use super::process::Process;
use super::situations::Situation;

/// Rests of which one has a plan.
pub(crate) const EVERY: u32 = 4;

/// A plan that is compared with its reload.
pub(crate) enum PlanCheck {
    /// The engine computes it. Where the processes were before, by identity.
    Requested(Receiver<PlanReply>, Places),
    /// The files are reloaded. The processes, with what is expected of them.
    Reloading(Vec<Expected>),
}

/// The paths of processes in both hierarchies, by identity.
pub(crate) type Places = HashMap<u64, [String; 2]>;

/// Where a process must be after a reload.
pub(crate) struct Expected {
    pid: u32,
    identity: u64,
    /// The paths in both hierarchies.
    paths: [String; 2],
    plan: String,
}

impl Machine {
    /// Returns where each process must be after a reload, except those of which the plan does not know it.
    pub(crate) fn expected_by(&self, plan: &Plan, before: &Places) -> Vec<Expected> {
        let mut expected = Vec::new();
        for process in self.pids.iter().filter_map(|&pid| self.find(pid)) {
            let planned = plan.processes.iter().find(|one| one.pid.get() == process.pid);
            let is_unknown = planned.is_some_and(|one| one.change == DecisionChange::Unknown);
            // It was moved away, and a scan before the reload may place it by the active rules.
            let is_away = planned.is_some_and(|one| one.before.outcome == "would-place");
            if process.is_zombie || is_unknown || is_away {
                continue;
            }
            let mut paths = self.paths_of(process);
            // A periodic scan has moved it since the plan was requested.
            if before.get(&process.identity) != Some(&paths) {
                continue;
            }
            for step in planned.iter().flat_map(|one| &one.moves) {
                paths[step.hierarchy] = step.to.to_string();
            }
            let plan = format!("{planned:?}");
            let &Process { pid, identity, .. } = process;
            expected.push(Expected { pid, identity, paths, plan });
        }
        expected
    }

    /// Compares the processes with a plan.
    pub(crate) fn check_plan(&mut self, expected: Vec<Expected>) {
        for Expected { pid, identity, paths, plan } in expected {
            let Some(process) = self.find(pid).filter(|one| one.identity == identity) else {
                continue;
            };
            // A plan cannot know that the kernel refuses a move.
            if process.is_zombie || process.excuses.is_refused {
                continue;
            }
            if self.has_new_identity(process.acting().0) {
                continue;
            }
            let found = self.paths_of(process);
            if found != paths {
                return self.violate(format!(
                    "process {pid} is in {found:?} instead of {paths:?} after a plan: {plan}"
                ));
            }
            if plan.contains("Moves") {
                self.counts.hit(Situation::PlannedMove);
            }
        }
    }

    /// Checks whether a wrong reply about a user was corrected since the plan began.
    fn has_new_identity(&self, uid: u32) -> bool {
        let is_user = |one: &&UserIdentity| one.uid.0 == uid;
        let before = self.services.plan_users.iter().find(is_user);
        before.is_some_and(|before| self.active.believed.iter().find(is_user) != Some(before))
    }

    /// Returns where the processes are.
    pub(crate) fn places(&self) -> Places {
        let processes = self.pids.iter().filter_map(|&pid| self.find(pid));
        processes.map(|process| (process.identity, self.paths_of(process))).collect()
    }

    fn paths_of(&self, process: &Process) -> [String; 2] {
        process.groups.map(|group| self.cgroups.get(group).path.to_string())
    }
}
