//! Queries to the running daemon, and the configuration as the daemon has it active. Must work without a
//! daemon wherever the files are sufficient.

use std::path::{Path, PathBuf};
use std::sync::Once;

use super::command::{DaemonFlags, ToolError};
use super::retained;
use crate::config::diagnostic::Severity;
use crate::config::escape::{Escaped, EscapedBytes};
use crate::control::client::{self, ClientConnection, ClientError};
use crate::control::protocol::{ActiveSources, ControlRequest, LastGoodFiles};
use crate::control::status::{KeptFile, Status};
use crate::daemon::DaemonOptions;
use crate::event::Uid;
use crate::policy::load;

/// Control socket of the daemon, if the settings do not disable it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DaemonAddress {
    /// Path of the control socket.
    At(PathBuf),
    /// Control socket disabled by this settings file.
    Off(PathBuf),
}

/// Returns the daemon's control socket: that of `--socket`, of the settings, or the default one. Writes
/// errors of the settings to standard error.
pub(super) fn address(flags: &DaemonFlags) -> DaemonAddress {
    if let Some(path) = &flags.socket {
        return DaemonAddress::At(path.clone());
    }
    let config = flags.options().config;
    let (settings, said) = load::settings(&config, Uid(0));
    // A command may query more than once; the errors are written once.
    static SAID: Once = Once::new();
    let errors = said.iter().filter(|one| one.severity == Severity::Error);
    SAID.call_once(|| errors.for_each(|error| eprintln!("{error}")));
    settings.control_socket.map_or(DaemonAddress::Off(config), DaemonAddress::At)
}

/// Returns the path of the daemon's control socket.
///
/// # Errors
/// The settings disable the control socket.
pub(super) fn socket(flags: &DaemonFlags) -> Result<PathBuf, ToolError> {
    match address(flags) {
        DaemonAddress::At(socket) => Ok(socket),
        DaemonAddress::Off(file) => Err(ToolError::NoDaemon(turned_off(&file))),
    }
}

/// Returns the message for a control socket that this settings file disables.
pub(super) fn turned_off(file: &Path) -> String {
    let file = EscapedBytes(file.as_os_str().as_encoded_bytes());
    format!("the control socket is disabled in {file} (control_socket = \"off\")")
}

/// Sends `request` to the daemon.
pub(super) fn ask(
    flags: &DaemonFlags,
    request: &ControlRequest,
) -> Result<ClientConnection, ToolError> {
    let socket = socket(flags)?;
    client::ask(&socket, request)?.ok_or_else(|| no_daemon(&socket))
}

/// Returns the error for a socket at which no daemon answers.
pub(super) fn no_daemon(socket: &Path) -> ToolError {
    ToolError::NoDaemon(format!(
        "no daemon answers at {}: start cgruled, or give its socket with --socket",
        EscapedBytes(socket.as_os_str().as_encoded_bytes())
    ))
}

/// Queries the daemon's status, with counters and latency.
pub(super) fn status(flags: &DaemonFlags) -> Result<Status, ToolError> {
    let status: Status = ask(flags, &ControlRequest::Status)?.only()?;
    note_version(&status.version);
    Ok(status)
}

/// Returns the status of a daemon that answers at `socket`.
pub(super) fn status_at(socket: &Path) -> Option<Status> {
    let asked = client::ask(socket, &ControlRequest::Status).ok().flatten();
    asked.and_then(|conversation| conversation.only().ok())
}

/// Reports on standard error that the daemon has another version, as after an upgrade without a restart.
pub(super) fn note_version(version: &str) {
    let own = env!("CARGO_PKG_VERSION");
    if version != own {
        let version = Escaped(version);
        eprintln!(
            "cgrulectl: the daemon has version {version}, cgrulectl {own}: restart the daemon, for example with \
             'systemctl restart cgruled'"
        );
    }
}

/// Output of notes about files that are not used in their current version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunNotes {
    /// Notes are written to standard error.
    Said,
    /// Notes are omitted, because standard error belongs to another program.
    LeftOut,
}

/// Returns the configuration that a daemon with the same flags would read, with the last valid versions that
/// the running daemon keeps of files with new errors.
pub(super) fn as_active(flags: &DaemonFlags, notes: RunNotes) -> DaemonOptions {
    overlaid(flags, &address(flags), notes)
}

fn overlaid(flags: &DaemonFlags, address: &DaemonAddress, notes: RunNotes) -> DaemonOptions {
    let DaemonAddress::At(socket) = address else { return flags.options() };
    let asked = client::ask(socket, &ControlRequest::Kept).ok().flatten();
    let kept: Option<LastGoodFiles> = asked.and_then(|conversation| conversation.only().ok());
    with_files(flags, kept.unwrap_or_default(), notes)
}

/// Returns the configuration that a daemon with the same flags would read, with these last valid versions of
/// files.
pub(super) fn with_files(
    flags: &DaemonFlags,
    kept: LastGoodFiles,
    notes: RunNotes,
) -> DaemonOptions {
    if notes == RunNotes::Said {
        note_kept(&kept.kept);
    }
    DaemonOptions { overlay: retained::overlay(kept), ..flags.options() }
}

/// Reports on standard error the files that the daemon keeps at their last valid version.
pub(super) fn note_kept(kept: &[KeptFile]) {
    for file in kept {
        eprintln!("cgrulectl: {}; run 'cgrulectl check' to see its errors", retained::words(file));
    }
}

/// Returns the configuration with the active version of all files, in the daemon's places. `None` if the flags
/// name other places.
pub(super) fn active(
    flags: &DaemonFlags,
    files: &LastGoodFiles,
    sources: &ActiveSources,
) -> Option<DaemonOptions> {
    let named = flags.options();
    let directories: Vec<PathBuf> = sources.directories.iter().map(PathBuf::from).collect();
    let absolute = named.rules.iter().map(|path| std::path::absolute(path).unwrap_or_default());
    let has_other_rules = !named.rules.is_empty() && !absolute.eq(directories.iter().cloned());
    let has_other_legacy = !named.legacy && sources.legacy;
    (!has_other_rules && !has_other_legacy).then(|| DaemonOptions {
        rules: directories,
        legacy: sources.legacy,
        overlay: retained::overlay(files.clone()),
        ..named
    })
}

/// Returns the same as [`as_active`], with the root that the running daemon uses for its cgroups: its
/// command line may override the settings. If no daemon reports one, the flags and the settings apply.
pub(super) fn invocation(flags: &DaemonFlags, notes: RunNotes) -> DaemonOptions {
    let address = address(flags);
    let mut invocation = overlaid(flags, &address, notes);
    let DaemonAddress::At(socket) = address else { return invocation };
    if let Some(status) = status_at(&socket) {
        if notes == RunNotes::Said {
            note_version(&status.version);
        }
        invocation.root = Some(status.root.into());
    }
    invocation
}

impl From<ClientError> for ToolError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::HungUp(_) | ClientError::Silent(_) => Self::NoDaemon(error.to_string()),
            ClientError::Io(..) | ClientError::Refused(_) | ClientError::Nonsense(..) => {
                Self::Failed(error.to_string())
            }
        }
    }
}
