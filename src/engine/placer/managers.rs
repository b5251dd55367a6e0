//! Access of the engine to the known service managers of users.

use super::Placer;
use crate::engine::user_managers::UserManagers;
use crate::event::{Nanos, Pid};

impl Placer {
    /// Returns the known service managers of users and the processes that wait for a lookup of one.
    pub(crate) fn managers(&mut self) -> &mut UserManagers {
        &mut self.managers
    }

    /// Returns the time since which a process has waited for the lookup of a service manager.
    pub(crate) fn waits_for_manager(&self, pid: Pid) -> Option<Nanos> {
        self.managers.waits_since(pid)
    }

    /// Returns the time at which the next waiting process is due even without a reply.
    pub(crate) fn managers_due(&self) -> Option<Nanos> {
        self.managers.next_due()
    }

    /// Checks whether the children of this process must be evaluated at each fork, however long ago the
    /// process itself was evaluated: it stays where it is, and its user can make it fork without an exec.
    pub(crate) fn is_protected_parent(&self, pid: Pid) -> bool {
        self.managers.is_protected_parent(pid)
    }
}
