//! The one form of a rule between every file syntax and the engine. Pure.
//!
//! `config` parses files into [`Rule`]s, [`names`] replaces user and group names by numbers,
//! [`matcher`] compiles them into an index, [`destination`] says which cgroup a rule means. For people
//! [`explain`] says why a rule holds or does not, [`lint`] what is odd about several together.

mod component;
pub mod cover;
mod criteria;
pub mod destination;
mod exe;
pub mod explain;
pub mod glob;
mod groups;
pub mod ignore;
mod index;
pub mod lint;
pub mod matcher;
pub mod names;
mod span;
mod stretches;
mod trie;
pub mod width;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::event::{Gid, Uid};
use destination::{Destination, Field};
use glob::Glob;
use ignore::IgnoreWhen;

/// Where a rule was written. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Absolute path of the file.
    pub file: Arc<Path>,
    /// Line of the rule's first key.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Criteria and what follows when they all hold.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Given by its author, else `file:line`.
    pub name: Arc<str>,
    /// Where it was written.
    pub origin: Origin,
    /// Every criterion given must hold.
    pub when: Criteria,
    /// No criterion given may hold.
    pub not: Negated,
    /// Compare the executable's path alone, whatever mount namespace it was seen in.
    pub exe_anywhere: bool,
    /// Whether processes are taken out of units of systemd.
    pub leave_units: LeaveUnits,
    /// Whether processes of containers that root created are moved.
    pub moves_containers: bool,
    /// What to do with the process.
    pub action: Action,
}

impl Rule {
    /// The name that its author gave it; `None` for one that is called after its file and line.
    pub fn given_name(&self) -> Option<&str> {
        let Origin { file, line } = &self.origin;
        let base = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
        let is_default = self.name.strip_prefix(&*base).is_some_and(|rest| {
            rest.strip_prefix(':').is_some_and(|rest| *rest == *line.to_string())
        });
        (!is_default).then_some(&*self.name)
    }

    /// Whether a destination of the rule has one of these fields: the edge looks names up only for
    /// rules that render them.
    pub fn renders(&self, fields: &[Field]) -> bool {
        let mut rendered =
            self.action.targets().iter().flat_map(|target| target.destination.fields());
        rendered.any(|field| fields.contains(&field))
    }
}

/// Criteria by kind. An empty list means that the kind was not given; the values of one list are
/// alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Criteria {
    /// The effective user.
    pub users: Vec<UserTest>,
    /// The effective group, or a group that lists the user.
    pub groups: Vec<GroupTest>,
    /// The program.
    pub exes: Vec<ExeTest>,
}

/// Criteria of which none may hold. Most rules have none, and then it is one word.
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
            Criteria { users: Vec::new(), groups: Vec::new(), exes: Vec::new() };
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl Criteria {
    /// Whether no kind was given at all.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty() && self.exes.is_empty()
    }
}

/// A test of the effective user id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserTest {
    /// A name still to be resolved; never left after [`names::resolve`].
    Name(String),
    /// A pattern for the user's name; a user without a name is matched by `*` alone.
    Glob(Glob),
    /// From the first id to the last, both included.
    Ids(Uid, Uid),
}

/// A test of the effective group id and of the groups that list the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupTest {
    /// A name still to be resolved; never left after [`names::resolve`].
    Name(String),
    /// A pattern still to be resolved; never left after [`names::resolve`].
    Glob(Glob),
    /// From the first id to the last, both included.
    Ids(Gid, Gid),
}

/// A test of the executable's path, or of the script's or symbolic link's that was invoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExeTest {
    /// This absolute path.
    Path(Vec<u8>),
    /// An absolute path by pattern. `*` and `?` stop at `/`, `**` does not.
    PathGlob(Glob),
    /// This base name.
    Base(Vec<u8>),
    /// A base name by pattern.
    BaseGlob(Glob),
}

/// Whether a rule takes a process out of a unit of systemd that loses it: see [`crate::cgroup::unit`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaveUnits {
    /// No, and it is said.
    #[default]
    No,
    /// Yes, as its author wants.
    Yes,
    /// Yes, as cgrulesengd, which knows nothing of units; it is said.
    AsTheOriginal,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leave the process where it is, under these circumstances; under others the rule does not hold.
    Ignore(IgnoreWhen),
    /// Put it into each of these groups, in order. Never none.
    Place(Vec<Target>),
    /// The rule cannot be applied: leave the process where it is. The rule still ends the search, or a
    /// wider one behind it would get processes that its author kept from that rule.
    Inapplicable(Box<Inapplicable>),
}

/// The destinations of a rule that cannot be applied, and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inapplicable {
    /// The destinations as they are written.
    pub targets: Vec<Target>,
    /// The reason.
    pub reason: InapplicableReason,
}

/// A reason why a rule cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InapplicableReason {
    /// The destination of a legacy rule leads out of the hierarchy.
    OutsideHierarchy,
    /// A legacy rule names a controller twice, or `*` among others.
    RepeatedController,
    /// The destination is the delegated cgroup itself, whose controllers are enabled for its children.
    DelegatedRoot,
    /// systemd owns the cgroup tree and has delegated no part of it to us.
    NoDelegation,
    /// No hierarchy has this controller, and the rule names no hierarchy besides.
    NoController(String),
    /// No hierarchy has a controller that a rule without `controllers` means.
    NoHierarchy,
}

impl fmt::Display for InapplicableReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutsideHierarchy => "its destination leads out of the hierarchy",
            Self::RepeatedController => "it names a controller twice",
            Self::DelegatedRoot => {
                "its destination is the root of all groups, which may hold no process on this host"
            }
            Self::NoDelegation => "systemd has delegated no cgroup to cgruled",
            Self::NoController(name) => {
                let name = name.escape_debug();
                return write!(f, "no cgroup hierarchy has the controller \"{name}\"");
            }
            Self::NoHierarchy => {
                "no cgroup hierarchy has the controllers cpu, memory, blkio or pids"
            }
        })
    }
}

impl Action {
    /// Leave the process where it is, always.
    pub fn ignore() -> Self {
        Self::Ignore(IgnoreWhen::default())
    }

    /// Whether what a process is decides less than where it is now, so that a rule that holds may not
    /// apply: see [`matcher::Matcher::decide_after`].
    pub fn is_conditional(&self) -> bool {
        match self {
            Self::Ignore(when) => !when.is_always(),
            Self::Place(_) | Self::Inapplicable(_) => false,
        }
    }

    /// The groups into which processes are moved; empty for a rule that leaves them where they are.
    pub fn targets(&self) -> &[Target] {
        match self {
            Self::Place(targets) => targets,
            Self::Ignore(_) | Self::Inapplicable(_) => &[],
        }
    }

    /// The destinations as they are written, also of a rule that cannot be applied.
    pub fn written_targets(&self) -> &[Target] {
        match self {
            Self::Place(targets) => targets,
            Self::Inapplicable(it) => &it.targets,
            Self::Ignore(_) => &[],
        }
    }

    /// The reason why the rule cannot be applied; `None` for one that can.
    pub fn inapplicable(&self) -> Option<&InapplicableReason> {
        match self {
            Self::Inapplicable(it) => Some(&it.reason),
            Self::Ignore(_) | Self::Place(_) => None,
        }
    }

    /// Makes a rule that places processes one that cannot be applied for this reason.
    pub fn forbid(&mut self, reason: InapplicableReason) {
        if let Self::Place(targets) = self {
            let targets = std::mem::take(targets);
            *self = Self::Inapplicable(Box::new(Inapplicable { targets, reason }));
        }
    }
}

/// A cgroup in one or several hierarchies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The path below `below`.
    pub destination: Destination,
    /// The controllers whose hierarchies are joined, as the kernel names them: below
    /// [`Below::Root`] besides the v2 one; below [`Below::Top`] no others, and `*` alone for all.
    pub controllers: Vec<String>,
    /// Where the path begins.
    pub below: Below,
    /// Whether missing groups are made. If not, the process stays where it is when one is missing.
    pub creates: bool,
}

/// Where the path of a [`Target`] begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Below {
    /// At the managed root of the configuration.
    Root,
    /// At the top of each hierarchy, or where `legacy_root` says, as legacy rules do.
    Top,
}

/// What is true of a process now, as far as rules ask.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Effective user of the thread-group leader.
    pub uid: Uid,
    /// Effective group of the thread-group leader.
    pub gid: Gid,
    /// The executable, when it was read.
    pub exe: Option<Exe<'a>>,
    /// Absolute path of the script or symbolic link that was invoked, when it is known to be a
    /// script or to resolve to the executable.
    pub invoked: Option<&'a [u8]>,
}

/// The executable of a process.
#[derive(Clone, Copy, Debug)]
pub struct Exe<'a> {
    /// Its path, without the kernel's ` (deleted)`.
    pub path: &'a [u8],
    /// Whether the path names this file on the host too: the process shares our mount namespace,
    /// or device and inode are equal.
    pub on_host: bool,
}

/// The position of a rule in the effective order: lower wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleId(pub u32);

/// The last component of a path.
pub fn base_name(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => &path[slash + 1..],
        None => path,
    }
}
