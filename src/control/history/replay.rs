//! Decides recorded evaluations by other rules than those of their time. Pure: the caller looks up users.
//!
//! The same function decides as for a live process. What a record does not contain (the place of the
//! process, its ancestors, login, container, arguments and scheduling, and the executable if no rule
//! needed it then) is unknown, and so is the result if it depends on it.

use super::message::{
    EXE_NOT_EXAMINED, EXE_OVERWRITTEN, EXE_TRUNCATED, RULE_OVERWRITTEN, RULE_TRUNCATED,
    RecordedEvaluation,
};
use crate::control::outcome::EvaluationOutcome;
use crate::event::{Gid, Uid};
use crate::kernel::program::ExeInfo;
use crate::placement::{Choice, KnownExe, Missing, decide};
use crate::policy::User;
use crate::rules::context::ContextCriteria;
use crate::rules::ignore::Scheduling;
use crate::rules::matcher::Matcher;
use crate::rules::{Action, ExeFacts, Rule};

/// The result of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum ReplayResult {
    /// Both sets of rules do the same with the process.
    Same,
    /// They differ.
    Different {
        /// The recorded decision.
        old: ReplayedDecision,
        /// The decision of the other rules.
        new: ReplayedDecision,
    },
    /// The result depends on this fact, which the record does not contain.
    Unknown(MissingFact),
    /// No rule was searched, or the evaluation is a part of a later record: the process had exited, is
    /// sticky, or waited for another thread.
    NotDecided,
}

/// What rules do with a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayedDecision {
    /// The name of the rule; `None` if no rule matches.
    pub rule: Option<String>,
    /// The effect of the rule.
    pub effect: ReplayedEffect,
}

/// The effect of a decision, which two rules can share.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ReplayedEffect {
    /// The process stays, because no rule matches or the matching one ignores it.
    #[default]
    Stays,
    /// The process stays, because the rule cannot be applied on the host.
    Inapplicable,
    /// The process is moved to these destinations, as written.
    Moved(Vec<String>),
}

/// A fact that a record does not contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissingFact {
    /// The old rule: its text was overwritten or cut.
    OldRule,
    /// The executable: it was not read, or its text was overwritten or cut.
    Exe,
    /// The script or link that was invoked.
    Invoked,
    /// The systemd unit.
    Unit,
    /// The cgroup from which it would be moved.
    From,
    /// The programs of ancestors.
    Below,
    /// The container.
    Container,
    /// The user who logged in.
    Login,
    /// The arguments.
    Argument,
    /// The scheduling policy.
    Scheduling,
}

impl MissingFact {
    /// Returns the fact in the words of the keys of rules.
    pub const fn word(self) -> &'static str {
        match self {
            Self::OldRule => "rule",
            Self::Exe => "exe",
            Self::Invoked => "invoked",
            Self::Unit => "unit",
            Self::From => "from",
            Self::Below => "below",
            Self::Container => "container",
            Self::Login => "login",
            Self::Argument => "argument",
            Self::Scheduling => "scheduling",
        }
    }
}

/// Returns the IDs for which [`replay`] needs a [`User`]; `None` if the evaluation is not decided by rules.
pub fn ids(recorded: &RecordedEvaluation) -> Option<(Uid, Gid)> {
    Some((Uid(recorded.uid?), Gid(recorded.gid?)))
}

/// Decides a recorded evaluation by the rules of `matcher`. `user` is the user of [`ids`] with its plan for
/// that matcher: its name and groups are those of the present.
pub fn replay(matcher: &Matcher, user: &User, recorded: &RecordedEvaluation) -> ReplayResult {
    let Some(ids) = ids(recorded) else { return ReplayResult::NotDecided };
    let old = match recorded_decision(recorded) {
        Ok(Some(old)) => old,
        Ok(None) => return ReplayResult::NotDecided,
        Err(missing) => return ReplayResult::Unknown(missing),
    };
    let program = ReplayedProgram::of(recorded);
    let mut missing = MissingFact::Exe;
    let choice = decide(matcher, user, ids, program.known(), |_, rule| {
        if rule.action.observes() {
            return Ok(false);
        }
        missing = condition(rule);
        // Any value ends the search; the fact is the one above.
        Err(Missing::Arguments)
    });
    let new = match choice {
        Choice::NoRule => ReplayedDecision::default(),
        Choice::Rule(id) => match matcher.rule(id) {
            Some(rule) => decision_of(rule),
            None => ReplayedDecision::default(),
        },
        Choice::NeedsExe => return ReplayResult::Unknown(MissingFact::Exe),
        Choice::NeedsExamination => return ReplayResult::Unknown(MissingFact::Invoked),
        Choice::Needs(_) => return ReplayResult::Unknown(missing),
    };
    if old.effect == new.effect { ReplayResult::Same } else { ReplayResult::Different { old, new } }
}

/// Returns the decision in a record; `Ok(None)` if no rule was searched.
fn recorded_decision(
    recorded: &RecordedEvaluation,
) -> Result<Option<ReplayedDecision>, MissingFact> {
    let is_incomplete = |word: &str| recorded.incomplete.iter().any(|own| own == word);
    let is = |outcome: EvaluationOutcome| recorded.outcome == outcome.word();
    if [EvaluationOutcome::Gone, EvaluationOutcome::Sticky, EvaluationOutcome::Waiting]
        .into_iter()
        .any(is)
    {
        return Ok(None);
    }
    if is_incomplete(RULE_OVERWRITTEN) || is_incomplete(RULE_TRUNCATED) {
        return Err(MissingFact::OldRule);
    }
    let effect = if !recorded.cgroups.is_empty() {
        ReplayedEffect::Moved(recorded.cgroups.clone())
    } else if is(EvaluationOutcome::Inapplicable) {
        ReplayedEffect::Inapplicable
    } else if recorded.rule.is_some() || is(EvaluationOutcome::NoRule) {
        ReplayedEffect::Stays
    } else {
        return Ok(None);
    };
    Ok(Some(ReplayedDecision { rule: recorded.rule.clone(), effect }))
}

fn decision_of(rule: &Rule) -> ReplayedDecision {
    let targets = rule.action.targets().iter();
    let effect = match &rule.action {
        // A rule that observes never decides.
        Action::Ignore(_) | Action::Observe(_) => ReplayedEffect::Stays,
        Action::Inapplicable(_) => ReplayedEffect::Inapplicable,
        Action::Place(_) => ReplayedEffect::Moved(
            targets.map(|target| target.destination.as_str().to_owned()).collect(),
        ),
    };
    ReplayedDecision { rule: Some(rule.name.to_string()), effect }
}

/// Returns the first fact that the conditions of a rule need.
fn condition(rule: &Rule) -> MissingFact {
    let contexts = [rule.when.context.as_deref(), rule.not.context.as_deref()];
    let of_context = contexts.into_iter().flatten().find_map(context_fact);
    of_context.unwrap_or(match &rule.action {
        Action::Ignore(when) if when.scheduling != Scheduling::Any => MissingFact::Scheduling,
        Action::Ignore(_) | Action::Place(_) | Action::Inapplicable(_) | Action::Observe(_) => {
            MissingFact::From
        }
    })
}

fn context_fact(context: &ContextCriteria) -> Option<MissingFact> {
    let ContextCriteria { units, from, below, containers, logins, arguments, below_any_user: _ } =
        context;
    let facts = [
        (units.is_empty(), MissingFact::Unit),
        (from.is_empty(), MissingFact::From),
        (below.is_empty(), MissingFact::Below),
        (containers.is_empty(), MissingFact::Container),
        (logins.is_empty(), MissingFact::Login),
        (arguments.is_empty(), MissingFact::Argument),
    ];
    facts.into_iter().find(|(is_empty, _)| !is_empty).map(|(_, fact)| fact)
}

/// The program of a record, as far as it can be compared with rules.
struct ReplayedProgram<'r> {
    raw: &'r str,
    path: &'r str,
    invoked: Option<&'r str>,
    on_host: bool,
    is_unsure: bool,
    is_known: bool,
}

impl<'r> ReplayedProgram<'r> {
    fn of(recorded: &'r RecordedEvaluation) -> Self {
        let is_incomplete = |word: &str| recorded.incomplete.iter().any(|own| own == word);
        let raw = recorded.exe.as_deref().unwrap_or_default();
        let invoked = recorded.invoked.as_deref();
        // A text with a backslash may be an escaped one, and then is not the path.
        let is_escaped = raw.contains('\\') || invoked.is_some_and(|text| text.contains('\\'));
        Self {
            raw,
            path: raw.strip_suffix(" (deleted)").unwrap_or(raw),
            invoked,
            on_host: recorded.exe_on_host,
            is_unsure: is_incomplete(EXE_NOT_EXAMINED),
            is_known: !raw.is_empty()
                && !is_escaped
                && !is_incomplete(EXE_TRUNCATED)
                && !is_incomplete(EXE_OVERWRITTEN),
        }
    }

    fn known(&self) -> KnownExe<'_> {
        if !self.is_known {
            return KnownExe::Unread;
        }
        KnownExe::Read(ExeInfo {
            raw: self.raw.as_bytes(),
            exe: ExeFacts { path: self.path.as_bytes(), on_host: self.on_host },
            invoked: self.invoked.map(str::as_bytes),
            is_unsure: self.is_unsure,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Nanos;
    use crate::policy::test_policy;
    use crate::rules::names::UserIdentity;

    fn recorded(rule: Option<&str>, cgroups: &[&str]) -> RecordedEvaluation {
        RecordedEvaluation {
            time_ms: 1,
            pid: 7,
            uid: Some(5),
            gid: Some(50),
            exe: Some("/bin/sh".to_owned()),
            exe_on_host: true,
            rule: rule.map(str::to_owned),
            cgroups: cgroups.iter().map(|path| (*path).to_owned()).collect(),
            outcome: if rule.is_some() { "placed" } else { "no-rule" }.to_owned(),
            ..RecordedEvaluation::default()
        }
    }

    fn by(rules: &str, recorded: &RecordedEvaluation) -> ReplayResult {
        let policy = test_policy(rules, Vec::new());
        let identity =
            UserIdentity { name: Some("ann".to_owned()), ..UserIdentity::nameless(Uid(5)) };
        let user = User::new(&policy.matcher, identity, Nanos(0));
        replay(&policy.matcher, &user, recorded)
    }

    const PEOPLE: &str = "[[rule]]\nname = \"new\"\nuser = \"5\"\ncgroup = \"people/%u\"\n";

    #[test]
    fn rules_with_the_same_effect_are_the_same() {
        assert_eq!(by(PEOPLE, &recorded(Some("old"), &["people/%u"])), ReplayResult::Same);
        assert_eq!(by("", &recorded(None, &[])), ReplayResult::Same);
        // To ignore a process is to leave it where it is.
        let ignores = "[[rule]]\nuser = \"5\"\nignore = true\n";
        assert_eq!(by(ignores, &recorded(None, &[])), ReplayResult::Same);
    }

    #[test]
    fn a_difference_names_both_decisions() {
        let ReplayResult::Different { old, new } = by(PEOPLE, &recorded(None, &[])) else {
            panic!("no difference")
        };
        assert_eq!((old.rule, old.effect), (None, ReplayedEffect::Stays));
        assert_eq!(new.rule.as_deref(), Some("new"));
        assert_eq!(new.effect, ReplayedEffect::Moved(vec!["people/%u".to_owned()]));
        let moved = by(PEOPLE, &recorded(Some("old"), &["elsewhere"]));
        assert!(matches!(moved, ReplayResult::Different { .. }), "{moved:?}");
    }

    type Change = fn(&mut RecordedEvaluation);

    #[test]
    fn what_a_record_lacks_is_unknown() {
        let exe = format!("[[rule]]\nexe = \"/bin/x\"\ncgroup = \"x\"\n{PEOPLE}");
        let placed = recorded(Some("old"), &["people/%u"]);
        assert_eq!(by(&exe, &placed), ReplayResult::Same);
        let changes: [(Change, MissingFact); 5] = [
            (|own| own.exe = None, MissingFact::Exe),
            (|own| own.exe = Some("/bin/\\x01".to_owned()), MissingFact::Exe),
            (|own| own.incomplete.push(EXE_TRUNCATED.to_owned()), MissingFact::Exe),
            (|own| own.incomplete.push(EXE_NOT_EXAMINED.to_owned()), MissingFact::Invoked),
            (|own| own.incomplete.push(RULE_OVERWRITTEN.to_owned()), MissingFact::OldRule),
        ];
        for (change, fact) in changes {
            let mut own = placed.clone();
            change(&mut own);
            assert_eq!(by(&exe, &own), ReplayResult::Unknown(fact), "{own:?}");
            if fact != MissingFact::OldRule {
                assert_eq!(by(PEOPLE, &own), ReplayResult::Same, "no rule needs it");
            }
        }
        for (key, fact) in [
            ("unit = \"a.service\"", MissingFact::Unit),
            ("from = \"/a\"", MissingFact::From),
            ("below = \"/bin/a\"", MissingFact::Below),
            ("container = \"docker:*\"", MissingFact::Container),
            ("login = \"5\"", MissingFact::Login),
            ("not = { unit = \"a.service\" }", MissingFact::Unit),
            ("argument = \"a\"", MissingFact::Argument),
        ] {
            let rules = format!("[[rule]]\nuser = \"5\"\n{key}\ncgroup = \"x\"\n{PEOPLE}");
            assert_eq!(by(&rules, &placed), ReplayResult::Unknown(fact), "{key}");
        }
    }

    #[test]
    fn what_no_rule_decided_is_not_compared() {
        for outcome in ["gone", "sticky", "waiting"] {
            let own = RecordedEvaluation { outcome: outcome.to_owned(), ..recorded(None, &[]) };
            assert_eq!(by(PEOPLE, &own), ReplayResult::NotDecided, "{outcome}");
        }
        let own = RecordedEvaluation { uid: None, ..recorded(None, &[]) };
        assert_eq!(by(PEOPLE, &own), ReplayResult::NotDecided);
    }

    #[test]
    fn the_executable_and_what_was_invoked_decide() {
        let rules = "[[rule]]\nexe = \"/bin/sh\"\ncgroup = \"x\"\n";
        let moved = by(rules, &recorded(None, &[]));
        assert!(matches!(moved, ReplayResult::Different { .. }), "{moved:?}");
        let elsewhere = RecordedEvaluation { exe_on_host: false, ..recorded(None, &[]) };
        assert_eq!(by(rules, &elsewhere), ReplayResult::Same);
        let invoked = Some("/opt/script".to_owned());
        let script = RecordedEvaluation { invoked, ..recorded(None, &[]) };
        let rules = "[[rule]]\nexe = \"/opt/script\"\ncgroup = \"x\"\n";
        let moved = by(rules, &script);
        assert!(matches!(moved, ReplayResult::Different { .. }), "{moved:?}");
    }
}
