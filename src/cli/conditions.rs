//! What the conditions of rules test of a process that a command inspects, living or hypothetical. Must not
//! decide about them: [`crate::placement::conditions`] does.

use std::path::Path;
use std::sync::Arc;

use super::time_limit::patiently;
use crate::cgroup::group_files;
use crate::cgroup::mounts::Hierarchies;
use crate::event::{Pid, Uid};
use crate::kernel::container::{Containment, HostNamespaces};
use crate::kernel::process::ProcFs;
use crate::placement::Missing;
use crate::placement::conditions::ConditionFacts;
use crate::placement::container::ContainerFacts;
use crate::policy::load::{NameService, Subordinates, container_files};
use crate::rules::RuleId;
use crate::rules::ancestry::Ancestor;
use crate::rules::container::ContainerKey;

/// Facts about a process for the conditions of rules.
pub(super) struct InspectedConditions<'a> {
    pub(super) hierarchies: &'a Hierarchies,
    pub(super) names: &'a NameService,
    /// Text of its `/proc/PID/cgroup`, or that of a hypothetical process.
    pub(super) cgroup: &'a [u8],
    /// What its ancestors run.
    pub(super) ancestors: &'a [Ancestor],
    /// Its login UID, if it is set.
    pub(super) login: Option<Uid>,
    /// Its PID; `None` for a hypothetical process.
    pub(super) pid: Option<Pid>,
    pub(super) proc: Option<&'a mut ProcFs>,
    /// Owners of subordinate UIDs.
    pub(super) subordinates: &'a Subordinates,
    /// Name of the container in which a hypothetical process would be.
    pub(super) container: Option<&'a str>,
    /// The text of its `/proc/PID/cmdline`, or that of a hypothetical process.
    pub(super) arguments: Option<&'a [u8]>,
}

impl ConditionFacts for InspectedConditions<'_> {
    fn cgroup(&mut self) -> Option<&[u8]> {
        (!self.cgroup.is_empty()).then_some(self.cgroup)
    }

    fn is_real_time(&mut self) -> bool {
        self.pid.zip(self.proc.as_deref()).is_some_and(|(pid, proc)| proc.is_real_time(pid))
    }

    fn ancestors(&mut self) -> Arc<[Ancestor]> {
        self.ancestors.into()
    }

    fn login(&mut self) -> Option<Uid> {
        self.login
    }

    fn arguments(&mut self) -> Result<Option<&[u8]>, Missing> {
        Ok(self.arguments)
    }

    // Only the daemon knows.
    fn placed_by(&mut self, _: usize, _: &[u8]) -> Option<RuleId> {
        None
    }
}

impl ContainerFacts for InspectedConditions<'_> {
    fn hierarchies(&self) -> &Hierarchies {
        self.hierarchies
    }

    fn sole_owner(&self, hierarchy: usize, path: &[u8]) -> Option<Uid> {
        // Root creates the cgroups of a hypothetical container.
        match self.container {
            Some(_) => Some(Uid(0)),
            None => sole_owner(self.hierarchies, hierarchy, path),
        }
    }

    fn containment(&mut self) -> Result<Containment, Missing> {
        let living = self.pid.zip(self.proc.as_deref_mut());
        Ok(living.map_or(Containment::Host, |(pid, proc)| containment(pid, proc)))
    }

    fn is_in_namespace_of_root(&mut self) -> bool {
        let living = self.pid.zip(self.proc.as_deref_mut());
        living.is_some_and(|(pid, proc)| proc.is_in_namespace_of_root(pid))
    }

    fn accountable(&self, uid: Uid) -> Uid {
        self.subordinates.account_of(uid).unwrap_or(uid)
    }

    fn user_name(&mut self, uid: Uid) -> Result<Option<String>, Missing> {
        let found = self.names.identify(uid);
        Ok(found.ok().and_then(|identity| identity.name))
    }

    fn container_name(&mut self, key: ContainerKey) -> Result<Option<String>, Missing> {
        Ok(self.container.map(str::to_owned).or_else(|| container_name(key)))
    }
}

/// Returns the user who owns a cgroup. `None` if others can move processes into it too, or if it does not exist.
pub(super) fn sole_owner(hierarchies: &Hierarchies, hierarchy: usize, path: &[u8]) -> Option<Uid> {
    let directory = hierarchies.get(hierarchy)?.directory(path)?;
    let owner = group_files::owner(&directory)?;
    let is_shared = owner.0 == 0 && group_files::is_writable_by_users(&directory);
    (!is_shared).then_some(owner)
}

/// Determines whether a living process is in a container, by its namespaces.
pub(super) fn containment(pid: Pid, proc: &mut ProcFs) -> Containment {
    let by_pidfd = proc
        .open_process(pid)
        .and_then(|handle| HostNamespaces::read(Path::new("/proc")).containment_of(&handle));
    let by_proc = || {
        let directory = format!("/proc/{pid}");
        let host = HostNamespaces::read(Path::new("/proc"));
        patiently(move || Some(host.containment_by_proc(Path::new(&directory))))
    };
    by_pidfd.or_else(by_proc).unwrap_or(Containment::Unknown)
}

/// Returns the name of a container, as far as the user who asks may read it.
pub(super) fn container_name(key: ContainerKey) -> Option<String> {
    container_files::name(Path::new("/"), key).ok().flatten()
}
