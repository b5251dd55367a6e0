//! User and group names and numbers, gathered by the edge, and the step that replaces names in
//! rules. Pure.

use std::collections::HashMap;

use super::{Criteria, GroupTest, Rule, UserTest};
use crate::event::{Gid, Uid};

/// What the name service said. The edge fills it; absent means unknown.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// User name → user id, for every name that a rule mentions.
    pub uids: HashMap<String, Uid>,
    /// Group name → group id, for every group that could be enumerated or that a rule mentions.
    pub gids: HashMap<String, Gid>,
}

/// Who a user id is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The id.
    pub uid: Uid,
    /// The user's name, if it has one.
    pub name: Option<String>,
    /// The groups that list the user by name. Sorted.
    pub listed_in: Vec<Gid>,
}

/// A name in a rule that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// No such user.
    User(String),
    /// No such group.
    Group(String),
}

/// Replaces the names in `rule` by numbers. Unknown alternatives are dropped and returned. The rule
/// itself is `None` when a kind of criteria that it gave is left without any alternative: it could
/// match nothing, or, negated away, too much.
pub fn resolve(mut rule: Rule, names: &Names) -> (Option<Rule>, Vec<Unknown>) {
    let mut unknown = Vec::new();
    let alive = resolve_criteria(&mut rule.when, names, &mut unknown);
    // A negated test of an unknown name holds for nobody, so dropping it changes nothing.
    resolve_criteria(&mut rule.not, names, &mut unknown);
    (alive.then_some(rule), unknown)
}

/// Whether every kind that was given still has an alternative.
fn resolve_criteria(criteria: &mut Criteria, names: &Names, unknown: &mut Vec<Unknown>) -> bool {
    let had_users = !criteria.users.is_empty();
    criteria.users.retain_mut(|test| match test {
        UserTest::Glob(_) | UserTest::Ids(..) => true,
        UserTest::Name(name) => match names.uids.get(name.as_str()) {
            Some(&uid) => {
                *test = UserTest::Ids(uid, uid);
                true
            }
            None => {
                unknown.push(Unknown::User(std::mem::take(name)));
                false
            }
        },
    });
    let had_groups = !criteria.groups.is_empty();
    let groups = std::mem::take(&mut criteria.groups);
    for test in groups {
        match test {
            GroupTest::Ids(..) => criteria.groups.push(test),
            GroupTest::Glob(glob) => criteria.groups.extend(
                names
                    .gids
                    .iter()
                    .filter(|(name, _)| glob.matches(name.as_bytes()))
                    .map(|(_, &gid)| GroupTest::Ids(gid, gid)),
            ),
            GroupTest::Name(name) => match names.gids.get(&name) {
                Some(&gid) => criteria.groups.push(GroupTest::Ids(gid, gid)),
                None => unknown.push(Unknown::Group(name)),
            },
        }
    }
    had_users != criteria.users.is_empty() && had_groups != criteria.groups.is_empty()
}
