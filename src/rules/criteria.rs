//! What a single test says of a process. Pure.

use super::{Criteria, Exe, ExeTest, Facts, GroupTest, Rule, UserTest, base_name};
use crate::event::{Gid, Uid};

/// The user of a process, as far as tests ask.
#[derive(Clone, Copy, Debug)]
pub(super) struct Person<'a> {
    pub(super) uid: Uid,
    pub(super) name: Option<&'a str>,
    /// The groups that list the user. Sorted.
    pub(super) listed: &'a [Gid],
}

impl Person<'_> {
    fn is_listed(&self, first: Gid, last: Gid) -> bool {
        let from = self.listed.partition_point(|&gid| gid < first);
        self.listed.get(from).is_some_and(|&gid| gid <= last)
    }
}

impl UserTest {
    /// Whether the user with this ID and name is meant. A user without a name is matched by `*` alone.
    pub fn matches(&self, uid: Uid, name: Option<&str>) -> bool {
        match (self, name) {
            (Self::Ids(first, last), _) => (*first..=*last).contains(&uid),
            (Self::Glob(glob), Some(name)) => glob.matches(name.as_bytes()),
            (Self::Glob(glob), None) => glob.is_any(),
            (Self::Name(_), _) => false,
        }
    }

    /// Whether the answer depends on the name of the user.
    pub fn needs_name(&self) -> bool {
        match self {
            Self::Glob(glob) => !glob.is_any(),
            Self::Ids(..) | Self::Name(_) => false,
        }
    }
}

impl Criteria {
    /// Whether one of the users is meant.
    pub(super) fn users_hold(&self, person: &Person<'_>) -> bool {
        self.users.iter().any(|test| test.matches(person.uid, person.name))
    }

    /// Whether one of the groups lists the user.
    pub(super) fn groups_list(&self, person: &Person<'_>) -> bool {
        self.groups.iter().any(|test| match test {
            GroupTest::Ids(first, last) => person.is_listed(*first, *last),
            GroupTest::Glob(_) | GroupTest::Name(_) => false,
        })
    }

    /// Whether one of the groups is the process's or lists its user.
    pub(super) fn groups_hold(&self, gid: Gid, person: &Person<'_>) -> bool {
        self.groups_list(person)
            || self.groups.iter().any(|test| match test {
                GroupTest::Ids(first, last) => (*first..=*last).contains(&gid),
                GroupTest::Glob(_) | GroupTest::Name(_) => false,
            })
    }

    /// Whether one of the programs is meant by this path.
    fn exes_hold(&self, path: &[u8]) -> bool {
        self.exes.iter().any(|test| match test {
            ExeTest::Path(own) => own == path,
            ExeTest::PathGlob(glob) => glob.matches(path),
            ExeTest::Base(own) => own == base_name(path),
            ExeTest::BaseGlob(glob) => glob.matches(base_name(path)),
        })
    }
}

impl Rule {
    /// Whether the rule's programs are meant. A path that another mount namespace made up counts
    /// only when the rule says so.
    pub(super) fn exe_holds(&self, facts: &Facts<'_>) -> bool {
        facts.exe.is_some_and(|exe| {
            (exe.on_host || self.exe_anywhere) && holds_of_any(&self.when, exe, facts)
        })
    }

    /// Whether a program that the rule excludes is meant. As in `when`, the path of a foreign mount
    /// namespace does not count unless the rule says so: else anybody could leave a rule by mounting
    /// a file of his own over an excluded path. What is not read is not excluded.
    pub(super) fn exe_excluded(&self, facts: &Facts<'_>) -> bool {
        let counts = |exe: &Exe<'_>| exe.on_host || self.exe_anywhere;
        facts.exe.filter(counts).is_some_and(|exe| holds_of_any(&self.not, exe, facts))
    }
}

/// Whether a program of `criteria` is meant by the path of the executable or of what was invoked.
pub(super) fn holds_of_any(criteria: &Criteria, exe: Exe<'_>, facts: &Facts<'_>) -> bool {
    criteria.exes_hold(exe.path) || facts.invoked.is_some_and(|path| criteria.exes_hold(path))
}
