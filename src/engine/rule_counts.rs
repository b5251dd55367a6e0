//! Counts decisions by rule. It must not decide about a process.

use super::Engine;
use super::decision_record::outcome_of;
use crate::control::outcome::EvaluationOutcome;
use crate::engine::kernel::Kernel;
use crate::engine::placer::Placement;
use crate::event::Cause;
use crate::tracking::queue::EvaluationRequest;

impl<K: Kernel> Engine<K> {
    /// Counts the rule of an evaluation, and those that observe and would have matched.
    ///
    /// A recheck follows from a placement by an active rule, so it is not counted unless it moves the
    /// process: a rule has the same count whether it observes or not.
    pub(super) fn count_rules(&mut self, evaluation: EvaluationRequest, outcome: Placement) {
        let is_recheck = evaluation.cause.contains(Cause::RECHECK);
        let is_counted = !matches!(
            outcome_of(evaluation, outcome),
            EvaluationOutcome::Waiting | EvaluationOutcome::Confirmed
        );
        let hits = &self.policy.hits;
        if let Some(own) =
            self.last_decision.rule.filter(|_| is_counted).and_then(|id| hits.get(id))
        {
            // The exec that follows is counted.
            own.matched.add(u64::from(evaluation.cause != Cause::GATE));
            if outcome == Placement::Placed {
                own.placed.increment();
            }
        }
        if is_recheck || outcome == Placement::Waiting {
            self.observed.clear();
        }
        for id in &self.observed {
            self.metrics.would_match.increment();
            if let Some(own) = hits.get(*id) {
                own.matched.increment();
            }
        }
    }
}
