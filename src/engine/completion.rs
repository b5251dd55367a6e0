//! The end of an evaluation: counters, recheck, fork tracker and queue. It must not decide about a
//! process.

use super::Engine;
use super::job::Evaluation;
use super::rescan::Urgency;
use crate::engine::kernel::Kernel;
use crate::engine::placer::Placement;
use crate::event::{Cause, Nanos};
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
        let now = self.kernel.now();
        let target = job.is_asked.then(|| self.target_names(outcome));
        self.account(evaluation, handle, outcome, now);
        self.conclude(job, outcome, now);
        let opened = self.stage_began;
        match outcome {
            // Children of a pinned process are only evaluated for their own events.
            Placement::Sticky => self.intake.forks.dismissed(evaluation.pid),
            // Children of a process that waits are candidates until the reply arrives.
            Placement::Waiting => {
                self.intake.forks.deferred(evaluation.pid, evaluation.since, opened);
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

    fn conclude(&mut self, job: &Evaluation, outcome: Placement, now: Nanos) {
        let evaluation = job.evaluation;
        let is_recheck = evaluation.cause.contains(Cause::RECHECK);
        if evaluation.cause.intersects(Cause::EXEC | Cause::UID | Cause::GID) {
            self.intake.evaluated(now);
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
                    let attempts = if evaluation.cause.contains(Cause::RETRY) {
                        evaluation.placement
                    } else {
                        0
                    };
                    let attempts = u32::try_from(attempts).unwrap_or(u32::MAX);
                    self.rechecks.retry(evaluation.pid, now, attempts);
                }
            }
            // Counted at the place that logs them.
            Placement::GivenUp
            | Placement::InUnit
            | Placement::InContainer
            | Placement::OthersJob
            | Placement::Waiting => {}
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
        // Descendants that were born while it was elsewhere, or while its executable could not be
        // read, are not recorded any more.
        if is_recheck || job.is_late || evaluation.cause.intersects(Cause::MOVED | Cause::ELSEWHERE)
        {
            self.rescan.want(Urgency::Limited);
        }
    }

    /// Reverts a move after the PID was reused during it: the new process returns to the cgroup in
    /// which it was born, and is evaluated.
    fn undo(&mut self, evaluation: EvaluationRequest, now: Nanos) {
        self.metrics.reused_pids.increment();
        self.intake.forks_are_due = true;
        // The new process exists, so its fork is in the socket. If that cannot be read, its parent
        // is read from `/proc`.
        if let Err(error) = self.drain_forks() {
            ::log::debug!("cannot read forks: {error}");
        }
        self.intake.forks_are_due = true;
        let fork = self.intake.forks.creation_of(evaluation.pid);
        let creator = fork.map(|fork| fork.parent).filter(|&parent| self.kernel.exists(parent));
        if let Some(creator) = creator.or_else(|| self.kernel.status(evaluation.pid)?.parent) {
            self.placer.return_to_birth(&mut self.kernel, evaluation.pid, creator);
        }
        self.answered.push_back(Evaluation::new(EvaluationRequest::at_once(
            evaluation.pid,
            Cause::SCAN,
            now,
        )));
    }
}
