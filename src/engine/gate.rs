//! The gate: the process of an execution that waits is moved into the cgroup of its rule before the program begins.
//!
//! It is decided as an evaluation after the execution would decide, but only by what is known without a wait: in any
//! doubt the execution goes on, and its event places the process as usual. The move precedes the execution, which can
//! still fail. So [`moved`] records each process, with the cgroup that it came from, until its exec is evaluated, or
//! for [`FAILED_NS`]. Until then other evaluations of it wait: its executable is still the one before.

mod moved;

use std::sync::Arc;

use super::Engine;
use super::classification::ProcessConditions;
use super::inheritance::children;
use super::job::Evaluation;
use crate::engine::kernel::Kernel;
use crate::engine::placer::{PlacedProcess, Placement};
use crate::event::{Cause, Pid};
use crate::kernel::gate::GatedExec;
use crate::kernel::process::ProcessHandle;
use crate::kernel::program::{Arguments, ExeInfo};
use crate::placement::conditions::Conditions;
use crate::placement::{Choice, KnownExe, decide};
use crate::rules::{ExeFacts, RuleId};
use crate::tracking::fork_tracker::Fork;
use crate::tracking::queue::EvaluationRequest;
pub(super) use moved::GateMoves;
use moved::Origin;

/// Time after which an execution that no event reported has failed. The kernel commits one in less than 1 ms, unless
/// the program lies on a slow disk; then the process is moved again by the event.
const FAILED_NS: u64 = 100_000_000;

/// Executions that are answered between two evaluations, so that a storm of them does not stop these.
const AT_ONCE: usize = 8;

/// Whether a gated rule applies is not certain without a wait.
#[derive(Debug)]
struct Doubt;

impl<K: Kernel> Engine<K> {
    /// Lets the executions of the files that the active rules gate wait from now on.
    pub(super) fn close_gate(&mut self) {
        let files = match self.options.is_dry_run {
            true => Vec::new(),
            false => self.policy.gated_files().to_vec(),
        };
        self.is_gated = !files.is_empty();
        self.kernel.gate(&files);
    }

    /// Answers executions that wait. Called between evaluations.
    pub(super) fn serve_gate(&mut self) {
        if !self.is_gated {
            return;
        }
        for _ in 0..AT_ONCE {
            let Some(exec) = self.kernel.next_gated() else { return };
            let answer = self.place_for(&exec);
            self.kernel.answer_gated(exec.ticket);
            match answer {
                Ok(Some((evaluation, outcome))) => {
                    let now = self.kernel.now();
                    self.account(evaluation, Some(&exec.handle), outcome, now);
                }
                Ok(None) => {}
                Err(Doubt) => self.metrics.gate_skipped.increment(),
            }
        }
    }

    /// Moves the process of an execution into the cgroup of its rule. Returns the evaluation and its outcome, if a gated
    /// rule matches.
    ///
    /// # Errors
    /// That is not certain without a wait.
    fn place_for(
        &mut self,
        exec: &GatedExec,
    ) -> Result<Option<(EvaluationRequest, Placement)>, Doubt> {
        let GatedExec { pid, ref handle, ref path, since, .. } = *exec;
        // A user could otherwise stay in the cgroup by executions that fail. Other threads would not wait, and create
        // children there even if it fails.
        let user = self.policy.accountable(handle.uid);
        let is_recorded = self.gate.contains(pid) || !self.gate.has_room(user);
        if is_recorded || self.kernel.thread_count(pid) != 1 {
            return Err(Doubt);
        }
        let passed = self.pass_on();
        if !matches!(self.tolerate("reading of forks", passed), Ok(Some(()))) {
            return Err(Doubt);
        }
        if self.sticky.pin(pid, &mut self.kernel).is_some() {
            return Ok(None);
        }
        if self.policy.may_be_missing(handle.uid) || !self.policy.knows(handle.uid) {
            return Err(Doubt);
        }
        let file = ExeFacts { path, on_host: true };
        let exe = ExeInfo { raw: path, exe: file, invoked: None, is_unsure: false };
        let Some(rule) = self.gated_rule(pid, handle, exe)? else { return Ok(None) };
        if self.policy.lacks_group(rule, handle.gid) {
            return Err(Doubt);
        }
        let home: Arc<[u8]> = self.kernel.cgroup(pid, None).ok_or(Doubt)?.into();
        let identity = self.kernel.identity_of(pid, handle);
        let evaluation = EvaluationRequest::at_once(pid, Cause::GATE, since);
        self.last_decision.ids = Some((handle.uid, handle.gid));
        self.last_decision.rule = Some(rule);
        let exe = KnownExe::Read(exe);
        self.note_exe(exe);
        let known = self.policy.users.get(&handle.uid);
        let name = known.and_then(|known| known.identity.name.as_deref());
        let subject = PlacedProcess { evaluation, handle, user: name, exe, containment: None };
        let applied = self.placer.apply(&self.policy, &mut self.kernel, rule, &subject);
        let outcome = applied.map_err(|_missing| Doubt)?;
        let now = self.kernel.now();
        if outcome == Placement::Replaced {
            self.undo(evaluation, now);
            return Ok(Some((evaluation, outcome)));
        }
        self.metrics.gated.add(u64::from(outcome == Placement::Placed));
        // One hierarchy can accept the process and another one refuse it.
        if !self.placer.written().is_empty() {
            let origin = Origin { user, identity, home, groups: self.placer.written().into() };
            self.gate.add(evaluation, origin, now.plus(FAILED_NS));
        }
        Ok(Some((evaluation, outcome)))
    }

    /// Returns the gated rule that is the first one to match a process when it runs this program.
    fn gated_rule(
        &mut self,
        pid: Pid,
        handle: &ProcessHandle,
        exe: ExeInfo<'_>,
    ) -> Result<Option<RuleId>, Doubt> {
        let ids = (handle.uid, handle.gid);
        let user = self.policy.users.get(&handle.uid).ok_or(Doubt)?;
        let facts = ProcessConditions {
            policy: &self.policy,
            kernel: &mut self.kernel,
            origins: Some(self.placer.origins()),
            is_plan: true,
            ancestry: &mut self.ancestry,
            pid,
            handle,
            // Those of the program are not known before it runs.
            arguments: &Arguments::Unread,
            containment: None,
        };
        let mut conditions = Conditions::new(&self.policy.context, facts);
        let matcher = &self.policy.matcher;
        let exe = KnownExe::Read(exe);
        let choice = decide(matcher, user, ids, exe, |id, rule| {
            conditions.test(id, rule).map(|miss| miss.is_none())
        });
        match choice {
            Choice::Rule(id) => {
                Ok(matcher.rule(id).is_some_and(|rule| rule.is_gated).then_some(id))
            }
            Choice::NoRule => Ok(None),
            Choice::NeedsExe | Choice::NeedsExamination | Choice::Needs(_) => Err(Doubt),
        }
    }

    /// Returns the next evaluation of a process whose execution was not reported in time.
    pub(super) fn next_gated(&mut self) -> Option<Evaluation> {
        self.gate.due()?;
        self.gate.next_due(self.kernel.now()).map(Evaluation::new)
    }

    /// Before an evaluation of a process takes effect: forgets that the gate moved it, or moves it back because no rule
    /// keeps it there.
    pub(super) fn settle_gated(
        &mut self,
        evaluation: EvaluationRequest,
        handle: Option<&ProcessHandle>,
        outcome: Placement,
    ) {
        let pid = evaluation.pid;
        if self.is_gated && outcome == Placement::Placed && evaluation.cause.contains(Cause::EXEC) {
            self.note_ungated();
        }
        let Some(moved) = self.gate.get(pid) else { return };
        let (has_executed, is_due) = (moved.has_executed(&evaluation), moved.is_due);
        // The kernel takes the executable from a process before it reports its exit.
        let has_exited = handle.is_none_or(|handle| self.kernel.has_exited(handle))
            || self.last_decision.lacks_exe && has_executed;
        match outcome {
            Placement::Waiting => {}
            Placement::Replaced => self.gate.remove(pid),
            // What it ran is not known any more, but an exec that was reported has succeeded.
            _ if has_exited && has_executed => self.confirm_gated(evaluation),
            _ if has_exited && is_due => self.gate.remove(pid),
            _ if has_exited => {}
            Placement::Placed | Placement::InPlace | Placement::WouldPlace | Placement::Sticky => {
                self.confirm_gated(evaluation);
            }
            Placement::Gone
            | Placement::NoRule
            | Placement::Ignored
            | Placement::Inapplicable
            | Placement::Protected
            | Placement::Refused
            | Placement::GivenUp
            | Placement::InUnit
            | Placement::InContainer
            | Placement::OthersJob
            | Placement::InSlice => {
                self.return_home(pid);
                // Those born before the move are in the wrong cgroup too. The kernel may have dropped their forks.
                self.hear_children();
                let at = self.kernel.now();
                for child in children(pid, &mut self.kernel) {
                    if !self.gate.contains(child) {
                        self.gate.heard(Fork { at, parent: pid, child });
                    }
                }
                self.gate.remove(pid);
            }
        }
    }

    /// Forgets a process that is where it belongs, and the children that its program created.
    fn confirm_gated(&mut self, evaluation: EvaluationRequest) {
        self.hear_children();
        self.gate.confirm(evaluation.pid, evaluation.executed);
    }

    /// A process was moved after its execution. If its rule is gated, the file may have been replaced a moment before.
    fn note_ungated(&mut self) {
        let rule = self.last_decision.rule.and_then(|id| self.policy.matcher.rule(id));
        if rule.is_some_and(|rule| rule.is_gated) {
            self.metrics.ungated.increment();
            self.kernel.check_gated_files();
        }
    }

    /// Reads all forks, so that children of processes that the gate moved are known.
    fn hear_children(&mut self) {
        if let Err(error) = self.drain_all_forks() {
            ::log::debug!("cannot read forks: {error}");
        }
    }

    /// Moves a process back to the cgroup from which the gate moved it, or its creator.
    fn return_home(&mut self, pid: Pid) {
        let Some(moved) = self.gate.get(pid) else { return };
        let Origin { identity, home, groups, .. } = moved.origin.clone();
        if identity.is_some() && self.kernel.identity(pid) != identity {
            return;
        }
        self.metrics.gate_returned.increment();
        self.placer.move_home(&mut self.kernel, pid, &groups, &home);
    }

    /// Other rules become active: their scan evaluates all processes.
    pub(super) fn abandon_gated(&mut self) {
        for pid in self.gate.pids() {
            self.return_home(pid);
        }
        self.gate = GateMoves::default();
    }
}
