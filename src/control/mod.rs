//! The sockets on which a running daemon accepts requests. They must not delay the hot thread.
//!
//! The socket of cgrulesengd: [`request`] is its protocol (pure), and [`cgred`] serves it.
//!
//! The control socket: [`protocol`] and [`status`] define the messages (pure), [`server`] serves
//! them with a thread for each connection, [`channel`] connects these to the hot thread,
//! [`failures`] and [`move_history`] are the process history kept there, and [`status_source`]
//! collects the data available without it. [`history`] keeps the last evaluations of all processes, and
//! [`outcome`] names their results.
//! [`client`] is the other end. [`openmetrics`] renders the status as OpenMetrics text, and
//! [`textfile`] writes that to a file.

pub mod cgred;
pub mod channel;
pub mod client;
pub mod failures;
pub mod history;
pub mod move_history;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod openmetrics;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod outcome;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod protocol;
pub mod request;
pub mod server;
pub mod socket;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod status;
pub mod status_source;
pub mod textfile;
