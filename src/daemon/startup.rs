//! Parts of the running kernel that are opened at startup.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::DaemonError;
use super::state::runtime_directory;
use crate::cgroup::fast_moves::{self, FastMovesGuard};
use crate::cgroup::host::ManagedRoots;
use crate::cgroup::mounts::Hierarchies;
use crate::cgroup::reaper::Reaper;
use crate::cgroup::tree::{self, CgroupTree};
use crate::config::daemon_toml::{ExternalMoves, Settings};
use crate::kernel::moves::{self, MoveTrace, MoveTraceError};
use crate::policy::load::NameService;
use crate::sys::locked_memory;
use crate::telemetry::metrics::Metrics;

/// Returns the mounted hierarchies.
///
/// # Errors
/// They cannot be read, or there are none.
pub(super) fn hierarchies() -> Result<Arc<Hierarchies>, DaemonError> {
    let found = tree::discover().map_err(DaemonError::run("/proc/self/mountinfo"))?;
    if found.is_empty() { Err(DaemonError::NoCgroups) } else { Ok(Arc::new(found)) }
}

pub(super) type Tracing = JoinHandle<Result<MoveTrace, MoveTraceError>>;

/// Opens the trace of moves on a separate thread, because that waits for RCU grace periods, 25 to
/// 50 ms.
pub(super) fn start_trace(external_moves: ExternalMoves, is_dry_run: bool) -> Option<Tracing> {
    let is_traced = external_moves != ExternalMoves::Off && !is_dry_run;
    is_traced.then(|| std::thread::spawn(|| MoveTrace::open(&moves::tracing_directory()?)))
}

/// Returns the kernel's trace of moves, or `None` with a warning if it is unavailable.
pub(super) fn move_source(trace: Result<MoveTrace, MoveTraceError>) -> Option<MoveTrace> {
    let said = trace.inspect_err(|error| {
        ::log::warn!(
            "external moves are not traced: {error}; all processes are evaluated every 60 s instead"
        );
    });
    said.ok()
}

/// Creates the tree of cgroups and, except in a dry run, the thread that maintains them.
pub(super) fn tree_of(
    hierarchies: &Arc<Hierarchies>,
    roots: &ManagedRoots,
    is_dry_run: bool,
    metrics: &Arc<Metrics>,
) -> io::Result<CgroupTree> {
    let mut tree = CgroupTree::new(Arc::clone(hierarchies));
    let ground = roots.is_delegated.then_some(&*roots.rules);
    if let Some(ground) = ground {
        tree.stay_below(ground, !is_dry_run);
    }
    if is_dry_run {
        return Ok(tree);
    }
    let names = NameService::default();
    let name_of = Arc::new(move |uid| names.user_name(uid));
    let journal = Some(runtime_directory().join("settings.journal"));
    let metrics = Arc::clone(metrics);
    let reaper = Reaper::start(Arc::clone(hierarchies), ground, metrics, name_of, journal)?;
    Ok(tree.kept_by(reaper))
}

pub(super) fn engage_fast_moves(settings: &Settings, hierarchies: &Hierarchies) -> FastMovesGuard {
    fast_moves::restore_grace_periods();
    FastMovesGuard::engage_if_possible(settings.fast_moves, hierarchies)
}

/// Raises the limit of open files to the hard limit: each cgroup in use is an open descriptor. Returns the
/// resulting limit.
pub(super) fn raise_descriptor_limit() -> u64 {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        ::log::warn!("cannot raise the limit of open files (RLIMIT_NOFILE): {}", errno.desc());
    }
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

/// Keeps the code of the program in memory. On a host short of memory the kernel reclaims what was not used for a
/// moment, and the next move reads it from the disk: the 90th percentile of 25 moves 100 ms apart was above 1 ms in
/// seven of eight runs, and with locked code at most 0.5 ms.
pub(super) fn lock_program() {
    match locked_memory::lock_program() {
        Ok(bytes) => ::log::debug!("{} KiB of the program are locked in memory", bytes / 1024),
        Err(error) => ::log::info!(
            "the program cannot be locked in memory (RLIMIT_MEMLOCK), moves are late when the host is short of \
             memory: {error}"
        ),
    }
}
