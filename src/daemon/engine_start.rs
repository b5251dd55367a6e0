//! Starts the engine: activates the rules and opens the cgroups and the helper threads that it uses.

use std::sync::Arc;

use super::DaemonError;
use super::leader::Activity;
use super::linux::Linux;
use super::options::{DaemonOptions, builder, engine_options, external_moves, running};
use super::reconfigure::reader;
use super::startup::{Tracing, engage_fast_moves, move_source, tree_of};
use super::state::state_directory;
use crate::cgroup::host::Host;
use crate::cgroup::mounts::Hierarchies;
use crate::config::daemon_toml::Settings;
use crate::control::status_source::StatusSource;
use crate::engine::Engine;
use crate::kernel::connector::Connector;
use crate::policy::load::Loaded;
use crate::policy::rebuild::active::PolicyCell;
use crate::policy::worker::WorkerHandle;
use crate::telemetry::metrics::Metrics;

/// The engine before its first event, with what reports about it.
pub(super) struct StartedEngine {
    pub(super) engine: Engine<Linux>,
    /// Status of the daemon, for the threads that report it.
    pub(super) overview: StatusSource,
    pub(super) activity: Arc<Activity>,
}

/// Starts the engine with the rules in `loaded`. The events that `connector` has queued are not read.
///
/// # Errors
/// A thread, a timer or `/proc` is unavailable.
pub(super) fn start_engine(
    invocation: &DaemonOptions,
    settings: &Settings,
    loaded: Loaded,
    hierarchies: Arc<Hierarchies>,
    connector: Connector,
    trace: Option<Tracing>,
    metrics: &Arc<Metrics>,
) -> Result<StartedEngine, DaemonError> {
    let is_dry_run = invocation.dry_run;
    let external_moves = external_moves(invocation, settings);
    let roots = Host::default().roots(settings, &hierarchies);
    let tree = tree_of(&hierarchies, &roots, is_dry_run, metrics);
    let tree = tree.map_err(DaemonError::run("threads"))?;
    let cell = PolicyCell::default();
    let mut builder = builder(invocation, settings, roots, &hierarchies)
        .with_candidate(loaded)
        .with_state(state_directory().as_deref(), is_dry_run)
        .with_reloaded_settings(running(invocation, settings.clone()), reader(invocation))
        .with_cell(cell.clone());
    let policy = builder.first();
    let fast_moves = engage_fast_moves(settings, &hierarchies);
    // Waited for before the first scan, so that no move between the two is missed.
    let source = trace.and_then(|thread| move_source(thread.join().ok()?));
    let moves = (external_moves, source.is_some());
    let overview = StatusSource::new(Arc::clone(metrics), cell, hierarchies, is_dry_run, moves);
    let worker = WorkerHandle::open(builder).map_err(DaemonError::run("threads"))?;
    let activity = Arc::new(Activity::new().map_err(DaemonError::run("timerfd"))?);
    let kernel = Linux::open(
        connector,
        tree,
        source,
        fast_moves,
        worker,
        Arc::clone(&activity),
        Arc::clone(metrics),
    )
    .map_err(DaemonError::run("/proc"))?;
    let options = engine_options(settings, external_moves, is_dry_run);
    let engine = Engine::new(kernel, policy, Arc::clone(metrics), options);
    Ok(StartedEngine { engine, overview, activity })
}
