//! Sockets of the daemon: their paths and the threads that serve them.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Control, Failure, Invocation};
use crate::config::daemon_toml::Settings;
use crate::control::cgred::Cgred;
use crate::control::exchange::exchange;
use crate::control::overview::Overview;
use crate::control::server::{Bound, Server};
use crate::control::socket::Place;
use crate::control::textfile::Textfile;
use crate::engine::Engine;
use crate::metrics::Metrics;

/// Threads that report the state of the daemon.
pub(super) struct Controlled {
    _server: Option<Server>,
    _textfile: Option<Textfile>,
}

impl Controlled {
    /// Starts the thread that serves `socket`, if there is one, and the one that writes the metrics
    /// file, if it is configured.
    pub(super) fn start(
        invocation: &Invocation,
        settings: &Settings,
        socket: Option<Bound>,
        overview: &Overview,
        engine: &mut Engine,
    ) -> Result<Self, Failure> {
        let textfile = settings.metrics_textfile.clone();
        let textfile = textfile.filter(|_| !invocation.dry_run).map(|path| {
            Textfile::start(path, overview.clone())
                .map_err(|error| Failure::Run("metrics_textfile", error))
        });
        Ok(Self {
            _server: socket.map(|socket| serve(socket, overview, engine)).transpose()?,
            _textfile: textfile.transpose()?,
        })
    }
}

/// Returns the path of the control socket, if it is to be served. A dry run can run beside the
/// daemon proper, so it needs the option.
fn path(invocation: &Invocation, settings: &Settings) -> Option<PathBuf> {
    match &invocation.control {
        Some(Control::At(path)) => Some(path.clone()),
        Some(Control::Off) => None,
        None => settings.control_socket.clone().filter(|_| !invocation.dry_run),
    }
}

fn serve(socket: Bound, overview: &Overview, engine: &mut Engine) -> Result<Server, Failure> {
    let started = exchange(Arc::clone(&engine.ringer())).and_then(|(hot, side)| {
        let server = Server::start(socket, side, overview.clone())?;
        engine.serve(hot);
        Ok(server)
    });
    started.map_err(|error| Failure::Run("control socket", error))
}

/// Opens the control socket, if it is to be served.
pub(super) fn control_socket(
    invocation: &Invocation,
    settings: &Settings,
) -> Result<Option<Bound>, Failure> {
    let Some(path) = path(invocation, settings) else { return Ok(None) };
    match Bound::open(&path) {
        Ok(bound) => Ok(Some(bound)),
        Err(error) if invocation.control_is_optional => {
            ::log::warn!("control socket: {error}; continuing without it");
            Ok(None)
        }
        Err(error) => Err(Failure::to_make("control socket", error)),
    }
}

/// Opens the socket of cgrulesengd, if it is to be served.
pub(super) fn sticky_socket(
    invocation: &Invocation,
    metrics: &Arc<Metrics>,
) -> Result<Option<Cgred>, Failure> {
    let path = invocation.sticky_socket.as_ref();
    let Some(path) = path.filter(|_| invocation.legacy && !invocation.dry_run) else {
        return Ok(None);
    };
    let owner = invocation.socket_owner;
    let group = invocation.socket_group;
    let place = Place::shared(path.clone(), owner, group);
    let cgred = Cgred::open(place, Arc::clone(metrics));
    cgred.map(Some).map_err(|error| Failure::to_make("sticky socket", error))
}
