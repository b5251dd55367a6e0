//! Why the daemon ends, and with which code.

use std::fmt;
use std::io::{self, ErrorKind};

use crate::config::diagnostic::Diagnostic;
use crate::source::connector::Unusable;

/// Why a path cannot be used, and why it cannot be used a second later either.
const LASTING: [ErrorKind; 6] = [
    ErrorKind::InvalidInput,
    ErrorKind::IsADirectory,
    ErrorKind::NotADirectory,
    ErrorKind::NotFound,
    ErrorKind::PermissionDenied,
    ErrorKind::ReadOnlyFilesystem,
];

/// Why the daemon ended, or did not start.
#[derive(Debug)]
pub enum Failure {
    /// Something failed at run time: exit 1.
    Run(&'static str, io::Error),
    /// The settings have errors: exit 65.
    Settings(Vec<Diagnostic>),
    /// A file or socket cannot be where the settings or the command line want it: exit 65.
    Place(&'static str, io::Error),
    /// Another daemon, or a file that is no socket, has the path of a socket: exit 78.
    Occupied(&'static str, io::Error),
    /// The kernel's events are not to be had here: exit 78.
    Unusable(Unusable),
    /// No cgroup hierarchy is mounted: exit 78.
    NoCgroups,
}

impl Failure {
    /// For a file or socket `what` that cannot be made: whether another attempt can do better decides. A full
    /// disk or a lack of descriptors passes, a directory that is missing does not.
    pub fn to_make(what: &'static str, error: io::Error) -> Self {
        let kind = error.kind();
        if kind == ErrorKind::AddrInUse {
            Self::Occupied(what, error)
        } else if LASTING.contains(&kind) {
            Self::Place(what, error)
        } else {
            Self::Run(what, error)
        }
    }

    /// The exit code of the process. Service managers are told to try again after 1 alone.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Run(..) => 1,
            Self::Settings(_) | Self::Place(..) => 65,
            Self::Unusable(_) | Self::NoCgroups | Self::Occupied(..) => 78,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(what, error) | Self::Place(what, error) | Self::Occupied(what, error) => {
                write!(f, "{what}: {error}")
            }
            Self::Settings(diagnostics) => {
                diagnostics.iter().try_for_each(|diagnostic| writeln!(f, "{diagnostic}"))
            }
            Self::Unusable(why) => why.fmt(f),
            Self::NoCgroups => f.write_str(
                "no cgroup hierarchy is mounted: mount one, for example with mount -t cgroup2 cgroup2 /sys/fs/cgroup",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let code = |errno: Errno| Failure::to_make("log", errno.into()).code();
        for errno in [Errno::ENOENT, Errno::EACCES, Errno::EPERM, Errno::ENOTDIR, Errno::EROFS] {
            assert_eq!(code(errno), 65, "{errno}");
        }
        assert_eq!(code(Errno::EISDIR), 65);
        assert_eq!(code(Errno::EADDRINUSE), 78);
        for errno in [Errno::ENOSPC, Errno::EMFILE, Errno::ENOMEM, Errno::EIO] {
            assert_eq!(code(errno), 1, "{errno}");
        }
    }
}
