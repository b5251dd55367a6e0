//! The configuration of a host as it would be active, for the commands that report about it.

use std::cell::OnceCell;
use std::sync::Arc;

use crate::cgroup::config::GroupConfigs;
use crate::cgroup::host::ManagedRoots;
use crate::cgroup::mounts::{Hierarchies, HierarchySet};
use crate::policy::Policy;
use crate::policy::load::{Loaded, NameService, Subordinates};
use crate::rules::Target;
use crate::rules::matcher::Matcher;

/// Loaded configuration, adapted to this host, that is not active.
#[derive(Debug)]
pub struct LoadedConfig {
    /// Rules as they would be active, and all diagnostics.
    pub loaded: Loaded,
    /// Settings of cgroups and units.
    pub(super) configs: Arc<GroupConfigs>,
    /// Mounted hierarchies of this host.
    pub hierarchies: Arc<Hierarchies>,
    /// Roots of the cgroups of rules.
    pub roots: ManagedRoots,
    /// Name service that resolves users and groups.
    pub names: NameService,
    /// Owners of subordinate UIDs, read when they are needed first.
    pub(super) subordinates: OnceCell<Subordinates>,
}

impl LoadedConfig {
    /// Builds the policy that would be active, without users.
    pub fn policy(&self) -> Policy {
        let matcher = Arc::new(Matcher::compile(Arc::clone(&self.loaded.rules)));
        let mut policy = Policy::new(0, matcher, &self.hierarchies, &self.roots, [], []);
        policy.give(Arc::clone(&self.configs));
        policy.subordinates = self.subordinates().clone();
        policy
    }

    /// Returns the owners of subordinate UIDs.
    pub fn subordinates(&self) -> &Subordinates {
        self.subordinates.get_or_init(|| self.names.subordinates())
    }

    /// Returns the hierarchies in which the daemon creates the cgroup of a target if it is missing.
    pub fn creates(&self, target: &Target) -> HierarchySet {
        match target.creates {
            true => self.hierarchies.span_of(target).0,
            false => self.configs.of(target).map(|config| config.creates).unwrap_or_default(),
        }
    }
}
