//! Queue of processes to evaluate: one entry per process, fair among users, with an account of
//! completed events. Pure.
//!
//! Setgid, setuid and exec of one login share one entry. Entries are evaluated in order of arrival,
//! but each user has a budget of [`SHARE`] evaluations per turn; further ones are deferred until
//! the entries of others are done, so that a user who causes a flood delays no other user.
//!
//! A *drain* is one pass of reading the event socket until it is empty. Drains are numbered, and
//! [`EvaluationQueue::completed`] returns the last drain up to which every process was evaluated, for
//! [`crate::tracking::fork_tracker`].

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::event::{Cause, Nanos, Pid, Task, Uid};

/// Number of evaluations per user in one turn before other users are served.
pub const SHARE: u32 = 32;

/// Number of a drain, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Drain(pub u64);

/// Threads other than the leader with changed credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Threads {
    /// No thread except perhaps the leader.
    #[default]
    None,
    /// One thread besides the leader.
    One(Pid),
    /// Two or more threads besides the leader.
    Several,
}

impl Threads {
    /// Adds the thread that changed its credentials; the leader is not counted.
    fn add(&mut self, task: Task) {
        if task.thread != task.process {
            *self = self.or(Self::One(task.thread));
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, one) | (one, Self::None) => one,
            (one, another) if one == another => one,
            _ => Self::Several,
        }
    }
}

/// Queued evaluation of a process, with its causes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvaluationRequest {
    /// Process that is to be evaluated.
    pub pid: Pid,
    /// Causes that were merged into this evaluation.
    pub cause: Cause,
    /// Time of the first cause.
    pub since: Nanos,
    /// Time of the last exec, if that is a cause or was evaluated while this waited.
    pub executed: Option<Nanos>,
    /// For a recheck, the placement that it verifies: a number assigned by the placer. Else 0.
    pub placement: u64,
    /// Threads besides the leader that changed their credentials.
    pub threads: Threads,
    drain: Drain,
    admitted: bool,
}

impl EvaluationRequest {
    /// Creates an evaluation outside of any batch, for forked children and rechecks.
    pub const fn at_once(pid: Pid, cause: Cause, since: Nanos) -> Self {
        Self {
            pid,
            cause,
            since,
            executed: if cause.contains(Cause::EXEC) { Some(since) } else { None },
            placement: 0,
            threads: Threads::None,
            drain: Drain(0),
            admitted: true,
        }
    }

    /// Checks whether an event told that the process may run another program, or for another user.
    pub fn may_change_program(&self) -> bool {
        self.cause.intersects(Cause::EXEC | Cause::UID)
    }

    /// Returns the time from which the process may run its present program.
    pub fn program_since(&self) -> Nanos {
        self.executed.unwrap_or(self.since)
    }

    /// Returns the same evaluation for another time, when it was completed in its batch.
    #[must_use]
    pub const fn outside_batch(self) -> Self {
        Self { drain: Drain(0), admitted: true, ..self }
    }

    /// Merges another evaluation of the same process into this one, which is carried out for both.
    pub fn absorb(&mut self, other: &Self) {
        self.cause = self.cause | other.cause;
        self.since = self.since.min(other.since);
        self.executed = self.executed.max(other.executed);
        self.threads = self.threads.or(other.threads);
    }

    /// Creates the recheck of a placement.
    pub const fn after(pid: Pid, cause: Cause, since: Nanos, placement: u64) -> Self {
        Self { placement, ..Self::at_once(pid, cause, since) }
    }
}

/// Processes that wait for their evaluation.
#[derive(Debug, Default)]
pub struct EvaluationQueue {
    entries: HashMap<Pid, EvaluationRequest, FixedState>,
    fresh: VecDeque<Pid>,
    parked: HashMap<Uid, VecDeque<Pid>, FixedState>,
    /// Users with deferred processes, next first.
    turn: VecDeque<Uid>,
    used: HashMap<Uid, u32, FixedState>,
    /// Number of incomplete entries of each drain after `completed`.
    incomplete: VecDeque<u32>,
    begun: Drain,
    finished: Drain,
    completed: Drain,
}

impl EvaluationQueue {
    /// Begins a drain and, with it, a new turn: every user has a full budget again.
    pub fn begin_drain(&mut self) -> Drain {
        self.begun = Drain(self.begun.0 + 1);
        self.incomplete.push_back(0);
        self.used.clear();
        self.begun
    }

    /// Ends the drain that began last: the socket was empty.
    pub fn end_drain(&mut self) {
        self.finish(self.begun);
    }

    /// Ends `drain` and all before it: all datagrams that the socket held when it began were read.
    pub fn finish(&mut self, drain: Drain) {
        self.finished = self.finished.max(drain);
        self.advance();
    }

    /// Adds an event of a thread to the entry of its process.
    pub fn push(&mut self, task: Task, cause: Cause, at: Nanos) {
        let pid = task.process;
        let drain = self.begun;
        if let Some(entry) = self.entries.get_mut(&pid) {
            entry.cause = entry.cause | cause;
            if cause.contains(Cause::EXEC) {
                entry.executed = entry.executed.max(Some(at));
            }
            entry.threads.add(task);
            return;
        }
        let mut evaluation = EvaluationRequest {
            drain,
            admitted: false,
            ..EvaluationRequest::at_once(pid, cause, at)
        };
        evaluation.threads.add(task);
        self.entries.insert(pid, evaluation);
        self.fresh.push_back(pid);
        if let Some(count) = self.incomplete.back_mut() {
            *count += 1;
        }
    }

    /// Returns the next process to evaluate. The caller must pass it to [`Self::admit`] or
    /// [`Self::complete`].
    pub fn pop(&mut self) -> Option<EvaluationRequest> {
        if let Some(pid) = self.fresh.pop_front() {
            return self.entries.remove(&pid);
        }
        let uid = self.turn.pop_front()?;
        let queue = self.parked.get_mut(&uid)?;
        let pid = queue.pop_front();
        if queue.is_empty() {
            self.parked.remove(&uid);
        } else {
            self.turn.push_back(uid);
        }
        self.entries.remove(&pid?)
    }

    /// Checks whether `evaluation` may run now, with a process of `uid`. If not, it was deferred.
    #[must_use]
    pub fn admit(&mut self, evaluation: EvaluationRequest, uid: Uid) -> bool {
        if evaluation.admitted || self.entries.is_empty() {
            return true;
        }
        let used = self.used.entry(uid).or_insert(0);
        *used += 1;
        if *used <= SHARE {
            return true;
        }
        // It may have been pushed again since it was popped. Then that entry replaces this one and
        // takes its drain: a fork between the two changes must not be checked before the
        // evaluation.
        let Some(entry) = self.entries.get_mut(&evaluation.pid) else {
            self.entries.insert(evaluation.pid, EvaluationRequest { admitted: true, ..evaluation });
            let queue = self.parked.entry(uid).or_default();
            if queue.is_empty() {
                self.turn.push_back(uid);
            }
            queue.push_back(evaluation.pid);
            return false;
        };
        entry.absorb(&evaluation);
        let later = std::mem::replace(&mut entry.drain, evaluation.drain);
        self.complete_one_of(later);
        false
    }

    /// Charges a user for the cost of an evaluation beyond that of a usual one: such evaluations count as
    /// several.
    pub fn charge(&mut self, uid: Uid, evaluations: u32) {
        if evaluations > 0 && !self.entries.is_empty() {
            let used = self.used.entry(uid).or_insert(0);
            *used = used.saturating_add(evaluations);
        }
    }

    /// Records that the evaluation is completed.
    pub fn complete(&mut self, evaluation: EvaluationRequest) {
        self.complete_one_of(evaluation.drain);
    }

    fn complete_one_of(&mut self, drain: Drain) {
        if drain <= self.completed {
            return;
        }
        let index = usize::try_from(drain.0 - self.completed.0 - 1).unwrap_or(usize::MAX);
        if let Some(count) = self.incomplete.get_mut(index) {
            *count = count.saturating_sub(1);
        }
        self.advance();
    }

    /// Returns the last drain such that it and all before it are finished and evaluated.
    pub const fn completed(&self) -> Drain {
        self.completed
    }

    /// Returns the drain that began last.
    pub const fn begun(&self) -> Drain {
        self.begun
    }

    /// Returns the queued evaluation of `pid`, if any.
    pub fn find(&self, pid: Pid) -> Option<&EvaluationRequest> {
        self.entries.get(&pid)
    }

    /// Returns the number of queued processes.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Checks whether no process is queued.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn advance(&mut self) {
        while self.completed < self.finished && self.incomplete.front() == Some(&0) {
            self.incomplete.pop_front();
            self.completed = Drain(self.completed.0 + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pid(raw: u32) -> Pid {
        Pid::new(raw).unwrap()
    }

    fn leader(raw: u32) -> Task {
        Task { process: pid(raw), thread: pid(raw) }
    }

    #[test]
    fn one_login_is_one_look() {
        let mut batch = EvaluationQueue::default();
        batch.begin_drain();
        batch.push(leader(9), Cause::GID, Nanos(1));
        batch.push(leader(9), Cause::UID, Nanos(2));
        batch.push(leader(9), Cause::EXEC, Nanos(3));
        batch.end_drain();
        let evaluation = batch.pop().unwrap();
        assert_eq!(
            (evaluation.cause.to_string().as_str(), evaluation.since),
            ("setgid+setuid+exec", Nanos(1))
        );
        assert!(batch.pop().is_none());
        assert_eq!(batch.completed(), Drain(0));
        batch.complete(evaluation);
        assert_eq!(batch.completed(), Drain(1));
    }

    #[test]
    fn threads_that_changed_are_told_from_the_leader() {
        let mut batch = EvaluationQueue::default();
        batch.begin_drain();
        for (thread, expected) in [
            (9, Threads::None),
            (10, Threads::One(pid(10))),
            (10, Threads::One(pid(10))),
            (9, Threads::One(pid(10))),
            (11, Threads::Several),
        ] {
            batch.push(Task { process: pid(9), thread: pid(thread) }, Cause::UID, Nanos(1));
            assert_eq!(batch.find(pid(9)).unwrap().threads, expected);
        }
    }

    #[test]
    fn a_drain_is_finished_when_what_was_queued_at_its_end_is_read() {
        let mut batch = EvaluationQueue::default();
        let first = batch.begin_drain();
        batch.begin_drain();
        batch.finish(first);
        assert_eq!(batch.completed(), Drain(1));
    }

    #[test]
    fn a_drain_that_was_cut_short_settles_with_the_next() {
        let mut batch = EvaluationQueue::default();
        batch.begin_drain();
        assert_eq!(batch.completed(), Drain(0));
        batch.begin_drain();
        batch.end_drain();
        assert_eq!(batch.completed(), Drain(2));
    }

    /// A process whose name is asked for is completed, and looked at again when the answer comes.
    #[test]
    fn what_was_settled_does_not_settle_its_drain_for_others() {
        let mut batch = EvaluationQueue::default();
        batch.begin_drain();
        batch.push(leader(1), Cause::EXEC, Nanos(1));
        batch.push(leader(2), Cause::EXEC, Nanos(1));
        batch.end_drain();
        let (first, second) = (batch.pop().unwrap(), batch.pop().unwrap());
        batch.complete(first);
        batch.complete(first.outside_batch());
        assert_eq!(batch.completed(), Drain(0));
        batch.complete(second);
        assert_eq!(batch.completed(), Drain(1));
    }

    /// A change that is pushed while the process is deferred does not complete the earlier drain.
    #[test]
    fn what_is_pushed_again_keeps_its_first_drain() {
        let mut batch = EvaluationQueue::default();
        batch.begin_drain();
        (1..=SHARE + 1).for_each(|raw| batch.push(leader(raw), Cause::UID, Nanos(1)));
        batch.end_drain();
        batch.begin_drain();
        for _ in 0..SHARE {
            let evaluation = batch.pop().unwrap();
            assert!(batch.admit(evaluation, Uid(1)));
            batch.complete(evaluation);
        }
        let last = batch.pop().unwrap();
        batch.push(leader(last.pid.get()), Cause::EXEC, Nanos(2));
        batch.push(leader(5000), Cause::EXEC, Nanos(2));
        assert!(!batch.admit(last, Uid(1)));
        assert_eq!(batch.completed(), Drain(0));
        let again = batch.pop().unwrap();
        assert_eq!((again.pid, again.since), (last.pid, Nanos(1)));
        batch.complete(again);
        assert_eq!(batch.completed(), Drain(1));
    }

    #[test]
    fn who_floods_delays_only_himself() {
        let mut batch = EvaluationQueue::default();
        batch.begin_drain();
        for raw in 1..=1000 {
            batch.push(leader(raw), Cause::EXEC, Nanos(1));
        }
        batch.push(leader(5000), Cause::EXEC, Nanos(1));
        batch.end_drain();
        let mut done = 0;
        while let Some(evaluation) = batch.pop() {
            let uid = Uid(u32::from(evaluation.pid == pid(5000)));
            if batch.admit(evaluation, uid) {
                batch.complete(evaluation);
                done += 1;
                if evaluation.pid == pid(5000) {
                    break;
                }
            }
        }
        assert_eq!(done, SHARE + 1);
    }

    #[test]
    fn expensive_evaluations_count_as_several() {
        let mut batch = EvaluationQueue::default();
        batch.begin_drain();
        (1..=10).for_each(|raw| batch.push(leader(raw), Cause::EXEC, Nanos(1)));
        for (uid, is_admitted) in [(Uid(1), true), (Uid(1), false), (Uid(2), true)] {
            let evaluation = batch.pop().unwrap();
            assert_eq!(batch.admit(evaluation, uid), is_admitted);
            batch.charge(uid, SHARE);
        }
    }

    #[test]
    fn what_nobody_waits_for_is_not_charged() {
        let mut batch = EvaluationQueue::default();
        batch.begin_drain();
        batch.charge(Uid(1), SHARE);
        (1..=2).for_each(|raw| batch.push(leader(raw), Cause::EXEC, Nanos(1)));
        let first = batch.pop().unwrap();
        assert!(batch.admit(first, Uid(1)));
    }

    proptest! {
        /// Every pushed process is evaluated before the queue is empty, and then all drains are
        /// completed.
        #[test]
        fn nothing_is_forgotten(
            steps in proptest::collection::vec((1u32..60, 0u32..3, any::<bool>()), 1..400),
        ) {
            let mut batch = EvaluationQueue::default();
            let mut owed = std::collections::HashSet::new();
            batch.begin_drain();
            for (raw, user, drain) in steps {
                batch.push(leader(raw), Cause::EXEC, Nanos(0));
                owed.insert(pid(raw));
                if drain {
                    batch.end_drain();
                    if let Some(evaluation) = batch.pop() {
                        if batch.admit(evaluation, Uid(user)) {
                            owed.remove(&evaluation.pid);
                            batch.complete(evaluation);
                        }
                    }
                    batch.begin_drain();
                }
            }
            batch.end_drain();
            while let Some(evaluation) = batch.pop() {
                if batch.admit(evaluation, Uid(evaluation.pid.get() % 3)) {
                    owed.remove(&evaluation.pid);
                    batch.complete(evaluation);
                }
            }
            prop_assert!(owed.is_empty() && batch.is_empty());
            prop_assert_eq!(batch.completed(), batch.begun());
        }
    }
}
