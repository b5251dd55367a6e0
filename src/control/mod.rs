//! The sockets on which a running daemon accepts requests. They must not delay the hot thread.
//!
//! The socket of cgrulesengd: [`request`] is its protocol (pure), [`cgred`] serves it, and
//! [`sticky`] stores the pinned processes.
//!
//! The control socket: [`protocol`] and [`status`] define the messages (pure), [`server`] serves
//! them on a separate thread, [`exchange`] connects it to the hot thread, [`memory`] and [`moves`]
//! are the process history kept there, and [`overview`] collects the data available without it.
//! [`client`] is the other end. [`openmetrics`] renders the status as OpenMetrics text, and
//! [`textfile`] writes that to a file.

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
