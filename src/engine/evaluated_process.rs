//! Facts about containers for the process of an evaluation: the same for the conditions of rules and for the decision
//! about its move.

use crate::cgroup::mounts::Hierarchies;
use crate::engine::kernel::Kernel;
use crate::event::{Pid, Uid};
use crate::kernel::container::Containment;
use crate::kernel::process::ProcessHandle;
use crate::placement::Missing;
use crate::placement::container::ContainerFacts;
use crate::policy::Policy;
use crate::rules::container::ContainerKey;

/// What these facts are read from.
#[derive(Clone, Copy)]
pub(super) struct ProcessParts<'p, K> {
    pub(super) policy: &'p Policy,
    pub(super) kernel: &'p K,
    pub(super) pid: Pid,
    pub(super) handle: &'p ProcessHandle,
    /// Its relation to containers, if it was read.
    pub(super) containment: Option<Containment>,
}

/// The process of an evaluation.
pub(super) trait EvaluatedProcess {
    /// The access to the machine.
    type Kernel: Kernel;

    fn parts(&self) -> ProcessParts<'_, Self::Kernel>;

    fn kernel_mut(&mut self) -> &mut Self::Kernel;
}

impl<P: EvaluatedProcess> ContainerFacts for P {
    fn hierarchies(&self) -> &Hierarchies {
        self.parts().kernel.hierarchies()
    }

    fn sole_owner(&self, hierarchy: usize, path: &[u8]) -> Option<Uid> {
        let kernel = self.parts().kernel;
        let owner = kernel.group_owner(hierarchy, path)?;
        let is_shared = owner.0 == 0 && kernel.is_group_writable(hierarchy, path);
        (!is_shared).then_some(owner)
    }

    fn containment(&mut self) -> Result<Containment, Missing> {
        let ProcessParts { kernel, handle, containment, .. } = self.parts();
        containment.or_else(|| kernel.containment(handle)).ok_or(Missing::Namespaces)
    }

    fn is_in_namespace_of_root(&mut self) -> bool {
        let pid = self.parts().pid;
        self.kernel_mut().is_in_namespace_of_root(pid)
    }

    fn accountable(&self, uid: Uid) -> Uid {
        self.parts().policy.accountable(uid)
    }

    fn user_name(&mut self, uid: Uid) -> Result<Option<String>, Missing> {
        let user = self.parts().policy.users.get(&uid).ok_or(Missing::User(uid))?;
        Ok(user.identity.name.clone())
    }

    fn container_name(&mut self, key: ContainerKey) -> Result<Option<String>, Missing> {
        let ProcessParts { policy, kernel, .. } = self.parts();
        let name = policy.containers.name(key, kernel.now()).ok_or(Missing::ContainerName(key))?;
        Ok(name.map(str::to_owned))
    }
}
