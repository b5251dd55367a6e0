//! Counts decisions by rule, and reports them to watching clients. It must not decide about a process.

use std::sync::Arc;

use super::Engine;
use crate::control::channel::DecisionRecord;
use crate::engine::kernel::Kernel;
use crate::engine::placer::Placement;
use crate::event::{Cause, Nanos};
use crate::tracking::queue::EvaluationRequest;

/// Outcome for a rule that observes, in the control protocol.
const WOULD_MATCH: &str = "would-match";

impl<K: Kernel> Engine<K> {
    /// Counts the rule of an evaluation, and those that observe and would have matched.
    ///
    /// A recheck follows from a placement by an active rule, so it is not counted unless it moves the
    /// process: a rule has the same count whether it observes or not.
    pub(super) fn count_rules(&mut self, evaluation: EvaluationRequest, outcome: Placement) {
        let is_recheck = evaluation.cause.contains(Cause::RECHECK);
        let is_counted = match outcome {
            Placement::Waiting => false,
            Placement::InPlace => !is_recheck,
            Placement::Gone
            | Placement::NoRule
            | Placement::Ignored
            | Placement::Inapplicable
            | Placement::Protected
            | Placement::Sticky
            | Placement::Placed
            | Placement::WouldPlace
            | Placement::Refused
            | Placement::Replaced
            | Placement::GivenUp
            | Placement::InUnit
            | Placement::InContainer
            | Placement::OthersJob
            | Placement::InSlice => true,
        };
        let hits = &self.policy.hits;
        if let Some(own) =
            self.last_decision.rule.filter(|_| is_counted).and_then(|id| hits.get(id))
        {
            own.matched.increment();
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

    /// Reports an evaluation to watching clients: first the rules that observe, then the decision.
    pub(super) fn tell_watchers(
        &mut self,
        evaluation: EvaluationRequest,
        outcome: Placement,
        now: Nanos,
    ) {
        let (rule, cgroup) = self.target(outcome);
        let is_held = outcome == Placement::InPlace && evaluation.cause.contains(Cause::RECHECK);
        let record = DecisionRecord {
            pid: evaluation.pid,
            uid: self.last_decision.uid,
            exe: self.last_decision.exe.clone(),
            rule: rule.map(|rule| Arc::clone(&rule.name)),
            origin: rule.map(|rule| rule.origin.clone()),
            cgroup,
            outcome: if is_held { "confirmed" } else { outcome.word() },
            cause: evaluation.cause,
            at: now,
            latency_ns: now.since(evaluation.since),
        };
        let observed = self.observed.iter().filter_map(|id| self.policy.matcher.rule(*id));
        let observed = observed.map(|rule| DecisionRecord {
            rule: Some(Arc::clone(&rule.name)),
            origin: Some(rule.origin.clone()),
            cgroup: None,
            outcome: WOULD_MATCH,
            exe: record.exe.clone(),
            ..record
        });
        let observed: Vec<DecisionRecord> = observed.collect();
        if let Some(side) = &mut self.commands.side {
            observed.into_iter().chain([record]).for_each(|one| side.tell(one));
        }
    }
}
