//! The end of an evaluation: counters, recheck, fork tracker and queue. It must not decide about a
//! process.

use super::Engine;
use super::job::Evaluation;
use super::rechecks::attempts_before;
use super::rescan::Urgency;
use crate::engine::kernel::Kernel;
use crate::engine::placer::{Placement, is_momentary};
use crate::engine::sticky::Pin;
use crate::event::{Cause, Nanos, Uid};
use crate::kernel::process::ProcessHandle;
use crate::tracking::fork_tracker::Evaluated;
use crate::tracking::queue::EvaluationRequest;

impl<K: Kernel> Engine<K> {
    /// Records the outcome of an evaluation and completes it.
    pub(super) fn finish(
        &mut self,
        job: &Evaluation,
        handle: Option<&ProcessHandle>,
        outcome: Placement,
    ) {
        let evaluation = job.evaluation;
        self.settle_gated(evaluation, handle, outcome);
        let now = self.kernel.now();
        // The process may have exited since, and another one have its PID.
        let pin = self.last_decision.pin;
        let target = job.is_asked.then(|| self.target_names(outcome));
        self.account(evaluation, handle, outcome, now);
        let is_of_root = handle.is_some_and(|handle| handle.uid == Uid(0));
        if is_of_root && evaluation.may_change_program() {
            self.kernel.expect_move(now);
        }
        self.conclude(job, outcome, now);
        let opened = self.stage_began;
        match outcome {
            Placement::Sticky => self.finish_pinned(evaluation, opened, pin),
            // Children of a process that waits are candidates until the reply arrives.
            Placement::Waiting => {
                let since = self.rescan.since(evaluation);
                self.intake.forks.deferred(evaluation.pid, since, opened);
            }
            Placement::Gone
            | Placement::NoRule
            | Placement::Ignored
            | Placement::Inapplicable
            | Placement::Protected
            | Placement::InPlace
            | Placement::Placed
            | Placement::WouldPlace
            | Placement::Refused
            | Placement::Replaced
            | Placement::GivenUp
            | Placement::InUnit
            | Placement::InContainer
            | Placement::OthersJob
            | Placement::InSlice => {
                let evaluated = Evaluated { since: evaluation.since, opened, ended: now };
                self.intake.forks.completed(evaluation.pid, evaluated);
            }
        }
        self.intake.batch.complete(evaluation);
        if let Some(target) = target {
            self.answer_asked(evaluation.pid, outcome, target);
        }
    }

    /// Children of a pinned process are only evaluated for their own events, but not those that were born between
    /// a change of the process and its pin.
    fn finish_pinned(&mut self, evaluation: EvaluationRequest, opened: Nanos, pin: Option<Pin>) {
        // An evaluation for an earlier change may still wait for another thread.
        let waits_since = self.intake.forks.waits_since(evaluation.pid);
        let since = waits_since.map_or(evaluation.since, |since| since.min(evaluation.since));
        match pin.filter(|pin| since <= pin.since) {
            Some(pin) => {
                let evaluated = Evaluated { since, opened, ended: pin.since };
                self.intake.forks.completed(evaluation.pid, evaluated);
            }
            None => self.intake.forks.dismissed(evaluation.pid),
        }
    }

    /// Checks whether children that a pinned process created after a move do not inherit its pin.
    fn lets_children_go(&mut self, evaluation: EvaluationRequest) -> bool {
        let pin = self.sticky.pin(evaluation.pid, &mut self.kernel);
        let is_moved = evaluation.cause.contains(Cause::MOVED);
        is_moved && pin.is_some_and(|pin| !pin.has_heirs || evaluation.since <= pin.since)
    }

    fn conclude(&mut self, job: &Evaluation, outcome: Placement, now: Nanos) {
        let evaluation = job.evaluation;
        let is_recheck = evaluation.cause.contains(Cause::RECHECK);
        if evaluation.cause.intersects(Cause::EXEC | Cause::UID | Cause::GID) {
            self.intake.evaluated(now);
            let has_no_rule =
                matches!(outcome, Placement::NoRule | Placement::Ignored | Placement::Inapplicable);
            if has_no_rule && self.traces_moves() {
                self.placer.moves().changed(evaluation.pid, now);
            }
        }
        if self.leaves_descendants(job, outcome) {
            self.rescan.want(Urgency::Limited);
        }
        let metrics = &self.metrics;
        match outcome {
            Placement::Gone => {
                metrics.gone.increment();
                if !is_recheck {
                    self.intake.gone(now);
                }
            }
            Placement::Placed => {
                self.intake.placed(now);
                self.placed(job, now);
            }
            Placement::Replaced => self.undo(evaluation, now),
            Placement::WouldPlace => metrics.would_place.increment(),
            Placement::InPlace if is_recheck => metrics.confirmed.increment(),
            Placement::InPlace => metrics.in_place.increment(),
            Placement::NoRule => metrics.no_rule.increment(),
            Placement::Ignored => metrics.ignored.increment(),
            Placement::Inapplicable => metrics.inapplicable.increment(),
            Placement::Sticky => metrics.sticky.increment(),
            Placement::Protected => metrics.protected.increment(),
            Placement::InSlice => metrics.kept_in_slice.increment(),
            Placement::Refused => {
                if self.placer.can_refusal_pass(&self.kernel, evaluation.pid) {
                    self.rechecks.retry(evaluation.pid, now, attempts_before(evaluation));
                }
            }
            Placement::InUnit if is_momentary(evaluation.cause) => {
                self.rechecks.confirm(evaluation.pid, now);
            }
            // Counted at the place that logs them.
            Placement::GivenUp
            | Placement::InUnit
            | Placement::InContainer
            | Placement::OthersJob
            | Placement::Waiting => {}
        }
        if evaluation.cause.contains(Cause::RETRY) {
            self.scan_for_refused();
        }
    }

    /// Requests a scan if processes with a refused move were not recorded, and no other is left.
    fn scan_for_refused(&mut self) {
        if self.rechecks.take_overflown() {
            self.rescan.want(Urgency::Limited);
        }
    }

    fn placed(&mut self, job: &Evaluation, now: Nanos) {
        let evaluation = job.evaluation;
        let is_recheck = evaluation.cause.contains(Cause::RECHECK);
        if let Some(delay) = self.options.recheck_ns {
            let cause = if is_recheck { Cause::RECHECK | Cause::AGAIN } else { Cause::RECHECK };
            let due = now.plus(delay);
            let again =
                EvaluationRequest::after(evaluation.pid, cause, due, self.placer.last_placement());
            self.rechecks.after_placement(due, again);
        }
        if evaluation.cause.contains(Cause::ELSEWHERE) {
            // Its creator may be a user who creates the next one at once.
            self.placer.moves().moved_by_user(now);
        }
    }

    /// Checks whether descendants may be misplaced that are not recorded any more: those born while the process
    /// was elsewhere, while its move was refused, or while its executable could not be read.
    fn leaves_descendants(&mut self, job: &Evaluation, outcome: Placement) -> bool {
        let cause = job.evaluation.cause;
        let was_elsewhere = cause.intersects(Cause::MOVED | Cause::ELSEWHERE);
        let was_refused = cause.contains(Cause::RETRY);
        let is_late = job.is_late || cause.contains(Cause::RECHECK);
        let is_second = !job.is_late && job.evaluation.placement == 0;
        match outcome {
            Placement::Waiting => false,
            Placement::Placed => was_elsewhere || was_refused || is_late,
            // Descendants may belong elsewhere, where moves are not refused. The second evaluation after a birth, or
            // after a scan of a process in the root cgroup, tells nothing new: a scan for each would never end.
            // When a repeated move is refused for good, they may have been born while it was tried.
            Placement::Refused => {
                let can_pass = self.placer.can_refusal_pass(&self.kernel, job.evaluation.pid);
                was_elsewhere || was_refused && !can_pass || is_late && !is_second
            }
            // The process exited, before or during the move.
            Placement::Gone | Placement::Replaced => was_elsewhere || was_refused,
            Placement::InPlace => was_refused || self.has_returned(job.evaluation),
            Placement::Sticky if self.lets_children_go(job.evaluation) => true,
            Placement::NoRule
            | Placement::Ignored
            | Placement::Inapplicable
            | Placement::Protected
            | Placement::Sticky
            | Placement::WouldPlace
            | Placement::GivenUp
            | Placement::InUnit
            | Placement::InContainer
            | Placement::OthersJob
            | Placement::InSlice => {
                was_refused || was_elsewhere && self.may_have_left_a_rule(job.evaluation)
            }
        }
    }

    /// Checks whether a process without a rule may have had one when it was moved or born elsewhere: it was placed, it
    /// changed since the move, or a user may have created it there.
    fn may_have_left_a_rule(&mut self, evaluation: EvaluationRequest) -> bool {
        let EvaluationRequest { pid, cause, .. } = evaluation;
        let identity = self.kernel.identity(pid);
        identity.is_some_and(|identity| self.placer.was_placed(pid, identity))
            || self.placer.moves().has_changed(pid)
            || cause.contains(Cause::ELSEWHERE)
                && self.placer.is_at_users(pid, &self.policy, &mut self.kernel)
    }

    /// Reverts a move after the PID was reused during it: the new process returns to the cgroup in
    /// which it was born, and is evaluated.
    pub(super) fn undo(&mut self, evaluation: EvaluationRequest, now: Nanos) {
        self.metrics.reused_pids.increment();
        self.intake.forks_are_due = true;
        let status = self.kernel.status(evaluation.pid);
        // A thread can have got the ID: the kernel moved its process.
        let pid = status.map_or(evaluation.pid, |status| status.process);
        // Its creator, unless that has exited or used CLONE_PARENT. The last fork that was read may be one of an
        // earlier process with the PID.
        if let Some(parent) = status.and_then(|status| status.parent) {
            self.placer.return_to_birth(&mut self.kernel, pid, parent);
        }
        self.answered.push_back(Evaluation::new(EvaluationRequest::at_once(pid, Cause::SCAN, now)));
    }
}
