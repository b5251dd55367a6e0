//! Service managers of users, and processes whose leader has exited: what is read of a process only where
//! the usual facts are not enough.

use super::{Outcome, Placer, Subject};
use crate::cgroup::mounts::Span;
use crate::cgroup::tree::Whereabouts;
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
    pub fn is_protected_parent(&self, pid: Pid) -> bool {
        self.managers.is_protected(pid)
    }

    /// Returns whether the leader of the process has exited and its other threads are in the cgroup
    /// `self.path`.
    pub(super) fn holds_without_leader(&self, span: Span, proc: &mut Proc, pid: Pid) -> bool {
        let text = proc.cgroup_without_leader(pid);
        text.is_some() && self.is_in_place(span, Whereabouts { unified: None, text })
    }

    /// Decides on a candidate for its user's service manager: `Waiting` while that is not known.
    pub(super) fn ask_for_manager(
        &mut self,
        proc: &mut Proc,
        subject: &Subject<'_>,
    ) -> Option<Outcome> {
        let look = subject.look;
        let parent = proc.parent_by_status(look.pid);
        let candidate = Candidate { look, uid: subject.grip.uid, parent };
        match self.managers.check(candidate, proc, sys::monotonic()) {
            Verdict::Protected => Some(Outcome::Protected),
            Verdict::Movable => None,
            Verdict::Pending => Some(Outcome::Waiting),
        }
    }
}
