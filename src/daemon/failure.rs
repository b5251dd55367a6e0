//! Reasons for which the daemon stops, with the exit code of each.

use std::fmt;
use std::io::{self, ErrorKind};

use crate::config::diagnostic::Diagnostic;
use crate::kernel::connector::ConnectorError;

/// Errors about a path that do not disappear without a change by the administrator.
const LASTING: [ErrorKind; 6] = [
    ErrorKind::InvalidInput,
    ErrorKind::IsADirectory,
    ErrorKind::NotADirectory,
    ErrorKind::NotFound,
    ErrorKind::PermissionDenied,
    ErrorKind::ReadOnlyFilesystem,
];

/// Reason for which the daemon stopped or did not start.
#[derive(Debug)]
pub enum DaemonError {
    /// Operation that failed at run time: exit 1.
    Run(&'static str, io::Error),
    /// Settings with errors: exit 65.
    Settings(Vec<Diagnostic>),
    /// Invalid path of a file or socket in the settings or on the command line: exit 65.
    Place(&'static str, io::Error),
    /// Socket path in use by another daemon or by a file that is not a socket: exit 78.
    Occupied(&'static str, io::Error),
    /// Process events that are unavailable on this host: exit 78.
    Unusable(ConnectorError),
    /// Host without a mounted cgroup hierarchy: exit 78.
    NoCgroups,
}

impl DaemonError {
    /// Classifies an error from the creation of the file or socket `what` by the chance of a retry:
    /// a full disk or a lack of descriptors is temporary, a missing directory is not.
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

    /// Returns the exit code of the process. Service managers are configured to restart the daemon
    /// after code 1 only.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Run(..) => 1,
            Self::Settings(_) | Self::Place(..) => 65,
            Self::Unusable(_) | Self::NoCgroups | Self::Occupied(..) => 78,
        }
    }
}

impl fmt::Display for DaemonError {
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
                "no cgroup hierarchy is mounted: run 'mount -t cgroup2 cgroup2 /sys/fs/cgroup'",
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
        let code = |errno: Errno| DaemonError::to_make("log", errno.into()).code();
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
