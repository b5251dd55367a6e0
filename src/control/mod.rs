//! What others ask of a running daemon.
//!
//! The original's socket: [`request`] is its protocol (pure), [`cgred`] serves it, and [`sticky`]
//! remembers what was asked.
//!
//! Ours: [`protocol`] and [`status`] are what is said (pure), [`server`] serves it on a thread of its
//! own, [`exchange`] leads from there to the hot thread, [`memory`] is what that remembers of troubles,
//! [`overview`] what can be known without it. [`client`] is the other end. [`openmetrics`] is the status
//! as other programs want it, and [`textfile`] writes that to a file.

pub mod cgred;
pub mod client;
pub mod exchange;
pub mod memory;
pub mod moves;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod openmetrics;
pub mod overview;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod protocol;
pub mod request;
pub mod server;
pub mod socket;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod status;
pub mod sticky;
pub mod textfile;
