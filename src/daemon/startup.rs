//! Parts of the running kernel that are opened at startup.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::DaemonError;
use crate::cgroup::fast_moves::FastMovesGuard;
use crate::cgroup::host::ManagedRoots;
use crate::cgroup::mounts::Hierarchies;
use crate::cgroup::reaper::Reaper;
use crate::cgroup::tree::{self, CgroupTree};
use crate::config::daemon_toml::{ExternalMoves, Settings};
use crate::kernel::moves::{self, MoveTrace, MoveTraceError};
use crate::policy::load::NameService;
use crate::telemetry::metrics::Metrics;

/// Returns the mounted hierarchies.
///
/// # Errors
/// They cannot be read, or there are none.
pub(super) fn hierarchies() -> Result<Arc<Hierarchies>, DaemonError> {
    let found = tree::discover();
    let found = found.map_err(|error| DaemonError::Run("/proc/self/mountinfo", error))?;
    if found.is_empty() { Err(DaemonError::NoCgroups) } else { Ok(Arc::new(found)) }
}

pub(super) type Tracing = JoinHandle<Result<MoveTrace, MoveTraceError>>;

/// Opens the trace of moves on a separate thread, because that waits for RCU grace periods, 25 to
/// 50 ms.
pub(super) fn start_trace(external_moves: ExternalMoves, is_dry_run: bool) -> Option<Tracing> {
    let is_traced = external_moves != ExternalMoves::Off && !is_dry_run;
    let open = || MoveTrace::open(&moves::tracing_directory()?);
    is_traced.then(|| std::thread::spawn(open))
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
    let reaper = Reaper::start(Arc::clone(hierarchies), ground, Arc::clone(metrics), name_of)?;
    Ok(tree.kept_by(reaper))
}

pub(super) fn engage_fast_moves(settings: &Settings, hierarchies: &Hierarchies) -> FastMovesGuard {
    FastMovesGuard::engage(settings.fast_moves, hierarchies).unwrap_or_else(|error| {
        ::log::warn!("cannot enable fast_moves: {error}");
        FastMovesGuard::Off
    })
}

/// Raises the limit of open files to the hard limit: each cgroup in use is an open descriptor.
pub(super) fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        ::log::warn!("cannot raise the limit of open files (RLIMIT_NOFILE): {}", errno.desc());
    }
}
