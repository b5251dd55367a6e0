//! Asks the running daemon.

use super::command::{Failure, Given};
use crate::control::client::{self, Conversation};
use crate::control::protocol::Request;
use crate::control::status::Status;

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

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self::Failed(error.to_string())
    }
}
