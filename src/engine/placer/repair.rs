//! Recovery after failed placements: a PID that was reused meanwhile, and errors that are
//! temporary.

use nix::errno::Errno;

use super::Placer;
use crate::cgroup::tree::GroupId;
use crate::engine::kernel::Kernel;
use crate::event::Pid;
use crate::kernel::errno::can_pass;

/// Maximum number of attempts to move back a process when its PID is reused again and again.
const ATTEMPTS: usize = 16;

impl Placer {
    /// Checks whether a move that the kernel refused may succeed later, without a change of rules: a
    /// real-time process in a v1 cpu cgroup without real-time budget, a lack of resources, or a state
    /// of the cgroup that root can change.
    pub fn can_refusal_pass(&self, kernel: &impl Kernel, pid: Pid) -> bool {
        match self.errno {
            Some(Errno::EINVAL) => kernel.is_real_time(pid),
            // Root can mount the file system writable again, or change the type of the cgroup.
            Some(Errno::EROFS | Errno::EOPNOTSUPP) => true,
            Some(errno) => can_pass(errno),
            None => false,
        }
    }

    /// Moves a process out of these cgroups to those of `home`, a text of `/proc/PID/cgroup`. It has no rule there.
    pub(in crate::engine) fn move_home(
        &mut self,
        kernel: &mut impl Kernel,
        pid: Pid,
        groups: &[GroupId],
        home: &[u8],
    ) {
        self.external.origins.end(pid);
        let now = kernel.cgroup(pid, None).map(<[u8]>::to_vec).unwrap_or_default();
        for group in groups {
            if let Err(refusal) = kernel.move_back(*group, pid, &now, home) {
                ::log::warn!(
                    "process {pid} was moved for an execution that failed, and cannot be moved back: {refusal}"
                );
            }
        }
    }

    /// Moves back a process that was moved because it reused the PID of one that exited. Its
    /// destination is the cgroup of the process `creator`, in which it was probably created. Only a
    /// process in the cgroup of the last write is moved.
    pub fn return_to_birth(&mut self, kernel: &mut impl Kernel, pid: Pid, creator: Pid) {
        let Some(group) = self.written.pop() else { return };
        let Some(text) = kernel.cgroup(creator, None) else { return };
        let home = text.to_vec();
        for _ in 0..ATTEMPTS {
            let Some(handle) = kernel.open_process(pid) else { return };
            let now = kernel.cgroup(pid, None).map(<[u8]>::to_vec).unwrap_or_default();
            if let Err(refusal) = kernel.move_back(group, pid, &now, &home) {
                ::log::warn!(
                    "process {pid} was moved to {} because it reused the PID of a process that \
                     exited meanwhile, and cannot be moved back: {refusal}",
                    self.path
                );
                return;
            }
            if handle.reference.is_none_or(|process| kernel.is_same(pid, &process)) {
                return;
            }
        }
    }
}
