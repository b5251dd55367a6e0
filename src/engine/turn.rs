//! One turn of the engine: stages in a fixed order, each with a bounded number of evaluations.

use std::io;

use super::Engine;
use super::job::Evaluation;
use crate::engine::kernel::Kernel;
use crate::event::{Cause, Nanos};
use crate::kernel::program::ReadRequest;
use crate::tracking::queue::EvaluationRequest;

/// Evaluations of one stage before the next stage runs: about 1 ms.
const AT_ONCE: usize = 256;
/// Time after which a turn starts no further round, so that signals are served.
const TURN_NS: u64 = 20_000_000;
/// Maximum number of rounds per turn.
const ROUNDS: usize = 8;

/// Next step of the caller after [`Engine::turn`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum TurnResult {
    /// No work is left: wait for events.
    Idle,
    /// As [`Self::Idle`], and nothing but events was due and handled.
    Quiet,
    /// Work is left: call [`Engine::turn`] again at once.
    Busy,
    /// Read this executable, pass it to [`Engine::supply`] or call [`Engine::read_is_late`], then
    /// continue the turn.
    Read(ReadRequest),
}

/// Stage of a round, in the order of execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnStage {
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
    /// Computes a part of a plan.
    Plan,
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
            Self::Asked => Self::Plan,
            Self::Plan => Self::Receive,
        }
    }
}

/// Progress of a turn, kept while an executable is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    began: Nanos,
    rounds: usize,
    stage: TurnStage,
    /// Evaluations left in this stage.
    left: usize,
    /// Set while nothing but events and forks is due.
    is_quiet: bool,
}

impl<K: Kernel> Engine<K> {
    /// Does a bounded amount of pending work: at most 8 rounds, and no new round after 20 ms.
    ///
    /// # Errors
    /// The sockets of the proc connector cannot be read.
    pub fn turn(&mut self) -> io::Result<TurnResult> {
        let mut progress = self.progress.take().unwrap_or_else(|| {
            let began = self.kernel.now();
            // Known only from the last wait: a turn that follows without one checks everything.
            let is_quiet = began < std::mem::take(&mut self.quiet_until);
            self.errors.begin_turn();
            Progress { began, rounds: 0, stage: TurnStage::Receive, left: 0, is_quiet }
        });
        loop {
            let also_needed = self.also_needed.take();
            let request = match also_needed {
                Some(request) => Some(request),
                None => match self.work(&mut progress) {
                    Ok(request) => request,
                    // Without the forks of sticky processes nothing is evaluated.
                    Err(error) => {
                        self.tolerate("reading of forks", Err::<(), _>(error))?;
                        return Ok(TurnResult::Idle);
                    }
                },
            };
            if let Some(request) = request {
                self.progress = Some(progress);
                return Ok(TurnResult::Read(request));
            }
            progress.stage = self.stage_after(&mut progress);
            progress.left = AT_ONCE;
            if progress.stage != TurnStage::Receive {
                continue;
            }
            progress.rounds += 1;
            if self.errors.pause().is_some() {
                return Ok(TurnResult::Idle);
            }
            if !self.intake.has_work() && (progress.is_quiet || !self.has_other_work()) {
                return Ok(if progress.is_quiet { TurnResult::Quiet } else { TurnResult::Idle });
            }
            if progress.rounds == ROUNDS || self.kernel.now().since(progress.began) > TURN_NS {
                return Ok(TurnResult::Busy);
            }
        }
    }

    /// Returns the next stage. While nothing but events is due, the stages of other work are skipped: each
    /// event wakes the daemon when the processor's caches hold the code and data of other
    /// processes.
    fn stage_after(&self, progress: &mut Progress) -> TurnStage {
        let next = progress.stage.next();
        if next != TurnStage::Moves || !progress.is_quiet {
            return next;
        }
        progress.is_quiet = !self.has_other_work();
        if progress.is_quiet { TurnStage::Receive } else { next }
    }

    /// Runs one stage, or the part of it that needs no executable.
    fn work(&mut self, progress: &mut Progress) -> io::Result<Option<ReadRequest>> {
        match progress.stage {
            TurnStage::Receive => {
                self.serve_gate();
                self.note_evaluated();
                let drained = self.intake.drain_events(&mut self.kernel);
                self.tolerate("reading of events", drained)?;
                self.pass_on()?;
                return Ok(None);
            }
            TurnStage::Follow => {
                self.resync_if_lost()?;
                let drained = self.drain_forks();
                self.tolerate("reading of forks", drained)?;
                self.sweep_threads();
                return Ok(None);
            }
            TurnStage::Errands => {
                self.run_command();
                return Ok(None);
            }
            TurnStage::Plan => return Ok(self.plan_some()),
            TurnStage::Scan => self.begin_scan()?,
            TurnStage::Moves => self.read_moves(progress.began)?,
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
                self.stage_began = self.kernel.now();
            }
            if let Some(request) = self.start(job) {
                self.end_part_of(progress.stage, has_begun);
                return Ok(Some(request));
            }
            self.serve_gate();
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
                let fork = self
                    .intake
                    .forks
                    .next_candidate(completed, |parent| self.placer.is_protected_parent(parent))?;
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
                self.rechecks.next_due(self.kernel.now())?
            }
            TurnStage::Scan => {
                EvaluationRequest::at_once(self.rescan.next()?, Cause::SCAN, self.kernel.now())
            }
            TurnStage::Answered => {
                let answered = self.answered.pop_front();
                let next = answered.or_else(|| self.next_examined()).or_else(|| self.next_late());
                return next.or_else(|| self.next_gated());
            }
            TurnStage::Asked => return self.next_asked().map(Evaluation::asked),
            TurnStage::Receive | TurnStage::Follow | TurnStage::Errands | TurnStage::Plan => {
                return None;
            }
        };
        Some(Evaluation::new(evaluation))
    }

    /// Returns the next evaluation that is due: its examination takes too long, or it waited until
    /// systemd reported the service manager of the user.
    fn next_late(&mut self) -> Option<Evaluation> {
        if self.executables.due().is_none() && !self.placer.managers().is_used() {
            return None;
        }
        let now = self.kernel.now();
        let late = self.executables.next_late(now);
        late.or_else(|| self.placer.managers().take_due(&mut self.kernel, now).map(Evaluation::new))
    }

    /// Checks whether there is work apart from events and forks.
    fn has_other_work(&self) -> bool {
        !self.answered.is_empty()
            || self.executables.has_results()
            || self.rescan.has_work(&self.kernel)
            || self.placer.has_moves()
            || self.has_command()
            || self.plan_due().is_some_and(|due| due <= self.kernel.now())
            || self.gate.due().is_some_and(|due| due <= self.kernel.now())
    }

    /// Returns the time at which [`Self::turn`] must be called even without events. Called when a
    /// turn has left no work.
    pub fn next_turn(&mut self) -> Nanos {
        let managers = self.placer.managers_due();
        let moves = self.moves_due();
        let reports = self.commands.reports_due();
        let other = [
            self.rechecks.due(),
            self.executables.due(),
            self.rescan.due(),
            managers,
            moves,
            reports,
            self.plan_due(),
            self.gate.due(),
        ]
        .into_iter()
        .flatten()
        .fold(Nanos(u64::MAX), Nanos::min);
        if let Some(end) = self.errors.pause() {
            self.quiet_until = Nanos(0);
            return end;
        }
        self.quiet_until = if self.is_settled() { other } else { Nanos(0) };
        other.min(self.intake.next_due())
    }

    /// Ensures that the next [`Self::turn`] checks for all work. Called when something other than
    /// an event or the time of [`Self::next_turn`] ended the wait.
    pub fn expect_other_work(&mut self) {
        self.quiet_until = Nanos(0);
    }
}
