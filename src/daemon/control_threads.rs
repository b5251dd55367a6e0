//! Sockets of the daemon: their paths and the threads that serve them.

use std::path::PathBuf;
use std::sync::Arc;

use super::linux::Linux;
use super::{ControlPath, DaemonError, DaemonOptions};
use crate::config::daemon_toml::Settings;
use crate::control::cgred::CgredServer;
use crate::control::channel::exchange;
use crate::control::history;
use crate::control::server::{BoundServer, ControlServer};
use crate::control::socket::SocketAddress;
use crate::control::status_source::StatusSource;
use crate::control::textfile::Textfile;
use crate::engine::Engine;
use crate::telemetry::metrics::Metrics;

/// Threads that report the state of the daemon.
pub(super) struct ControlThreads {
    _server: Option<ControlServer>,
    textfile: Option<(PathBuf, Textfile)>,
    overview: StatusSource,
}

impl ControlThreads {
    /// Starts the thread that serves `socket`, if there is one, and the one that writes the metrics
    /// file, if it is configured.
    pub(super) fn start(
        invocation: &DaemonOptions,
        settings: &Settings,
        socket: Option<BoundServer>,
        overview: &StatusSource,
        engine: &mut Engine<Linux>,
    ) -> Result<Self, DaemonError> {
        let path = settings.metrics_textfile.clone().filter(|_| !invocation.dry_run);
        // Without the socket no client can read it.
        let size = settings.history_size as usize;
        let history = (socket.is_some() && size > 0).then(|| {
            let (recorder, reader) = history::open(size, Arc::clone(overview.metrics()));
            engine.record(recorder);
            reader
        });
        let overview = overview.clone().with_history(history);
        Ok(Self {
            _server: socket.map(|socket| serve(socket, &overview, engine)).transpose()?,
            textfile: textfile(path, &overview).map_err(DaemonError::run("metrics_textfile"))?,
            overview,
        })
    }

    /// Writes the metrics to this file from now on, or to none.
    pub(super) fn write_metrics_to(&mut self, path: Option<&PathBuf>) {
        if self.textfile.as_ref().map(|(own, _)| own) == path {
            return;
        }
        let new = textfile(path.cloned(), &self.overview).unwrap_or_else(|error| {
            ::log::error!("metrics_textfile: {error}; no metrics are written");
            None
        });
        let old = std::mem::replace(&mut self.textfile, new);
        // Its end waits for a disk.
        std::thread::spawn(move || drop(old));
    }
}

fn textfile(
    path: Option<PathBuf>,
    overview: &StatusSource,
) -> std::io::Result<Option<(PathBuf, Textfile)>> {
    let Some(path) = path else { return Ok(None) };
    let writer = Textfile::start(path.clone(), overview.clone())?;
    Ok(Some((path, writer)))
}

/// Returns the path of the control socket, if it is to be served. A dry run can run beside the
/// daemon proper, so it needs the option.
fn path(invocation: &DaemonOptions, settings: &Settings) -> Option<PathBuf> {
    match &invocation.control {
        Some(ControlPath::At(path)) => Some(path.clone()),
        Some(ControlPath::Off) => None,
        None => settings.control_socket.clone().filter(|_| !invocation.dry_run),
    }
}

fn serve(
    socket: BoundServer,
    overview: &StatusSource,
    engine: &mut Engine<Linux>,
) -> Result<ControlServer, DaemonError> {
    let (hot, control) = exchange(engine.kernel().waker());
    engine.serve(hot);
    ControlServer::start(socket, control, overview.clone())
        .map_err(DaemonError::run("control socket"))
}

/// Opens the control socket, if it is to be served.
pub(super) fn control_socket(
    invocation: &DaemonOptions,
    settings: &Settings,
) -> Result<Option<BoundServer>, DaemonError> {
    let Some(path) = path(invocation, settings) else { return Ok(None) };
    match BoundServer::open(&path) {
        Ok(bound) => Ok(Some(bound)),
        Err(error) if invocation.control_is_optional => {
            ::log::warn!("control socket: {error}; continuing without it");
            Ok(None)
        }
        Err(error) => Err(DaemonError::to_make("control socket", error)),
    }
}

/// Opens the socket of cgrulesengd, if it is to be served.
pub(super) fn sticky_socket(
    invocation: &DaemonOptions,
    metrics: &Arc<Metrics>,
) -> Result<Option<CgredServer>, DaemonError> {
    let path = invocation.sticky_socket.as_ref();
    let Some(path) = path.filter(|_| invocation.legacy && !invocation.dry_run) else {
        return Ok(None);
    };
    let owner = invocation.socket_owner;
    let group = invocation.socket_group;
    let place = SocketAddress::shared(path.clone(), owner, group);
    let cgred = CgredServer::open(place, Arc::clone(metrics));
    cgred.map(Some).map_err(|error| DaemonError::to_make("sticky socket", error))
}
