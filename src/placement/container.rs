//! The container of a process: by the path of its cgroup, which names it, else by its namespaces. Must not trust names
//! of cgroups that a user can have created.

use super::Missing;
use crate::cgroup::container::PathContainer;
use crate::cgroup::mounts::{Hierarchies, Version};
use crate::cgroup::unit::may_hold_container;
use crate::event::Uid;
use crate::kernel::container::Containment;
use crate::policy::context_rules::ContextRules;
use crate::rules::container::{Container, ContainerKey, ContainerNames, ContainerTest, accept};

/// Facts about a process and its cgroups. Each is read only if the container of the process depends on it.
pub trait ContainerFacts {
    /// Returns the mounted hierarchies.
    fn hierarchies(&self) -> &Hierarchies;

    /// Returns the user who owns a cgroup. `None` if others can move processes into it too, or if it does not exist.
    fn sole_owner(&self, hierarchy: usize, path: &[u8]) -> Option<Uid>;

    /// Determines whether the process is in a container, by its namespaces.
    ///
    /// # Errors
    /// They must be read first.
    fn containment(&mut self) -> Result<Containment, Missing>;

    /// Checks whether the process is in a PID namespace below the initial one but in the initial user namespace.
    fn is_in_namespace_of_root(&mut self) -> bool;

    /// Returns the user accountable for processes of `uid`.
    fn accountable(&self, uid: Uid) -> Uid;

    /// Returns the name of a user.
    ///
    /// # Errors
    /// The user must be looked up first.
    fn user_name(&mut self, uid: Uid) -> Result<Option<String>, Missing>;

    /// Returns the name of a container from the files of its engine.
    ///
    /// # Errors
    /// They must be read first.
    fn container_name(&mut self, key: ContainerKey) -> Result<Option<String>, Missing>;
}

/// Cgroup of a process in the hierarchy that shows its container.
#[derive(Clone, Copy, Debug)]
pub struct ContainerPlace<'p> {
    /// Index of the hierarchy.
    pub hierarchy: usize,
    /// Path in `/proc/PID/cgroup`.
    pub path: &'p [u8],
    /// Length of the part of it above the mounted cgroup.
    pub top: usize,
}

impl ContainerPlace<'_> {
    fn below(&self) -> &[u8] {
        self.path.get(self.top..).unwrap_or_default()
    }

    /// Returns the user who can have created the cgroup whose path has this length below the top, and thus chosen
    /// its name: the first one other than root who owns a cgroup above it. `None` if several users can have.
    fn creator(&self, end: usize, facts: &impl ContainerFacts) -> Option<Uid> {
        let version = facts.hierarchies().get(self.hierarchy)?.version;
        let below = self.below();
        let above = (1..end).filter(|&at| below.get(at) == Some(&b'/'));
        // On v2, nobody moves a process into a cgroup without write access to those above it. The cgroup itself
        // can belong to the container: LXC gives it to the root user of its user namespace.
        let own = (version == Version::V1).then_some(end);
        for end in above.chain(own) {
            let owner = facts.sole_owner(self.hierarchy, &self.path[..self.top + end])?;
            if owner.0 != 0 {
                return Some(owner);
            }
        }
        Some(Uid(0))
    }
}

/// Returns the container that the path of a cgroup names.
pub fn by_path(
    rules: &ContextRules,
    place: ContainerPlace<'_>,
    facts: &impl ContainerFacts,
) -> Option<Container> {
    if rules.are_above(place.below()) {
        return None;
    }
    let found = PathContainer::of(place.below())?;
    let owner = match found.owner {
        Some(owner) => owner,
        None => facts.accountable(place.creator(found.end, facts)?),
    };
    let name = found.name.map(std::borrow::Cow::into_owned);
    Some(Container { engine: Some(found.engine), owner, name, id: found.id })
}

/// Returns the container that the namespaces of a process show, without its name.
///
/// # Errors
/// The namespaces must be read first.
pub fn by_namespaces(
    rules: &ContextRules,
    place: ContainerPlace<'_>,
    facts: &mut impl ContainerFacts,
) -> Result<Option<Container>, Missing> {
    let owner = match facts.containment()? {
        Containment::Host => None,
        Containment::OfUser(owner) => Some(facts.accountable(owner)),
        Containment::Container => creator_of_box(rules, place, facts),
        // As in the decision about a move: a user can make the namespaces unreadable.
        Containment::Unknown if facts.is_in_namespace_of_root() => {
            creator_of_box(rules, place, facts)
        }
        Containment::Unknown => None,
    };
    Ok(owner.map(|owner| Container { engine: None, owner, name: None, id: None }))
}

/// Returns the user who created a container with namespaces that belong to root. A set-user-ID program such as bwrap
/// creates them for any user, so its cgroup must be one that a user's processes cannot enter.
fn creator_of_box(
    rules: &ContextRules,
    place: ContainerPlace<'_>,
    facts: &impl ContainerFacts,
) -> Option<Uid> {
    let below = place.below();
    let text = String::from_utf8_lossy(below);
    let may_hold = may_hold_container(&text, &rules.roots()) && !rules.are_above(below);
    let above = place.creator(below.len(), facts).filter(|_| may_hold)?;
    if above.0 != 0 {
        return Some(facts.accountable(above));
    }
    let own = facts.sole_owner(place.hierarchy, place.path)?;
    Some(facts.accountable(own))
}

/// Checks whether one of the tests accepts the container. Reads no name that the result does not depend on.
///
/// # Errors
/// A name must be found first.
pub fn accepts(
    tests: &[ContainerTest],
    rules: &ContextRules,
    place: ContainerPlace<'_>,
    facts: &mut impl ContainerFacts,
) -> Result<bool, Missing> {
    let mut container = by_path(rules, place, facts);
    if container.is_none() && tests.iter().any(|test| test.engine.is_none()) {
        container = by_namespaces(rules, place, facts)?;
    }
    match container {
        Some(container) => accept(tests, &container, &mut FactNames(facts)),
        None => Ok(false),
    }
}

/// Names that facts about a process supply.
pub(super) struct FactNames<'f, F>(pub(super) &'f mut F);

impl<F: ContainerFacts> ContainerNames for FactNames<'_, F> {
    type Error = Missing;

    fn owner_name(&mut self, owner: Uid) -> Result<Option<String>, Missing> {
        self.0.user_name(owner)
    }

    fn container_name(&mut self, key: ContainerKey) -> Result<Option<String>, Missing> {
        self.0.container_name(key)
    }
}
