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
    /// No move: a match is counted, and the search continues as if the rule were absent. Contains the
    /// action that the rule would have, which is no [`Action::Observe`].
    Observe(Box<Action>),
}

/// The rules that a search includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All rules.
    All,
    /// Those that decide: not those that only observe.
    Acting,
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

    /// Returns the action of the same rule if it observes.
    #[must_use]
    pub fn observed(self) -> Self {
        match self {
            Self::Observe(_) => self,
            Self::Ignore(_) | Self::Place(_) | Self::Inapplicable(_) => {
                Self::Observe(Box::new(self))
            }
        }
    }

    /// Checks whether the search continues after a match.
    pub fn observes(&self) -> bool {
        matches!(self, Self::Observe(_))
    }

    /// Returns the action that the rule has, or would have if it did not observe.
    pub fn intended(&self) -> &Self {
        match self {
            Self::Observe(action) => action,
            Self::Ignore(_) | Self::Place(_) | Self::Inapplicable(_) => self,
        }
    }

    /// Returns the action of [`Self::intended`], to adapt it to the host.
    pub fn intended_mut(&mut self) -> &mut Self {
        match self {
            Self::Observe(action) => action,
            Self::Ignore(_) | Self::Place(_) | Self::Inapplicable(_) => self,
        }
    }

    /// Checks whether a rule with the action may not decide about a process that matches its criteria: the
    /// action depends on the current cgroup or scheduling of the process, or the rule observes.
    pub(super) fn is_conditional(&self) -> bool {
        match self {
            Self::Ignore(when) => !when.is_always(),
            Self::Place(_) | Self::Inapplicable(_) => false,
            Self::Observe(_) => true,
        }
    }

    /// Returns the cgroups to which processes are moved; empty for a rule that leaves them where
    /// they are.
    pub fn targets(&self) -> &[Target] {
        match self {
            Self::Place(targets) => targets,
            Self::Ignore(_) | Self::Inapplicable(_) | Self::Observe(_) => &[],
        }
    }

    /// Returns the destinations as written, also of an inapplicable rule, but not of one that observes.
    pub fn written_targets(&self) -> &[Target] {
        match self {
            Self::Place(targets) => targets,
            Self::Inapplicable(it) => &it.targets,
            Self::Ignore(_) | Self::Observe(_) => &[],
        }
    }

    /// Returns the reason for which the rule cannot be applied, or could not be if it did not observe.
    /// `None` if it can be.
    pub fn inapplicable(&self) -> Option<&InapplicableReason> {
        match self.intended() {
            Self::Inapplicable(it) => Some(&it.reason),
            Self::Ignore(_) | Self::Place(_) | Self::Observe(_) => None,
        }
    }

    /// Replaces a placing action by [`Action::Inapplicable`] with this reason. A rule that observes
    /// continues to do so.
    pub fn forbid(&mut self, reason: InapplicableReason) {
        let intended = self.intended_mut();
        if let Self::Place(targets) = intended {
            let targets = std::mem::take(targets);
            *intended = Self::Inapplicable(Box::new(Inapplicable { targets, reason }));
        }
    }
}
