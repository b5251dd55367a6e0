//! Daemon around the engine: startup, main loop and shutdown. Must not decide anything about a
//! process.
//!
//! The loop sleeps in `epoll_wait` on the event socket, signals, replies of other threads and
//! changed files, all level-triggered: data that is not read now is reported again. The fork
//! socket is not polled.

mod check;
mod control_threads;
mod failure;
mod leader;
mod linux;
mod notify;
mod options;
mod prepared;
mod startup;
mod wake_timer;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;

use crate::cgroup::host::Host;
use crate::control::cgred::CgredServer;
use crate::control::status_source::StatusSource;
use crate::engine::{Engine, TurnResult};
use crate::event::Nanos;
use crate::kernel::connector::Connector;
use crate::kernel::program::ExeRead;
use crate::policy::files::FileWatcher;
use crate::policy::rebuild::active::PolicyCell;
use crate::policy::worker::WorkerHandle;
use crate::sys;
use crate::telemetry::log::{LogOutput, Logging};
use crate::telemetry::metrics::Metrics;
use control_threads::{ControlThreads, control_socket, sticky_socket};
use leader::{Activity, Duty, Next};
use linux::Linux;
use notify::Notifier;
use startup::{
    engage_fast_moves, hierarchies, move_source, raise_descriptor_limit, start_trace, tree_of,
};
use wake_timer::WakeTimer;

pub use check::{check, missing, missing_rules, policy, survey};
pub use failure::DaemonError;
pub use options::{ControlPath, DaemonOptions, LifecycleHooks};
use options::{builder, engine_options, levels, outputs, settings, sources};
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
    let started = Daemon::start(invocation, prepared, Arc::clone(&metrics));
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
        println!("{metrics:#}");
    }
    result
}

/// Maximum time between two checks of files, clients and notifications.
const CLOCKS_NS: u64 = 1_000_000_000;

struct Daemon {
    /// Dropped first, because its threads send requests to the fields below.
    _controlled: ControlThreads,
    engine: Engine<Linux>,
    cgred: Option<CgredServer>,
    signals: SignalFd,
    files: FileWatcher,
    epoll: Epoll,
    timer: WakeTimer,
    metrics: Arc<Metrics>,
    stats: Option<(Duration, Nanos)>,
    is_ready: bool,
    hooks: LifecycleHooks,
    notifier: Notifier,
    activity: Arc<Activity>,
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
        PreparedDaemon { settings, signals, files, loaded, .. }: PreparedDaemon,
        metrics: Arc<Metrics>,
    ) -> Result<Self, DaemonError> {
        let settings = &settings;
        let run = |what: &'static str| move |error: io::Error| DaemonError::Run(what, error);
        raise_descriptor_limit();
        let external_moves = settings.external_moves.unwrap_or(invocation.external_moves);
        let is_dry_run = invocation.dry_run;
        let trace = start_trace(external_moves, is_dry_run);
        let hierarchies = hierarchies()?;
        // Subscribed before the first scan, so that events during the scan are queued. Opened
        // before everything else that can fail: a missing connector is the failure to report.
        let buffer = settings.receive_buffer as usize;
        let connector = Connector::open(buffer).map_err(DaemonError::Unusable)?;
        // Opened before anything is moved or configured, because another daemon may be running.
        let cgred = sticky_socket(invocation, &metrics)?;
        let control = control_socket(invocation, settings)?;
        let roots = Host::default().roots(settings, &hierarchies);
        let tree = tree_of(&hierarchies, &roots, is_dry_run, &metrics).map_err(run("threads"))?;
        let cell = PolicyCell::default();
        let mut builder =
            builder(invocation, roots, &hierarchies).with_candidate(loaded).with_cell(cell.clone());
        let policy = builder.first();
        let fast_moves = engage_fast_moves(settings, &hierarchies);
        // Started before the first scan, so that no move between the two is missed.
        let source = trace.and_then(|thread| move_source(thread.join().ok()?));
        let moves = (external_moves, source.is_some());
        let overview =
            StatusSource::new(Arc::clone(&metrics), cell, hierarchies, is_dry_run, moves);
        let worker = WorkerHandle::open(builder).map_err(run("threads"))?;
        let activity = Arc::new(Activity::new().map_err(run("timerfd"))?);
        let kernel =
            Linux::open(connector, tree, source, fast_moves, worker, Arc::clone(&activity))
                .map_err(run("/proc"))?;
        let options = engine_options(settings, external_moves, is_dry_run);
        let mut engine = Engine::new(kernel, policy, Arc::clone(&metrics), options);
        let controlled =
            ControlThreads::start(invocation, settings, control, &overview, &mut engine)?;
        let in_epoll = |errno: Errno| DaemonError::Run("epoll", errno.into());
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(in_epoll)?;
        let daemon = Self {
            _controlled: controlled,
            engine,
            cgred,
            signals,
            files,
            epoll,
            timer: WakeTimer::new().map_err(run("timerfd"))?,
            metrics,
            stats: settings.stats_every.map(|every| (every, sys::monotonic())),
            is_ready: false,
            hooks: invocation.hooks.clone(),
            notifier: Notifier::from_environment(),
            activity,
            clocks_due: Nanos(0),
        };
        daemon.register().map_err(in_epoll)?;
        Ok(daemon)
    }

    fn register(&self) -> Result<(), Errno> {
        let readable = |source: LoopSource| EpollEvent::new(EpollFlags::EPOLLIN, source as u64);
        let kernel = self.engine.kernel();
        self.epoll.add(kernel.event_fd(), readable(LoopSource::Events))?;
        self.epoll.add(&self.timer, readable(LoopSource::Timer))?;
        self.epoll.add(self.signals.as_fd(), readable(LoopSource::Signals))?;
        self.epoll.add(kernel.wakeup_fd(), readable(LoopSource::Answers))?;
        self.epoll.add(self.files.as_fd(), readable(LoopSource::Files))?;
        self.cgred
            .as_ref()
            .map_or(Ok(()), |cgred| self.epoll.add(cgred, readable(LoopSource::Cgred)))
    }

    /// Runs the main loop on dedicated threads until the daemon stops.
    fn run(self) -> Result<(), DaemonError> {
        let run = |error| DaemonError::Run("threads", error);
        let reader = self.engine.kernel().exe_reader().map_err(run)?;
        let late = self.engine.kernel().late_reads();
        let activity = Arc::clone(&self.activity);
        let read = Box::new(move |request, read: &mut ExeRead| reader.read(request, read));
        // A thread that is blocked when another one has stopped the daemon ends with the process.
        leader::run(Box::new(self), activity, read, late).map_err(run)?
    }

    /// Serves the clocks that are due, and waits for events. Returns whether to stop the daemon.
    fn wait(&mut self, result: &TurnResult) -> Result<bool, DaemonError> {
        // Read once for all clocks. Under load the loop runs often enough for their precision.
        let now = sys::monotonic();
        if *result != TurnResult::Quiet || now >= self.clocks_due {
            self.say_ready();
            self.serve_clocks(now);
            self.clocks_due = self.next_clock(now);
        }
        let is_busy = *result == TurnResult::Busy;
        let timeout = if is_busy {
            EpollTimeout::ZERO
        } else {
            self.timer.timeout(self.engine.next_turn().min(self.clocks_due), now)
        };
        let pause = self.engine.pause(now);
        self.activity.waits(now);
        if pause > 0 && !is_busy {
            std::thread::sleep(Duration::from_nanos(pause));
        }
        let mut events = [EpollEvent::empty(); 6];
        let ready = match self.epoll.wait(&mut events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(DaemonError::Run("epoll", errno.into())),
        };
        self.activity.works(sys::monotonic());
        self.serve(&events[..ready])
    }

    /// Serves everything except the engine. Returns whether to stop the daemon.
    fn serve(&mut self, events: &[EpollEvent]) -> Result<bool, DaemonError> {
        for event in events {
            if event.data() == LoopSource::Events as u64 {
                continue;
            }
            if event.data() == LoopSource::Timer as u64 {
                self.timer.expired();
                continue;
            }
            self.engine.expect_other_work();
            self.clocks_due = Nanos(0);
            if event.data() == LoopSource::Signals as u64 && self.serve_signals() {
                self.notifier.stopping();
                return Ok(true);
            }
            if event.data() == LoopSource::Answers as u64 {
                self.engine.take_answers();
            }
            if event.data() == LoopSource::Cgred as u64 {
                self.serve_clients()?;
            }
            if event.data() == LoopSource::Files as u64 {
                self.files.read(sys::monotonic());
            }
        }
        Ok(false)
    }

    fn serve_clients(&mut self) -> Result<(), DaemonError> {
        let Self { engine, cgred: Some(cgred), .. } = self else { return Ok(()) };
        let mut result = Ok(());
        cgred.serve(|request, client| match engine.grant(request, client) {
            Ok(is_granted) => is_granted,
            Err(error) => {
                result = Err(DaemonError::Run("process events", error));
                false
            }
        });
        result
    }

    /// Handles pending signals. Returns whether to stop the daemon.
    fn serve_signals(&mut self) -> bool {
        let mut ends = false;
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match i32::try_from(signal.ssi_signo).map_or(Err(Errno::EINVAL), Signal::try_from) {
                Ok(Signal::SIGTERM | Signal::SIGINT) => ends = true,
                _ => self.reload(),
            }
        }
        ends
    }

    fn reload(&mut self) {
        (self.hooks.reloading)();
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
            (self.hooks.ready)();
        }
    }

    fn serve_clocks(&mut self, now: Nanos) {
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

impl Duty for Daemon {
    type End = Result<(), DaemonError>;

    fn work(&mut self) -> Next<Self::End> {
        loop {
            let result = match self.engine.turn() {
                Ok(TurnResult::Read(request)) => return Next::Read(request),
                Ok(result) => result,
                Err(error) => return Next::End(Err(DaemonError::Run("process events", error))),
            };
            match self.wait(&result) {
                Ok(false) => {}
                Ok(true) => return Next::End(Ok(())),
                Err(failure) => return Next::End(Err(failure)),
            }
        }
    }

    fn supply(&mut self, read: &ExeRead) {
        self.engine.supply(read);
    }

    fn read_is_late(&mut self) {
        self.engine.read_is_late();
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
