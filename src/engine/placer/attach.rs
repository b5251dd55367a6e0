//! The write to `cgroup.procs`, and the record of what came of it. It must not decide where a process
//! belongs.

use ::log::Level;

use super::external_moves::Reaction;
use super::labels::{DecisionFields, ProcessLabel, RuleLabel};
use super::{PlacedProcess, Placement, PlacementStep, Placer, PlacerMode, numbered, outcome};
use crate::cgroup::tree::{AttachResult, CgroupError, CurrentCgroup};
use crate::control::failures::PlacementFailure;
use crate::engine::kernel::Kernel;
use crate::event::Cause;
use crate::rules::{Rule, Target};
use crate::telemetry::log::field;

impl Placer {
    /// Moves the process into the cgroup `self.path` and reports external moves.
    pub(super) fn place(
        &mut self,
        now: CurrentCgroup<'_>,
        kernel: &mut impl Kernel,
        step: PlacementStep<'_>,
    ) -> Placement {
        let PlacementStep { policy, rule, target, span, subject, .. } = step;
        match self.mode {
            PlacerMode::Move => {}
            PlacerMode::DryRun => return self.say_would_place(rule, subject),
            PlacerMode::Foresee(_) => return self.foresee(now, kernel, step),
        }
        let pid = subject.evaluation.pid;
        self.limit_groups(policy, (span, target), subject, kernel);
        let place = (span, self.path.as_str());
        let config = || policy.configs.of_user(target, subject.path_user(policy).0);
        let group = match kernel.group(pid, place, target.creates, config) {
            Ok(group) => group,
            Err(refusal) => return self.refused(rule, target, subject, &refusal, kernel),
        };
        // After a reload the cgroup was not open, so whether it contains the process is known only
        // now.
        if kernel.holds(group, now) {
            return Placement::InPlace;
        }
        if self.was_moved_away(now, kernel, subject) {
            match self.react(now, kernel, step) {
                Reaction::Revert => {}
                Reaction::Leave => return Placement::GivenUp,
            }
        } else {
            self.external.history.forget(pid);
        }
        self.written.push(group);
        match kernel.attach(group, pid, now) {
            AttachResult::InPlace => Placement::InPlace,
            AttachResult::Gone => Placement::Gone,
            // Another hierarchy may have accepted it.
            AttachResult::Refused(_) if was_replaced(subject, kernel) => Placement::Replaced,
            AttachResult::Refused(refusal) => {
                // It was not moved back, so that the next attempt is no second external move.
                self.external.history.forget(pid);
                self.refused(rule, target, subject, &refusal, kernel)
            }
            AttachResult::Moved => self.moved(rule, subject, kernel),
        }
    }

    fn say_would_place(&self, rule: &Rule, subject: &PlacedProcess<'_>) -> Placement {
        let who = ProcessLabel(subject);
        let by = RuleLabel(rule);
        self.decided(field::MOVED, rule, subject)
            .say(Level::Info, format_args!("would move {who} to {} by {by}", self.path));
        Placement::WouldPlace
    }

    fn moved(
        &mut self,
        rule: &Rule,
        subject: &PlacedProcess<'_>,
        kernel: &mut impl Kernel,
    ) -> Placement {
        let now = kernel.now();
        self.metrics.placed.increment();
        self.placement = numbered(&self.path);
        kernel.placed(now);
        let cause = subject.evaluation.cause;
        if cause.intersects(Cause::EXEC | Cause::UID | Cause::GID) {
            self.metrics.latency.record(now.since(subject.evaluation.since));
        }
        if ::log::log_enabled!(Level::Debug) {
            let microseconds = now.since(subject.evaluation.since) / 1000;
            let who = ProcessLabel(subject);
            let to = &self.path;
            let by = RuleLabel(rule);
            let more = Some(("latency_us", i64::try_from(microseconds).unwrap_or(i64::MAX)));
            DecisionFields { more, ..self.decided(field::MOVED, rule, subject) }.say(
                Level::Debug,
                format_args!("moved {who} to {to} by {by} after {cause}, {microseconds} us"),
            );
        }
        if was_replaced(subject, kernel) { Placement::Replaced } else { Placement::Placed }
    }

    pub(super) fn refused(
        &mut self,
        rule: &Rule,
        target: &Target,
        subject: &PlacedProcess<'_>,
        refusal: &CgroupError,
        kernel: &impl Kernel,
    ) -> Placement {
        self.metrics.refused.increment();
        self.obstacle = Some(outcome::obstacle(refusal));
        self.errno = Some(refusal.errno);
        self.metrics.refusals.increment(refusal.errno as i32);
        self.note(PlacementFailure::Refused(refusal.clone()));
        let cause = (rule.origin.line, refusal.step as u32, refusal.errno as i32);
        if let Some(left_out) = self.limiter.admit(&cause, kernel.now()) {
            let who = ProcessLabel(subject);
            let by = RuleLabel(rule);
            let advice = refusal.advice();
            let section = refusal.section(target, kernel.hierarchies());
            let section = section.map_or_else(String::new, |section| format!(": {section}"));
            let more = Some(("errno", i64::from(refusal.errno as i32)));
            DecisionFields { more, ..self.decided(field::REFUSED, rule, subject) }.say(
                Level::Warn,
                format_args!(
                    "{who} stays where it is: {refusal}: {advice}{section}; {by}{left_out}"
                ),
            );
        }
        Placement::Refused
    }

    /// Creates the log record of a decision about the cgroup `self.path`.
    pub(super) fn decided<'a>(
        &'a self,
        kind: &'static str,
        rule: &'a Rule,
        subject: &'a PlacedProcess<'a>,
    ) -> DecisionFields<'a> {
        DecisionFields { subject, rule, group: &self.path, kind, more: None }
    }
}

/// Checks whether the PID was reused between the evaluation and the write.
fn was_replaced(subject: &PlacedProcess<'_>, kernel: &mut impl Kernel) -> bool {
    let process = subject.handle.reference.as_ref();
    process.is_some_and(|process| !kernel.is_same(subject.evaluation.pid, process))
}
