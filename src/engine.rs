//! The whole behaviour of the daemon: events in, evaluations, placements out.
//!
//! An event only says *evaluate this process*. `Engine::evaluate` reads what is true of it now, asks the
//! matcher for the first rule that matches, and lets the placer put it into its cgroup. There is no table
//! of processes that could go stale.
//!
//! ```text
//! WATCH ─► batch ─► evaluation ─► matcher ─► placer ─► cgroup.procs
//! TRAIL ─► tracker ─► evaluation (children born before their creator's evaluation had its effect)
//! 100 ms later ─────► evaluation (did it hold?)
//! start, reload, loss ─► scan ─► evaluation (all processes)
//! ```
//!
//! [`Engine::turn`] does a bounded part of the work, so that signals and answers of other threads are
//! served meanwhile. It stops where an evaluation needs an executable: reading that can block, so whoever
//! leads the daemon does it with the engine checked in (see [`crate::leader`]), and goes on by
//! [`Engine::supply`]. What keeps the promise: an event is settled only by an evaluation; a fork is judged
//! only after everything that was queued before it is settled (see [`crate::event::fork_tracker`]); and what
//! the kernel drops is counted exactly and answered by a scan.

mod account;
mod errands;
mod evaluation;
mod executables;
pub(crate) mod external_moves;
mod hearing;
mod rechecks;
mod rescan;
mod threads;
mod waiting;

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::control::sticky::Sticky;
use crate::event::batch::Look;
use crate::event::{Cause, Nanos};
use crate::leader::Activity;
use crate::metrics::Metrics;
use crate::placer::Placer;
use crate::policy::Policy;
use crate::process::Proc;
use crate::program::{ExeReader, ReadRequest};
use crate::source::connector::Connector;
use crate::source::intake::Intake;
use crate::sys;
use crate::worker::{Answer, Desk};
use errands::{Errands, Noted};
use evaluation::{Job, Open};
use executables::Executables;
use rechecks::Rechecks;
use rescan::{Rescan, Urgency};
use threads::OwnCredentials;
use waiting::Asked;

/// Evaluations of one kind before the other kinds are served: about a millisecond.
const AT_ONCE: usize = 256;
/// A turn begins no further round after this, so that signals are served.
const TURN_NS: u64 = 20_000_000;
/// Rounds of one turn.
const ROUNDS: usize = 8;

/// How the engine behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// From a placement to its recheck; `None` for no recheck.
    pub recheck_ns: Option<u64>,
    /// Whether external moves matter. Where they are not traced, scans look for them.
    pub finds_external_moves: bool,
    /// From one of those scans to the next.
    pub move_scan_ns: u64,
}

/// What is to be done after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Turn {
    /// Wait for events.
    Idle,
    /// Something is left to do at once.
    Busy,
    /// Read this executable, then [`Engine::supply`] it or say [`Engine::read_is_late`], then go on with
    /// this turn.
    Read(ReadRequest),
}

/// Where a turn is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Sockets are read.
    Receive,
    /// Processes of the batch are evaluated.
    Batch,
    /// Loss is asked for and forks are read.
    Follow,
    /// Forked children are evaluated.
    Forks,
    /// Processes that others moved are evaluated.
    Moves,
    /// Placements are rechecked.
    Rechecks,
    /// Evaluations go on whose answer has come.
    Answered,
    /// Processes of a scan are evaluated.
    Scan,
    /// Clients are served.
    Errands,
    /// Processes that a client named are evaluated.
    Asked,
}

impl Stage {
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

/// How far a turn has come.
#[derive(Clone, Copy, Debug)]
struct Progress {
    began: Nanos,
    rounds: usize,
    stage: Stage,
    /// Evaluations that are left in this stage.
    left: usize,
}

/// The daemon without its loop.
pub struct Engine {
    intake: Intake,
    proc: Proc,
    policy: Box<Policy>,
    placer: Placer,
    desk: Desk,
    metrics: Arc<Metrics>,
    options: Options,

    sticky: Sticky,
    rescan: Rescan,
    rechecks: Rechecks,
    /// Evaluations that wait for a name.
    waiting: HashMap<Asked, Vec<Look>, FixedState>,
    /// Evaluations that wait for an executable.
    executables: Executables,
    /// Evaluations that can go on.
    answered: VecDeque<Job>,
    own_credentials: OwnCredentials,
    errands: Errands,
    noted: Noted,
    /// When the present stage of evaluations began, or went on after a read. Processes are opened later.
    stage_began: Nanos,
    /// The turn that is under way.
    progress: Option<Progress>,
    /// The evaluation whose executable is being read.
    open: Option<Open>,
    /// What must be read for it besides.
    also_needed: Option<ReadRequest>,
    /// When a scan for external moves is due, where they are not traced.
    scan_for_moves: Option<Nanos>,
}

impl Engine {
    /// Ready to work; begins with a scan of all processes.
    pub fn new(
        connector: Connector,
        proc: Proc,
        policy: Box<Policy>,
        mut placer: Placer,
        desk: Desk,
        metrics: Arc<Metrics>,
        options: Options,
    ) -> Self {
        metrics.reloads.increment();
        placer.adopt(&policy);
        let mut rescan = Rescan::default();
        rescan.want(Urgency::Now);
        placer.managers().wake_by(desk.ringer());
        Self {
            intake: Intake::new(connector, Arc::clone(&metrics)),
            sticky: Sticky::new(Arc::clone(&metrics)),
            proc,
            policy,
            placer,
            desk,
            metrics,
            options,
            rescan,
            rechecks: Rechecks::default(),
            waiting: HashMap::default(),
            executables: Executables::default(),
            answered: VecDeque::new(),
            own_credentials: OwnCredentials::default(),
            errands: Errands::default(),
            noted: Noted::default(),
            stage_began: Nanos(0),
            progress: None,
            open: None,
            also_needed: None,
            scan_for_moves: None,
        }
    }

    /// The descriptor to poll. TRAIL is never polled.
    pub fn watch(&self) -> BorrowedFd<'_> {
        self.intake.watch()
    }

    /// The descriptor that becomes readable when another thread has an answer.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.desk.bell()
    }

    /// What reads the executables that a turn asks for.
    ///
    /// # Errors
    /// As dup(2).
    pub fn exe_reader(&self) -> io::Result<ExeReader> {
        ExeReader::new(&self.proc)
    }

    /// Tells of reads that were late, when they are over.
    pub fn late_reads(&self) -> Box<dyn Fn(ReadRequest) + Send + Sync> {
        self.desk.late_reads()
    }

    /// Tells `activity` of calls that can take long.
    pub fn tell(&mut self, activity: Arc<Activity>) {
        self.placer.tell(activity);
    }

    /// Takes the answers of other threads.
    pub fn take_answers(&mut self) {
        let answers: Vec<Answer> = self.desk.answers().collect();
        answers.into_iter().for_each(|answer| self.answer(answer));
        if self.desk.take_overflown() {
            self.rescan.want(Urgency::Limited);
        }
    }

    /// Asks for the rules as they are now; they come as an answer.
    pub fn reload(&mut self) {
        self.errands.reload_asked();
        self.desk.reload();
    }

    /// Activates another policy and places all processes by it.
    fn adopt(&mut self, policy: Box<Policy>) {
        self.policy = policy;
        self.placer.adopt(&self.policy);
        self.metrics.reloads.increment();
        self.metrics.refused_reloads.add(u64::from(self.policy.summary.kept > 0));
        // The scan finds those that waited as well.
        self.waiting.clear();
        self.executables.forget();
        self.answered.clear();
        self.intake.forks.drop_pending();
        self.rescan.want(Urgency::Now);
    }

    /// Does what there is to do, up to a bound.
    ///
    /// # Errors
    /// The kernel's events cannot be read any more.
    pub fn turn(&mut self) -> io::Result<Turn> {
        let mut progress = self.progress.take().unwrap_or_else(|| Progress {
            began: sys::monotonic(),
            rounds: 0,
            stage: Stage::Receive,
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
                return Ok(Turn::Read(request));
            }
            progress.stage = progress.stage.next();
            progress.left = AT_ONCE;
            if progress.stage != Stage::Receive {
                continue;
            }
            progress.rounds += 1;
            if !self.has_work() {
                return Ok(Turn::Idle);
            }
            if progress.rounds == ROUNDS || sys::monotonic().since(progress.began) > TURN_NS {
                return Ok(Turn::Busy);
            }
        }
    }

    /// Does a stage, or as much of it as can be done without an executable.
    fn work(&mut self, progress: &mut Progress) -> io::Result<Option<ReadRequest>> {
        match progress.stage {
            Stage::Receive => {
                self.intake.drain_watch()?;
                self.pass_on()?;
                return Ok(None);
            }
            Stage::Follow => {
                self.doubt_if_lost()?;
                self.follow()?;
                self.sweep_threads();
                return Ok(None);
            }
            Stage::Errands => {
                self.run_errand();
                return Ok(None);
            }
            Stage::Scan => self.begin_scan()?,
            Stage::Moves => self.read_moves(progress.began),
            Stage::Batch | Stage::Forks | Stage::Rechecks | Stage::Answered | Stage::Asked => {}
        }
        // Once for all: reading the clock costs as much as finding that a process is gone.
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
        if progress.stage == Stage::Scan {
            self.end_scan();
        }
        Ok(None)
    }

    fn next_job(&mut self, stage: Stage) -> Option<Job> {
        let look = match stage {
            Stage::Batch => return self.intake.batch.pop().map(Job::of_batch),
            Stage::Forks => {
                let (settled, placer) = (self.intake.batch.settled(), &self.placer);
                let is_suspect = |parent| placer.is_protected_parent(parent);
                let fork = self.intake.forks.next_candidate(settled, is_suspect)?;
                self.metrics.trail_looks.increment();
                Look::at_once(fork.child, Cause::FORK, fork.at)
            }
            Stage::Moves => {
                let look = self.placer.moves().next_moved()?;
                if look.cause.contains(Cause::ELSEWHERE) {
                    self.metrics.trail_looks.increment();
                }
                return Some(Job::moved(look));
            }
            Stage::Rechecks => {
                self.rechecks.due()?;
                self.rechecks.next_due(sys::monotonic())?
            }
            Stage::Scan => Look::at_once(self.rescan.next()?, Cause::SCAN, sys::monotonic()),
            Stage::Answered => return self.answered.pop_front().or_else(|| self.next_late()),
            Stage::Asked => return self.next_asked().map(Job::asked),
            Stage::Receive | Stage::Follow | Stage::Errands => return None,
        };
        Some(Job::new(look))
    }

    /// The next evaluation whose time has come: one whose examination takes too long, or one that waited
    /// until systemd reported the service manager of its user.
    fn next_late(&mut self) -> Option<Job> {
        if self.executables.due().is_none() && !self.placer.managers().is_used() {
            return None;
        }
        let now = sys::monotonic();
        if let Some(look) = self.executables.next_late(now) {
            return Some(Job::without_examination(look));
        }
        self.placer.managers().take_due(&self.proc, now).map(Job::new)
    }

    /// Nanoseconds for which to let events gather before the next [`Self::turn`].
    pub fn pause(&mut self, now: Nanos) -> u64 {
        self.intake.pause(now)
    }

    /// When [`Self::turn`] must be called again although nothing happens.
    pub fn next_turn(&self) -> Nanos {
        let (managers, moves) = (self.placer.managers_due(), self.moves_due());
        [self.rechecks.due(), self.executables.due(), self.rescan.due(), managers, moves]
            .into_iter()
            .flatten()
            .fold(self.intake.next_due(), Nanos::min)
    }

    /// Whether the scan that was asked for last is over, the children of its processes included.
    pub fn is_settled(&self) -> bool {
        self.rescan.is_complete(self.intake.forks.horizon())
    }

    fn has_work(&self) -> bool {
        self.intake.has_work()
            || !self.answered.is_empty()
            || self.rescan.has_work()
            || self.placer.has_moves()
            || self.has_errand()
    }
}
