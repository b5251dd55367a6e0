//! Asks the running daemon.

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

/// Where the daemon is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// At this socket.
    At(PathBuf),
    /// Nowhere: this file turns the socket off.
    Off(PathBuf),
}

/// The daemon's control socket: that of `--socket`, of the settings, or the standard one. Errors of the
/// settings are said.
pub(super) fn address(given: &Given) -> Address {
    if let Some(path) = given.value("socket") {
        return Address::At(path.into());
    }
    let config = given.invocation().config;
    let (settings, said) = load::settings(&config, Uid(0));
    // A command may ask more than once.
    static SAID: Once = Once::new();
    let errors = said.iter().filter(|one| one.severity == Severity::Error);
    SAID.call_once(|| errors.for_each(|error| eprintln!("{error}")));
    settings.control_socket.map_or(Address::Off(config), Address::At)
}

/// Its path.
///
/// # Errors
/// There is none.
pub(super) fn socket(given: &Given) -> Result<PathBuf, Failure> {
    match address(given) {
        Address::At(socket) => Ok(socket),
        Address::Off(file) => Err(Failure::NoDaemon(turned_off(&file))),
    }
}

/// That nobody can ask.
pub(super) fn turned_off(file: &Path) -> String {
    let file = EscapedBytes(file.as_os_str().as_encoded_bytes());
    format!("the control socket is turned off in {file}, so no daemon can be asked")
}

/// Sends `request` to the daemon.
pub(super) fn ask(given: &Given, request: &Request) -> Result<Conversation, Failure> {
    let socket = socket(given)?;
    client::ask(&socket, request)?.ok_or_else(|| no_daemon(&socket))
}

/// That there is none.
pub(super) fn no_daemon(socket: &Path) -> Failure {
    Failure::NoDaemon(format!(
        "no daemon answers at {}: start cgruled, or name its socket with --socket",
        EscapedBytes(socket.as_os_str().as_encoded_bytes())
    ))
}

/// What the daemon says of itself.
pub(super) fn status(given: &Given) -> Result<Status, Failure> {
    Ok(ask(given, &Request::Status)?.only()?)
}

/// Whether it is said which files are not read as they are now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notes {
    /// On standard error.
    Said,
    /// Standard error belongs to another program.
    LeftOut,
}

/// Where a daemon with the same flags would read its files, with those that the one that runs takes at
/// what they said before.
pub(super) fn as_in_force(given: &Given, notes: Notes) -> Invocation {
    overlaid(given, &address(given), notes)
}

fn overlaid(given: &Given, address: &Address, notes: Notes) -> Invocation {
    let Address::At(socket) = address else { return given.invocation() };
    let asked = client::ask(socket, &Request::Kept).ok().flatten();
    let kept: Option<KeptTexts> = asked.and_then(|conversation| conversation.only().ok());
    let kept = kept.unwrap_or_default();
    for file in kept.kept.iter().filter(|_| notes == Notes::Said) {
        eprintln!("cgrulectl: {}: for its errors see cgrulectl check", kept::words(file));
    }
    Invocation { overlay: kept::overlay(kept), ..given.invocation() }
}

/// The same, and where the groups of the one that runs begin: its own command line may say something else
/// than the settings. Without one that tells us, the flags and the settings count.
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
