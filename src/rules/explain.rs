//! Why a process falls under a rule and under none before it: every rule tried in order, with the first
//! criterion that fails. Pure.
//!
//! [`super::matcher`] decides, because it is fast; this says why, and tests hold the two together.

use super::criteria::{Person, holds_of_any};
use super::names::Identity;
use super::{Facts, Rule, RuleId};

/// The first criterion of a rule that a process does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// None of its users.
    User,
    /// None of its groups, neither the process's nor one that lists the user.
    Group,
    /// None of its programs.
    Exe,
    /// One of its programs by path, but the path is of another mount namespace.
    ForeignExe,
    /// It asks for a program, and the process's is not known.
    UnknownExe,
    /// A user that it excludes.
    NotUser,
    /// A group that it excludes.
    NotGroup,
    /// A program that it excludes.
    NotExe,
    /// It ignores processes under circumstances that are not given.
    Circumstances,
}

/// What became of the rules, tried in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Why each rule before the winner does not hold; without a winner, each rule.
    pub misses: Vec<Miss>,
    /// The first rule that holds and applies.
    pub winner: Option<RuleId>,
}

/// Tries the rules in order. `applies` says whether the circumstances of a rule that ignores processes
/// are given ([`super::Action::is_conditional`]); it is asked of no other rule, and only when all else
/// holds. The user of `facts` is `who`.
pub fn walk(
    rules: &[Rule],
    who: &Identity,
    facts: &Facts<'_>,
    mut applies: impl FnMut(&Rule) -> bool,
) -> Walk {
    let person = Person { uid: who.uid, name: who.name.as_deref(), listed: &who.listed_in };
    let mut misses = Vec::new();
    for (id, rule) in (0..).map(RuleId).zip(rules) {
        let failed = miss(rule, &person, facts).or_else(|| {
            let fails = rule.action.is_conditional() && !applies(rule);
            fails.then_some(Miss::Circumstances)
        });
        match failed {
            Some(miss) => misses.push(miss),
            None => return Walk { misses, winner: Some(id) },
        }
    }
    Walk { misses, winner: None }
}

fn miss(rule: &Rule, person: &Person<'_>, facts: &Facts<'_>) -> Option<Miss> {
    let Rule { when, not, .. } = rule;
    let missed = |given: bool, holds: bool, miss: Miss| (given && !holds).then_some(miss);
    missed(!when.users.is_empty(), when.users_hold(person), Miss::User)
        .or_else(|| {
            let holds = when.groups_hold(facts.gid, person);
            missed(!when.groups.is_empty(), holds, Miss::Group)
        })
        .or_else(|| missed(!when.exes.is_empty(), rule.exe_holds(facts), exe_miss(rule, facts)))
        .or_else(|| not.users_hold(person).then_some(Miss::NotUser))
        .or_else(|| not.groups_hold(facts.gid, person).then_some(Miss::NotGroup))
        .or_else(|| rule.exe_excluded(facts).then_some(Miss::NotExe))
}

/// Why none of the rule's programs holds.
fn exe_miss(rule: &Rule, facts: &Facts<'_>) -> Miss {
    match facts.exe {
        None => Miss::UnknownExe,
        Some(exe) if holds_of_any(&rule.when, exe, facts) => Miss::ForeignExe,
        Some(_) => Miss::Exe,
    }
}
