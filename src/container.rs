//! Containers that root created: their processes keep their cgroup, because they lose the limits and the device
//! filter of the container outside.
//!
//! A process is in one if its PID or cgroup namespace is another than the host's and belongs to root. That is not
//! enough: a set-user-ID program such as bwrap creates namespaces that belong to root for any user. So the
//! cgroup must also be one into which a user's processes do not get by themselves, see
//! [`crate::cgroup::unit::may_hold_container`].

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::sys::{self, Namespace};

/// Whether a process is in a container that root created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containment {
    /// It is not.
    Host,
    /// It is.
    Container,
    /// It could not be read.
    Unknown,
}

const NAMESPACES: [Namespace; 2] = [Namespace::Pid, Namespace::Cgroup];

/// The host's namespaces: ours, since process events come to the host's PID namespace alone, and those of process
/// 1, where they can be read and a service manager gave us another cgroup namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostNamespaces {
    /// The inode numbers, in the order of [`NAMESPACES`].
    inodes: [[Option<u64>; 2]; 2],
}

impl HostNamespaces {
    /// Reads them.
    pub fn read(proc: &Path) -> Self {
        let inodes = |which| ["self", "1"].map(|process| inode_of(proc, process, which).ok());
        Self { inodes: NAMESPACES.map(inodes) }
    }

    /// Asks the kernel by a pidfd. `None` where it cannot answer so (before Linux 6.11).
    pub fn containment(&self, pidfd: BorrowedFd<'_>) -> Option<Containment> {
        self.decide(|which| sys::namespace_of(pidfd, which).map(File::from))
    }

    /// Asks by `/proc/PID/ns` below `directory`, which can wait for an exec of the process.
    pub fn containment_by_proc(&self, directory: &Path) -> Containment {
        self.decide(|which| File::open(directory.join("ns").join(which.name())))
            .unwrap_or(Containment::Unknown)
    }

    fn decide(&self, open: impl Fn(Namespace) -> io::Result<File>) -> Option<Containment> {
        for (which, host) in NAMESPACES.into_iter().zip(self.inodes) {
            let found = open(which).and_then(|file| Ok((file.metadata()?.ino(), file)));
            match found {
                Ok((inode, _)) if host.contains(&Some(inode)) => {}
                Ok((_, file)) => match sys::namespace_owner(file.as_fd()) {
                    Ok(0) => return Some(Containment::Container),
                    Ok(_) => {}
                    Err(_) => return Some(Containment::Unknown),
                },
                Err(error) => {
                    return match error.raw_os_error() {
                        Some(libc::ENOTTY | libc::EINVAL) => None,
                        // It has exited, which the placement finds out.
                        Some(libc::ESRCH | libc::ENOENT) => Some(Containment::Host),
                        _ => Some(Containment::Unknown),
                    };
                }
            }
        }
        Some(Containment::Host)
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
