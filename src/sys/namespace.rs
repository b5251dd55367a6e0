//! Namespaces of processes, and their owners.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::check;

/// Type of a namespace of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Cgroup namespace of the process.
    Cgroup,
    /// PID namespace of the process.
    Pid,
}

impl Namespace {
    /// Returns the file name below `/proc/PID/ns`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Pid => "pid",
        }
    }
}

/// Opens a pidfd of a thread (Linux 6.9).
///
/// # Errors
/// `ESRCH` when the thread does not exist, `EINVAL` on an older kernel.
pub fn pidfd_open_thread(thread: u32) -> io::Result<OwnedFd> {
    const PIDFD_THREAD: libc::c_uint = libc::O_EXCL as libc::c_uint;
    let thread = libc::pid_t::try_from(thread).unwrap_or(-1);
    // SAFETY: the call takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, thread, PIDFD_THREAD) };
    own(libc::c_int::try_from(fd).unwrap_or(-1))
}

/// Opens a namespace of the process of a pidfd (Linux 6.11). Does not wait for an exec of the
/// process, unlike `/proc/PID/ns`.
///
/// # Errors
/// `ENOTTY` or `EINVAL` on an older kernel, `ESRCH` if the process has exited.
pub fn namespace_of(pidfd: BorrowedFd<'_>, which: Namespace) -> io::Result<OwnedFd> {
    // _IO(0xFF, 1) and _IO(0xFF, 5) of linux/pidfd.h.
    let request: libc::c_ulong = match which {
        Namespace::Cgroup => 0xFF01,
        Namespace::Pid => 0xFF05,
    };
    // SAFETY: the request takes no argument and returns a descriptor.
    own(unsafe { libc::ioctl(pidfd.as_raw_fd(), request as _, 0) })
}

/// Returns the user who owns a namespace: the owner of the user namespace that it belongs to (Linux
/// 4.11).
///
/// # Errors
/// `EPERM` if that user namespace is neither the own one nor a descendant of it.
pub fn namespace_owner(namespace: BorrowedFd<'_>) -> io::Result<u32> {
    // _IO(0xb7, 1) and _IO(0xb7, 4) of linux/nsfs.h.
    const NS_GET_USERNS: libc::c_ulong = 0xB701;
    const NS_GET_OWNER_UID: libc::c_ulong = 0xB704;
    // SAFETY: the request takes no argument and returns a descriptor.
    let owner = own(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_USERNS as _, 0) })?;
    let mut uid: libc::uid_t = 0;
    // SAFETY: the request fills a uid_t, which `uid` is.
    check(unsafe { libc::ioctl(owner.as_raw_fd(), NS_GET_OWNER_UID as _, &raw mut uid) })?;
    Ok(uid)
}

fn own(fd: libc::c_int) -> io::Result<OwnedFd> {
    let fd = check(fd)?;
    // SAFETY: the kernel created this descriptor, and it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn our_own_namespaces_are_those_below_proc() {
        let pidfd = crate::sys::pidfd_open(std::process::id()).unwrap();
        for which in [Namespace::Cgroup, Namespace::Pid] {
            let file = File::open(format!("/proc/self/ns/{}", which.name())).unwrap();
            let owner = namespace_owner(file.as_fd());
            let Ok(namespace) = namespace_of(pidfd.as_fd(), which) else { continue };
            let own = File::from(namespace).metadata().unwrap();
            assert_eq!(own.ino(), file.metadata().unwrap().ino());
            assert!(owner.is_ok_and(|uid| uid == 0) || !nix::unistd::Uid::effective().is_root());
        }
    }
}
