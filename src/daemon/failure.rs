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

    /// Returns the conversion of an error of `what` that a retry may fix.
    pub(super) fn run(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Run(what, error)
    }

    /// Classifies an error of the proc connector: after a lack of memory or a flood of events the
    /// service manager may start the daemon again.
    pub fn of_connector(error: ConnectorError) -> Self {
        if error.can_pass() {
            Self::Run("process events", io::Error::other(error.to_string()))
        } else {
            Self::Unusable(error)
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
        use Errno as E;
        for (code, errnos) in [
            (65, &[E::ENOENT, E::EACCES, E::EPERM, E::ENOTDIR, E::EROFS, E::EISDIR][..]),
            (78, &[E::EADDRINUSE]),
            (1, &[E::ENOSPC, E::EMFILE, E::ENOMEM, E::EIO]),
        ] {
            for &errno in errnos {
                assert_eq!(DaemonError::to_make("log", errno.into()).code(), code, "{errno}");
            }
        }
        for (error, code) in [
            (ConnectorError::Io("recvmmsg", E::ENOMEM.into()), 1),
            (ConnectorError::Io("netlink socket", E::EPERM.into()), 78),
            (ConnectorError::NoConnector(E::EMFILE.into()), 1),
            (ConnectorError::NoConnector(E::EPROTONOSUPPORT.into()), 78),
            (ConnectorError::Flooded, 1),
            (ConnectorError::TimeNamespace, 78),
        ] {
            let shown = format!("{error:?}");
            assert_eq!(DaemonError::of_connector(error).code(), code, "{shown}");
        }
    }
}
