//! Reasons why external moves cannot be traced, as messages for the administrator.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::event::trace_format::FormatError;

/// Reason why external moves cannot be traced.
#[derive(Debug)]
pub enum MoveTraceError {
    /// No tracefs is mounted at the path.
    NotMounted(PathBuf),
    /// The tracefs has no directory `instances`.
    NoInstances(PathBuf),
    /// The kernel has no event `cgroup:cgroup_attach_task`.
    NoEvent(PathBuf),
    /// The tracefs is mounted read-only.
    ReadOnly(PathBuf),
    /// The permissions of the file system forbid it (`EACCES`).
    Permission(PathBuf),
    /// The kernel forbids it (`EPERM`).
    Denied(PathBuf),
    /// All instances reserved for cgruled are locked.
    Busy(PathBuf),
    /// The kernel's format texts cannot be parsed.
    Format(FormatError),
    /// Any other failure of a system call.
    Io(PathBuf, io::Error),
}

impl MoveTraceError {
    /// Classifies the failure of a system call on `path`.
    pub(super) fn from_io(path: PathBuf, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EROFS) => Self::ReadOnly(path),
            Some(libc::EACCES) => Self::Permission(path),
            Some(libc::EPERM) => Self::Denied(path),
            _ => Self::Io(path, error),
        }
    }
}

impl fmt::Display for MoveTraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cannot trace external moves: ")?;
        match self {
            Self::NotMounted(path) => write!(
                f,
                "tracefs is not mounted at {0}; run 'mount -t tracefs tracefs {0}'",
                path.display()
            ),
            Self::NoInstances(path) => write!(
                f,
                "{} is missing: the kernel was started with lockdown=confidentiality or built without CONFIG_EVENT_TRACING",
                path.display()
            ),
            Self::NoEvent(path) => write!(
                f,
                "{} is missing: the kernel needs CONFIG_EVENT_TRACING, CONFIG_CGROUPS and Linux 4.6",
                path.display()
            ),
            Self::ReadOnly(path) => write!(
                f,
                "{} is mounted read-only; in a systemd unit add ReadWritePaths=-/sys/kernel/tracing/instances, else run 'mount -o remount,rw' on the mount point",
                path.display()
            ),
            Self::Permission(path) => write!(
                f,
                "no permission for {}; run cgruled as root, or give its user write access with the tracefs mount options uid= and gid=",
                path.display()
            ),
            Self::Denied(path) => write!(
                f,
                "the kernel denies {}; see /sys/kernel/security/lockdown: 'confidentiality' forbids tracing, else a security module does",
                path.display()
            ),
            Self::Busy(path) => write!(
                f,
                "the instances cgruled to cgruled-8 in {} are all in use by running daemons; stop one of them",
                path.display()
            ),
            Self::Format(error) => write!(
                f,
                "the format of cgroup:cgroup_attach_task on this kernel is unsupported: {error}"
            ),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_system_calls_say_which_protection_it_was() {
        fn message(errno: i32) -> String {
            let error = io::Error::from_raw_os_error(errno);
            MoveTraceError::from_io("/t/instances".into(), error).to_string()
        }
        assert!(message(libc::EROFS).contains("read-only"));
        assert!(message(libc::EACCES).contains("as root"));
        assert!(message(libc::EPERM).contains("lockdown"));
        assert!(message(libc::ENOMEM).contains("/t/instances: "));
    }
}
