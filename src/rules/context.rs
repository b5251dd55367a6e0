//! Criteria on the context of a process: the systemd unit, the cgroup and the container in which it is, the programs
//! of its ancestors (see [`super::ancestry`]), the user who logged in, and the arguments of its program. Unlike the
//! other criteria they need data that is read
//! only for a rule that can still win, so the index leaves them to its caller. It must not read
//! anything.

use super::container::{Container, ContainerNames, ContainerTest, accept};
pub use super::text_test::TextTest;
use super::{ExeTest, Rule, UserTest};
use crate::event::Uid;

/// The suffixes of units with processes in their cgroups. A slice contains none itself.
pub const UNIT_ENDINGS: [&str; 5] = [".service", ".scope", ".mount", ".socket", ".swap"];

/// Criteria on the context of a process. An empty list means that the kind was not given; the values
/// of one list are alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContextCriteria {
    /// Tests of the name of the systemd unit.
    pub units: Vec<TextTest>,
    /// Tests of the path of the cgroup.
    pub from: Vec<TextTest>,
    /// Tests of the programs of ancestors.
    pub below: Vec<ExeTest>,
    /// Set if the programs of ancestors with any real UID count, and not only those of root.
    pub below_any_user: bool,
    /// Tests of the container.
    pub containers: Vec<ContainerTest>,
    /// Tests of the user who logged in.
    pub logins: Vec<UserTest>,
    /// Tests of the arguments, all of which must match; each is a list of alternatives.
    pub arguments: Vec<ArgumentTest>,
}

/// A test of the arguments of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgumentTest {
    /// The position of the argument; 0 is the name of the program. Without a position any argument
    /// after that name counts.
    pub position: Option<u16>,
    /// Alternatives for the argument.
    pub tests: Vec<TextTest>,
}

impl ArgumentTest {
    /// Checks whether the test accepts these arguments, the text of `/proc/PID/cmdline`: each ends with
    /// a NUL byte.
    pub fn accepts(&self, arguments: &[u8]) -> bool {
        let text = arguments.strip_suffix(b"\0").unwrap_or(arguments);
        if text.is_empty() {
            return false;
        }
        let mut all = text.split(|&byte| byte == 0);
        let is_accepted = |argument: &[u8]| self.tests.iter().any(|test| test.accepts(argument));
        match self.position {
            Some(position) => all.nth(usize::from(position)).is_some_and(is_accepted),
            None => all.skip(1).any(is_accepted),
        }
    }
}

/// Where a process is, in the hierarchy in which systemd keeps its units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'p> {
    /// The name of the unit of the system manager, if it is in one.
    pub unit: Option<&'p str>,
    /// The path of the cgroup.
    pub cgroup: &'p [u8],
}

/// The user who logged in, which sudo(8) and su(1) keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login<'n> {
    /// The login UID of the kernel's audit subsystem.
    pub uid: Uid,
    /// The name of the user, if it has one.
    pub name: Option<&'n str>,
}

/// The first criterion on its context that a process does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContextMismatch {
    /// The process is in none of the units.
    Unit,
    /// The process is in none of the cgroups.
    From,
    /// No ancestor runs one of the programs.
    Below,
    /// The process is in none of the containers.
    Container,
    /// The user who logged in is none of the users.
    Login,
    /// The arguments do not match.
    Argument,
    /// The arguments cannot be read.
    UnknownArguments,
    /// The rule excludes the unit.
    NotUnit,
    /// The rule excludes the cgroup.
    NotFrom,
    /// The rule excludes a program that an ancestor runs.
    NotBelow,
    /// The rule excludes the container.
    NotContainer,
    /// The rule excludes the user who logged in.
    NotLogin,
    /// The rule excludes an argument.
    NotArgument,
    /// It is not known where the process comes from: it is in the cgroup of another rule with criteria on
    /// its place, or in none.
    Place,
}

impl Rule {
    /// Checks whether a match depends on the unit, cgroup or container in which a process is.
    pub fn tests_place(&self) -> bool {
        let mut both = self.context().into_iter().flatten();
        both.any(|context| {
            !context.units.is_empty() || !context.from.is_empty() || !context.containers.is_empty()
        })
    }

    /// Checks whether a match depends on the user who logged in.
    pub fn tests_login(&self) -> bool {
        self.context().into_iter().flatten().any(|context| !context.logins.is_empty())
    }

    /// Checks whether a match depends on the name of the user who logged in.
    pub fn needs_login_name(&self) -> bool {
        let mut logins = self.context().into_iter().flatten().flat_map(|context| &context.logins);
        logins.any(UserTest::needs_name)
    }

    /// Returns the first criterion on its unit or cgroup that a process does not meet.
    pub fn place_mismatch(&self, place: &Place<'_>) -> Option<ContextMismatch> {
        let [when, not] = self.context();
        let in_unit = |tests: &[TextTest]| {
            place.unit.is_some_and(|unit| tests.iter().any(|test| test.accepts(unit.as_bytes())))
        };
        let in_cgroup = |tests: &[TextTest]| tests.iter().any(|test| test.accepts(place.cgroup));
        if when.is_some_and(|when| !when.units.is_empty() && !in_unit(&when.units)) {
            Some(ContextMismatch::Unit)
        } else if when.is_some_and(|when| !when.from.is_empty() && !in_cgroup(&when.from)) {
            Some(ContextMismatch::From)
        } else if not.is_some_and(|not| in_unit(&not.units)) {
            Some(ContextMismatch::NotUnit)
        } else {
            not.is_some_and(|not| in_cgroup(&not.from)).then_some(ContextMismatch::NotFrom)
        }
    }

    /// Returns the first criterion on its container that a process does not meet. A process outside of containers
    /// meets no such criterion, and none excludes it.
    ///
    /// # Errors
    /// A name must be found first.
    pub fn container_mismatch<N: ContainerNames>(
        &self,
        container: Option<&Container>,
        names: &mut N,
    ) -> Result<Option<ContextMismatch>, N::Error> {
        let [when, not] = self.context();
        let mut accepts = |tests: &[ContainerTest]| match container {
            Some(container) => accept(tests, container, names),
            None => Ok(false),
        };
        if let Some(when) = when.filter(|when| !when.containers.is_empty()) {
            if !accepts(&when.containers)? {
                return Ok(Some(ContextMismatch::Container));
            }
        }
        let is_excluded = not.map_or(Ok(false), |not| accepts(&not.containers))?;
        Ok(is_excluded.then_some(ContextMismatch::NotContainer))
    }

    /// Returns the first criterion on its login that a process does not meet. A process without a
    /// login user meets no such criterion, and none excludes it.
    pub fn login_mismatch(&self, login: Option<Login<'_>>) -> Option<ContextMismatch> {
        let [when, not] = self.context();
        let accepts = |tests: &[UserTest]| {
            login.is_some_and(|login| tests.iter().any(|test| test.matches(login.uid, login.name)))
        };
        if when.is_some_and(|when| !when.logins.is_empty() && !accepts(&when.logins)) {
            Some(ContextMismatch::Login)
        } else {
            not.is_some_and(|not| accepts(&not.logins)).then_some(ContextMismatch::NotLogin)
        }
    }

    /// Checks whether a match depends on the arguments of the program.
    pub fn tests_arguments(&self) -> bool {
        self.context().into_iter().flatten().any(|context| !context.arguments.is_empty())
    }

    /// Returns the first criterion on its arguments that a process does not meet, for a rule with such a criterion.
    /// Unknown arguments meet none, also not one that excludes arguments: as soon as they are read, it could not be undone.
    pub fn argument_mismatch(&self, arguments: Option<&[u8]>) -> Option<ContextMismatch> {
        let Some(text) = arguments else { return Some(ContextMismatch::UnknownArguments) };
        let [when, not] = self.context();
        let accepts = |test: &ArgumentTest| test.accepts(text);
        if when.is_some_and(|when| !when.arguments.iter().all(accepts)) {
            Some(ContextMismatch::Argument)
        } else {
            let is_excluded = not.is_some_and(|not| not.arguments.iter().any(accepts));
            is_excluded.then_some(ContextMismatch::NotArgument)
        }
    }

    /// Returns what the rule requires and what it excludes.
    pub(super) fn context(&self) -> [Option<&ContextCriteria>; 2] {
        [self.when.context.as_deref(), self.not.context.as_deref()]
    }
}
