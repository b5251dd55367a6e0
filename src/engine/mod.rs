//! The event loop body of the daemon: receives events, evaluates processes, applies rules. It must
//! not block on a disk, a name service or memory of a user.
//!
//! An event only triggers an evaluation. `Engine::evaluate` reads the current state of the process,
//! finds the first matching rule and lets the placer move the process into its cgroup. There is no
//! process table that could become stale.
//!
//! ```text
//! event socket ─► queue ─► evaluation ─► matcher ─► placer ─► cgroup.procs
//! fork socket ─► tracker ─► evaluation (children born before the evaluation of their creator took effect)
//! 100 ms later ─────► evaluation (recheck of the placement)
//! start, reload, loss ─► scan ─► evaluation (all processes)
//! ```
//!
//! [`Engine::turn`] does a bounded amount of work, so that signals and replies of other threads are
//! served in between. It returns when an evaluation needs an executable: reading one can block, so
//! the leading thread reads it while the engine is checked in (see [`crate::engine::leader`]), then
//! continues with [`Engine::supply`].
//!
//! Three rules maintain the invariant: an event is completed only by an evaluation; a fork is
//! checked only after everything that was queued before it is completed (see
//! [`crate::tracking::fork_tracker`]); and the number of events that the kernel drops is known
//! exactly, and any loss causes a scan.

mod account;
mod commands;
mod completion;
mod evaluation;
mod executables;
pub(crate) mod external_moves;
mod forks;
pub mod leader;
mod name_lookups;
pub mod placer;
mod rechecks;
mod rescan;
pub mod sticky;
mod threads;

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::engine::leader::Activity;
use crate::engine::placer::Placer;
use crate::engine::sticky::PinTable;
use crate::event::{Cause, Nanos};
use crate::kernel::connector::Connector;
use crate::kernel::intake::EventIntake;
use crate::kernel::process::ProcFs;
use crate::kernel::program::{ExeReader, ReadRequest};
use crate::policy::Policy;
use crate::policy::worker::{WorkerHandle, WorkerReply};
use crate::sys;
use crate::telemetry::metrics::Metrics;
use crate::tracking::queue::EvaluationRequest;
use commands::{LastDecision, PendingCommands};
use evaluation::{Evaluation, OpenEvaluation};
use executables::Executables;
use name_lookups::PendingName;
use rechecks::Rechecks;
use rescan::{Rescan, Urgency};
use threads::OwnCredentials;

/// Evaluations of one stage before the next stage runs: about 1 ms.
const AT_ONCE: usize = 256;
/// Time after which a turn starts no further round, so that signals are served.
const TURN_NS: u64 = 20_000_000;
/// Maximum number of rounds per turn.
const ROUNDS: usize = 8;

/// Configuration of the engine by the daemon.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// Time from a placement to its recheck; `None` disables rechecks.
    pub recheck_ns: Option<u64>,
    /// Enables detection of external moves: by the trace, or by periodic scans if there is no
    /// trace.
    pub finds_external_moves: bool,
    /// From one of those scans to the next.
    pub move_scan_ns: u64,
}

/// Next step of the caller after [`Engine::turn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum TurnResult {
    /// No work is left: wait for events.
    Idle,
    /// Work is left: call [`Engine::turn`] again at once.
    Busy,
    /// Read this executable, pass it to [`Engine::supply`] or call [`Engine::read_is_late`], then
    /// continue the turn.
    Read(ReadRequest),
}

/// Stage of a round, in the order of execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TurnStage {
    /// Reads the event socket into the batch.
    Receive,
    /// Evaluates the processes of the batch.
    Batch,
    /// Checks for lost events and reads forks.
    Follow,
    /// Evaluates forked children that may be misplaced.
    Forks,
    /// Evaluates processes that others moved.
    Moves,
    /// Rechecks placements and retries refused ones.
    Rechecks,
    /// Continues evaluations after their reply has arrived.
    Answered,
    /// Evaluates the processes of a scan.
    Scan,
    /// Serves clients of the control socket.
    Errands,
    /// Evaluates processes that a client named.
    Asked,
}

impl TurnStage {
    const fn next(self) -> Self {
        match self {
            Self::Receive => Self::Batch,
            Self::Batch => Self::Follow,
            Self::Follow => Self::Forks,
            Self::Forks => Self::Moves,
            Self::Moves => Self::Rechecks,
            Self::Rechecks => Self::Answered,
            Self::Answered => Self::Scan,
            Self::Scan => Self::Errands,
            Self::Errands => Self::Asked,
            Self::Asked => Self::Receive,
        }
    }
}

/// Progress of a turn, kept while an executable is read.
#[derive(Clone, Copy, Debug)]
struct Progress {
    began: Nanos,
    rounds: usize,
    stage: TurnStage,
    /// Evaluations left in this stage.
    left: usize,
}

/// State of the daemon apart from its main loop.
pub struct Engine {
    intake: EventIntake,
    proc: ProcFs,
    policy: Box<Policy>,
    placer: Placer,
    worker: WorkerHandle,
    metrics: Arc<Metrics>,
    options: EngineOptions,

    sticky: PinTable,
    rescan: Rescan,
    rechecks: Rechecks,
    /// Evaluations that wait for a name.
    waiting: HashMap<PendingName, Vec<EvaluationRequest>, FixedState>,
    /// Evaluations that wait for an executable.
    executables: Executables,
    /// Evaluations that can continue, in order of arrival.
    answered: VecDeque<Evaluation>,
    own_credentials: OwnCredentials,
    commands: PendingCommands,
    last_decision: LastDecision,
    /// Time at which the current stage of evaluations began or resumed after a read. Its processes
    /// are opened later than this.
    stage_began: Nanos,
    /// Suspended turn, while an executable is read.
    progress: Option<Progress>,
    /// Evaluation suspended until its executable was read.
    open: Option<OpenEvaluation>,
    /// Further read that the same evaluation needs.
    also_needed: Option<ReadRequest>,
    /// Time of the next scan for external moves, where they are not traced.
    scan_for_moves: Option<Nanos>,
}

impl Engine {
    /// Creates an engine that begins with a scan of all processes.
    pub fn new(
        connector: Connector,
        proc: ProcFs,
        policy: Box<Policy>,
        mut placer: Placer,
        worker: WorkerHandle,
        metrics: Arc<Metrics>,
        options: EngineOptions,
    ) -> Self {
        metrics.reloads.increment();
        placer.adopt(&policy);
        let mut rescan = Rescan::default();
        rescan.want(Urgency::Now);
        placer.managers().wake_by(worker.waker());
        Self {
            intake: EventIntake::new(connector, Arc::clone(&metrics)),
            sticky: PinTable::new(Arc::clone(&metrics)),
            proc,
            policy,
            placer,
            worker,
            metrics,
            options,
            rescan,
            rechecks: Rechecks::default(),
            waiting: HashMap::default(),
            executables: Executables::default(),
            answered: VecDeque::new(),
            own_credentials: OwnCredentials::default(),
            commands: PendingCommands::default(),
            last_decision: LastDecision::default(),
            stage_began: Nanos(0),
            progress: None,
            open: None,
            also_needed: None,
            scan_for_moves: None,
        }
    }

    /// Returns the descriptor to poll for events. The fork socket is never polled.
    pub fn watch(&self) -> BorrowedFd<'_> {
        self.intake.watch()
    }

    /// Returns the descriptor that becomes readable when another thread has replied.
    pub fn wakeup_fd(&self) -> BorrowedFd<'_> {
        self.worker.wakeup_fd()
    }

    /// Creates the reader for the executables that [`Self::turn`] requests.
    ///
    /// # Errors
    /// As dup(2).
    pub fn exe_reader(&self) -> io::Result<ExeReader> {
        ExeReader::new(&self.proc)
    }

    /// Returns the callback for late reads that have completed.
    pub fn late_reads(&self) -> Box<dyn Fn(ReadRequest) + Send + Sync> {
        self.worker.late_reads()
    }

    /// Registers `activity`, which is informed of calls that can take long.
    pub fn tell(&mut self, activity: Arc<Activity>) {
        self.placer.tell(activity);
    }

    /// Handles the replies of other threads.
    pub fn take_answers(&mut self) {
        let answers: Vec<WorkerReply> = self.worker.answers().collect();
        answers.into_iter().for_each(|answer| self.answer(answer));
        if self.worker.take_overflown() {
            self.rescan.want(Urgency::Limited);
        }
    }

    /// Requests a reload of all files. The new policy arrives as a reply.
    pub fn reload(&mut self) {
        self.commands.reload_asked();
        self.worker.reload();
    }

    /// Activates `policy` and schedules a scan of all processes.
    fn adopt(&mut self, policy: Box<Policy>) {
        self.policy = policy;
        self.placer.adopt(&self.policy);
        self.metrics.reloads.increment();
        self.metrics.refused_reloads.add(u64::from(self.policy.summary.kept > 0));
        // The scan also evaluates the processes that waited.
        self.waiting.clear();
        self.executables.forget();
        self.answered.clear();
        self.intake.forks.drop_pending();
        self.rescan.want(Urgency::Now);
    }

    /// Does a bounded amount of pending work: at most 8 rounds, and no new round after 20 ms.
    ///
    /// # Errors
    /// The sockets of the proc connector cannot be read.
    pub fn turn(&mut self) -> io::Result<TurnResult> {
        let mut progress = self.progress.take().unwrap_or_else(|| Progress {
            began: sys::monotonic(),
            rounds: 0,
            stage: TurnStage::Receive,
            left: 0,
        });
        loop {
            let also_needed = self.also_needed.take();
            let request = match also_needed {
                Some(request) => Some(request),
                None => self.work(&mut progress)?,
            };
            if let Some(request) = request {
                self.progress = Some(progress);
                return Ok(TurnResult::Read(request));
            }
            progress.stage = progress.stage.next();
            progress.left = AT_ONCE;
            if progress.stage != TurnStage::Receive {
                continue;
            }
            progress.rounds += 1;
            if !self.has_work() {
                return Ok(TurnResult::Idle);
            }
            if progress.rounds == ROUNDS || sys::monotonic().since(progress.began) > TURN_NS {
                return Ok(TurnResult::Busy);
            }
        }
    }

    /// Runs one stage, or the part of it that needs no executable.
    fn work(&mut self, progress: &mut Progress) -> io::Result<Option<ReadRequest>> {
        match progress.stage {
            TurnStage::Receive => {
                self.intake.drain_events()?;
                self.pass_on()?;
                return Ok(None);
            }
            TurnStage::Follow => {
                self.resync_if_lost()?;
                self.drain_forks()?;
                self.sweep_threads();
                return Ok(None);
            }
            TurnStage::Errands => {
                self.run_command();
                return Ok(None);
            }
            TurnStage::Scan => self.begin_scan()?,
            TurnStage::Moves => self.read_moves(progress.began),
            TurnStage::Batch
            | TurnStage::Forks
            | TurnStage::Rechecks
            | TurnStage::Answered
            | TurnStage::Asked => {}
        }
        // Read once per stage: reading the clock costs as much as finding that a process is gone.
        let mut has_begun = false;
        while progress.left > 0 {
            let Some(job) = self.next_job(progress.stage) else { break };
            progress.left -= 1;
            if !std::mem::replace(&mut has_begun, true) {
                self.stage_began = sys::monotonic();
            }
            if let Some(request) = self.start(job) {
                self.end_part_of(progress.stage, has_begun);
                return Ok(Some(request));
            }
        }
        self.end_part_of(progress.stage, has_begun);
        if progress.stage == TurnStage::Scan {
            self.end_scan();
        }
        Ok(None)
    }

    fn next_job(&mut self, stage: TurnStage) -> Option<Evaluation> {
        let evaluation = match stage {
            TurnStage::Batch => return self.intake.batch.pop().map(Evaluation::of_batch),
            TurnStage::Forks => {
                let completed = self.intake.batch.completed();
                let placer = &self.placer;
                let is_suspect = |parent| placer.is_protected_parent(parent);
                let fork = self.intake.forks.next_candidate(completed, is_suspect)?;
                self.metrics.fork_checks.increment();
                EvaluationRequest::at_once(fork.child, Cause::FORK, fork.at)
            }
            TurnStage::Moves => {
                let evaluation = self.placer.moves().next_moved()?;
                if evaluation.cause.contains(Cause::ELSEWHERE) {
                    self.metrics.fork_checks.increment();
                }
                return Some(Evaluation::moved(evaluation));
            }
            TurnStage::Rechecks => {
                self.rechecks.due()?;
                self.rechecks.next_due(sys::monotonic())?
            }
            TurnStage::Scan => {
                EvaluationRequest::at_once(self.rescan.next()?, Cause::SCAN, sys::monotonic())
            }
            TurnStage::Answered => return self.answered.pop_front().or_else(|| self.next_late()),
            TurnStage::Asked => return self.next_asked().map(Evaluation::asked),
            TurnStage::Receive | TurnStage::Follow | TurnStage::Errands => return None,
        };
        Some(Evaluation::new(evaluation))
    }

    /// Returns the next evaluation that is due: its examination takes too long, or it waited until
    /// systemd reported the service manager of the user.
    fn next_late(&mut self) -> Option<Evaluation> {
        if self.executables.due().is_none() && !self.placer.managers().is_used() {
            return None;
        }
        let now = sys::monotonic();
        if let Some(evaluation) = self.executables.next_late(now) {
            return Some(Evaluation::without_examination(evaluation));
        }
        self.placer.managers().take_due(&self.proc, now).map(Evaluation::new)
    }

    /// Returns the number of nanoseconds to let events accumulate before the next [`Self::turn`].
    pub fn pause(&mut self, now: Nanos) -> u64 {
        self.intake.pause(now)
    }

    /// Returns the time at which [`Self::turn`] must be called even without events.
    pub fn next_turn(&self) -> Nanos {
        let managers = self.placer.managers_due();
        let moves = self.moves_due();
        [self.rechecks.due(), self.executables.due(), self.rescan.due(), managers, moves]
            .into_iter()
            .flatten()
            .fold(self.intake.next_due(), Nanos::min)
    }

    /// Checks whether the last requested scan is complete, including the children of its processes.
    pub fn is_settled(&self) -> bool {
        self.rescan.is_complete(self.intake.forks.horizon())
    }

    fn has_work(&self) -> bool {
        self.intake.has_work()
            || !self.answered.is_empty()
            || self.rescan.has_work()
            || self.placer.has_moves()
            || self.has_command()
    }
}
