//! The directories for the state of the daemon, as systemd passes them to a service.

use std::path::PathBuf;

use crate::sys;

/// Returns the directory for state that is meaningless after a boot.
pub(super) fn runtime_directory() -> PathBuf {
    directory("RUNTIME_DIRECTORY").unwrap_or_else(|| PathBuf::from(sys::RUNTIME_DIRECTORY))
}

/// Returns the directory for state that survives a boot; `None` if the daemon is no service: a
/// start by hand, often with other rules, must not replace the state of the service.
pub(super) fn state_directory() -> Option<PathBuf> {
    directory("STATE_DIRECTORY")
}

/// Returns the directory that the environment variable names. A service with several directories
/// has them separated by colons, the main one first.
fn directory(variable: &str) -> Option<PathBuf> {
    let text = std::env::var(variable).ok()?;
    let first = text.split(':').next()?;
    first.starts_with('/').then(|| PathBuf::from(first))
}
