//! Daemon around the engine: startup, main loop and shutdown. Must not decide anything about a
//! process.
//!
//! The loop sleeps in `epoll_wait` on the event socket, signals, replies of other threads and
//! changed files, all level-triggered: data that is not read now is reported again. The fork
//! socket is not polled.

mod check;
mod control_threads;
mod engine_start;
mod failure;
mod leader;
mod linux;
mod main_loop;
mod notify;
mod options;
mod prepared;
mod privileges;
mod reconfigure;
mod scheduling;
mod startup;
mod state;
mod wake_timer;

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::signalfd::SignalFd;

use crate::control::cgred::CgredServer;
use crate::engine::Engine;
use crate::event::Nanos;
use crate::kernel::connector::Connector;
use crate::kernel::program::ExeRead;
use crate::policy::files::FileWatcher;
use crate::sys;
use crate::telemetry::log::{LevelSwitch, LogOutput, Logging};
use crate::telemetry::metrics::Metrics;
use control_threads::{ControlThreads, control_socket, sticky_socket};
use engine_start::{StartedEngine, start_engine};
use leader::Activity;
use linux::Linux;
use notify::Notifier;
use scheduling::{LeaderScheduling, use_realtime};
use startup::{hierarchies, lock_program, raise_descriptor_limit, start_trace};
use wake_timer::WakeTimer;

pub use check::{check, missing, missing_rules, policy, survey};
pub use failure::DaemonError;
pub use options::{ControlPath, DaemonOptions, LifecycleHooks, sources};
use options::{external_moves, levels, outputs, settings};
pub use prepared::PreparedDaemon;

/// Runs the daemon until a signal stops it.
///
/// # Errors
/// The reason for which it could not start or had to stop.
pub fn run(invocation: &DaemonOptions) -> Result<(), DaemonError> {
    run_prepared(invocation, PreparedDaemon::new(invocation)?)
}

/// Runs the daemon like [`run`], with rules that were read before.
///
/// # Errors
/// As [`run`].
pub fn run_prepared(
    invocation: &DaemonOptions,
    prepared: PreparedDaemon,
) -> Result<(), DaemonError> {
    let metrics = Arc::new(Metrics::default());
    let outputs = outputs(invocation, &prepared.settings);
    let levels = levels(invocation, &prepared.settings);
    let logging = Logging::start(&outputs, levels, Arc::clone(&metrics))
        .map_err(|error| DaemonError::to_make("log", error))?;
    let LifecycleHooks { opening, ended, .. } = &invocation.hooks;
    opening.iter().for_each(|(level, line)| ::log::log!(*level, "{line}"));
    prepared.warnings.iter().for_each(crate::policy::rebuild::say);
    let started = Daemon::start(invocation, prepared, Arc::clone(&metrics), logging.levels());
    let counts = started.is_ok() && invocation.prints_counters;
    let result = started.and_then(Daemon::run);
    match &result {
        Ok(()) => ended(),
        // The caller prints the failure on standard error.
        Err(_) if outputs.iter().any(LogOutput::is_standard_error) => {}
        Err(failure) => ::log::error!("{failure}"),
    }
    logging.finish();
    if counts {
        // A closed pipe or a full disk loses the counters, not the exit code.
        let _printed = writeln!(io::stdout(), "{metrics:#}");
    }
    result
}

/// Maximum time between two checks of files, clients and notifications.
const CLOCKS_NS: u64 = 1_000_000_000;

struct Daemon {
    /// Dropped first, because its threads send requests to the fields below.
    controlled: ControlThreads,
    engine: Engine<Linux>,
    cgred: Option<CgredServer>,
    signals: SignalFd,
    files: FileWatcher,
    epoll: Epoll,
    timer: WakeTimer,
    metrics: Arc<Metrics>,
    stats: Option<(Duration, Nanos)>,
    is_ready: bool,
    invocation: DaemonOptions,
    levels: LevelSwitch,
    notifier: Notifier,
    activity: Arc<Activity>,
    scheduling: LeaderScheduling,
    /// Time at which files, clients and notifications are checked, unless something other than
    /// process events occurs before.
    clocks_due: Nanos,
}

/// Event sources of the main loop.
#[derive(Clone, Copy)]
enum LoopSource {
    Events,
    Timer,
    Signals,
    Answers,
    Files,
    Cgred,
}

impl Daemon {
    fn start(
        invocation: &DaemonOptions,
        PreparedDaemon { settings, signals, mut files, loaded, .. }: PreparedDaemon,
        metrics: Arc<Metrics>,
        levels: LevelSwitch,
    ) -> Result<Self, DaemonError> {
        privileges::report(raise_descriptor_limit());
        lock_program();
        files.report(sys::monotonic());
        let trace = start_trace(external_moves(invocation, &settings), invocation.dry_run);
        let hierarchies = hierarchies()?;
        // Subscribed before the first scan, so that events during the scan are queued. Opened
        // before everything else that can fail: a missing connector is the failure to report.
        let buffer = settings.receive_buffer as usize;
        let connector = Connector::open(buffer).map_err(DaemonError::of_connector)?;
        // Opened before anything is moved or configured, because another daemon may be running.
        let cgred = sticky_socket(invocation, &metrics)?;
        let control = control_socket(invocation, &settings)?;
        let StartedEngine { mut engine, overview, activity } =
            start_engine(invocation, &settings, loaded, hierarchies, connector, trace, &metrics)?;
        let controlled =
            ControlThreads::start(invocation, &settings, control, &overview, &mut engine)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(io::Error::from);
        let daemon = Self {
            controlled,
            engine,
            cgred,
            signals,
            files,
            epoll: epoll.map_err(DaemonError::run("epoll"))?,
            timer: WakeTimer::new().map_err(DaemonError::run("timerfd"))?,
            metrics,
            stats: settings.stats_every.map(|every| (every, sys::monotonic())),
            is_ready: false,
            invocation: invocation.clone(),
            levels,
            notifier: Notifier::from_environment(),
            activity,
            scheduling: LeaderScheduling::new(use_realtime(settings.scheduling)),
            clocks_due: Nanos(0),
        };
        daemon.register().map_err(DaemonError::run("epoll"))?;
        Ok(daemon)
    }

    /// Adds the event sources of the main loop.
    fn register(&self) -> io::Result<()> {
        let kernel = self.engine.kernel();
        self.add(LoopSource::Events, kernel.event_fd())?;
        self.add(LoopSource::Timer, &self.timer)?;
        self.add(LoopSource::Signals, &self.signals)?;
        self.add(LoopSource::Answers, kernel.wakeup_fd())?;
        self.add(LoopSource::Files, self.files.as_fd())?;
        self.cgred.as_ref().map_or(Ok(()), |cgred| self.add(LoopSource::Cgred, cgred))
    }

    fn add(&self, source: LoopSource, fd: impl AsFd) -> io::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN, source as u64);
        Ok(self.epoll.add(fd, event)?)
    }

    /// Runs the main loop on dedicated threads until the daemon stops.
    fn run(self) -> Result<(), DaemonError> {
        let reader = self.engine.kernel().exe_reader().map_err(DaemonError::run("threads"))?;
        let late = self.engine.kernel().late_reads();
        let activity = Arc::clone(&self.activity);
        let read = Box::new(move |request, read: &mut ExeRead| reader.read(request, read));
        // A thread that is blocked when another one has stopped the daemon ends with the process.
        let is_realtime = self.scheduling.is_enabled();
        leader::run(Box::new(self), activity, read, late, is_realtime)
            .map_err(DaemonError::run("threads"))?
    }

    fn reload(&mut self) {
        (self.invocation.hooks.reloading)();
        self.notifier.reloading(sys::monotonic(), &self.metrics);
        self.engine.reload();
    }

    fn say_ready(&mut self) {
        if !self.is_ready && self.engine.is_settled() {
            self.is_ready = true;
            let placed = self.metrics.placed.get();
            ::log::info!(
                message_id = crate::telemetry::log::field::READY;
                "ready: all processes evaluated, {placed} moved"
            );
            (self.invocation.hooks.ready)();
        }
    }

    fn serve_clocks(&mut self, now: Nanos) {
        self.take_settings();
        let is_settled = self.engine.is_settled();
        self.notifier.tick(now, is_settled, self.engine.summary(), &self.metrics);
        if self.files.take_due(now).is_some() {
            self.reload();
        }
        if self.engine.wants_reload() {
            self.reload();
        }
        if let Some(cgred) = &mut self.cgred {
            cgred.expire(now);
        }
        if let Some((every, last)) = &mut self.stats {
            if now.since(*last) >= nanoseconds(*every) {
                *last = now;
                ::log::info!("{}", self.metrics.to_string().trim_end().replace('\n', ", "));
            }
        }
    }

    /// Returns the time of the next call of [`Self::serve_clocks`].
    fn next_clock(&self, now: Nanos) -> Nanos {
        let stats = self.stats.map(|(every, last)| last.plus(nanoseconds(every)));
        let clients = self.cgred.as_ref().and_then(CgredServer::next_due);
        [self.files.next_due(), clients, stats, self.notifier.next_due()]
            .into_iter()
            .flatten()
            .fold(now.plus(CLOCKS_NS), Nanos::min)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
