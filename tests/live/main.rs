//! Tests the daemon on the real kernel. As root on a host with the proc connector these tests run,
//! else each prints the reason why it was skipped; with `CGRULED_LIVE=1` a test that cannot run fails.
//!
//! Every process under test has a UID of [`harness::user`], every cgroup is below one throw-away
//! cgroup, every mount is in a namespace of the thread of the test. One test runs at a time on a
//! machine, also across test programs.
//!
//! `CGRULED_LIVE_ROUNDS` scales the storms (default: 3).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test fails by panic and does its own input and output"
)]

mod harness;

mod ancestors;
mod arguments;
mod births;
mod clone_parent;
mod command_line;
mod containers;
mod context;
mod control;
mod credentials;
mod descriptors;
mod destination;
mod doctor;
mod escape;
mod execution;
mod explain;
mod external_moves;
mod faults;
mod flood;
mod gate;
mod groups;
mod hang;
mod hierarchy;
mod histories;
mod history;
mod host_failures;
mod identity;
mod kernel;
mod limits;
mod loss;
mod moves_source;
mod name_service;
mod order;
mod placement;
mod program;
mod reload;
mod removal;
mod reuse;
mod revert;
mod run;
mod scan;
mod settings;
mod shares;
mod standin;
mod sticky;
mod systemd;
mod threads;
mod top;
mod trust;
mod units;
