//! The decision about one process by one set of rules, without an effect. It must use the functions of an
//! evaluation, so that a plan is what the reload does.

use std::sync::Arc;

use super::{PlanRun, Side};
use crate::control::plan::{PlannedDecision, PlannedMove};
use crate::engine::Engine;
use crate::engine::ancestry::{AncestryTable, ChangeTimes, RunningProcess, TestedProgram};
use crate::engine::classification::ProcessConditions;
use crate::engine::kernel::Kernel;
use crate::engine::known::{Known, NeededRead};
use crate::engine::name_lookups::PendingName;
use crate::engine::placer::{InheritedOrigins, PlacedProcess, Placement, Placer};
use crate::event::{Cause, Nanos, Pid};
use crate::kernel::process::ProcessHandle;
use crate::placement::conditions::Conditions;
use crate::placement::{Choice, Missing, decide};
use crate::policy::Policy;
use crate::rules::RuleId;
use crate::tracking::queue::EvaluationRequest;

/// What a decision needs first.
#[derive(Debug)]
pub(super) enum Need {
    /// This must be read.
    Read(NeededRead),
    /// A name must be looked up for these rules.
    Name(Side, PendingName),
    /// Nothing more: it is decided again.
    Again,
    /// Something that is known only later.
    Unknown(&'static str),
}

/// The decision about a process, and the moves that it causes.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) decision: PlannedDecision,
    pub(super) moves: Vec<PlannedMove>,
}

impl Outcome {
    const fn without_rule(outcome: Placement) -> Self {
        let (rule, failure, reason) = (None, None, None);
        let outcome = outcome.word();
        let decision = PlannedDecision { rule, outcome, failure, reason };
        Self { decision, moves: Vec::new() }
    }
}

/// The rules of one side of a plan, with their records.
struct Rules<'s> {
    policy: &'s mut Policy,
    placer: &'s mut Placer,
    /// The rules of the origin of processes.
    origins: Option<&'s mut InheritedOrigins>,
    ancestry: &'s mut AncestryTable,
}

impl<K: Kernel> Engine<K> {
    /// Decides by the rules of one side.
    ///
    /// # Errors
    /// What the decision needs first.
    pub(super) fn decide_side(
        &mut self,
        run: &mut PlanRun,
        side: Side,
        (pid, handle): (Pid, &ProcessHandle),
        known: Known<'_>,
    ) -> Result<Outcome, Need> {
        if self.sticky.holds(pid, &mut self.kernel) {
            return Ok(Outcome::without_rule(Placement::Sticky));
        }
        let PlanRun { policy, ancestry, placers, .. } = run;
        let placer = &mut placers[side as usize];
        placer.exchange_managers(&mut self.placer);
        let mut rules = match side {
            Side::Active => Rules {
                policy: &mut self.policy,
                placer,
                origins: Some(self.placer.origins()),
                ancestry: &mut self.ancestry,
            },
            Side::Planned => Rules { policy, placer, origins: None, ancestry },
        };
        let evaluation = EvaluationRequest::at_once(pid, Cause::SCAN, self.kernel.now());
        let decided = rules.decide(&mut self.kernel, side, (evaluation, handle), known);
        placers[side as usize].exchange_managers(&mut self.placer);
        decided
    }

    /// Records the tested program that a process runs, for the decisions about its descendants. Returns what
    /// that needs first.
    pub(super) fn note_planned_ancestor(
        &mut self,
        run: &mut PlanRun,
        pid: Pid,
        handle: &ProcessHandle,
        Known { exe, is_of_root, .. }: Known<'_>,
    ) -> Option<Need> {
        let tested = run.policy.ancestors.as_ref()?;
        let own = match TestedProgram::of(tested, is_of_root?, exe) {
            Ok(TestedProgram::Known(own)) => own,
            // What it ran before still counts.
            Ok(TestedProgram::Unknown) => return None,
            Err(needed) => return Some(Need::Read(needed)),
        };
        let identity = self.kernel.identity_of(pid, handle)?;
        let seen = self.kernel.now();
        let changes = ChangeTimes { first: seen, since: seen };
        let read_from = Nanos(0);
        let process = RunningProcess { pid, identity, seen, read_from, changes, is_event: false };
        run.ancestry.runs(process, own, &mut self.kernel);
        None
    }
}

impl Rules<'_> {
    fn decide(
        &mut self,
        kernel: &mut impl Kernel,
        side: Side,
        (evaluation, handle): (EvaluationRequest, &ProcessHandle),
        known: Known<'_>,
    ) -> Result<Outcome, Need> {
        let &ProcessHandle { uid, gid, .. } = handle;
        if !self.policy.knows(uid) {
            return Err(Need::Name(side, PendingName::User(uid)));
        }
        let Some(rule) = self.select(kernel, side, (evaluation, handle), known)? else {
            return Ok(Outcome::without_rule(Placement::NoRule));
        };
        if self.policy.lacks_group(rule, gid) {
            return Err(Need::Name(side, PendingName::Group(gid)));
        }
        let user = self.policy.users.get(&uid).and_then(|user| user.identity.name.as_deref());
        let Known { exe, containment, .. } = known;
        let subject = PlacedProcess { evaluation, handle, user, exe, containment };
        // What an interrupted decision left.
        drop((self.placer.take_foreseen(), self.placer.take_failures()));
        let outcome = self.placer.apply(self.policy, kernel, rule, &subject);
        let outcome = outcome.map_err(|missing| self.need(side, missing))?;
        if outcome == Placement::Waiting {
            return Err(Need::Unknown("systemd has not reported the service manager of its user"));
        }
        let rule = self.policy.matcher.rule(rule);
        let rule = rule.map(|rule| (Arc::clone(&rule.name), rule.origin.clone()));
        let failure = self.placer.take_failures().pop().map(|(failure, _)| failure);
        let decision = PlannedDecision { rule, outcome: outcome.word(), failure, reason: None };
        Ok(Outcome { decision, moves: self.placer.take_foreseen() })
    }

    fn select(
        &mut self,
        kernel: &mut impl Kernel,
        side: Side,
        (evaluation, handle): (EvaluationRequest, &ProcessHandle),
        Known { exe, arguments, containment, .. }: Known<'_>,
    ) -> Result<Option<RuleId>, Need> {
        let &ProcessHandle { uid, gid, .. } = handle;
        let policy = &*self.policy;
        let Some(user) = policy.users.get(&uid) else { return Ok(None) };
        let facts = ProcessConditions {
            policy,
            kernel,
            origins: self.origins.as_deref_mut(),
            is_plan: true,
            ancestry: self.ancestry,
            pid: evaluation.pid,
            handle,
            arguments,
            containment,
        };
        let mut conditions = Conditions::new(&policy.context, facts);
        let decided = decide(&policy.matcher, user, (uid, gid), exe, |id, rule| {
            conditions.test(id, rule).map(|mismatch| mismatch.is_none())
        });
        match decided {
            Choice::Rule(rule) => Ok(Some(rule)),
            Choice::NoRule => Ok(None),
            Choice::NeedsExe => Err(Need::Read(NeededRead::Exe)),
            Choice::NeedsExamination => Err(Need::Read(NeededRead::examination(exe))),
            Choice::Needs(missing) => Err(self.need(side, missing)),
        }
    }

    fn need(&mut self, side: Side, missing: Missing) -> Need {
        match missing {
            Missing::Exe => Need::Read(NeededRead::Exe),
            Missing::Namespaces => Need::Read(NeededRead::Namespaces),
            Missing::Arguments => Need::Read(NeededRead::Arguments),
            Missing::ContainerName(key) => Need::Name(side, PendingName::Container(key)),
            Missing::User(owner) if self.policy.knows(owner) => Need::Again,
            Missing::User(owner) => Need::Name(side, PendingName::User(owner)),
        }
    }
}
