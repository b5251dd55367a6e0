//! Finds the first matching rule of an open process and lets the placer apply it, as far as the data
//! that were read suffice.

use std::sync::Arc;

use super::Engine;
use super::ancestry::{AncestryTable, ChangeTimes, RunningProcess, TestedProgram};
use super::evaluated_process::{EvaluatedProcess, ProcessParts};
use super::job::Evaluation;
use super::known::{Known, NeededRead};
use super::name_lookups::PendingName;
use super::rescan::Urgency;
use crate::engine::kernel::Kernel;
use crate::engine::placer::{InheritedOrigins, PlacedProcess, Placement, is_moved_by_users};
use crate::event::{Cause, Gid, Pid, Uid};
use crate::kernel::container::Containment;
use crate::kernel::process::ProcessHandle;
use crate::kernel::program::{Arguments, ExeInfo};
use crate::placement::conditions::{ConditionFacts, Conditions};
use crate::placement::{Choice, KnownExe, Missing, Purpose, decide, observe_before};
use crate::policy::Policy;
use crate::policy::observer::{DecisionEvent, DecisionResult, ObservedProcess};
use crate::rules::RuleId;
use crate::rules::ancestry::Ancestor;
use crate::tracking::queue::EvaluationRequest;

/// Result of an evaluation: its outcome, or a further read that it needs.
pub(super) enum EvaluationResult {
    Over(Placement),
    /// This must be read first.
    Needs(NeededRead, Purpose),
    /// Another user mattered, who is known now: it is evaluated again.
    OwnerKnown,
}

impl<K: Kernel> Engine<K> {
    /// Evaluates a process, as far as the data that were read suffice.
    pub(super) fn evaluate(
        &mut self,
        job: &Evaluation,
        handle: &ProcessHandle,
        known: Known<'_>,
    ) -> EvaluationResult {
        self.observed.clear();
        let result = self.decide_and_apply(job, handle, known);
        if !matches!(result, EvaluationResult::Over(_)) {
            // It is evaluated again with further data, or exits before: no rule may be counted twice.
            self.last_decision.rule = None;
            self.observed.clear();
        }
        result
    }

    fn decide_and_apply(
        &mut self,
        job: &Evaluation,
        handle: &ProcessHandle,
        known: Known<'_>,
    ) -> EvaluationResult {
        if let Some(result) = self.evaluate_without_rules(job, handle, known) {
            return result;
        }
        let rule = match self.select(job, handle, known) {
            Ok(rule) => rule,
            Err(result) => return result,
        };
        self.last_decision.rule = Some(rule);
        let evaluation = job.evaluation;
        let Known { exe, containment, .. } = known;
        let &ProcessHandle { uid, gid, .. } = handle;
        if self.policy.lacks_group(rule, gid) {
            return EvaluationResult::Over(self.wait(PendingName::Group(gid), evaluation));
        }
        let user = self.policy.users.get(&uid).and_then(|user| user.identity.name.as_deref());
        let subject = PlacedProcess { evaluation, handle, user, exe, containment };
        let outcome = match self.placer.apply(&self.policy, &mut self.kernel, rule, &subject) {
            Ok(outcome) => outcome,
            Err(missing) => return self.request(missing, Purpose::Decision, evaluation),
        };
        if let Some(ending) = outcome.ending(rule, self.placer.last_error()) {
            self.observe(evaluation, (uid, gid), exe.seen().map(ExeInfo::name), ending);
        }
        EvaluationResult::Over(outcome)
    }

    /// Returns the first rule that matches.
    ///
    /// # Errors
    /// The result of an evaluation without a rule, or before more is known.
    fn select(
        &mut self,
        job: &Evaluation,
        handle: &ProcessHandle,
        Known { exe, arguments, containment, .. }: Known<'_>,
    ) -> Result<RuleId, EvaluationResult> {
        let evaluation = job.evaluation;
        let &ProcessHandle { uid, gid, .. } = handle;
        let Some(user) = self.policy.users.get(&uid) else {
            return Err(EvaluationResult::Over(Placement::NoRule));
        };
        if user.take_stale(evaluation.since) {
            self.kernel.identify(&self.policy, uid);
        }
        let facts = ProcessConditions {
            policy: &self.policy,
            kernel: &mut self.kernel,
            origins: Some(self.placer.origins()),
            is_plan: false,
            ancestry: &mut self.ancestry,
            pid: evaluation.pid,
            handle,
            arguments,
            containment,
        };
        let mut conditions = Conditions::new(&self.policy.context, facts);
        let mut condition = |id, rule: &_| conditions.test(id, rule).map(|miss| miss.is_none());
        let matcher = &self.policy.matcher;
        let mut choice = decide(matcher, user, (uid, gid), exe, &mut condition);
        let mut purpose = Purpose::Decision;
        if let Some(decided) = choice.decided().filter(|_| matcher.has_observing()) {
            let observe = |id| self.observed.push(id);
            let (process, skips) = ((user, gid, exe), job.skips_records);
            match observe_before(matcher, process, decided, skips, condition, observe) {
                Ok(true) => {}
                Ok(false) => self.metrics.not_observed.increment(),
                Err(needed) => (choice, purpose) = (needed, Purpose::Record),
            }
        }
        if conditions.is_at_root() {
            self.rechecks.after_birth(evaluation, self.options.recheck_ns, self.kernel.now());
        }
        Err(match choice {
            Choice::Rule(rule) => return Ok(rule),
            Choice::NoRule => {
                let program = exe.seen().map(ExeInfo::name);
                self.observe(evaluation, (uid, gid), program, DecisionResult::NoRule);
                EvaluationResult::Over(Placement::NoRule)
            }
            Choice::NeedsExe => EvaluationResult::Needs(NeededRead::Exe, purpose),
            Choice::NeedsExamination => {
                EvaluationResult::Needs(NeededRead::examination(exe), purpose)
            }
            Choice::Needs(missing) => self.request(missing, purpose, evaluation),
        })
    }

    /// Evaluates a process as far as no rule is needed. `None` if a rule decides.
    fn evaluate_without_rules(
        &mut self,
        job: &Evaluation,
        handle: &ProcessHandle,
        known: Known<'_>,
    ) -> Option<EvaluationResult> {
        let (evaluation, exe) = (job.evaluation, known.exe);
        self.last_decision.ids = Some((handle.uid, handle.gid));
        self.last_decision.lacks_exe = matches!(exe, KnownExe::Unavailable);
        if let Some(needed) = self.note_program(evaluation, handle, known) {
            return Some(EvaluationResult::Needs(needed, Purpose::Decision));
        }
        if self.is_pinned(evaluation, handle) {
            let ids = (handle.uid, handle.gid);
            self.observe(evaluation, ids, None, DecisionResult::Sticky);
            return Some(EvaluationResult::Over(Placement::Sticky));
        }
        if matches!(exe, KnownExe::Unread) && !job.skips_records && self.shows_exe() {
            return Some(EvaluationResult::Needs(NeededRead::Exe, Purpose::Record));
        }
        self.note_exe(exe);
        if self.policy.may_be_missing(handle.uid) {
            self.kernel.identify(&self.policy, handle.uid);
        }
        if self.policy.knows(handle.uid) {
            return None;
        }
        Some(EvaluationResult::Over(self.wait(PendingName::User(handle.uid), evaluation)))
    }

    /// Records whether the process runs a program that rules test of ancestors. Returns the read that this needs.
    fn note_program(
        &mut self,
        evaluation: EvaluationRequest,
        handle: &ProcessHandle,
        known: Known<'_>,
    ) -> Option<NeededRead> {
        let tested = self.policy.ancestors.as_ref()?;
        let own = match TestedProgram::of(tested, known.is_of_root?, known.exe) {
            Ok(TestedProgram::Known(own)) => own,
            // What it ran before still counts, unless it executed something else.
            Ok(TestedProgram::Unknown) if !evaluation.cause.contains(Cause::EXEC) => return None,
            Ok(TestedProgram::Unknown) => None,
            Err(needed) => return Some(needed),
        };
        if own.as_ref().is_some_and(|own| !self.ancestry.knows(evaluation.pid, own)) {
            // Children of before have the programs by now. Their forks, if they were read later, would take them away.
            if let Err(error) = self.drain_all_forks() {
                ::log::debug!("cannot read forks: {error}");
            }
        }
        let identity = self.kernel.identity_of(evaluation.pid, handle)?;
        // Another process may have got the PID, and inherited by a fork that was just read.
        let pid = evaluation.pid;
        let is_event = evaluation.may_change_program();
        let seen = self.kernel.now();
        let first = self.first_change(evaluation);
        let changes = ChangeTimes { first, since: evaluation.program_since() };
        if self.kernel.identity(pid) != Some(identity) {
            if is_event && self.ancestry.withdraw_departed(pid, changes) {
                self.rescan.want(Urgency::Limited);
            }
            return None;
        }
        let read_from = known.read_from;
        let process = RunningProcess { pid, identity, seen, read_from, changes, is_event };
        if self.ancestry.runs(process, own, &mut self.kernel) {
            // Some may have been evaluated before.
            self.rescan.want(Urgency::Limited);
        }
        None
    }

    /// Requests what the placer misses.
    fn request(
        &mut self,
        missing: Missing,
        purpose: Purpose,
        evaluation: EvaluationRequest,
    ) -> EvaluationResult {
        match missing {
            Missing::Exe => EvaluationResult::Needs(NeededRead::Exe, purpose),
            Missing::Namespaces => EvaluationResult::Needs(NeededRead::Namespaces, purpose),
            Missing::Arguments => EvaluationResult::Needs(NeededRead::Arguments, purpose),
            Missing::ContainerName(key) => {
                EvaluationResult::Over(self.wait(PendingName::Container(key), evaluation))
            }
            Missing::User(owner) if self.policy.knows(owner) => EvaluationResult::OwnerKnown,
            Missing::User(owner) => {
                EvaluationResult::Over(self.wait(PendingName::User(owner), evaluation))
            }
        }
    }

    /// Checks whether the process is pinned to its cgroup, and ends the pin if an external move
    /// breaks it.
    fn is_pinned(&mut self, evaluation: EvaluationRequest, handle: &ProcessHandle) -> bool {
        let Some(pin) = self.sticky.pin(evaluation.pid, &mut self.kernel) else { return false };
        let is_moved = evaluation.cause.contains(Cause::MOVED);
        if is_moved
            && self.placer.breaks_pin(&self.policy, &mut self.kernel, (evaluation, handle), pin)
        {
            // Children born before the move inherit the pin.
            if let Err(error) = self.pass_on() {
                ::log::debug!("cannot read forks: {error}");
            }
            self.sticky.unpin(evaluation.pid, pin);
            self.metrics.broken_pins.increment();
            return false;
        }
        self.last_decision.pin = Some(pin);
        true
    }

    /// Checks whether executables are read for output, even if no rule needs them.
    fn shows_exe(&self) -> bool {
        self.is_watched() || self.policy.observer.as_ref().is_some_and(|one| one.shows_program())
    }

    /// Reports the result of an evaluation to the observer of the active policy, if it has one.
    fn observe(
        &mut self,
        evaluation: EvaluationRequest,
        ids: (Uid, Gid),
        program: Option<&[u8]>,
        ending: DecisionResult,
    ) {
        let Policy { observer: Some(observer), .. } = &*self.policy else { return };
        let mut process = OpenProcess { pid: evaluation.pid, kernel: &mut self.kernel };
        observer.tell(&DecisionEvent { evaluation, ids, program, ending }, &mut process);
    }
}

/// What the conditions of rules test of a process in an evaluation.
pub(super) struct ProcessConditions<'e, K> {
    pub(super) policy: &'e Policy,
    pub(super) kernel: &'e mut K,
    /// Rules of the origin of processes; `None` where no process was placed by these rules yet.
    pub(super) origins: Option<&'e mut InheritedOrigins>,
    /// Nothing is recorded.
    pub(super) is_plan: bool,
    pub(super) ancestry: &'e mut AncestryTable,
    pub(super) pid: Pid,
    pub(super) handle: &'e ProcessHandle,
    pub(super) arguments: &'e Arguments,
    pub(super) containment: Option<Containment>,
}

impl<K: Kernel> ConditionFacts for ProcessConditions<'_, K> {
    fn cgroup(&mut self) -> Option<&[u8]> {
        self.kernel.cgroup(self.pid, self.handle.thread)
    }

    fn is_real_time(&mut self) -> bool {
        self.kernel.is_real_time(self.pid)
    }

    fn ancestors(&mut self) -> Arc<[Ancestor]> {
        self.ancestry.of(self.pid, self.kernel)
    }

    fn login(&mut self) -> Option<Uid> {
        self.kernel.login(self.pid)
    }

    fn arguments(&mut self) -> Result<Option<&[u8]>, Missing> {
        match self.arguments {
            Arguments::Unread => Err(Missing::Arguments),
            Arguments::Unavailable => Ok(None),
            Arguments::Read(text) => Ok(Some(text)),
        }
    }

    fn placed_by(&mut self, hierarchy: usize, path: &[u8]) -> Option<RuleId> {
        let origins = self.origins.as_deref_mut()?;
        let by = origins.of(self.pid, self.kernel)?;
        if is_moved_by_users(self.policy, (hierarchy, path), self.kernel) {
            return Some(by);
        }
        // A move by root gave it a new origin, which a later move by a user does not take back.
        if !self.is_plan {
            origins.end(self.pid);
        }
        None
    }
}

impl<K: Kernel> EvaluatedProcess for ProcessConditions<'_, K> {
    type Kernel = K;

    fn parts(&self) -> ProcessParts<'_, K> {
        let &Self { policy, pid, handle, containment, .. } = self;
        ProcessParts { policy, kernel: &*self.kernel, pid, handle, containment }
    }

    fn kernel_mut(&mut self) -> &mut K {
        self.kernel
    }
}

/// Process of an evaluation.
struct OpenProcess<'k, K> {
    pid: Pid,
    kernel: &'k mut K,
}

impl<K: Kernel> ObservedProcess for OpenProcess<'_, K> {
    fn real_ids(&mut self) -> Option<(Uid, Gid)> {
        self.kernel.status(self.pid).map(|owner| (owner.real, owner.real_group))
    }

    fn comm(&mut self) -> Option<&[u8]> {
        self.kernel.comm(self.pid)
    }
}
