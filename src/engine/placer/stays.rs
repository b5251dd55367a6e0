//! Processes that stay where they are although their rule names another cgroup: supplies the facts for
//! [`decide_move`], and counts, records and logs its result.

use super::foreseen::ForeseenMoves;
use super::{Missing, PlacedProcess, Placement, PlacementStep, Placer, PlacerMode};
use crate::cgroup::tree::CurrentCgroup;
use crate::engine::evaluated_process::{EvaluatedProcess, ProcessParts};
use crate::engine::kernel::Kernel;
use crate::engine::user_managers::{ManagerCandidate, ManagerVerdict, UserManagers};
use crate::event::{Pid, Uid};
use crate::kernel::process::ProcessStatus;
use crate::placement::stay::{
    MoveDecision, StayFacts, StayReason, StaySubject, StayTarget, decide_move,
};
use crate::policy::Policy;
use crate::rules::Rule;

/// Facts read from the kernel about the process that is being evaluated.
struct KernelFacts<'k, K> {
    kernel: &'k mut K,
    managers: &'k mut UserManagers,
    policy: &'k Policy,
    subject: &'k PlacedProcess<'k>,
    /// What a plan found out about other processes, if the decision is for one.
    foreseen: Option<&'k ForeseenMoves>,
}

impl<K: Kernel> StayFacts for KernelFacts<'_, K> {
    fn runs_systemd(&self) -> bool {
        self.kernel.runs_systemd()
    }

    fn is_daemon(&self) -> bool {
        self.subject.evaluation.pid.get() == self.kernel.own_pid()
    }

    fn has_exited(&self) -> bool {
        self.kernel.has_exited(self.subject.handle)
    }

    fn status(&mut self, pid: Pid) -> Option<ProcessStatus> {
        self.kernel.status(pid)
    }

    fn children(&mut self, bound: usize) -> Vec<Pid> {
        let mut children = Vec::new();
        self.kernel.children(self.subject.evaluation.pid, |child| {
            if children.len() < bound {
                children.push(child);
            }
        });
        children
    }

    fn is_user_manager(&mut self) -> Option<bool> {
        let evaluation = self.subject.evaluation;
        let parent = self.kernel.status(evaluation.pid).and_then(|status| status.parent);
        let is_named_pam = self.kernel.comm(evaluation.pid) == Some(b"(sd-pam)");
        let uid = self.subject.handle.uid;
        let candidate = ManagerCandidate { evaluation, uid, parent, is_named_pam };
        let now = self.kernel.now();
        let verdict = match self.foreseen {
            None => self.managers.check(candidate, self.kernel, now),
            Some(_) => self.managers.known(candidate, self.kernel, now),
        };
        match verdict {
            ManagerVerdict::Protected => Some(true),
            ManagerVerdict::Movable => Some(false),
            ManagerVerdict::Pending => None,
        }
    }

    fn is_alone_in(&self, path: &str) -> bool {
        let leaves = |pid| self.foreseen.is_some_and(|foreseen| foreseen.leaves(pid));
        self.kernel.is_alone(path, self.subject.evaluation.pid, leaves)
    }

    fn group_owner(&self, hierarchy: usize, path: &[u8]) -> Option<Uid> {
        self.kernel.group_owner(hierarchy, path)
    }
}

impl<K: Kernel> EvaluatedProcess for KernelFacts<'_, K> {
    type Kernel = K;

    fn parts(&self) -> ProcessParts<'_, K> {
        let PlacedProcess { evaluation, handle, containment, .. } = *self.subject;
        let (policy, kernel) = (self.policy, &*self.kernel);
        ProcessParts { policy, kernel, pid: evaluation.pid, handle, containment }
    }

    fn kernel_mut(&mut self) -> &mut K {
        self.kernel
    }
}

impl Placer {
    /// Decides whether a process that is in `now` is moved to the cgroup `self.path`.
    ///
    /// # Errors
    /// Data about the process that must be read first.
    pub(super) fn decide_move(
        &mut self,
        now: CurrentCgroup<'_>,
        kernel: &mut impl Kernel,
        step: PlacementStep<'_>,
    ) -> Result<MoveDecision, Missing> {
        let PlacementStep { policy, rule, target, span, subject, .. } = step;
        let place = StayTarget { rule, span, target, path: &self.path };
        let process = StaySubject {
            pid: subject.evaluation.pid,
            uid: subject.handle.uid,
            user: subject.user,
            exe: subject.exe,
            is_moved_thread: subject.is_moved_thread(),
            cgroup: now.text.unwrap_or_default(),
        };
        let foreseen = match &self.mode {
            PlacerMode::Move | PlacerMode::DryRun => None,
            PlacerMode::Foresee(foreseen) => Some(foreseen),
        };
        let managers = &mut self.managers;
        let mut facts = KernelFacts { kernel, managers, policy, subject, foreseen };
        decide_move(policy, &place, &process, &mut facts)
    }

    /// Counts, records and logs that the process stays. Returns the outcome.
    pub(super) fn stays(
        &mut self,
        reason: &StayReason,
        rule: &Rule,
        subject: &PlacedProcess<'_>,
        kernel: &impl Kernel,
    ) -> Placement {
        match reason {
            StayReason::Delegated => Placement::InPlace,
            StayReason::Protected => Placement::Protected,
            StayReason::ManagerUnknown => Placement::Waiting,
            StayReason::Exited => Placement::Gone,
            StayReason::InSlice(_) => Placement::InSlice,
            StayReason::OthersJob(place) => {
                self.leave_in_cgroup(Placement::OthersJob, place, rule, subject, kernel)
            }
            StayReason::InContainer(place) => {
                self.leave_in_cgroup(Placement::InContainer, place, rule, subject, kernel)
            }
            StayReason::InUnit(unit) => self.stays_in_unit(unit, rule, subject, kernel),
        }
    }
}
