//! Asks the running daemon.

use super::command::{Failure, Given};
use super::kept;
use crate::control::client::{self, Conversation};
use crate::control::protocol::{KeptTexts, Request};
use crate::control::status::Status;
use crate::daemon::Invocation;

/// Sends `request` to the daemon.
pub(super) fn ask(given: &Given, request: &Request) -> Result<Conversation, Failure> {
    client::ask(&given.socket(), request)?.ok_or_else(|| no_daemon(given))
}

/// That there is none.
pub(super) fn no_daemon(given: &Given) -> Failure {
    let socket = given.socket();
    Failure::NoDaemon(format!(
        "no daemon answers at {}: start cgruled, or name its socket with --socket",
        socket.display()
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
    let asked = client::ask(&given.socket(), &Request::Kept).ok().flatten();
    let kept: Option<KeptTexts> = asked.and_then(|conversation| conversation.only().ok());
    let kept = kept.unwrap_or_default();
    for file in kept.kept.iter().filter(|_| notes == Notes::Said) {
        eprintln!("cgrulectl: {}: for its errors see cgrulectl check", kept::words(file));
    }
    Invocation { overlay: kept::overlay(kept), ..given.invocation() }
}

/// The same, and where the groups of the one that runs
/// begin: its own command line may say something else than the settings. Without one that tells us, the
/// settings count.
pub(super) fn invocation(given: &Given, notes: Notes) -> Invocation {
    let mut invocation = as_in_force(given, notes);
    let asked = client::ask(&given.socket(), &Request::Status).ok().flatten();
    let status: Option<Status> = asked.and_then(|conversation| conversation.only().ok());
    invocation.root = status.map(|status| status.root.into());
    invocation
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
