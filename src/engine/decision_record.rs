//! Records of evaluations: for the history, for clients that watch, and of failures for later questions.
//! It must not allocate while no client watches.

use std::sync::Arc;

use super::Engine;
use crate::control::channel::DecisionRecord;
use crate::control::history::record::{EvaluationRecord, TextPosition};
use crate::control::history::recorder::HistoryRecorder;
use crate::control::outcome::EvaluationOutcome;
use crate::engine::kernel::Kernel;
use crate::engine::placer::Placement;
use crate::engine::sticky::Pin;
use crate::event::{Cause, Gid, Nanos, Uid};
use crate::kernel::process::ProcessHandle;
use crate::placement::KnownExe;
use crate::rules::RuleId;
use crate::tracking::queue::EvaluationRequest;

/// Outcome for a rule that observes, in the control protocol.
const WOULD_MATCH: &str = "would-match";

/// Details of the last evaluation that its outcome does not contain.
#[derive(Clone, Debug, Default)]
pub(super) struct LastDecision {
    pub(super) ids: Option<(Uid, Gid)>,
    pub(super) rule: Option<RuleId>,
    /// Its pin, if that decided.
    pub(super) pin: Option<Pin>,
    /// Its executable could not be read.
    pub(super) lacks_exe: bool,
    /// Link to the executable, recorded only while a client watches.
    exe: Option<Box<[u8]>>,
    /// Program in the history.
    program: TextPosition,
}

impl<K: Kernel> Engine<K> {
    /// Records all evaluations from now on.
    pub fn record(&mut self, history: HistoryRecorder) {
        self.history = Some(history);
    }

    /// Records the executable of the evaluated process, if it was read: for the history that some rule
    /// needed it is no reason to read it, since that takes longer than the rest of most evaluations.
    pub(super) fn note_exe(&mut self, exe: KnownExe<'_>) {
        if let (Some(history), Some(seen)) = (&mut self.history, exe.seen()) {
            self.last_decision.program = history.program(seen);
        }
        if self.is_watched() {
            self.last_decision.exe = exe.seen().map(|seen| Box::from(seen.raw));
        }
    }

    /// Records an evaluation and its failures, and reports it to watching clients.
    pub(super) fn account(
        &mut self,
        evaluation: EvaluationRequest,
        handle: Option<&ProcessHandle>,
        outcome: Placement,
        now: Nanos,
    ) {
        if let (Placement::Placed, Some(handle)) = (outcome, handle) {
            let identity = self.kernel.identity_of(evaluation.pid, handle).unwrap_or(0);
            self.commands.moves.remember(evaluation.pid, identity, now);
        }
        if self.placer.has_failures() {
            self.remember(evaluation, now);
        }
        self.add_to_history(evaluation, outcome, now);
        self.count_rules(evaluation, outcome);
        if self.is_watched() {
            self.tell_watchers(evaluation, outcome, now);
        }
        self.observed.clear();
        self.last_decision = LastDecision::default();
    }

    fn add_to_history(&mut self, evaluation: EvaluationRequest, outcome: Placement, now: Nanos) {
        let Some(history) = &mut self.history else { return };
        let LastDecision { ids, rule, program, .. } = self.last_decision;
        let rule = rule.and_then(|id| Some((id, self.policy.matcher.rule(id)?)));
        let rule = rule.map(|(id, rule)| history.rule(self.policy.generation, id, rule));
        history.record(&EvaluationRecord {
            at: now,
            pid: evaluation.pid,
            ids,
            program,
            rule: rule.unwrap_or(TextPosition::NONE),
            outcome: outcome_of(evaluation, outcome),
            cause: evaluation.cause,
            latency_us: u32::try_from(now.since(evaluation.since) / 1000).unwrap_or(u32::MAX),
        });
    }

    /// Reports an evaluation to watching clients: first the rules that observe, then the decision.
    fn tell_watchers(&mut self, evaluation: EvaluationRequest, outcome: Placement, now: Nanos) {
        let exe = self.last_decision.exe.take();
        let (rule, cgroup) = self.target(outcome);
        let record = DecisionRecord {
            pid: evaluation.pid,
            uid: self.last_decision.ids.map(|(uid, _)| uid),
            exe,
            rule: rule.map(|rule| Arc::clone(&rule.name)),
            origin: rule.map(|rule| rule.origin.clone()),
            cgroup,
            outcome: outcome_of(evaluation, outcome).word(),
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

/// Returns the outcome of an evaluation as clients see it.
pub(super) fn outcome_of(evaluation: EvaluationRequest, outcome: Placement) -> EvaluationOutcome {
    if outcome == Placement::InPlace && evaluation.cause.contains(Cause::RECHECK) {
        EvaluationOutcome::Confirmed
    } else {
        outcome.of_evaluation()
    }
}
