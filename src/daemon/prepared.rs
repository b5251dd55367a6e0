//! What is had before the daemon goes into the background, while somebody waits for its status.

use std::io;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{Failure, Invocation, settings, sources};
use crate::config::daemon_toml::Settings;
use crate::config::diagnostic::{Diagnostic, has_errors};
use crate::load::{Loaded, NameService, load};
use crate::source::files::Files;

/// The signals that we serve.
const SIGNALS: [Signal; 5] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];

/// Signals and changes of files, which count from here on, and what the files say.
pub struct Prepared {
    pub(super) settings: Settings,
    /// What is to be said of the settings.
    pub(super) remarks: Vec<Diagnostic>,
    pub(super) signals: SignalFd,
    pub(super) files: Files,
    pub(super) loaded: Loaded,
}

impl Prepared {
    /// To be called before any thread is made, so that all of them have the signals blocked.
    ///
    /// # Errors
    /// The settings have errors; signals or files cannot be watched.
    pub fn new(invocation: &Invocation) -> Result<Self, Failure> {
        let run = |what: &'static str| move |error: io::Error| Failure::Run(what, error);
        let (settings, remarks) = settings(invocation);
        if has_errors(&remarks) {
            return Err(Failure::Settings(remarks));
        }
        let signals = block_signals().map_err(run("signals"))?;
        let sources = sources(invocation);
        // Before they are read: a change meanwhile is read afterwards.
        let files = Files::watch(&sources.directories, Path::new("/etc"), invocation.legacy)
            .map_err(run("inotify"))?;
        let loaded = load(&sources, &NameService::default());
        Ok(Self { settings, remarks, signals, files, loaded })
    }

    /// What the files say.
    pub const fn loaded(&self) -> &Loaded {
        &self.loaded
    }
}

fn block_signals() -> io::Result<SignalFd> {
    let mut set = SigSet::empty();
    SIGNALS.into_iter().for_each(|signal| set.add(signal));
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}
