//! cgruled puts every process into the control group that the rules say. The promise: *at rest, every
//! process is where the rules say for what it is now.* There is no table of processes that could go
//! stale; the kernel is asked each time.
//!
//! The modules, in the order of the data. Which of them may use which is in CONTRIBUTING.md, and tested.
//!
//! Pure, no file, clock or log:
//! - [`event`]: datagrams of the kernel to events, one entry for each process, forked children.
//! - [`rules`]: what a rule is, the index that finds the first one that holds, and why others do not.
//! - [`config`]: the text of a file to rules, settings and complaints.
//! - [`convert`]: the text of other programs' files to that of a rule file.
//!
//! Edge:
//! - [`source`]: the two sockets of the proc connector, all of `/proc`, changes of files.
//! - [`process`], [`program`], [`container`]: what is true of a process now.
//! - [`cgroup`]: the mounted hierarchies, what groups are given, groups as open descriptors, and
//!   who looks after those that exist.
//! - [`host`]: where groups may be made on this host.
//! - [`user_manager`]: which processes are a user's service manager (`systemd --user`).
//! - [`narrator`]: who tells of looks in another daemon's words.
//! - [`load`], [`rebuild`], [`policy`]: which files, in which order, whom to trust; names; what is in
//!   force.
//! - [`worker`], [`exe_pool`]: the threads that may wait, so that the hot one need not.
//! - [`leader`]: which thread is the hot one, and what becomes of a read that blocks it; `docs/hot-thread.md`
//!   lists what it may wait for.
//! - [`decision`]: from what is true of a process to a rule.
//! - [`placer`]: from a decision to a process in its group.
//! - [`control`]: the socket of `cgrulectl` and that of the original: what others ask of us, what is
//!   remembered for them, and who asked to be left alone.
//! - [`log`], [`metrics`]: what we say and count.
//! - [`subprocess`], [`atomic_file`]: commands that may hang, files that are replaced as a whole.
//! - [`sys`]: the only unsafe code.
//!
//! Top:
//! - [`engine`]: the whole behaviour, readable in one sitting. Begin there.
//! - [`daemon`]: start, the one loop, end.
//! - [`tool`]: the commands of `cgrulectl`, one file each, and the tables that help, completions and
//!   manual pages follow.
//! - [`cgrulesengd`]: the command line and the manners of the original, around the same daemon.
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
pub mod narrator;
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
