//! Options with which the daemon is started, and what follows from them with the settings file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ::log::{Level, LevelFilter};

use super::nanoseconds;
use crate::cgroup::host::ManagedRoots;
use crate::cgroup::mounts::Hierarchies;
use crate::config::daemon_toml::{ExternalMoves, LogTarget, Root, Settings};
use crate::config::diagnostic::Diagnostic;
use crate::engine::EngineOptions;
use crate::engine::external_moves::MOVE_SCAN_NS;
use crate::event::{Gid, Uid};
use crate::placement::assertions;
use crate::policy::load::{self, NameService, Overlay, Sources};
use crate::policy::rebuild::{ObserverOf, PolicyBuilder};
use crate::telemetry::log::{Levels, LogOutput};

/// Values of the command line, or of the program that starts the daemon.
#[derive(Clone, Debug)]
pub struct DaemonOptions {
    /// Path of the file with the settings.
    pub config: PathBuf,
    /// Rule directories, the most important one first. Empty for the standard ones.
    pub rules: Vec<PathBuf>,
    /// Enables reading of legacy rule files.
    pub legacy: bool,
    /// Retained versions of rule files that replace their content, as in a running daemon.
    pub overlay: Overlay,
    /// Root of the cgroups of rules, overriding the setting.
    pub root: Option<PathBuf>,
    /// Enables dry-run mode: moves are logged but not made.
    pub dry_run: bool,
    /// Log level, overriding the setting.
    pub level: Option<LevelFilter>,
    /// Enables logging of warnings about files wherever errors are logged, at any level.
    pub warns_of_files: bool,
    /// Interval between two reports of counters, overriding the setting.
    pub stats_every: Option<Duration>,
    /// Outputs of the log, overriding the setting. Empty for the setting.
    pub outputs: Vec<LogOutput>,
    /// Reaction to external moves if the settings have none.
    pub external_moves: ExternalMoves,
    /// Enables printing of the counters at exit.
    pub prints_counters: bool,
    /// Log lines of another daemon, written besides those of this one.
    pub hooks: LifecycleHooks,
    /// Path of cgrulesengd's socket, on which processes request to stay where they are. Not served
    /// without `legacy`, nor in a dry run.
    pub sticky_socket: Option<PathBuf>,
    /// Control socket, overriding the setting.
    pub control: Option<ControlPath>,
    /// Lets the daemon start without its control socket if that cannot be created.
    pub control_is_optional: bool,
    /// Owner of the socket of cgrulesengd.
    pub socket_owner: Option<Uid>,
    /// Group of cgrulesengd's socket; its members may connect.
    pub socket_group: Option<Gid>,
}

/// Configuration of the control socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlPath {
    /// The control socket is not served.
    Off,
    /// The control socket has this path.
    At(PathBuf),
}

/// Log lines of another daemon, which scripts may wait for.
#[derive(Clone, Debug)]
pub struct LifecycleHooks {
    /// Lines that are logged before all others.
    pub opening: Vec<(Level, String)>,
    /// Called when all processes have been evaluated.
    pub ready: fn(),
    /// Called when the rules are read again.
    pub reloading: fn(),
    /// Called when a signal has stopped the daemon.
    pub ended: fn(),
    /// Creates the observer of evaluations for rules that may become active.
    pub rules: ObserverOf,
}

impl Default for LifecycleHooks {
    fn default() -> Self {
        let (nothing, opening): (fn(), _) = (|| {}, Vec::new());
        let ready = nothing;
        let reloading = nothing;
        let ended = nothing;
        Self { opening, ready, reloading, ended, rules: |_| None }
    }
}

impl Default for DaemonOptions {
    fn default() -> Self {
        Self {
            config: PathBuf::from("/etc/cgruled/cgruled.toml"),
            rules: Vec::new(),
            legacy: true,
            overlay: Overlay::default(),
            root: None,
            dry_run: false,
            level: None,
            warns_of_files: false,
            stats_every: None,
            outputs: Vec::new(),
            external_moves: ExternalMoves::Revert,
            prints_counters: true,
            hooks: LifecycleHooks::default(),
            control: None,
            control_is_optional: false,
            sticky_socket: Some(PathBuf::from("/run/cgred.socket")),
            socket_owner: None,
            socket_group: None,
        }
    }
}

pub(super) fn outputs(invocation: &DaemonOptions, settings: &Settings) -> Vec<LogOutput> {
    match &*invocation.outputs {
        [] => vec![LogOutput::Target(settings.log.target.clone())],
        outputs => outputs.to_vec(),
    }
}

pub(super) fn levels(invocation: &DaemonOptions, settings: &Settings) -> Levels {
    let usual = settings.log.level;
    let says_more = invocation.warns_of_files && usual > LevelFilter::Off;
    let diagnostics = if says_more { usual.max(LevelFilter::Warn) } else { usual };
    Levels { usual, diagnostics }
}

pub(super) fn settings(invocation: &DaemonOptions) -> (Settings, Vec<Diagnostic>) {
    let (mut settings, diagnostics) = load::settings(&invocation.config, Uid(0));
    if let Some(root) = &invocation.root {
        settings.root = Root::Path(root.clone());
    }
    settings.log.level = invocation.level.unwrap_or(settings.log.level);
    settings.stats_every = invocation.stats_every.or(settings.stats_every);
    (settings, diagnostics)
}

/// Returns the settings with which the daemon runs: those of the file, and in their place the
/// values of the command line.
pub(super) fn running(invocation: &DaemonOptions, mut settings: Settings) -> Settings {
    match &invocation.control {
        Some(ControlPath::At(path)) => settings.control_socket = Some(path.clone()),
        Some(ControlPath::Off) => settings.control_socket = None,
        None => settings.control_socket = settings.control_socket.filter(|_| !invocation.dry_run),
    }
    if !invocation.outputs.is_empty() {
        settings.log.target = LogTarget::Auto;
    }
    settings.metrics_textfile = settings.metrics_textfile.filter(|_| !invocation.dry_run);
    settings.external_moves.get_or_insert(invocation.external_moves);
    settings
}

/// Returns the reaction to external moves: the setting, or else that of the command line.
pub(super) fn external_moves(invocation: &DaemonOptions, settings: &Settings) -> ExternalMoves {
    settings.external_moves.unwrap_or(invocation.external_moves)
}

/// Returns the places of the rule files of a daemon with these options.
pub fn sources(invocation: &DaemonOptions) -> Sources {
    let mut sources = Sources { legacy: invocation.legacy, ..Sources::default() };
    if !invocation.rules.is_empty() {
        sources.directories.clone_from(&invocation.rules);
    }
    sources
}

pub(super) fn builder(
    invocation: &DaemonOptions,
    settings: &Settings,
    roots: ManagedRoots,
    hierarchies: &Arc<Hierarchies>,
) -> PolicyBuilder {
    let sources = sources(invocation);
    let names = NameService::default();
    let hierarchies = Arc::clone(hierarchies);
    PolicyBuilder::new(sources, names, hierarchies, roots)
        .with_settings_of(&invocation.config)
        .with_retained(invocation.overlay.clone())
        .with_observer(invocation.hooks.rules)
        .with_tests(assertions::report, settings.strict_tests)
}

pub(super) fn engine_options(
    settings: &Settings,
    external_moves: ExternalMoves,
    is_dry_run: bool,
) -> EngineOptions {
    let finds_external_moves = external_moves != ExternalMoves::Off;
    let recheck_ns = settings.recheck.map(nanoseconds).filter(|_| finds_external_moves);
    let move_scan_ns = move_scan_ns();
    EngineOptions { recheck_ns, finds_external_moves, move_scan_ns, external_moves, is_dry_run }
}

/// Milliseconds between two scans for external moves where these are not traced: a test cannot wait
/// for a minute.
const MOVE_SCAN_VARIABLE: &str = "CGRULED_TEST_MOVE_SCAN_MS";

/// Returns the time between two scans for external moves.
fn move_scan_ns() -> u64 {
    let text = std::env::var(MOVE_SCAN_VARIABLE).ok();
    let milliseconds: Option<u64> = text.and_then(|text| text.parse().ok());
    milliseconds.map_or(MOVE_SCAN_NS, |time| time.saturating_mul(1_000_000))
}
