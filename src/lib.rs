//! The library behind `cgruled`, a daemon that assigns processes to cgroups according to rules on
//! user, group and executable. It exists for the binaries, tests, benchmarks and fuzz targets of
//! this package and must not be relied on by others: its interface is not stable.
//!
//! The invariant: *when no events are pending, every process that a rule moves is in the cgroup
//! that the first matching rule selects for its current credentials and executable.* No decision
//! depends on a stored copy of a process's state: each evaluation reads it from the kernel.
//!
//! `CONTRIBUTING.md` lists which modules may use which others; a test enforces it.
//!
//! Pure modules, without files, clock or log:
//! - [`event`]: parses kernel datagrams into events, keeps one queue entry per process, tracks
//!   forked children.
//! - [`rules`]: the rule model, the index that finds the first matching rule, explanations of
//!   mismatches.
//! - [`config`]: parses the text of a file into rules, settings and diagnostics.
//! - [`convert`]: converts configuration files of other programs to rule files.
//!
//! Modules with input and output:
//! - [`source`]: the two proc connector sockets, external moves, scans of `/proc`, file changes.
//! - [`process`], [`program`], [`container`]: the current state of a process.
//! - [`cgroup`]: the mounted hierarchies, cgroup settings, open cgroups, removal of empty ones.
//! - [`host`]: the roots below which cgroups may be created on this host.
//! - [`user_manager`]: the service managers of users (`systemd --user`).
//! - [`observer`]: reports evaluations to the log of cgrulesengd.
//! - [`load`], [`rebuild`], [`policy`]: file selection and order, ownership checks, name
//!   resolution, the active policy.
//! - [`worker`], [`exe_pool`]: threads for calls that would block the hot thread.
//! - [`leader`]: selects the hot thread and replaces it when a read blocks; `docs/hot-thread.md`
//!   lists the calls that it may wait for.
//! - [`decision`]: selects the rule for the current state of a process.
//! - [`placer`]: moves a process into the cgroup of its rule.
//! - [`control`]: the sockets of `cgrulectl` and of cgrulesengd, the history of processes, sticky
//!   processes.
//! - [`log`], [`metrics`]: log output and counters.
//! - [`subprocess`], [`atomic_file`]: commands with a time limit, atomic replacement of files.
//! - [`sys`]: all unsafe code.
//!
//! Programs and main loop:
//! - [`engine`]: the behaviour of the daemon; the place to begin reading.
//! - [`daemon`]: startup, main loop, shutdown.
//! - [`tool`]: the commands of `cgrulectl`, one file each, and the tables from which help,
//!   completions and manual pages are generated or checked.
//! - [`cgrulesengd`]: the command line and conventions of cgrulesengd on top of the same daemon.
#![deny(rustdoc::broken_intra_doc_links)]

#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod config;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod convert;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod event;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod rules;

pub mod atomic_file;
pub mod cgroup;
pub mod cgrulesengd;
pub mod container;
pub mod control;
pub mod daemon;
pub mod decision;
pub mod engine;
pub mod exe_pool;
pub mod host;
pub mod leader;
pub mod load;
pub mod log;
pub mod metrics;
pub mod observer;
pub mod placer;
pub mod policy;
pub mod process;
pub mod program;
pub mod rebuild;
pub mod source;
pub mod subprocess;
pub mod sys;
pub mod tool;
pub mod user_manager;
pub mod worker;
