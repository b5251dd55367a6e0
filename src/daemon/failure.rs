//! Why the daemon ends, and with which code.

use std::fmt;
use std::io;

use crate::config::diagnostic::Diagnostic;
use crate::source::connector::Unusable;

/// Why the daemon ended, or did not start.
#[derive(Debug)]
pub enum Failure {
    /// Something failed at run time: exit 1.
    Run(&'static str, io::Error),
    /// The settings have errors: exit 65.
    Settings(Vec<Diagnostic>),
    /// The kernel's events are not to be had here: exit 78.
    Unusable(Unusable),
    /// No cgroup hierarchy is mounted: exit 78.
    NoCgroups,
}

impl Failure {
    /// The exit code of the process.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Run(..) => 1,
            Self::Settings(_) => 65,
            Self::Unusable(_) | Self::NoCgroups => 78,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(what, error) => write!(f, "{what}: {error}"),
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
