//! Incoming kernel events: events in a queue, forks in the fork tracker, and the
//! detection of losses. It evaluates nothing itself.

use std::io;
use std::sync::Arc;

use crate::engine::kernel::Kernel;
use crate::event::{Cause, Event, EventKind, Nanos, Task};
use crate::kernel::connector::Losses;
use crate::telemetry::log::limit::LogLimiter;
use crate::telemetry::metrics::Metrics;
use crate::tracking::coalescer::Coalescer;
use crate::tracking::fork_tracker::{Fork, ForkTracker};
use crate::tracking::queue::{Drain, EvaluationQueue};

/// Maximum number of datagrams per drain; the rest is read in the next.
const DRAIN: usize = 16_384;
/// Limits of the interval between two reads of the fork socket.
const FORK_READ_NS: [u64; 2] = [20_000_000, 1_000_000_000];
/// And this soon after a process exited before its evaluation. Reading it at once made candidates of children
/// whose own exec was about to be evaluated: 6 to 15 evaluations more for 100 processes of a busy machine.
const FORK_READ_AFTER_EXIT_NS: u64 = 5_000_000;
/// Number of forks per read of the fork socket at which the interval aims: unread forks take 832 bytes each,
/// and at 20,000 forks a second would pass through all caches once a second.
const FORKS_PER_READ: u64 = 500;
/// Minimum time between two checks for loss after a short queue; loss requires a queue.
const LOSS_NS: u64 = 50_000_000;
const SHORT: u64 = 4;
/// Time without a fork on the whole machine after which the subscription is checked.
const SILENCE_NS: u64 = 30_000_000_000;

/// Queued events and forks, with the state of their sockets.
pub(super) struct EventIntake {
    /// Processes to be evaluated after an event.
    pub(super) batch: EvaluationQueue,
    /// Forks to be checked for misplaced children.
    pub(super) forks: ForkTracker,
    /// Set if an evaluation took effect, so that the fork socket must be read at once.
    pub(super) forks_are_due: bool,
    metrics: Arc<Metrics>,
    limiter: LogLimiter,
    forks_read_at: Nanos,
    fork_interval_ns: u64,
    /// Times from which a turn for events also reads the fork socket, and at which the socket must be
    /// read, because a process was evaluated after an event.
    forks_due: Option<(Nanos, Nanos)>,
    loss_asked: Nanos,
    loss_events: u64,
    pace: Coalescer,
    /// Time of the last fork received, and the number of forks received by then.
    heard: (Nanos, u64),
    /// Last drain that was cut short, and the number of datagrams to read until all that it would
    /// have read are read.
    owed: Option<(Drain, usize)>,
}

/// Status of fork reception on the fork socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum ForkStatus {
    /// Forks are received, or not checked now.
    Well,
    /// Events were lost: all processes must be evaluated.
    Lost,
    /// No fork was received for so long that a test process should be started.
    Doubtful,
}

impl EventIntake {
    /// Creates an intake without queued events.
    pub(super) fn new(now: Nanos, metrics: Arc<Metrics>) -> Self {
        Self {
            batch: EvaluationQueue::default(),
            forks: ForkTracker::default(),
            forks_are_due: false,
            limiter: LogLimiter::new(Arc::clone(&metrics)),
            metrics,
            forks_read_at: now,
            fork_interval_ns: FORK_READ_NS[1],
            forks_due: None,
            loss_asked: now,
            loss_events: 0,
            pace: Coalescer::default(),
            heard: (now, 0),
            owed: None,
        }
    }

    /// Checks whether events or forks are queued.
    pub(super) fn has_work(&self) -> bool {
        !self.batch.is_empty()
            || self.forks.is_waiting()
            || self.forks_are_due
            || self.batch.completed() < self.batch.begun()
    }

    /// Returns the time at which the fork socket must be read even without events.
    pub(super) fn next_due(&self) -> Nanos {
        let regular = self.forks_read_at.plus(self.fork_interval_ns);
        self.forks_due.map_or(regular, |(_, by)| regular.min(by))
    }

    /// Checks whether a turn at `now` reads the fork socket. A turn that occurs anyway reads it early: a
    /// wake-up only for it takes 20 us, 5 % of a load of 450 execs a second.
    fn reads_forks(&self, now: Nanos) -> bool {
        self.forks_are_due
            || now >= self.next_due()
            || self.forks_due.is_some_and(|(from, _)| now >= from)
    }

    /// Records that a process was evaluated after an event, so that children born in the meantime
    /// may be misplaced, and schedules a read of the fork socket.
    pub(super) fn evaluated(&mut self, now: Nanos) {
        // A child that is checked late has a long window: up to 30 % of the forks of a storm were evaluated
        // when they were read a second later (measured).
        self.read_forks_within(FORK_READ_NS[0], now);
    }

    /// Records that a process exited before its evaluation, so that its children can be misplaced.
    pub(super) fn gone(&mut self, now: Nanos) {
        self.read_forks_within(FORK_READ_AFTER_EXIT_NS, now);
    }

    fn read_forks_within(&mut self, delay: u64, now: Nanos) {
        let never = Nanos(u64::MAX);
        let (from, by) = self.forks_due.unwrap_or((never, never));
        // Each for itself: the later of two delays may be the shorter one.
        self.forks_due = Some((from.min(now.plus(delay / 2)), by.min(now.plus(delay))));
    }

    /// Records that a process was placed.
    pub(super) fn placed(&mut self, now: Nanos) {
        self.forks_are_due = true;
        self.pace.placed(now);
    }

    /// Returns the number of nanoseconds to let events accumulate before the next turn.
    pub(super) fn pause(&mut self, now: Nanos) -> u64 {
        self.pace.pause(self.metrics.events.get(), now)
    }

    /// Reads the event socket into the batch. A flood fills the socket as fast as it is read; then a drain
    /// ends when as much was read as was queued at its end.
    ///
    /// # Errors
    /// As recvmmsg(2).
    pub(super) fn drain_events(&mut self, kernel: &mut impl Kernel) -> io::Result<()> {
        let batch = &mut self.batch;
        let metrics = &self.metrics;
        let begun = batch.begin_drain();
        let drained = kernel.drain_events(DRAIN, |event| {
            metrics.events.increment();
            let (task, cause) = match event.what {
                EventKind::Exec(pid) => (Task { process: pid, thread: pid }, Cause::EXEC),
                EventKind::Uid(task) => (task, Cause::UID),
                EventKind::Gid(task) => (task, Cause::GID),
                EventKind::Fork { .. } => return,
            };
            batch.push(task, cause, event.at);
        })?;
        if drained.is_empty {
            batch.end_drain();
            self.owed = None;
            return Ok(());
        }
        match &mut self.owed {
            Some((_, left)) if *left > drained.read => *left -= drained.read,
            owed => {
                if let Some((drain, _)) = *owed {
                    batch.finish(drain);
                }
                *owed = Some((begun, kernel.event_backlog()?));
            }
        }
        Ok(())
    }

    /// Reads the fork socket if that is due, and passes each fork to `heed`, with the time at which
    /// the read began. The fork socket stays due until it is empty.
    ///
    /// # Errors
    /// As recvmmsg(2).
    pub(super) fn drain_forks(
        &mut self,
        kernel: &mut impl Kernel,
        mut heed: impl FnMut(Fork, Nanos, &dyn Fn() -> bool),
    ) -> io::Result<ForkStatus> {
        let began = kernel.now();
        if !self.reads_forks(began) {
            return Ok(ForkStatus::Well);
        }
        let forks = &mut self.forks;
        let metrics = &self.metrics;
        let begun = self.batch.begun();
        let mut lost = 0;
        let mut count = 0;
        let drained = kernel.drain_forks(DRAIN, |event: Event| {
            if let EventKind::Fork { parent, child } = event.what {
                metrics.forks.increment();
                count += 1;
                let fork = Fork { at: event.at, parent, child };
                heed(fork, began, &|| forks.is_evaluated_since(child, event.at));
                lost += u64::from(!forks.record(fork, begun));
            }
        })?;
        metrics.lost_forks.add(lost);
        if !drained.is_empty {
            return Ok(if lost > 0 { ForkStatus::Lost } else { ForkStatus::Well });
        }
        let now = kernel.now();
        let per_fork = now.since(self.forks_read_at) / (count + 1);
        self.fork_interval_ns = (per_fork * FORKS_PER_READ).clamp(FORK_READ_NS[0], FORK_READ_NS[1]);
        self.forks_are_due = false;
        self.forks_due = None;
        self.forks_read_at = now;
        self.forks.emptied(began);
        self.forks.shrink();
        Ok(if lost > 0 { ForkStatus::Lost } else { self.doubt(kernel) })
    }

    /// Checks a long silence: requests a test fork, and renews the subscription if that is not
    /// received either.
    fn doubt(&mut self, kernel: &mut impl Kernel) -> ForkStatus {
        // Some kernels of early 2024 (with commit c46bfba1337d) stop all events permanently after a send that
        // reached no listener.
        let now = self.forks_read_at;
        let forks = self.metrics.forks.get();
        if forks != self.heard.1 {
            self.heard = (now, forks);
            return ForkStatus::Well;
        }
        let silence = now.since(self.heard.0);
        if silence <= SILENCE_NS {
            return ForkStatus::Well;
        }
        if silence <= 2 * SILENCE_NS {
            return ForkStatus::Doubtful;
        }
        self.heard = (now, forks);
        ::log::error!("no process events, not even of a test process; subscribing again");
        if let Err(why) = kernel.resubscribe() {
            ::log::error!("{why}");
        }
        ForkStatus::Lost
    }

    /// Checks whether the kernel dropped events since the last call. Exact, also with filters and
    /// masks. Without `must_ask` it does not ask the kernel each time.
    ///
    /// # Errors
    /// As getsockopt(2).
    pub(super) fn has_lost(
        &mut self,
        kernel: &mut impl Kernel,
        must_ask: bool,
    ) -> io::Result<bool> {
        let now = kernel.now();
        let events = self.metrics.events.get();
        let is_short = events - self.loss_events < SHORT;
        if !must_ask && is_short && now.since(self.loss_asked) < LOSS_NS {
            return Ok(false);
        }
        let Losses { lost, refused } = kernel.take_losses()?;
        self.loss_events = events;
        self.loss_asked = now;
        self.metrics.refused_datagrams.add(refused);
        if lost > 0 {
            self.metrics.lost_events.add(lost);
            if let Some(left_out) = self.limiter.admit(&"lost", now) {
                ::log::warn!(
                    message_id = crate::telemetry::log::field::LOST;
                    "the kernel dropped {lost} events; evaluating all processes{left_out}"
                );
            }
        }
        Ok(lost > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shorter_delay_until_forks_are_read_counts() {
        let mut intake = EventIntake::new(Nanos(0), Arc::default());
        intake.evaluated(Nanos(0));
        assert_eq!(intake.next_due(), Nanos(FORK_READ_NS[0]));
        intake.gone(Nanos(8_000_000));
        assert_eq!(intake.next_due(), Nanos(8_000_000 + FORK_READ_AFTER_EXIT_NS));
        assert!(!intake.reads_forks(Nanos(9_999_999)) && intake.reads_forks(Nanos(10_000_000)));
    }
}
