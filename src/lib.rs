//! The library behind `cgruled`, a daemon that assigns processes to cgroups according to rules on
//! user, group, executable and origin. It exists for the binaries, tests, benchmarks and fuzz targets of
//! this package and must not be relied on by others: its interface is not stable.
//!
//! The invariant: *when no events are pending, every process that a rule moves is in the cgroup
//! that the first matching rule selects for its current credentials and executable.* No decision
//! depends on a stored copy of a process's state: each evaluation reads it from the kernel.
//!
//! Each module uses only modules above it; a test enforces it. Pure modules have no files, clock or
//! log:
//! - [`event`]: process IDs, user IDs and events, and the parsers of kernel datagrams.
//! - [`rules`]: the rule model, the index that finds the first matching rule, explanations of
//!   mismatches.
//! - [`config`]: parses the text of a file into rules, settings and diagnostics.
//! - [`tracking`]: which processes must be evaluated: the queue, and forked children.
//!
//! Modules with input and output:
//! - [`sys`]: all unsafe code, atomic replacement of files, commands with a time limit.
//! - [`telemetry`]: log output and counters.
//! - [`kernel`]: what is read from the kernel: process events, external moves, the state of a process.
//! - [`cgroup`]: the mounted hierarchies, cgroup settings, open cgroups, removal of empty ones.
//! - [`policy`]: from files to the active policy: selection, ownership checks, names, reloads.
//! - [`placement`]: selects the rule for the current state of a process, and decides whether it is
//!   moved.
//! - [`control`]: the sockets of `cgrulectl` and of cgrulesengd, the history of processes.
//! - [`engine`]: evaluates processes and moves them into the cgroup of their rule; the place to begin
//!   reading. It has no access to the machine except [`engine::kernel::Kernel`], the clock included.
//!   `docs/hot-thread.md` lists the calls that its hot thread may wait for.
//!
//! Programs and main loop:
//! - [`daemon`]: startup, main loop, shutdown.
//! - [`compat`]: the command line and conventions of cgrulesengd on top of the same daemon, and
//!   converters of other configuration files.
//! - [`cli`]: the commands of `cgrulectl`, one file each, and the definition of the command line
//!   from which help and completions are generated and with which manual pages are compared.
#![deny(rustdoc::broken_intra_doc_links)]

// Inode numbers of pidfds and of cgroups have 64 bits, and identify them.
#[cfg(not(target_pointer_width = "64"))]
compile_error!("cgruled needs a 64-bit target");

/// Prints on standard error. Unlike the macro of the standard library it does not panic if that is
/// closed or full: a diagnostic that nobody reads must not end the program.
#[cfg(not(test))]
macro_rules! eprintln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _written = writeln!(std::io::stderr(), $($text)*);
    }};
}

#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod config;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod engine;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod event;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod placement;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod rules;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod tracking;

pub mod cgroup;
pub mod cli;
pub mod compat;
pub mod control;
pub mod daemon;
pub mod kernel;
pub mod policy;
pub mod sys;
pub mod telemetry;
