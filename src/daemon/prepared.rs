//! State that is created before the daemon goes into the background, while the caller waits for its
//! exit status.

use std::io;
use std::path::Path;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::{DaemonError, DaemonOptions, settings, sources};
use crate::config::daemon_toml::Settings;
use crate::config::diagnostic::{Diagnostic, has_errors};
use crate::policy::files::FileWatcher;
use crate::policy::load::{Loaded, NameService, load};

/// Signals that the daemon handles.
const SIGNALS: [Signal; 5] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];

/// Settings, loaded rules, and the descriptors that report signals and changed files from here on.
pub struct PreparedDaemon {
    pub(super) settings: Settings,
    /// Diagnostics about the settings file.
    pub(super) warnings: Vec<Diagnostic>,
    pub(super) signals: SignalFd,
    pub(super) files: FileWatcher,
    pub(super) loaded: Loaded,
}

impl PreparedDaemon {
    /// Reads settings and rules and starts to watch files and signals. Must be called before any
    /// thread is created, so that all threads have the signals blocked.
    ///
    /// # Errors
    /// The settings have errors, or signals or files cannot be watched.
    pub fn new(invocation: &DaemonOptions) -> Result<Self, DaemonError> {
        let (settings, warnings) = settings(invocation);
        if has_errors(&warnings) {
            return Err(DaemonError::Settings(warnings));
        }
        let signals = block_signals().map_err(DaemonError::run("signals"))?;
        let sources = sources(invocation);
        // Watched before the files are read: a change in between causes a reload.
        let files = FileWatcher::watch(&sources.directories, Path::new("/etc"), invocation.legacy)
            .map_err(DaemonError::run("inotify"))?;
        let loaded = load(&sources, &NameService::default());
        Ok(Self { settings, warnings, signals, files, loaded })
    }

    /// Returns the loaded content of the rule files.
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
