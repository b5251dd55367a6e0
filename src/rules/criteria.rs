//! Evaluates single criteria against a process. It must not read anything: all facts are passed in.

use super::{Criteria, ExeFacts, ExeTest, Facts, GroupTest, Rule, UserTest, base_name};
use crate::event::{Gid, Uid};

/// The properties of a user that criteria test.
#[derive(Clone, Copy, Debug)]
pub(super) struct UserFacts<'a> {
    pub(super) uid: Uid,
    pub(super) name: Option<&'a str>,
    /// The groups that list the user in the group database. Sorted.
    pub(super) listed: &'a [Gid],
}

impl UserFacts<'_> {
    fn is_listed(&self, first: Gid, last: Gid) -> bool {
        let from = self.listed.partition_point(|&gid| gid < first);
        self.listed.get(from).is_some_and(|&gid| gid <= last)
    }
}

impl UserTest {
    /// Checks whether the test accepts the user with this UID and name. A user without a name
    /// matches only `*`.
    pub fn matches(&self, uid: Uid, name: Option<&str>) -> bool {
        match (self, name) {
            (Self::Ids(first, last), _) => (*first..=*last).contains(&uid),
            (Self::Glob(glob), Some(name)) => glob.matches(name.as_bytes()),
            (Self::Glob(glob), None) => glob.is_any(),
            (Self::Human(uids), _) => uids.contains(uid),
            (Self::Name(_) | Self::NameOrId(..), _) => false,
        }
    }

    /// Checks whether the result depends on the name of the user.
    pub fn needs_name(&self) -> bool {
        match self {
            Self::Glob(glob) => !glob.is_any(),
            Self::Ids(..) | Self::Human(_) | Self::Name(_) | Self::NameOrId(..) => false,
        }
    }
}

impl Criteria {
    /// Checks whether a user test accepts the user.
    pub(super) fn users_match(&self, person: &UserFacts<'_>) -> bool {
        self.users.iter().any(|test| test.matches(person.uid, person.name))
    }

    /// Checks whether one of the groups lists the user.
    pub(super) fn groups_list(&self, person: &UserFacts<'_>) -> bool {
        self.groups.iter().any(|test| match test {
            GroupTest::Ids(first, last) => person.is_listed(*first, *last),
            GroupTest::Glob(_) | GroupTest::Name(_) | GroupTest::NameOrId(..) => false,
        })
    }

    /// Checks whether one of the groups is the effective group of the process or lists its user.
    pub(super) fn groups_match(&self, gid: Gid, person: &UserFacts<'_>) -> bool {
        self.groups_list(person)
            || self.groups.iter().any(|test| match test {
                GroupTest::Ids(first, last) => (*first..=*last).contains(&gid),
                GroupTest::Glob(_) | GroupTest::Name(_) | GroupTest::NameOrId(..) => false,
            })
    }
}

/// Checks whether one of the tests accepts this path.
pub(super) fn accept_path(tests: &[ExeTest], path: &[u8]) -> bool {
    tests.iter().any(|test| match test {
        ExeTest::Path(own) => own == path,
        ExeTest::PathGlob(glob) => glob.matches(path),
        ExeTest::Base(own) => own == base_name(path),
        ExeTest::BaseGlob(glob) => glob.matches(base_name(path)),
    })
}

impl Rule {
    /// Checks whether the executable matches. A path of another mount namespace counts only with
    /// `exe_anywhere`.
    pub(super) fn exe_matches(&self, facts: &Facts<'_>) -> bool {
        facts.exe.is_some_and(|exe| {
            (exe.on_host || self.exe_anywhere) && matches_any(&self.when, exe, facts)
        })
    }

    /// Checks whether the rule excludes the executable. As in `when`, a path of another mount
    /// namespace counts only with `exe_anywhere`: otherwise any user could escape a rule by
    /// mounting a file over an excluded path. An executable that was not read is not excluded.
    pub(super) fn exe_excluded(&self, facts: &Facts<'_>) -> bool {
        facts.exe.is_some_and(|exe| {
            (exe.on_host || self.exe_anywhere) && matches_any(&self.not, exe, facts)
        })
    }
}

/// Checks whether an executable test accepts the path of the executable or of the invoked script or
/// link.
pub(super) fn matches_any(criteria: &Criteria, exe: ExeFacts<'_>, facts: &Facts<'_>) -> bool {
    accept_path(&criteria.exes, exe.path)
        || facts.invoked.is_some_and(|path| accept_path(&criteria.exes, path))
}
