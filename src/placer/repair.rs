//! What is done about placements that went wrong: a PID that was reused meanwhile, a refusal that can pass.

use std::os::fd::AsFd;

use nix::errno::Errno;

use super::Placer;
use crate::event::Pid;
use crate::process::Proc;
use crate::sys;

/// PIDs that change hands while a process is moved back, one after the other, before that is given up.
const ATTEMPTS: usize = 16;

impl Placer {
    /// Whether what the kernel refused for the last process may be granted later, without a change of rules
    /// or groups: a real-time process in a v1 cpu group without real-time budget, or lack of memory.
    pub fn can_refusal_pass(&self, proc: &Proc, pid: Pid) -> bool {
        match self.errno {
            Some(Errno::EINVAL) => proc.is_real_time(pid),
            Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EINTR) => true,
            Some(_) | None => false,
        }
    }

    /// Returns a process that has the PID of one that exited while it was moved to the cgroup in which it
    /// was born: that of the process `creator`, as far as that can be told. Only from where the last
    /// placement wrote.
    pub fn return_to_birth(&mut self, proc: &mut Proc, pid: Pid, creator: Pid) {
        let Some(group) = self.written.take() else { return };
        let Some(text) = proc.cgroup(creator, None) else { return };
        let home = text.to_vec();
        for _ in 0..ATTEMPTS {
            let Some(grip) = proc.grip(pid) else { return };
            let now = proc.cgroup(pid, None).map(<[u8]>::to_vec).unwrap_or_default();
            if let Err(refusal) = self.tree.move_back(group, pid, &now, &home) {
                ::log::warn!(
                    "process {pid} was moved to {} by mistake, for a process of the same PID that \
                     exited meanwhile, and cannot be moved back: {refusal}",
                    self.tree.path(group)
                );
                return;
            }
            if grip.handle.as_ref().is_none_or(|handle| sys::pidfd_alive(handle.as_fd())) {
                return;
            }
        }
    }
}
