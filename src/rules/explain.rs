//! Explains a decision: tries every rule in order and returns the first criterion that fails in
//! each. It must not be used on the hot path.
//!
//! [`super::matcher`] makes the decisions because it is fast; tests verify that both agree.

use super::context::ContextMismatch;
use super::criteria::{UserFacts, matches_any};
use super::names::UserIdentity;
use super::{Facts, Rule, RuleId};

/// The first criterion of a rule that a process does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The user matches none of the rule's users.
    User,
    /// Neither the effective group nor a group that lists the user matches.
    Group,
    /// The executable matches none of the rule's tests.
    Exe,
    /// The path of the executable matches, but in another mount namespace.
    ForeignExe,
    /// The rule requires an executable, and that of the process is unknown.
    UnknownExe,
    /// The rule excludes the user.
    NotUser,
    /// The rule excludes a group.
    NotGroup,
    /// The rule excludes the executable.
    NotExe,
    /// The rule ignores processes under conditions that are not met.
    Circumstances,
    /// The context of the process does not match.
    Context(ContextMismatch),
    /// All criteria match, but the rule only observes.
    Observes,
}

/// The result of trying the rules in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The first failing criterion of each rule before the winner, or of all rules without one;
    /// [`Mismatch::Observes`] for one that would match.
    pub misses: Vec<Mismatch>,
    /// The first rule that matches and applies.
    pub winner: Option<RuleId>,
}

/// Tries the rules in order. `who` is the user of `facts`. `condition` returns the first condition of a
/// rule that is not met; it is called for conditional rules only ([`Rule::is_conditional`]), and only
/// if all other criteria match.
pub fn walk(
    rules: &[Rule],
    who: &UserIdentity,
    facts: &Facts<'_>,
    mut condition: impl FnMut(RuleId, &Rule) -> Option<Mismatch>,
) -> Trace {
    let person = UserFacts { uid: who.uid, name: who.name.as_deref(), listed: &who.listed_in };
    let mut misses = Vec::new();
    for (id, rule) in (0..).map(RuleId).zip(rules) {
        let failed = miss(rule, &person, facts)
            .or_else(|| rule.is_conditional().then(|| condition(id, rule)).flatten())
            .or_else(|| rule.action.observes().then_some(Mismatch::Observes));
        match failed {
            Some(miss) => misses.push(miss),
            None => return Trace { misses, winner: Some(id) },
        }
    }
    Trace { misses, winner: None }
}

fn miss(rule: &Rule, person: &UserFacts<'_>, facts: &Facts<'_>) -> Option<Mismatch> {
    let Rule { when, not, .. } = rule;
    if !when.users.is_empty() && !when.users_match(person) {
        Some(Mismatch::User)
    } else if !when.groups.is_empty() && !when.groups_match(facts.gid, person) {
        Some(Mismatch::Group)
    } else if !when.exes.is_empty() && !rule.exe_matches(facts) {
        Some(exe_miss(rule, facts))
    } else if not.users_match(person) {
        Some(Mismatch::NotUser)
    } else if not.groups_match(facts.gid, person) {
        Some(Mismatch::NotGroup)
    } else {
        rule.exe_excluded(facts).then_some(Mismatch::NotExe)
    }
}

/// Returns the reason for which none of the rule's executables matches.
fn exe_miss(rule: &Rule, facts: &Facts<'_>) -> Mismatch {
    match facts.exe {
        None => Mismatch::UnknownExe,
        Some(exe) if matches_any(&rule.when, exe, facts) => Mismatch::ForeignExe,
        Some(_) => Mismatch::Exe,
    }
}
