//! Schedule for reading the trace event of external moves, and the queue of processes to evaluate
//! because of it. Must not be woken by moves.
//!
//! The trace is never polled: it would wake the daemon for every move on the machine, including its
//! own. It is read every 500 ms, before a decision about a process with an unknown mover, and every
//! 10 ms while a user continues to move processes.
//!
//! The trace names a PID. A later fork with that PID shows that the process that was moved is gone
//! and that the present one was not moved.

use std::fmt;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::changes::{
    CLOCKS_DIFFER_NS, Changes, KEPT_BETWEEN_READS, MAX_BETWEEN_READS, is_by_another,
};
use crate::cgroup::unit::Unit;
use crate::engine::kernel::Kernel;
use crate::engine::placer::PlacedProcess;
use crate::event::{Cause, Nanos, Pid, Task, Uid};
use crate::kernel::moves::TracedMove;
use crate::kernel::process::path_in;
use crate::telemetry::log::limit::LogLimiter;
use crate::telemetry::metrics::Metrics;
use crate::tracking::fork_tracker::Fork;
use crate::tracking::queue::{EvaluationQueue, EvaluationRequest};

/// Interval between two reads of the trace.
const INTERVAL_NS: u64 = 500_000_000;
/// Interval while a user moves processes.
const SHORT_INTERVAL_NS: u64 = 10_000_000;
/// Time for which a user who moved a process is expected to do it again.
const ALERT_NS: u64 = 1_000_000_000;
/// Reading and evaluating takes at most this fraction of one CPU while a user moves processes.
const COST_FACTOR: u64 = 20;
/// The longest pause for that. Reads on demand cost as well, and a user who causes them must not
/// put off the others.
const MAX_PAUSE_NS: u64 = 2_000_000_000;
/// Maximum number of queued processes, 20 us each: 4 % of one CPU. Further ones cause a scan.
const MAX_QUEUED: usize = 1024;
/// Maximum number of processes with a stored last mover. When it is exceeded only queued ones are
/// kept.
const MAX_KNOWN: usize = 2 * MAX_QUEUED;
/// Time after a move within which an event that was queued before the move is read.
const EVENTS_LATE_NS: u64 = 3_000_000_000;

/// Process that moved another one, as far as it could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mover {
    /// PID of the process, or the thread ID if it has exited.
    pub(super) process: u32,
    /// Command name of the process (comm).
    name: Option<String>,
    /// Effective user ID, or the real one if the effective user is root.
    pub(super) uid: Option<Uid>,
    /// Systemd unit that contains the process.
    unit: Option<String>,
}

impl Mover {
    /// Checks whether the mover has no root rights, or acts for a user.
    pub(super) fn acts_for_user(&self, subject: &PlacedProcess<'_>) -> bool {
        // Process 1 moves processes of users only on request. A process that moved itself may have
        // had other rights at that time.
        let is_of_user = subject.handle.uid != Uid(0);
        if self.process == subject.evaluation.pid.get() {
            return false;
        }
        self.uid.is_some_and(|uid| uid != Uid(0)) || is_of_user && self.process == 1
    }
}

impl fmt::Display for Mover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{} (process {}", name.escape_debug(), self.process)?,
            None => write!(f, "a process that has exited ({}", self.process)?,
        }
        if let Some(uid) = self.uid {
            write!(f, " of uid {uid}")?;
        }
        if let Some(unit) = &self.unit {
            write!(f, ", {}", unit.escape_debug())?;
        }
        f.write_str(")")
    }
}

/// Reader of the trace of external moves, and the queue of moved processes.
#[derive(Debug)]
pub(crate) struct MoveWatch {
    /// The last move of each process.
    known: HashMap<Pid, TracedMove, FixedState>,
    /// The processes that wait for their evaluation, with the same share for each user.
    waiting: EvaluationQueue,
    /// Forks that were read since the trace was read: moves in it can be of earlier processes with
    /// their PIDs.
    forks: Vec<Fork>,
    changes: Changes,
    due: Nanos,
    alert_until: Nanos,
    was_read: Nanos,
    /// Time from which the cost of reads and evaluations is within their share of a CPU.
    paid_until: Nanos,
    needs_scan: bool,
    metrics: Arc<Metrics>,
    limiter: LogLimiter,
}

impl MoveWatch {
    /// Creates a watch.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            known: HashMap::default(),
            waiting: EvaluationQueue::default(),
            forks: Vec::new(),
            changes: Changes::default(),
            due: Nanos(0),
            alert_until: Nanos(0),
            was_read: Nanos(0),
            paid_until: Nanos(0),
            needs_scan: false,
            limiter: LogLimiter::new(Arc::clone(&metrics)),
            metrics,
        }
    }

    /// Returns when the trace must be read, if there is one.
    pub(crate) fn due(&self, kernel: &impl Kernel) -> Option<Nanos> {
        kernel.traces_moves().then_some(self.due)
    }

    /// Reads the trace if it is due at `now`.
    pub(crate) fn read_if_due(&mut self, now: Nanos, kernel: &mut impl Kernel) {
        if self.due(kernel).is_some_and(|due| due <= now) {
            self.read(now, kernel);
        }
    }

    /// Reads the trace although that is not due.
    pub(super) fn read_now(&mut self, kernel: &mut impl Kernel) {
        if kernel.traces_moves() {
            let began = kernel.now();
            self.read(began, kernel);
            self.add_cost(kernel.now().since(began));
        }
    }

    fn read(&mut self, now: Nanos, kernel: &mut impl Kernel) {
        let Self { known, waiting, needs_scan, metrics, .. } = self;
        if known.len() > MAX_KNOWN {
            known.retain(|pid, _| waiting.find(*pid).is_some());
        }
        waiting.begin_drain();
        let mut moved_again = Vec::new();
        let result = kernel.read_moves(|traced| {
            let Some(pid) = Pid::new(traced.pid) else { return };
            let cause = if traced.is_birth { Cause::FORK | Cause::ELSEWHERE } else { Cause::MOVED };
            metrics.traced_moves.add(u64::from(!traced.is_birth));
            // A process that was moved several times is evaluated once.
            let is_new = waiting.find(pid).is_none();
            if !is_new && !traced.is_birth && moved_again.len() < MAX_QUEUED {
                moved_again.push(pid);
            }
            if is_new && (known.len() > MAX_KNOWN || waiting.len() >= MAX_QUEUED) {
                *needs_scan = true;
                return;
            }
            // Those of different CPUs are not in the order of time.
            if !traced.is_birth && known.get(&pid).is_none_or(|last| last.at <= traced.at) {
                known.insert(pid, traced);
            }
            waiting.push(Task { process: pid, thread: pid }, cause, traced.at);
        });
        waiting.end_drain();
        self.compare_with_forks();
        self.changes.compare(&self.known);
        moved_again.into_iter().for_each(|pid| self.changes.moved_again(pid));
        match result {
            Ok(0) => {}
            Ok(lost) => {
                self.metrics.lost_moves.add(lost);
                self.needs_scan = true;
            }
            Err(error) => {
                self.needs_scan = true;
                if let Some(left_out) = self.limiter.admit(&"trace", now) {
                    ::log::warn!("cannot read the trace of external moves: {error}{left_out}");
                }
            }
        }
        let interval = if now < self.alert_until { SHORT_INTERVAL_NS } else { INTERVAL_NS };
        self.was_read = now;
        self.due = now.plus(interval).max(self.paid_until);
    }

    /// Records a fork that was read from the fork socket.
    pub(crate) fn forked(&mut self, fork: Fork) {
        self.end_earlier(fork);
        if self.forks.len() < MAX_BETWEEN_READS {
            self.forks.push(fork);
        }
    }

    /// Records a process that was evaluated at `now` for an event and has no rule.
    pub(crate) fn changed(&mut self, pid: Pid, now: Nanos) {
        let last = self.known.get(&pid).filter(|last| is_by_another(last));
        // The evaluation after the move may have found it changed already.
        self.needs_scan |= last.is_some_and(|last| now.since(last.at) < EVENTS_LATE_NS)
            && self.waiting.find(pid).is_none();
        self.changes.note(pid, now);
    }

    /// Checks whether the process, which was moved and has no rule, changed after the move.
    pub(crate) fn has_changed(&mut self, pid: Pid) -> bool {
        self.changes.take(pid)
    }

    /// Compares the moves that were just read with the forks that were read before.
    fn compare_with_forks(&mut self) {
        let mut forks = std::mem::take(&mut self.forks);
        if !self.known.is_empty() || !self.waiting.is_empty() {
            forks.iter().for_each(|&fork| self.end_earlier(fork));
        }
        forks.clear();
        forks.shrink_to(KEPT_BETWEEN_READS);
        self.forks = forks;
    }

    /// Forgets the last move of the PID of a child if it was before the fork. A scan finds the
    /// children that the earlier process created in the other cgroup.
    fn end_earlier(&mut self, fork: Fork) {
        let waiting = self.waiting.find(fork.child);
        // One that was born elsewhere, and whose children the present process does not lead to.
        self.needs_scan |= waiting.is_some_and(|waiting| {
            waiting.cause.contains(Cause::ELSEWHERE)
                && fork.at > waiting.since.plus(CLOCKS_DIFFER_NS)
        });
        let is_earlier = |last: &&TracedMove| fork.at > last.at.plus(CLOCKS_DIFFER_NS);
        let Some(last) = self.known.get(&fork.child).filter(is_earlier) else { return };
        // Its evaluation may have been of the present process.
        let is_late = is_by_another(last) && fork.at.since(last.at) < EVENTS_LATE_NS;
        self.known.remove(&fork.child);
        let waiting = self.waiting.find(fork.child);
        let is_waiting = waiting.is_some_and(|waiting| waiting.cause.contains(Cause::MOVED));
        self.needs_scan |= is_waiting || is_late;
    }

    /// Adds the duration of a read or of the evaluations after it to the cost.
    pub(crate) fn add_cost(&mut self, nanoseconds: u64) {
        let began = self.paid_until.max(self.was_read);
        let paid_until = began.plus(nanoseconds.saturating_mul(COST_FACTOR));
        self.paid_until = paid_until.min(self.was_read.plus(MAX_PAUSE_NS));
        self.due = self.due.max(self.paid_until);
    }

    /// Records that a user moved a process and may continue to do so.
    pub(crate) fn moved_by_user(&mut self, now: Nanos) {
        self.alert_until = now.plus(ALERT_NS);
        self.due = self.due.min(now.plus(SHORT_INTERVAL_NS)).max(self.paid_until);
    }

    /// Returns the next process that was moved, and when that happened first since its last evaluation,
    /// or that was born in another cgroup. The caller admits or dismisses it.
    pub(crate) fn next_moved(&mut self) -> Option<EvaluationRequest> {
        let mut evaluation = self.waiting.pop()?;
        // A child that was born after the move can have an earlier time.
        evaluation.since = Nanos(evaluation.since.0.saturating_sub(CLOCKS_DIFFER_NS));
        Some(evaluation)
    }

    /// Returns when the process was moved last.
    pub(super) fn moved_at(&self, pid: Pid) -> Option<Nanos> {
        self.known.get(&pid).map(|traced| traced.at)
    }

    /// Checks whether a moved process may be evaluated now, its user being `uid`. Else it waits,
    /// since its user had its share.
    #[must_use]
    pub(crate) fn admit(&mut self, evaluation: EvaluationRequest, uid: Uid) -> bool {
        let is_admitted = self.waiting.admit(evaluation, uid);
        if is_admitted {
            self.waiting.complete(evaluation);
        }
        is_admitted
    }

    /// The process that was moved is gone.
    pub(crate) fn dismiss(&mut self, evaluation: EvaluationRequest) {
        self.waiting.complete(evaluation);
    }

    /// The last move of this thread is one of its process.
    pub(crate) fn moved_by_thread(&mut self, thread: Pid, process: Pid) {
        if let Some(traced) = self.known.remove(&thread) {
            self.known.insert(process, traced);
        }
    }

    /// Checks whether the queue contains processes to evaluate.
    pub(crate) fn has_work(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Checks whether moves were lost since the last call, so that a scan must find them.
    pub(crate) fn take_needs_scan(&mut self) -> bool {
        std::mem::take(&mut self.needs_scan)
    }

    /// Checks whether a move of the process is known that was not one of an earlier process with its
    /// PID.
    pub(super) fn knows_move(&self, pid: Pid) -> bool {
        self.known.contains_key(&pid)
    }

    /// Returns the ID of the hierarchy in which the process was moved last.
    pub(super) fn hierarchy_of_move(&self, pid: Pid) -> Option<u32> {
        self.known.get(&pid).map(|traced| traced.hierarchy)
    }

    /// Reads the trace and returns whether the process was moved since its last evaluation.
    pub(crate) fn has_unevaluated_move(&mut self, pid: Pid, kernel: &mut impl Kernel) -> bool {
        self.read_now(kernel);
        self.waiting.find(pid).is_some()
    }

    /// Returns the process that made the last move of `pid`, if the trace reported it.
    pub(super) fn mover(&self, pid: Pid, kernel: &mut impl Kernel) -> Option<Mover> {
        let thread = self.known.get(&pid)?.mover;
        let mut mover = Mover { process: thread, name: None, uid: None, unit: None };
        let Some(thread) = Pid::new(thread) else { return Some(mover) };
        if let Some(owner) = kernel.status(thread) {
            mover.process = owner.process.get();
            mover.uid = Some(if owner.effective == Uid(0) { owner.real } else { owner.effective });
            let comm = kernel.comm(owner.process);
            mover.name = comm.map(|name| String::from_utf8_lossy(name).into_owned());
            let text = kernel.cgroup(owner.process, None).unwrap_or_default();
            let place = String::from_utf8_lossy(path_in(text, b"").unwrap_or_default());
            mover.unit = Unit::of(&place, &[]).name().map(str::to_owned);
        }
        Some(mover)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake_kernel::FakeKernel;

    /// PID of a process that creates children in another cgroup.
    const CREATOR: u32 = 800;

    /// Creates a watch, and a kernel with these moves.
    fn watch(moves: Vec<(u32, u32)>, lost: u64) -> (MoveWatch, FakeKernel) {
        let traced = moves.into_iter().map(|(mover, pid)| {
            let is_birth = mover == CREATOR;
            TracedMove { at: Nanos(7), mover, pid, is_birth, hierarchy: 0 }
        });
        let moves = Some(traced.collect());
        (
            MoveWatch::new(Arc::default()),
            FakeKernel { moves, lost_moves: lost, ..FakeKernel::new() },
        )
    }

    #[test]
    fn moves_of_others_are_told_once() {
        let (mut watch, mut kernel) = watch(vec![(900, 40), (901, 40), (900, 0), (900, 42)], 0);
        assert!(watch.due(&kernel).is_some() && !watch.has_work());
        watch.read_if_due(Nanos(0), &mut kernel);
        assert_eq!(watch.metrics.traced_moves.get(), 3);
        assert_eq!(watch.known[&Pid::new(40).unwrap()].mover, 901);
        let next = std::iter::from_fn(|| watch.next_moved().map(|evaluation| evaluation.pid.get()));
        assert_eq!(next.collect::<Vec<_>>(), [40, 42]);
        assert!(!watch.take_needs_scan());
    }

    #[test]
    fn births_are_not_moves() {
        let (mut watch, mut kernel) = watch(vec![(CREATOR, 40), (900, 41), (CREATOR, 42)], 0);
        watch.read_if_due(Nanos(0), &mut kernel);
        assert_eq!(watch.metrics.traced_moves.get(), 1);
        assert!(watch.has_work());
        let next = std::iter::from_fn(|| watch.next_moved());
        let next = next.map(|next| (next.pid.get(), next.cause.contains(Cause::ELSEWHERE)));
        assert_eq!(next.collect::<Vec<_>>(), [(40, true), (41, false), (42, true)]);
        assert!(!watch.has_work() && !watch.take_needs_scan());
        let births = (0..2000).map(|number| (CREATOR, 2_000_000 + number)).collect();
        let (mut many, mut kernel) = self::watch(births, 0);
        many.read_if_due(Nanos(0), &mut kernel);
        assert!(many.take_needs_scan());
        assert_eq!(std::iter::from_fn(|| many.next_moved()).count(), MAX_QUEUED);
    }

    #[test]
    fn a_move_before_the_fork_of_the_present_process_is_of_an_earlier_one() {
        const MOVED_AT: u64 = 7;
        let forty = Pid::new(40).unwrap();
        let fork = |at: u64| Fork { at: Nanos(at), parent: Pid::new(1).unwrap(), child: forty };
        for (forked_at, is_earlier) in [
            (MOVED_AT - 1, false),
            (MOVED_AT + CLOCKS_DIFFER_NS, false),
            (MOVED_AT + CLOCKS_DIFFER_NS + 1, true),
        ] {
            for is_fork_first in [true, false] {
                let (mut watch, mut kernel) = watch(vec![(900, 40)], 0);
                if is_fork_first {
                    watch.forked(fork(forked_at));
                }
                watch.read_now(&mut kernel);
                if !is_fork_first {
                    watch.forked(fork(forked_at));
                }
                assert_eq!(watch.take_needs_scan(), is_earlier);
                assert_eq!(watch.knows_move(forty), !is_earlier);
            }
        }
    }

    #[test]
    fn a_fork_that_is_read_after_the_evaluation_of_a_move_causes_a_scan_if_it_follows_soon() {
        let forty = Pid::new(40).unwrap();
        for (mover, later, is_scanned) in
            [(900, 20_000, true), (900, EVENTS_LATE_NS + 7, false), (40, 20_000, false)]
        {
            let (mut watch, mut kernel) = watch(vec![(mover, 40)], 0);
            watch.read_now(&mut kernel);
            while watch.next_moved().is_some() {}
            assert!(!watch.take_needs_scan());
            watch.forked(Fork { at: Nanos(later), parent: Pid::new(1).unwrap(), child: forty });
            assert_eq!(watch.take_needs_scan(), is_scanned, "{mover} {later}");
        }
    }

    #[test]
    fn forks_are_kept_until_the_next_read_of_the_trace() {
        let (mut watch, mut kernel) = watch(Vec::new(), 0);
        let one = Pid::new(1).unwrap();
        (0..MAX_BETWEEN_READS as u64 + 1)
            .for_each(|at| watch.forked(Fork { at: Nanos(at), parent: one, child: one }));
        assert_eq!(watch.forks.len(), MAX_BETWEEN_READS);
        watch.read_now(&mut kernel);
        assert!(watch.forks.is_empty() && watch.forks.capacity() <= KEPT_BETWEEN_READS);
    }

    #[test]
    fn lost_moves_and_too_many_need_a_scan() {
        let (mut lossy, mut kernel) = watch(Vec::new(), 5);
        lossy.read_if_due(Nanos(0), &mut kernel);
        assert_eq!(lossy.metrics.lost_moves.get(), 5);
        assert!(lossy.take_needs_scan() && !lossy.take_needs_scan());
        let (mut many, mut kernel) =
            watch((1..20_000).map(|pid| (1_000_000, 2_000_000 + pid)).collect(), 0);
        many.read_if_due(Nanos(0), &mut kernel);
        assert!(many.take_needs_scan());
        assert_eq!(std::iter::from_fn(|| many.next_moved()).count(), MAX_QUEUED);
    }

    #[test]
    fn a_user_who_moves_many_processes_delays_no_other_user() {
        let mut moves: Vec<(u32, u32)> = (1000..1500).map(|pid| (900, pid)).collect();
        moves.push((901, 40));
        let (mut watch, mut kernel) = watch(moves, 0);
        watch.read_if_due(Nanos(0), &mut kernel);
        let mut evaluated = 0;
        while let Some(evaluation) = watch.next_moved() {
            let is_other = evaluation.pid.get() == 40;
            evaluated += usize::from(watch.admit(evaluation, Uid(u32::from(is_other))));
            if is_other {
                break;
            }
        }
        assert!(evaluated < 40, "after {evaluated} evaluations");
        assert!(watch.has_unevaluated_move(Pid::new(1499).unwrap(), &mut kernel));
        let all = std::iter::from_fn(|| watch.next_moved());
        assert_eq!(evaluated + all.count(), 501);
        assert!(!watch.has_work());
    }

    #[test]
    fn reads_on_demand_put_off_the_next_one_by_their_cost() {
        let (mut watch, mut kernel) = watch(Vec::new(), 0);
        kernel.move_read_ns = 40_000_000;
        let began = kernel.now();
        let five = Pid::new(5).unwrap();
        assert!(!watch.has_unevaluated_move(five, &mut kernel));
        assert!(watch.due(&kernel).unwrap() >= began.plus(40_000_000 * COST_FACTOR));
        watch.read_now(&mut kernel);
        assert!(watch.due(&kernel).unwrap() >= began.plus(2 * 40_000_000 * COST_FACTOR));
        // However many there were.
        (0..5).for_each(|_| watch.read_now(&mut kernel));
        watch.moved_by_user(kernel.now());
        assert!(watch.due(&kernel).unwrap() <= kernel.now().plus(MAX_PAUSE_NS));
    }

    #[test]
    fn it_is_read_more_often_while_a_user_moves_processes() {
        let (mut watch, mut kernel) = watch(Vec::new(), 0);
        watch.read_if_due(Nanos(1), &mut kernel);
        assert_eq!(watch.due(&kernel), Some(Nanos(1 + INTERVAL_NS)));
        watch.moved_by_user(Nanos(2));
        assert_eq!(watch.due(&kernel), Some(Nanos(2 + SHORT_INTERVAL_NS)));
        watch.read_if_due(Nanos(3 + SHORT_INTERVAL_NS), &mut kernel);
        assert_eq!(watch.due(&kernel), Some(Nanos(3 + 2 * SHORT_INTERVAL_NS)));
        // An expensive read is followed by a longer pause, also when a user continues.
        let read = 3 + SHORT_INTERVAL_NS;
        watch.add_cost(5 * SHORT_INTERVAL_NS);
        watch.moved_by_user(Nanos(read + 6 * SHORT_INTERVAL_NS));
        assert_eq!(watch.due(&kernel), Some(Nanos(read + 100 * SHORT_INTERVAL_NS)));
        watch.read_if_due(Nanos(2 * ALERT_NS), &mut kernel);
        assert_eq!(watch.due(&kernel), Some(Nanos(2 * ALERT_NS + INTERVAL_NS)));
        assert_eq!(MoveWatch::new(Arc::default()).due(&FakeKernel::new()), None);
    }
}
