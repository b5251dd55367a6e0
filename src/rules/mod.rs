//! The common representation of rules, shared by every file syntax and the engine. It must not read
//! files, use a clock or log.
//!
//! `config` parses files into [`Rule`]s, [`names`] replaces user and group names by numeric IDs,
//! [`matcher`] compiles rules into an index and [`destination`] renders the cgroup path. For users,
//! [`explain`] reports why a rule matches or not and [`lint`] reports rules that are wrong only in
//! combination.

mod action;
pub mod ancestry;
mod component;
pub mod container;
pub mod context;
mod criteria;
pub mod destination;
mod exe;
pub mod explain;
mod gid_intervals;
pub mod glob;
mod groups;
pub mod human;
pub mod ignore;
mod index;
pub mod lint;
mod listed;
pub mod matcher;
pub mod names;
pub mod overbroad;
mod pool_range;
pub mod subsumption;
mod text_test;
mod trie;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::event::{Gid, Uid};
pub use action::{Action, Inapplicable, InapplicableReason, Which};
use context::{ContextCriteria, TextTest};
use destination::{Destination, Specifier};
use glob::Glob;
use human::HumanUids;

/// The position of a rule in its file. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The absolute path of the file.
    pub file: Arc<Path>,
    /// The line of the first key of the rule.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A rule: criteria and the action for processes that match all of them.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The name given in the file, otherwise `file:line`.
    pub name: Arc<str>,
    /// The file and line of the rule.
    pub origin: Origin,
    /// The criteria that must all match.
    pub when: Criteria,
    /// The criteria of which none may match.
    pub not: Negated,
    /// Whether the path of the executable is compared in any mount namespace, not only the host's.
    pub exe_anywhere: bool,
    /// Whether processes are moved out of systemd units.
    pub leave_units: LeaveUnits,
    /// Whether processes are moved out of containers created by root.
    pub leave_containers: container::LeaveContainers,
    /// Whether the execution of its files waits until the process is in its cgroup: see [`crate::kernel::gate`].
    pub is_gated: bool,
    /// The action for matching processes.
    pub action: Action,
}

impl Rule {
    /// Returns a copy with a name of its own, which a clone would share.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self { name: Arc::from(&*self.name), ..self.clone() }
    }

    /// Checks whether the rule requires or excludes groups.
    pub fn tests_groups(&self) -> bool {
        !self.when.groups.is_empty() || !self.not.groups.is_empty()
    }

    /// Checks whether a rule whose other criteria match may still not decide, because it observes, or
    /// also depends on the context of the process or, with `ignore`, on its cgroup or scheduling: see
    /// [`matcher::Matcher::decide_after`].
    pub fn is_conditional(&self) -> bool {
        self.action.is_conditional() || self.when.context.is_some() || self.not.context.is_some()
    }

    /// Checks whether the rule is one of `cgrules.conf`, with the behaviour of cgrulesengd.
    pub fn is_legacy(&self) -> bool {
        self.leave_units == LeaveUnits::AsTheOriginal
    }

    /// Returns the name given in the file, `None` for a default name (`file:line`).
    pub fn given_name(&self) -> Option<&str> {
        let Origin { file, line } = &self.origin;
        let base = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
        let is_default = self.name.strip_prefix(&*base).is_some_and(|rest| {
            rest.strip_prefix(':').is_some_and(|rest| *rest == *line.to_string())
        });
        (!is_default).then_some(&*self.name)
    }

    /// Checks whether a destination of the rule contains one of these specifiers. Names are looked
    /// up only for rules that render them.
    pub fn renders(&self, fields: &[Specifier]) -> bool {
        let mut rendered =
            self.action.targets().iter().flat_map(|target| target.destination.fields());
        rendered.any(|field| fields.contains(&field))
    }
}

/// Criteria by kind. An empty list means that the kind was not given; the values of one list are
/// alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Criteria {
    /// Tests of the effective user.
    pub users: Vec<UserTest>,
    /// Tests of the effective group and of the groups that list the user.
    pub groups: Vec<GroupTest>,
    /// Tests of the executable.
    pub exes: Vec<ExeTest>,
    /// Tests of where the process is and of who logged in. Most rules have none.
    pub context: Option<Box<ContextCriteria>>,
}

/// Criteria of which none may match. Most rules have none, so an empty set takes only one pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Negated(Option<Box<Criteria>>);

impl From<Criteria> for Negated {
    fn from(criteria: Criteria) -> Self {
        Self((!criteria.is_empty()).then(|| Box::new(criteria)))
    }
}

impl std::ops::Deref for Negated {
    type Target = Criteria;
    fn deref(&self) -> &Criteria {
        static NONE: Criteria =
            Criteria { users: Vec::new(), groups: Vec::new(), exes: Vec::new(), context: None };
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl Criteria {
    /// Checks whether no kind was given at all.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
            && self.groups.is_empty()
            && self.exes.is_empty()
            && self.context.is_none()
    }
}

/// A test of the effective user ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserTest {
    /// A name still to be resolved; never left after [`names::resolve`].
    Name(String),
    /// A name of digits still to be resolved, and the ID that it means if no user has that name;
    /// never left after [`names::resolve`].
    NameOrId(String, Uid),
    /// A pattern for the name of the user. A user without a name matches only `*`.
    Glob(Glob),
    /// All human users.
    Human(HumanUids),
    /// An inclusive range of IDs, first and last.
    Ids(Uid, Uid),
}

/// A test of the effective group ID and of the groups that list the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupTest {
    /// A name still to be resolved; never left after [`names::resolve`].
    Name(String),
    /// A name of digits still to be resolved, and the ID that it means if no group has that name;
    /// never left after [`names::resolve`].
    NameOrId(String, Gid),
    /// A pattern still to be resolved; never left after [`names::resolve`].
    Glob(Glob),
    /// An inclusive range of IDs, first and last.
    Ids(Gid, Gid),
}

/// A test of the path of the executable, or of the script or symbolic link that was invoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExeTest {
    /// An absolute path.
    Path(Vec<u8>),
    /// A pattern for an absolute path. `*` and `?` stop at `/`, `**` does not.
    PathGlob(Glob),
    /// A base name, compared literally.
    Base(Vec<u8>),
    /// A pattern for a base name.
    BaseGlob(Glob),
}

/// Whether a rule moves a process out of the systemd unit that tracks it: see [`crate::cgroup::unit`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LeaveUnits {
    /// Processes stay in their unit, and a warning is logged.
    #[default]
    No,
    /// Processes are moved, because `leave_units` is set.
    Yes,
    /// Processes are moved out of the units that one of these tests accepts, and stay in all others.
    Of(Box<[TextTest]>),
    /// Processes are moved, because cgrulesengd ignores units too; a warning is logged.
    AsTheOriginal,
}

impl LeaveUnits {
    /// Checks whether the rule names this unit as one that processes may leave.
    pub fn allows(&self, unit: &str) -> bool {
        match self {
            Self::Yes => true,
            Self::Of(units) => units.iter().any(|test| test.accepts(unit.as_bytes())),
            Self::No | Self::AsTheOriginal => false,
        }
    }
}

/// A destination cgroup in one or several hierarchies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The path relative to `below`.
    pub destination: Destination,
    /// The controllers that select the v1 hierarchies, in the kernel's names. With [`PathBase::Root`]
    /// they are added to the v2 hierarchy; with [`PathBase::Top`] only theirs are used, and `*` alone
    /// means all.
    pub controllers: Vec<String>,
    /// The base of the path.
    pub below: PathBase,
    /// Whether missing cgroups are created. If not, a process stays in its cgroup when one is
    /// missing.
    pub creates: bool,
}

/// The base of the path of a [`Target`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathBase {
    /// The managed root of the configuration.
    Root,
    /// The root of each hierarchy or the configured `legacy_root`, as in legacy rules.
    Top,
}

/// The current properties of a process that rules test.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The effective user of the thread-group leader.
    pub uid: Uid,
    /// The effective group of the thread-group leader.
    pub gid: Gid,
    /// The executable; `None` if it was not read.
    pub exe: Option<ExeFacts<'a>>,
    /// The absolute path of the invoked script or symbolic link. Present only if it is known to be
    /// a script or to resolve to the executable.
    pub invoked: Option<&'a [u8]>,
}

/// The executable of a process.
#[derive(Clone, Copy, Debug)]
pub struct ExeFacts<'a> {
    /// The path, without the kernel's ` (deleted)` suffix.
    pub path: &'a [u8],
    /// Whether the path names this file on the host too: the process shares the daemon's mount
    /// namespace, or device and inode are equal.
    pub on_host: bool,
}

/// The position of a rule in the effective order; the lowest wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// Returns the last component of a path.
pub fn base_name(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => &path[slash + 1..],
        None => path,
    }
}
