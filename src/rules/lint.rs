//! Finds rules that are valid individually but have no effect or a duplicate name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::BuildHasher;

use foldhash::fast::FixedState;

mod earlier;

use earlier::EarlierRules;

use super::subsumption::{group_ids, is_empty, subsumes, user_ids};
use super::{Criteria, ExeTest, Rule, RuleId, UserTest};

/// A reason for which a rule can never decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// This earlier rule matches every process that the rule matches.
    ShadowedBy(RuleId),
    /// The rule excludes everything that it requires.
    HoldsForNobody,
}

/// Returns the rules that can never decide, in order. Reports no reachable rule; does not find a
/// rule that several others shadow only together.
pub fn dead(rules: &[Rule]) -> Vec<(RuleId, Unreachable)> {
    // An index finds the rules that may cover another, because comparing all pairs took a minute for
    // 100,000 rules. A few numbers per rule exclude most of them before the full comparison.
    let mut index = EarlierRules::default();
    let sketches: Vec<Sketch> = rules.iter().map(Sketch::new).collect();
    let mut found = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let own = sketches[at];
        if is_empty(rule) {
            index.insert(at, rule);
            found.push((id(at), Unreachable::HoldsForNobody));
            continue;
        }
        let covers = |n: usize| sketches[n].may_cover(own) && subsumes(&rules[n], rule);
        let covering = index.first(rule, &covers);
        found.extend(covering.map(|n| (id(at), Unreachable::ShadowedBy(id(n)))));
        index.insert(at, rule);
    }
    found
}

/// Returns the rules with an explicit name that an earlier rule has, each with the first rule of
/// that name.
pub fn duplicate_names(rules: &[Rule]) -> Vec<(RuleId, RuleId)> {
    let mut first: HashMap<&str, RuleId> = HashMap::with_capacity(rules.len());
    let mut found = Vec::new();
    for (at, rule) in rules.iter().enumerate() {
        let Some(name) = rule.given_name() else { continue };
        match first.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(id(at));
            }
            Entry::Occupied(entry) => found.push((id(at), *entry.get())),
        }
    }
    found
}

fn id(index: usize) -> RuleId {
    RuleId(u32::try_from(index).unwrap_or(u32::MAX))
}

/// A summary for fast comparison: a rule covers another only if each part does.
#[derive(Clone, Copy)]
struct Sketch {
    /// The first and last user ID; all IDs without a user test or with a pattern.
    users: (u32, u32),
    groups: (u32, u32),
    /// One bit per path; all bits if the executables are not only paths.
    exes: u64,
    /// The bits that a rule must have to cover this one.
    needs: u64,
    /// Whether the rule decides whenever it matches.
    decides: bool,
}

const ALL: (u32, u32) = (0, u32::MAX);

impl Sketch {
    fn new(rule: &Rule) -> Self {
        let Criteria { users, groups, exes, .. } = &rule.when;
        let bits: Vec<Option<u64>> = exes.iter().map(path_bit).collect();
        let is_paths = !bits.is_empty() && bits.iter().all(Option::is_some);
        Self {
            users: bounds(users.iter().map(user_bounds)),
            groups: bounds(groups.iter().map(group_ids)),
            exes: match is_paths {
                true => bits.iter().flatten().fold(0, |all, bit| all | bit),
                false => u64::MAX,
            },
            needs: bits.first().copied().flatten().unwrap_or(u64::MAX),
            decides: !rule.is_conditional(),
        }
    }

    fn may_cover(self, narrow: Self) -> bool {
        let within =
            |wide: (u32, u32), narrow: (u32, u32)| wide.0 <= narrow.0 && narrow.1 <= wide.1;
        within(self.users, narrow.users)
            && within(self.groups, narrow.groups)
            && self.exes & narrow.needs == narrow.needs
            && self.decides
    }
}

/// Returns the lowest and the highest ID of a test, `None` for a pattern.
fn user_bounds(test: &UserTest) -> Option<(u32, u32)> {
    Some(bounds(user_ids(test)?.map(Some)))
}

/// Returns the lowest and the highest ID of all ranges. A pattern may match any ID.
fn bounds(ranges: impl Iterator<Item = Option<(u32, u32)>>) -> (u32, u32) {
    let mut all = (u32::MAX, 0);
    let mut is_empty = true;
    for range in ranges {
        let Some((first, last)) = range else { return ALL };
        if first <= last {
            all = (all.0.min(first), all.1.max(last));
            is_empty = false;
        }
    }
    if is_empty { ALL } else { all }
}

fn path_bit(test: &ExeTest) -> Option<u64> {
    match test {
        ExeTest::Path(path) => Some(1 << (FixedState::with_seed(0).hash_one(path) % 64)),
        ExeTest::PathGlob(_) | ExeTest::Base(_) | ExeTest::BaseGlob(_) => None,
    }
}

#[cfg(test)]
#[path = "lint_tests.rs"]
mod tests;
