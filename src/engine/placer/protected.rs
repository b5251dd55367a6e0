//! Processes that are not moved although a rule matches.

use super::{Missing, PlacedProcess, Placement, Placer};
use crate::engine::kernel::Kernel;
use crate::placement::{KnownExe, Protection, protection};
use crate::rules::Rule;

impl Placer {
    /// Returns the outcome for a process that is not moved although a rule matches: only a rule
    /// that names its executable may move it, or it has exited. `None` if it may be moved.
    ///
    /// # Errors
    /// The executable must be read first.
    pub(super) fn unmovable(
        &mut self,
        kernel: &mut impl Kernel,
        rule: &Rule,
        subject: &PlacedProcess<'_>,
    ) -> Result<Option<Placement>, Missing> {
        let pid = subject.evaluation.pid;
        if pid.get() == kernel.own_pid() {
            return Ok(Some(Placement::Protected));
        }
        // A zombie: the kernel would accept the write without effect. Its children matter.
        if kernel.has_exited(subject.handle) {
            return Ok(Some(Placement::Gone));
        }
        let uid = subject.handle.uid;
        let is_root = uid.0 == 0;
        if !is_root && !kernel.runs_systemd() {
            return Ok(None);
        }
        // Only a name without a slash, or no link at all, can be that of a kernel thread.
        let is_kernel_thread = is_root
            && !matches!(subject.exe, KnownExe::Unread)
            && !subject.exe_path().is_some_and(|path| path.starts_with(b"/"))
            && kernel.status(pid).is_some_and(|status| status.is_kernel_thread);
        let protection = protection(rule, (pid, uid), subject.exe, is_kernel_thread, || {
            kernel.cgroup(pid, subject.handle.thread)
        });
        Ok(match protection? {
            Protection::No => None,
            Protection::Yes => Some(Placement::Protected),
            Protection::UserManager => self.ask_for_manager(kernel, subject),
        })
    }
}
