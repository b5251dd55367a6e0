//! The sockets on which a running daemon accepts requests. They must not delay the hot thread.
//!
//! The socket of cgrulesengd: [`request`] is its protocol (pure), and [`cgred`] serves it.
//!
//! The control socket: [`protocol`] and [`status`] define the messages (pure), [`server`] serves
//! them with a thread for each connection, [`channel`] connects these to the hot thread,
//! [`failures`] and [`move_history`] are the process history kept there, [`history`] keeps the last evaluations of all
//! processes, [`outcome`] names their results, [`plan`] is what a reload would change ([`difference`] compares two
//! decisions, [`plan_report`] is its form in the protocol), and [`status_source`] collects the data available without it.
//! [`client`] is the other end. [`openmetrics`] renders the status as OpenMetrics text, and
//! [`textfile`] writes that to a file.

pub mod cgred;
pub mod channel;
pub mod client;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod difference;
pub mod failures;
pub mod history;
pub mod move_history;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod openmetrics;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod outcome;
pub mod plan;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod plan_report;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod protocol;
pub mod request;
pub mod server;
pub mod socket;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod status;
pub mod status_source;
pub mod textfile;
