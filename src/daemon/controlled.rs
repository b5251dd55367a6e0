//! The daemon's sockets: where they are, and who answers there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Control, Failure, Invocation};
use crate::config::daemon_toml::Settings;
use crate::control::cgred::Cgred;
use crate::control::exchange::exchange;
use crate::control::overview::Overview;
use crate::control::server::Server;
use crate::control::socket::Place;
use crate::control::textfile::Textfile;
use crate::engine::Engine;
use crate::metrics::Metrics;

/// The threads that say what the daemon does.
pub(super) struct Controlled {
    _server: Option<Server>,
    _textfile: Option<Textfile>,
}

impl Controlled {
    /// Lets `engine` be asked as the settings and the command line say.
    pub(super) fn start(
        invocation: &Invocation,
        settings: &Settings,
        overview: &Overview,
        engine: &mut Engine,
    ) -> Result<Self, Failure> {
        let textfile = settings.metrics_textfile.clone();
        let textfile = textfile.filter(|_| !invocation.dry_run).map(|path| {
            Textfile::start(path, overview.clone())
                .map_err(|error| Failure::Run("metrics_textfile", error))
        });
        Ok(Self {
            _server: path(invocation, settings)
                .map(|path| serve(&path, invocation, overview, engine))
                .transpose()?
                .flatten(),
            _textfile: textfile.transpose()?,
        })
    }
}

/// Where the socket is, if anywhere: a dry run beside the daemon proper does not serve unless it is told to.
fn path(invocation: &Invocation, settings: &Settings) -> Option<PathBuf> {
    match &invocation.control {
        Some(Control::At(path)) => Some(path.clone()),
        Some(Control::Off) => None,
        None => settings.control_socket.clone().filter(|_| !invocation.dry_run),
    }
}

fn serve(
    path: &Path,
    invocation: &Invocation,
    overview: &Overview,
    engine: &mut Engine,
) -> Result<Option<Server>, Failure> {
    let started = exchange(Arc::clone(&engine.ringer())).and_then(|(hot, side)| {
        let server = Server::start(path, side, overview.clone())?;
        engine.serve(hot);
        Ok(server)
    });
    match started {
        Ok(server) => Ok(Some(server)),
        Err(error) if invocation.control_is_optional => {
            ::log::warn!("control socket: {error}; going on without it");
            Ok(None)
        }
        Err(error) => Err(Failure::Run("control socket", error)),
    }
}

/// Opens the original's socket, if it is to be served.
pub(super) fn sticky_socket(
    invocation: &Invocation,
    metrics: &Arc<Metrics>,
) -> Result<Option<Cgred>, Failure> {
    let path = invocation.sticky_socket.as_ref();
    let Some(path) = path.filter(|_| invocation.legacy && !invocation.dry_run) else {
        return Ok(None);
    };
    let (owner, group) = (invocation.socket_owner, invocation.socket_group);
    let place = Place::shared(path.clone(), owner, group);
    let cgred = Cgred::open(place, Arc::clone(metrics));
    cgred.map(Some).map_err(|error| Failure::Run("sticky socket", error))
}
