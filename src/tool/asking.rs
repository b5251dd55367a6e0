//! Queries to the running daemon, and the configuration as the daemon has it active. Must work without a
//! daemon wherever the files are sufficient.

use std::path::{Path, PathBuf};
use std::sync::Once;

use super::command::{Failure, Given};
use super::kept;
use crate::config::diagnostic::Severity;
use crate::config::escape::EscapedBytes;
use crate::control::client::{self, Conversation, Error};
use crate::control::protocol::{KeptTexts, Request};
use crate::control::status::Status;
use crate::daemon::Invocation;
use crate::event::Uid;
use crate::load;

/// Control socket of the daemon, if the settings do not disable it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Path of the control socket.
    At(PathBuf),
    /// Control socket disabled by this settings file.
    Off(PathBuf),
}

/// Returns the daemon's control socket: that of `--socket`, of the settings, or the default one. Writes
/// errors of the settings to standard error.
pub(super) fn address(given: &Given) -> Address {
    if let Some(path) = given.value("socket") {
        return Address::At(path.into());
    }
    let config = given.invocation().config;
    let (settings, said) = load::settings(&config, Uid(0));
    // A command may query more than once; the errors are written once.
    static SAID: Once = Once::new();
    let errors = said.iter().filter(|one| one.severity == Severity::Error);
    SAID.call_once(|| errors.for_each(|error| eprintln!("{error}")));
    settings.control_socket.map_or(Address::Off(config), Address::At)
}

/// Returns the path of the daemon's control socket.
///
/// # Errors
/// The settings disable the control socket.
pub(super) fn socket(given: &Given) -> Result<PathBuf, Failure> {
    match address(given) {
        Address::At(socket) => Ok(socket),
        Address::Off(file) => Err(Failure::NoDaemon(turned_off(&file))),
    }
}

/// Returns the message for a control socket that this settings file disables.
pub(super) fn turned_off(file: &Path) -> String {
    let file = EscapedBytes(file.as_os_str().as_encoded_bytes());
    format!("the control socket is disabled in {file} (control_socket = \"off\")")
}

/// Sends `request` to the daemon.
pub(super) fn ask(given: &Given, request: &Request) -> Result<Conversation, Failure> {
    let socket = socket(given)?;
    client::ask(&socket, request)?.ok_or_else(|| no_daemon(&socket))
}

/// Returns the error for a socket at which no daemon answers.
pub(super) fn no_daemon(socket: &Path) -> Failure {
    Failure::NoDaemon(format!(
        "no daemon answers at {}: start cgruled, or give its socket with --socket",
        EscapedBytes(socket.as_os_str().as_encoded_bytes())
    ))
}

/// Queries the daemon's status, with counters and latency.
pub(super) fn status(given: &Given) -> Result<Status, Failure> {
    Ok(ask(given, &Request::Status)?.only()?)
}

/// Output of notes about files that are not used in their current version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notes {
    /// Notes are written to standard error.
    Said,
    /// Notes are omitted, because standard error belongs to another program.
    LeftOut,
}

/// Returns the configuration that a daemon with the same flags would read, with the last valid versions that
/// the running daemon keeps of files with new errors.
pub(super) fn as_in_force(given: &Given, notes: Notes) -> Invocation {
    overlaid(given, &address(given), notes)
}

fn overlaid(given: &Given, address: &Address, notes: Notes) -> Invocation {
    let Address::At(socket) = address else { return given.invocation() };
    let asked = client::ask(socket, &Request::Kept).ok().flatten();
    let kept: Option<KeptTexts> = asked.and_then(|conversation| conversation.only().ok());
    let kept = kept.unwrap_or_default();
    for file in kept.kept.iter().filter(|_| notes == Notes::Said) {
        eprintln!("cgrulectl: {}; run 'cgrulectl check' to see its errors", kept::words(file));
    }
    Invocation { overlay: kept::overlay(kept), ..given.invocation() }
}

/// Returns the same as [`as_in_force`], with the root that the running daemon uses for its cgroups: its
/// command line may override the settings. If no daemon reports one, the flags and the settings apply.
pub(super) fn invocation(given: &Given, notes: Notes) -> Invocation {
    let address = address(given);
    let mut invocation = overlaid(given, &address, notes);
    let Address::At(socket) = address else { return invocation };
    let asked = client::ask(&socket, &Request::Status).ok().flatten();
    let status: Option<Status> = asked.and_then(|conversation| conversation.only().ok());
    if let Some(status) = status {
        invocation.root = Some(status.root.into());
    }
    invocation
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::HungUp(_) | Error::Silent(_) => Self::NoDaemon(error.to_string()),
            Error::Io(..) | Error::Refused(_) | Error::Nonsense(..) => {
                Self::Failed(error.to_string())
            }
        }
    }
}
