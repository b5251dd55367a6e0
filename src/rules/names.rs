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
    /// The group that the user logs in with. `None` for an ID without a user.
    pub login_group: Option<Gid>,
}

impl Identity {
    /// Creates the identity of a user ID of which nothing else is known.
    pub fn nameless(uid: Uid) -> Self {
        Self { uid, name: None, listed_in: Vec::new(), login_group: None }
    }
}

/// A name in a rule that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// No such user.
    User(String),
    /// No such group.
    Group(String),
}

/// Replaces the names in `rule` by numbers, and gives back what memory its lists have to spare: most
/// have one entry and room for four. Unknown alternatives are dropped and returned. The rule
/// itself is `None` when a kind of criteria that it gave is left without any alternative: as an
/// empty list it would match everybody.
pub fn resolve(mut rule: Rule, names: &Names) -> (Option<Rule>, Vec<Unknown>) {
    let mut unknown = Vec::new();
    let given = (!rule.when.users.is_empty(), !rule.when.groups.is_empty());
    resolve_criteria(&mut rule.when, names, &mut unknown);
    // A test of an unknown name holds for nobody, so below `not` dropping it changes nothing.
    let mut not = (*rule.not).clone();
    resolve_criteria(&mut not, names, &mut unknown);
    rule.not = not.into();
    let left = (!rule.when.users.is_empty(), !rule.when.groups.is_empty());
    ((given == left).then_some(rule), unknown)
}

/// Replaces the names in `users` by numbers. Unknown names are dropped and returned.
pub fn resolve_users(users: Vec<UserTest>, names: &Names) -> (Vec<UserTest>, Vec<Unknown>) {
    let mut unknown = Vec::new();
    let known = users.into_iter().filter_map(|test| user(test, names, &mut unknown)).collect();
    (known, unknown)
}

fn resolve_criteria(criteria: &mut Criteria, names: &Names, unknown: &mut Vec<Unknown>) {
    let (users, mut absent) = resolve_users(std::mem::take(&mut criteria.users), names);
    criteria.users = users;
    unknown.append(&mut absent);
    let tests = std::mem::take(&mut criteria.groups);
    for test in tests {
        groups(test, names, unknown, &mut criteria.groups);
    }
    criteria.users.shrink_to_fit();
    criteria.groups.shrink_to_fit();
    criteria.exes.shrink_to_fit();
}

/// The test without a name; `None` when nobody has that name.
fn user(test: UserTest, names: &Names, unknown: &mut Vec<Unknown>) -> Option<UserTest> {
    match test {
        UserTest::Glob(_) | UserTest::Ids(..) => Some(test),
        UserTest::Name(name) => match names.uids.get(&name) {
            Some(&uid) => Some(UserTest::Ids(uid, uid)),
            None => {
                unknown.push(Unknown::User(name));
                None
            }
        },
    }
}

/// Adds the tests by number that `test` stands for.
fn groups(test: GroupTest, names: &Names, unknown: &mut Vec<Unknown>, out: &mut Vec<GroupTest>) {
    match test {
        GroupTest::Ids(..) => out.push(test),
        GroupTest::Name(name) => match names.gids.get(&name) {
            Some(&gid) => out.push(GroupTest::Ids(gid, gid)),
            None => unknown.push(Unknown::Group(name)),
        },
        GroupTest::Glob(glob) => {
            let known = names.gids.iter().filter(|(name, _)| glob.matches(name.as_bytes()));
            let mut gids: Vec<Gid> = known.map(|(_, &gid)| gid).collect();
            // The order of a hash map must not reach what we show.
            gids.sort_unstable();
            gids.dedup();
            out.extend(gids.into_iter().map(|gid| GroupTest::Ids(gid, gid)));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::rules::glob::Glob;
    use crate::rules::{Action, Origin};

    fn names() -> Names {
        Names {
            uids: HashMap::from([("alice".to_owned(), Uid(1))]),
            gids: HashMap::from([
                ("web".to_owned(), Gid(9)),
                ("web-a".to_owned(), Gid(8)),
                ("db".to_owned(), Gid(7)),
            ]),
        }
    }

    fn rule(when: Criteria, not: Criteria) -> Rule {
        let origin = Origin { file: Arc::from(Path::new("/rules")), line: 1 };
        Rule {
            name: Arc::from("test"),
            origin,
            when,
            not: not.into(),
            exe_anywhere: false,
            leave_units: crate::rules::LeaveUnits::No,
            moves_containers: false,
            action: Action::ignore(),
        }
    }

    fn users(names: &[&str]) -> Criteria {
        let users = names.iter().map(|name| UserTest::Name((*name).to_owned())).collect();
        Criteria { users, ..Criteria::default() }
    }

    fn groups(tests: &[GroupTest]) -> Criteria {
        Criteria { groups: tests.to_vec(), ..Criteria::default() }
    }

    fn one(gid: u32) -> GroupTest {
        GroupTest::Ids(Gid(gid), Gid(gid))
    }

    #[test]
    fn names_become_numbers() {
        let when = Criteria {
            users: users(&["alice"]).users,
            groups: vec![GroupTest::Name("db".to_owned())],
            exes: Vec::new(),
        };
        let (resolved, unknown) = resolve(rule(when, Criteria::default()), &names());
        let when = resolved.unwrap().when;
        assert_eq!(when.users, [UserTest::Ids(Uid(1), Uid(1))]);
        assert_eq!(when.groups, [one(7)]);
        assert!(unknown.is_empty());
    }

    #[test]
    fn a_group_pattern_becomes_its_groups_in_order() {
        let glob = GroupTest::Glob(Glob::parse(b"web*").unwrap());
        let (resolved, _) = resolve(rule(groups(&[glob]), Criteria::default()), &names());
        assert_eq!(resolved.unwrap().when.groups, [one(8), one(9)]);
    }

    #[test]
    fn an_unknown_alternative_is_dropped_and_returned() {
        let (resolved, unknown) =
            resolve(rule(users(&["nobody", "alice"]), Criteria::default()), &names());
        assert_eq!(resolved.unwrap().when.users, [UserTest::Ids(Uid(1), Uid(1))]);
        assert_eq!(unknown, [Unknown::User("nobody".to_owned())]);
    }

    #[test]
    fn a_rule_without_a_known_alternative_is_no_rule() {
        let (resolved, _) = resolve(rule(users(&["nobody"]), Criteria::default()), &names());
        assert!(resolved.is_none());
        let glob = GroupTest::Glob(Glob::parse(b"x*").unwrap());
        let (resolved, _) = resolve(rule(groups(&[glob]), Criteria::default()), &names());
        assert!(resolved.is_none());
    }

    #[test]
    fn an_unknown_name_below_not_excludes_nobody() {
        let not = groups(&[GroupTest::Name("x".to_owned())]);
        let (resolved, unknown) = resolve(rule(users(&["alice"]), not), &names());
        assert!(resolved.unwrap().not.is_empty());
        assert_eq!(unknown, [Unknown::Group("x".to_owned())]);
    }
}
