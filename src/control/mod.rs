//! What others ask of a running daemon.
//!
//! [`request`] is the protocol of the original's socket (pure), [`cgred`] serves it, and [`sticky`]
//! remembers what was asked.

pub mod cgred;
pub mod client;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod protocol;
pub mod request;
pub mod socket;
pub mod sticky;
