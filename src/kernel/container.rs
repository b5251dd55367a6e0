//! Detection of containers by namespaces. Processes of those created by root keep their cgroup, because they would
//! lose the limits and the device filter of the container elsewhere. Must not trust namespaces
//! alone.
//!
//! A process is in such a container if its PID or cgroup namespace is not the host's and belongs to
//! root. That is not sufficient: a set-user-ID program such as bwrap creates namespaces that belong
//! to root for any user. So the cgroup must also be one that a user's processes cannot enter by
//! themselves, see [`crate::cgroup::unit::may_hold_container`].

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::event::Uid;
use crate::kernel::process::ProcessHandle;
use crate::sys::{self, Namespace};

/// Relation of a process to containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containment {
    /// In the namespaces of the host.
    Host,
    /// In namespaces that this user created.
    OfUser(Uid),
    /// Inside a container created by root.
    Container,
    /// Namespaces that could not be read.
    Unknown,
}

const NAMESPACES: [Namespace; 2] = [Namespace::Pid, Namespace::Cgroup];

/// Namespaces of the host: those of the daemon, since process events are delivered to the host's
/// PID namespace only, and those of process 1, if they can be read and a service manager gave the
/// daemon another cgroup namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostNamespaces {
    /// Inode numbers, in the order of [`NAMESPACES`].
    inodes: [[Option<u64>; 2]; 2],
}

impl HostNamespaces {
    /// Reads the namespaces of the daemon and of process 1 below `proc`.
    pub fn read(proc: &Path) -> Self {
        let inodes = NAMESPACES
            .map(|which| ["self", "1"].map(|process| inode_of(proc, process, which).ok()));
        Self { inodes }
    }

    /// Determines the containment by a pidfd. Returns `None` if the kernel does not support that
    /// (before Linux 6.11).
    pub fn containment(&self, pidfd: BorrowedFd<'_>) -> Option<Containment> {
        self.decide(|which| sys::namespace_of(pidfd, which).map(File::from))
    }

    /// Determines the containment of an open process, or of the thread that stands in for its
    /// leader. `None` as [`Self::containment`].
    pub fn containment_of(&self, handle: &ProcessHandle) -> Option<Containment> {
        let Some(thread) = handle.thread else { return self.containment(handle.pidfd()?) };
        let pidfd = sys::pidfd_open_thread(thread.get()).ok()?;
        self.containment(pidfd.as_fd())
    }

    /// Determines the containment by `/proc/PID/ns` below `directory`. Can block on an exec of the
    /// process.
    pub fn containment_by_proc(&self, directory: &Path) -> Containment {
        self.decide(|which| File::open(directory.join("ns").join(which.name())))
            .unwrap_or(Containment::Unknown)
    }

    fn decide(&self, open: impl Fn(Namespace) -> io::Result<File>) -> Option<Containment> {
        let mut containment = Containment::Host;
        for (which, host) in NAMESPACES.into_iter().zip(self.inodes) {
            let found = open(which).and_then(|file| Ok((file.metadata()?.ino(), file)));
            match found {
                Ok((inode, _)) if host.contains(&Some(inode)) => {}
                Ok((_, file)) => match sys::namespace_owner(file.as_fd()) {
                    Ok(0) => return Some(Containment::Container),
                    Ok(owner) => containment = Containment::OfUser(Uid(owner)),
                    Err(_) => return Some(Containment::Unknown),
                },
                Err(error) => {
                    return match error.raw_os_error() {
                        Some(libc::ENOTTY | libc::EINVAL) => None,
                        // The process has exited, which the placement detects.
                        Some(libc::ESRCH | libc::ENOENT) => Some(Containment::Host),
                        _ => Some(Containment::Unknown),
                    };
                }
            }
        }
        Some(containment)
    }
}

fn inode_of(proc: &Path, process: &str, which: Namespace) -> io::Result<u64> {
    Ok(proc.join(process).join("ns").join(which.name()).metadata()?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_on_the_host() {
        let host = HostNamespaces::read(Path::new("/proc"));
        let own = Path::new("/proc/self");
        assert_eq!(host.containment_by_proc(own), Containment::Host);
        let pidfd = sys::pidfd_open(std::process::id()).unwrap();
        assert_ne!(host.containment(pidfd.as_fd()), Some(Containment::Container));
        let other = HostNamespaces { inodes: [[Some(1), None]; 2] };
        if nix::unistd::Uid::effective().is_root() {
            assert_eq!(other.containment_by_proc(own), Containment::Container);
        }
    }
}
