//! Actions of rules: what happens to a process that matches. It must not move anything.

use std::fmt;

use super::Target;
use super::ignore::IgnoreWhen;

/// The action of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// No move under these conditions; otherwise the rule does not match.
    Ignore(IgnoreWhen),
    /// A move to each of these cgroups, in order. Never empty.
    Place(Vec<Target>),
    /// No move, because the rule cannot be applied. The rule still ends the search: otherwise a
    /// broader rule after it would match processes that its author excluded.
    Inapplicable(Box<Inapplicable>),
}

/// The destinations of an inapplicable rule and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inapplicable {
    /// The destinations as written.
    pub targets: Vec<Target>,
    /// The reason shown to the user.
    pub reason: InapplicableReason,
}

/// A reason that makes a rule inapplicable on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InapplicableReason {
    /// The destination of a legacy rule leaves the hierarchy.
    OutsideHierarchy,
    /// A legacy rule lists a controller twice, or `*` together with others.
    RepeatedController,
    /// The destination is the delegated cgroup itself, and its controllers are enabled in
    /// `cgroup.subtree_control`.
    DelegatedRoot,
    /// systemd owns the cgroup tree and has delegated no subtree to the daemon.
    NoDelegation,
    /// No hierarchy has this controller, and the rule names no other hierarchy.
    NoController(String),
    /// No hierarchy has any of the default controllers of a rule without `controllers`.
    NoHierarchy,
}

impl fmt::Display for InapplicableReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutsideHierarchy => "its destination leads out of the hierarchy",
            Self::RepeatedController => "it names a controller twice",
            Self::DelegatedRoot => {
                "its destination is the managed root, which cannot contain processes on this host"
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
    /// Returns the action that always leaves the process in its cgroup.
    pub fn ignore() -> Self {
        Self::Ignore(IgnoreWhen::default())
    }

    /// Checks whether the action depends on the current cgroup or scheduling of the process.
    pub(super) fn is_conditional(&self) -> bool {
        match self {
            Self::Ignore(when) => !when.is_always(),
            Self::Place(_) | Self::Inapplicable(_) => false,
        }
    }

    /// Returns the cgroups to which processes are moved; empty for a rule that leaves them where
    /// they are.
    pub fn targets(&self) -> &[Target] {
        match self {
            Self::Place(targets) => targets,
            Self::Ignore(_) | Self::Inapplicable(_) => &[],
        }
    }

    /// Returns the destinations as written, also of an inapplicable rule.
    pub fn written_targets(&self) -> &[Target] {
        match self {
            Self::Place(targets) => targets,
            Self::Inapplicable(it) => &it.targets,
            Self::Ignore(_) => &[],
        }
    }

    /// Returns the reason for which the rule cannot be applied, `None` if it can be.
    pub fn inapplicable(&self) -> Option<&InapplicableReason> {
        match self {
            Self::Inapplicable(it) => Some(&it.reason),
            Self::Ignore(_) | Self::Place(_) => None,
        }
    }

    /// Replaces a placing action by [`Action::Inapplicable`] with this reason.
    pub fn forbid(&mut self, reason: InapplicableReason) {
        if let Self::Place(targets) = self {
            let targets = std::mem::take(targets);
            *self = Self::Inapplicable(Box::new(Inapplicable { targets, reason }));
        }
    }
}
