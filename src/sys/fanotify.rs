//! Permission events of fanotify(7), which let executions wait.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use super::check;

/// Creates a fanotify group that reports executions with a pidfd of the process and lets them wait (Linux 5.15). The
/// descriptor does not block, and neither its queue nor its number of marks is limited.
///
/// # Errors
/// As fanotify_init(2): `EPERM` without `CAP_SYS_ADMIN`, `ENOSYS` without `CONFIG_FANOTIFY`, `EINVAL` on an older
/// kernel.
pub fn init() -> io::Result<OwnedFd> {
    const FLAGS: libc::c_uint = libc::FAN_CLASS_CONTENT
        | libc::FAN_CLOEXEC
        | libc::FAN_NONBLOCK
        | libc::FAN_UNLIMITED_QUEUE
        | libc::FAN_UNLIMITED_MARKS
        | libc::FAN_REPORT_PIDFD;
    // The descriptors of the reported files.
    const FILES: libc::c_int = libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC;
    // SAFETY: the call takes two integers.
    let fd = check(unsafe { libc::fanotify_init(FLAGS, FILES as libc::c_uint) })?;
    // SAFETY: the kernel created this descriptor, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Checks whether the kernel has permission events for executions (`CONFIG_FANOTIFY_ACCESS_PERMISSIONS`, Linux 5.0).
/// Needs no privileges and marks no file.
///
/// # Errors
/// As fanotify_mark(2): `EINVAL` without these events, `ENOSYS` without `CONFIG_FANOTIFY`, `EPERM` by a filter of
/// system calls.
pub fn has_exec_permission() -> io::Result<()> {
    let (mark, event) = (libc::FAN_MARK_ADD, libc::FAN_OPEN_EXEC_PERM);
    // The kernel checks the events before the descriptors, so without a group the call changes nothing.
    // SAFETY: the path is a string with a terminator, and both descriptors are invalid.
    let result = unsafe { libc::fanotify_mark(-1, mark, event, -1, c"/".as_ptr()) };
    match check(result) {
        Err(error) if error.raw_os_error() != Some(libc::EBADF) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}
