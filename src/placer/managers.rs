//! Service managers of users: what is asked only where the executable is not enough.

use super::{Outcome, Placer, Subject};
use crate::event::{Nanos, Pid};
use crate::process::Proc;
use crate::sys;
use crate::user_manager::{Candidate, UserManagers, Verdict};

impl Placer {
    /// Returns the service managers of users, and the processes that wait for an answer about one.
    pub(crate) fn managers(&mut self) -> &mut UserManagers {
        &mut self.managers
    }

    /// Returns since when a process has waited for an answer about a service manager.
    pub(crate) fn waits_for_manager(&self, pid: Pid) -> Option<Nanos> {
        self.managers.waits_since(pid)
    }

    /// Returns when the next of those processes is due although no answer arrives.
    pub(crate) fn managers_due(&self) -> Option<Nanos> {
        self.managers.next_due()
    }

    /// Returns whether the children of this process must be evaluated at each fork, however long ago the
    /// process itself was evaluated: it stays where it is, and its user can make it fork without an exec.
    pub(crate) fn is_protected_parent(&self, pid: Pid) -> bool {
        self.managers.is_protected_parent(pid)
    }

    /// Decides on a candidate for its user's service manager: `Waiting` while that is not known.
    pub(super) fn ask_for_manager(
        &mut self,
        proc: &mut Proc,
        subject: &Subject<'_>,
    ) -> Option<Outcome> {
        let look = subject.look;
        let parent = proc.parent(look.pid);
        let is_named_pam = proc.comm(look.pid) == Some(b"(sd-pam)");
        let candidate = Candidate { look, uid: subject.grip.uid, parent, is_named_pam };
        match self.managers.check(candidate, proc, sys::monotonic()) {
            Verdict::Protected => Some(Outcome::Protected),
            Verdict::Movable => None,
            Verdict::Pending => Some(Outcome::Waiting),
        }
    }
}
