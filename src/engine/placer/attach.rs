//! The write to `cgroup.procs`, and the record of what came of it. It must not decide where a process
//! belongs.

use std::os::fd::AsFd;

use ::log::Level;

use super::external_moves::Reaction;
use super::labels::{DecisionFields, ProcessLabel, RuleLabel};
use super::{PlacedProcess, Placement, Placer, numbered, outcome};
use crate::cgroup::mounts::HierarchySet;
use crate::cgroup::tree::{AttachResult, CgroupError, CurrentCgroup};
use crate::control::failures::PlacementFailure;
use crate::engine::leader::Call;
use crate::event::Cause;
use crate::kernel::process::ProcFs;
use crate::policy::Policy;
use crate::rules::{Rule, Target};
use crate::sys;
use crate::telemetry::log::field;

impl Placer {
    /// Moves the process into the cgroup `self.path` and reports external moves.
    pub(super) fn place(
        &mut self,
        now: CurrentCgroup<'_>,
        policy: &Policy,
        proc: &mut ProcFs,
        rule: &Rule,
        (span, target): (HierarchySet, &Target),
        subject: &PlacedProcess<'_>,
    ) -> Placement {
        if self.is_dry_run {
            let who = ProcessLabel(subject);
            let by = RuleLabel(rule);
            self.decided(field::MOVED, rule, subject)
                .say(Level::Info, format_args!("would move {who} to {} by {by}", self.path));
            return Placement::WouldPlace;
        }
        let pid = subject.evaluation.pid;
        let is_open = self.tree.known(span, &self.path).is_some();
        if !is_open {
            self.begin(Call::Open, subject);
        }
        let config = || policy.configs.of(target);
        let opened = self.tree.group(span, &self.path, target.creates, config);
        if !is_open {
            self.end_call();
        }
        let group = match opened {
            Ok(group) => group,
            Err(refusal) => return self.refused(rule, target, subject, &refusal),
        };
        // After a reload the cgroup was not open, so whether it contains the process is known only
        // now.
        if self.tree.holds(group, now) {
            return Placement::InPlace;
        }
        if self.was_moved_away(proc, subject) {
            match self.react(now, policy, proc, rule, span, subject) {
                Reaction::Revert => {}
                Reaction::Leave => return Placement::GivenUp,
            }
        } else {
            self.external.history.forget(pid);
        }
        self.written = Some(group);
        self.begin(Call::Attach, subject);
        let attached = self.tree.attach(group, pid, now);
        self.end_call();
        match attached {
            AttachResult::InPlace => Placement::InPlace,
            AttachResult::Gone => Placement::Gone,
            AttachResult::Refused(refusal) => self.refused(rule, target, subject, &refusal),
            AttachResult::Moved => self.moved(rule, subject),
        }
    }

    fn begin(&self, call: Call, subject: &PlacedProcess<'_>) {
        if let Some(activity) = &self.activity {
            activity.begins(call, subject.evaluation.pid);
        }
    }

    fn end_call(&self) {
        if let Some(activity) = &self.activity {
            activity.ends();
        }
    }

    pub(super) fn moved(&mut self, rule: &Rule, subject: &PlacedProcess<'_>) -> Placement {
        let now = sys::monotonic();
        self.metrics.placed.increment();
        self.placement = numbered(&self.path);
        self.fast_moves.moved(now);
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
        // The PID may have been reused between the evaluation and the write.
        if subject.handle.pidfd.as_ref().is_some_and(|handle| !sys::pidfd_alive(handle.as_fd())) {
            return Placement::Replaced;
        }
        Placement::Placed
    }

    pub(super) fn refused(
        &mut self,
        rule: &Rule,
        target: &Target,
        subject: &PlacedProcess<'_>,
        refusal: &CgroupError,
    ) -> Placement {
        self.metrics.refused.increment();
        self.obstacle = Some(outcome::obstacle(refusal));
        self.errno = Some(refusal.errno);
        self.metrics.refusals.increment(refusal.errno as i32);
        self.note(PlacementFailure::Refused(refusal.clone()));
        let cause = (rule.origin.line, refusal.step as u32, refusal.errno as i32);
        if let Some(left_out) = self.limiter.admit(&cause, sys::monotonic()) {
            let who = ProcessLabel(subject);
            let by = RuleLabel(rule);
            let advice = refusal.advice();
            let section = refusal.section(target, self.tree.hierarchies());
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
