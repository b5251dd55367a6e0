//! User and group names with their IDs, and the replacement of names in rules. It must not call
//! NSS; the caller supplies the results.

use std::collections::HashMap;

use super::container::{ContainerTest, LeaveContainers};
use super::human::HumanUids;
use super::{Criteria, GroupTest, Rule, UserTest};
use crate::event::{Gid, Uid};

/// The results of NSS lookups. An absent name is unknown.
#[derive(Clone, Debug, Default)]
pub struct ResolvedNames {
    /// User name to UID, for every name used in a rule.
    pub uids: HashMap<String, Uid>,
    /// Group name to GID, for every group that was enumerated or is used in a rule.
    pub gids: HashMap<String, Gid>,
    /// The UIDs of human users.
    pub human: HumanUids,
}

/// The name and groups of a user ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserIdentity {
    /// The UID of the user.
    pub uid: Uid,
    /// The name of the user, if it has one.
    pub name: Option<String>,
    /// The groups that list the user by name. Sorted.
    pub listed_in: Vec<Gid>,
    /// The group that the user logs in with. `None` for an ID without a user.
    pub login_group: Option<Gid>,
}

impl UserIdentity {
    /// Creates the identity of a user ID of which nothing else is known.
    pub fn nameless(uid: Uid) -> Self {
        Self { uid, name: None, listed_in: Vec::new(), login_group: None }
    }
}

/// A name in a rule that NSS does not know.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum UnknownName {
    /// A user that does not exist.
    User(String),
    /// A group that does not exist.
    Group(String),
}

impl UnknownName {
    /// Checks whether this is the name of a user that no process can have without it. A name of
    /// digits is not: until it exists it is a UID.
    pub fn is_user(&self) -> bool {
        match self {
            Self::User(name) => name.bytes().any(|byte| !byte.is_ascii_digit()),
            Self::Group(_) => false,
        }
    }
}

/// Replaces the names in `rule` by IDs. Unknown alternatives are dropped and returned. The rule is
/// `None` if that leaves a given kind of criteria without any alternative: an empty list would
/// match all users. Also frees the spare capacity of its lists: most have one entry and room for
/// four.
pub fn resolve(mut rule: Rule, names: &ResolvedNames) -> (Option<Rule>, Vec<UnknownName>) {
    let mut unknown = Vec::new();
    let given = kinds(&rule.when);
    resolve_criteria(&mut rule.when, names, &mut unknown);
    // A test with an unknown name matches no user, so dropping it below `not` changes nothing.
    let mut not = (*rule.not).clone();
    resolve_criteria(&mut not, names, &mut unknown);
    rule.not = not.into();
    if let LeaveContainers::Of(tests) = &mut rule.leave_containers {
        // Without one of its tests the rule moves fewer processes.
        *tests = resolve_containers(std::mem::take(tests).into_vec(), names, &mut unknown).into();
    }
    let left = kinds(&rule.when);
    ((given == left).then_some(rule), unknown)
}

/// Returns which kinds of criteria with names have an alternative.
fn kinds(when: &Criteria) -> [bool; 4] {
    let context = when.context.as_deref();
    let has_login = context.is_some_and(|context| !context.logins.is_empty());
    let has_container = context.is_some_and(|context| !context.containers.is_empty());
    [!when.users.is_empty(), !when.groups.is_empty(), has_login, has_container]
}

/// Replaces the names in `users` by IDs. Unknown names are dropped and returned.
pub fn resolve_users(
    users: Vec<UserTest>,
    names: &ResolvedNames,
) -> (Vec<UserTest>, Vec<UnknownName>) {
    let mut unknown = Vec::new();
    let known = users.into_iter().filter_map(|test| user(test, names, &mut unknown)).collect();
    (known, unknown)
}

fn resolve_criteria(
    criteria: &mut Criteria,
    names: &ResolvedNames,
    unknown: &mut Vec<UnknownName>,
) {
    let (users, mut absent) = resolve_users(std::mem::take(&mut criteria.users), names);
    criteria.users = users;
    unknown.append(&mut absent);
    if let Some(context) = &mut criteria.context {
        let (logins, mut absent) = resolve_users(std::mem::take(&mut context.logins), names);
        context.logins = logins;
        unknown.append(&mut absent);
        let containers = std::mem::take(&mut context.containers);
        context.containers = resolve_containers(containers, names, unknown);
    }
    let tests = std::mem::take(&mut criteria.groups);
    for test in tests {
        groups(test, names, unknown, &mut criteria.groups);
    }
    criteria.users.shrink_to_fit();
    criteria.groups.shrink_to_fit();
    criteria.exes.shrink_to_fit();
}

/// Replaces the names of owners by IDs. Tests with an unknown name are dropped.
fn resolve_containers(
    tests: Vec<ContainerTest>,
    names: &ResolvedNames,
    unknown: &mut Vec<UnknownName>,
) -> Vec<ContainerTest> {
    let known = tests.into_iter().filter_map(|mut test| {
        if let Some(owner) = test.owner.take() {
            test.owner = Some(user(owner, names, unknown)?);
        }
        Some(test)
    });
    known.collect()
}

/// Returns the test without a name; `None` if no user has that name.
fn user(test: UserTest, names: &ResolvedNames, unknown: &mut Vec<UnknownName>) -> Option<UserTest> {
    match test {
        UserTest::Glob(_) | UserTest::Ids(..) => Some(test),
        UserTest::Human(_) => Some(UserTest::Human(names.human.clone())),
        UserTest::NameOrId(name, id) => {
            let uid = names.uids.get(&name).copied().unwrap_or(id);
            Some(UserTest::Ids(uid, uid))
        }
        UserTest::Name(name) => match names.uids.get(&name) {
            Some(&uid) => Some(UserTest::Ids(uid, uid)),
            None => {
                unknown.push(UnknownName::User(name));
                None
            }
        },
    }
}

/// Appends the numeric tests for `test`.
fn groups(
    test: GroupTest,
    names: &ResolvedNames,
    unknown: &mut Vec<UnknownName>,
    out: &mut Vec<GroupTest>,
) {
    match test {
        GroupTest::Ids(..) => out.push(test),
        GroupTest::NameOrId(name, id) => {
            let gid = names.gids.get(&name).copied().unwrap_or(id);
            out.push(GroupTest::Ids(gid, gid));
        }
        GroupTest::Name(name) => match names.gids.get(&name) {
            Some(&gid) => out.push(GroupTest::Ids(gid, gid)),
            None => unknown.push(UnknownName::Group(name)),
        },
        GroupTest::Glob(glob) => {
            let known = names.gids.iter().filter(|(name, _)| glob.matches(name.as_bytes()));
            let mut gids: Vec<Gid> = known.map(|(_, &gid)| gid).collect();
            // The order of a hash map must not affect the output.
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
    use crate::rules::context::{ContextCriteria, TextTest};
    use crate::rules::glob::Glob;
    use crate::rules::{Action, Origin};

    fn names() -> ResolvedNames {
        ResolvedNames {
            uids: HashMap::from([("alice".to_owned(), Uid(1)), ("20231234".to_owned(), Uid(5))]),
            gids: HashMap::from([
                ("web".to_owned(), Gid(9)),
                ("web-a".to_owned(), Gid(8)),
                ("db".to_owned(), Gid(7)),
                ("4711".to_owned(), Gid(6)),
            ]),
            human: HumanUids::new(Uid(1000), []),
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
            is_gated: false,
            leave_units: crate::rules::LeaveUnits::No,
            leave_containers: LeaveContainers::No,
            action: Action::ignore(),
        }
    }

    #[test]
    fn owners_of_containers_become_ids() {
        let of = |owner: &str| ContainerTest {
            engine: None,
            owner: Some(UserTest::Name(owner.to_owned())),
            name: TextTest::Is((*b"x").into()),
        };
        let both = vec![of("alice"), of("nobody")];
        let context = ContextCriteria { containers: both.clone(), ..ContextCriteria::default() };
        let when = Criteria { context: Some(Box::new(context)), ..Criteria::default() };
        let mut own = rule(when, Criteria::default());
        own.leave_containers = LeaveContainers::Of(both.into());
        let (found, unknown) = resolve(own, &names());
        let found = found.unwrap();
        let alice = ContainerTest { owner: Some(UserTest::Ids(Uid(1), Uid(1))), ..of("alice") };
        assert_eq!(found.when.context.unwrap().containers, std::slice::from_ref(&alice));
        assert_eq!(found.leave_containers, LeaveContainers::Of([alice].into()));
        assert_eq!(unknown, vec![UnknownName::User("nobody".to_owned()); 2]);
        let context =
            ContextCriteria { containers: vec![of("nobody")], ..ContextCriteria::default() };
        let when = Criteria { context: Some(Box::new(context)), ..Criteria::default() };
        assert!(resolve(rule(when, Criteria::default()), &names()).0.is_none());
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
            ..Criteria::default()
        };
        let (resolved, unknown) = resolve(rule(when, Criteria::default()), &names());
        let when = resolved.unwrap().when;
        assert_eq!(when.users, [UserTest::Ids(Uid(1), Uid(1))]);
        assert_eq!(when.groups, [one(7)]);
        assert!(unknown.is_empty());
    }

    #[test]
    fn a_name_of_digits_is_an_id_only_if_no_account_has_it() {
        let users = [("20231234", 20_231_234), ("33", 33)];
        let groups = [("4711", 4711), ("8", 8)];
        let when = Criteria {
            users: users.map(|(name, id)| UserTest::NameOrId(name.to_owned(), Uid(id))).to_vec(),
            groups: groups.map(|(name, id)| GroupTest::NameOrId(name.to_owned(), Gid(id))).to_vec(),
            ..Criteria::default()
        };
        let (resolved, unknown) = resolve(rule(when, Criteria::default()), &names());
        let when = resolved.unwrap().when;
        assert_eq!(when.users, [5, 33].map(|id| UserTest::Ids(Uid(id), Uid(id))));
        assert_eq!(when.groups, [one(6), one(8)]);
        assert!(unknown.is_empty());
    }

    #[test]
    fn human_users_are_those_of_the_host() {
        let human = vec![UserTest::Human(HumanUids::default())];
        let human = Criteria { users: human, ..Criteria::default() };
        let (resolved, _) = resolve(rule(human.clone(), human), &names());
        let resolved = resolved.unwrap();
        assert_eq!(resolved.when.users, [UserTest::Human(names().human)]);
        assert!(resolved.not.users[0].matches(Uid(1000), None));
        assert!(!resolved.not.users[0].matches(Uid(999), Some("alice")));
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
        assert_eq!(unknown, [UnknownName::User("nobody".to_owned())]);
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
        assert_eq!(unknown, [UnknownName::Group("x".to_owned())]);
    }

    #[test]
    fn a_name_of_digits_and_a_group_are_no_missing_user() {
        for (name, expected) in [("alice", true), ("10a", true), ("1000", false)] {
            assert_eq!(UnknownName::User(name.to_owned()).is_user(), expected, "{name}");
        }
        assert!(!UnknownName::Group("web".to_owned()).is_user());
    }
}
