//! Selection of the forked children that must be evaluated. Pure.
//!
//! A child starts in the cgroup and with the credentials and executable of the task that created
//! it. So it can be misplaced only if it was born *between a change of its creator and the end of
//! the creator's evaluation*, the move included, or while all processes are being scanned. These
//! intervals are kept as windows of time, and every fork in one is a candidate, whatever its
//! parent: a fork event names the real parent, which with `CLONE_PARENT` is not the creator but the
//! creator's parent.
//!
//! Two conditions reduce the candidates. A candidate that was evaluated after its birth, because it
//! executed a program or changed its credentials itself, needs no second evaluation; its own
//! children can have been born before that, so its window begins at its birth. And a fork whose
//! parent was evaluated later than the fork is always a candidate.
//!
//! The kernel queues a fork before the child is linked to its cgroup, so when the write that moves
//! the creator returns, every child in the old cgroup is in the fork socket. A fork is checked only
//! when every event that the kernel queued before it was evaluated: after a drain of the event
//! socket that *began* after the fork was read has been evaluated. Without this delay, 5 to 12 of
//! 1,000 daemons that set their UID, fork and exit at once were missed (measured).

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::event::{Nanos, Pid};
use crate::tracking::queue::Drain;
use crate::tracking::windows::Windows;

/// Maximum number of queued forks; a fork beyond it is lost, and a scan follows. Each takes 32
/// bytes, allocated when needed; a fork rate of 20,000/s fills the queue in three seconds.
pub const WAITING: usize = 65_536;

/// Fork event of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// Time stamp that the kernel gave the fork.
    pub at: Nanos,
    /// The real parent: the creator, or with `CLONE_PARENT` the creator's parent.
    pub parent: Pid,
    /// PID of the new process.
    pub child: Pid,
}

/// Times of a completed evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// Time of the first change since the last evaluation; for a candidate, its birth.
    pub since: Nanos,
    /// Time at which the process was opened, or earlier: it refers to the process with the PID at
    /// that time.
    pub opened: Nanos,
    /// Time at which the evaluation took effect: moved, found in place, or found gone.
    pub ended: Nanos,
}

/// Forks to be checked, and the evaluations that they are checked against.
#[derive(Debug, Default)]
pub struct ForkTracker {
    waiting: VecDeque<(Drain, Fork)>,
    evaluated: HashMap<Pid, Evaluated, FixedState>,
    /// Entries of `evaluated` by the end of the evaluation.
    oldest: VecDeque<(Nanos, Pid)>,
    /// Windows of completed evaluations and scans.
    windows: Windows,
    /// Evaluations that wait for another thread: since when, and the time at which the process was
    /// opened.
    pending: HashMap<Pid, (Nanos, Nanos), FixedState>,
    /// Earliest start of a window in `pending`.
    pending_since: Option<Nanos>,
    /// Start of the running scan.
    scan: Option<Nanos>,
    /// Time since which every fork is a candidate: see [`Self::suspect_every_fork`].
    suspected_since: Option<Nanos>,
    /// For each time that the fork socket was read until it was empty: the start of the read, and
    /// the number of forks read by then.
    reads: VecDeque<(Nanos, u64)>,
    recorded: u64,
    judged: u64,
    /// Time up to which forks were checked: all forks during evaluations that ended earlier are
    /// checked.
    horizon: Nanos,
}

impl ForkTracker {
    /// Records a fork that was read while `begun` was the last drain of the event socket that had
    /// begun. Returns `false` when the queue was full: the fork is lost.
    #[must_use]
    pub fn record(&mut self, fork: Fork, begun: Drain) -> bool {
        if self.waiting.len() >= WAITING {
            return false;
        }
        self.recorded += 1;
        self.waiting.push_back((begun, fork));
        true
    }

    /// Records that the fork socket was read from `began` until it was empty. Forks that concern an
    /// evaluation that ended before `began` were in it.
    pub fn emptied(&mut self, began: Nanos) {
        self.reads.push_back((began, self.recorded));
        self.forget();
    }

    /// Records that an evaluation of `pid` is completed.
    pub fn completed(&mut self, pid: Pid, evaluated: Evaluated) {
        let since =
            self.end_pending(pid).map_or(evaluated.since, |since| since.min(evaluated.since));
        self.windows.add(since, evaluated.ended);
        self.evaluated.insert(pid, evaluated);
        self.oldest.push_back((evaluated.ended, pid));
    }

    /// Records that an evaluation of `pid` waits for another thread: its window stays open until it
    /// is completed.
    pub fn deferred(&mut self, pid: Pid, since: Nanos, opened: Nanos) {
        let entry = self.pending.entry(pid).or_insert((since, opened));
        entry.0 = entry.0.min(since);
        let since = entry.0;
        self.wait_since(since);
    }

    /// Closes the pending window of `pid`. Returns its start, if there was one.
    fn end_pending(&mut self, pid: Pid) -> Option<Nanos> {
        let (since, _) = self.pending.remove(&pid)?;
        if self.pending_since == Some(since) {
            self.pending_since = self.pending.values().map(|&(since, _)| since).min();
        }
        Some(since)
    }

    fn wait_since(&mut self, since: Nanos) {
        self.pending_since = Some(self.pending_since.map_or(since, |earliest| earliest.min(since)));
    }

    /// Returns since when the window of `pid` is open, if its evaluation waits for another thread.
    pub fn waits_since(&self, pid: Pid) -> Option<Nanos> {
        self.pending.get(&pid).map(|&(since, _)| since)
    }

    /// Checks whether the process with this PID was evaluated after this time, as far as that is still recorded.
    pub fn is_evaluated_since(&self, pid: Pid, at: Nanos) -> bool {
        self.evaluated_since(pid, at).is_some()
    }

    fn evaluated_since(&self, pid: Pid, at: Nanos) -> Option<Evaluated> {
        self.evaluated.get(&pid).copied().filter(|own| own.opened >= at)
    }

    /// Records that the process stays in its cgroup in any case: its children are only evaluated
    /// for their own events.
    pub fn dismissed(&mut self, pid: Pid) {
        self.end_pending(pid);
        self.evaluated.remove(&pid);
    }

    /// Drops all evaluations that wait for another thread: a scan follows.
    pub fn drop_pending(&mut self) {
        self.pending.clear();
        self.pending_since = None;
    }

    /// Records the start of a scan; the list of processes is read after `at`.
    pub fn begin_scan(&mut self, at: Nanos) {
        self.scan.get_or_insert(at);
    }

    /// Records the end of the scan: every process of the list was evaluated by `at`.
    pub fn end_scan(&mut self, at: Nanos) {
        if let Some(began) = self.scan.take() {
            self.windows.add(began, at);
        }
    }

    /// Makes every fork a candidate. Needed while a process has a thread with other credentials than
    /// the leader, which it has `since` this time: no event precedes its forks, so no window contains
    /// them.
    pub fn suspect_every_fork(&mut self, since: Nanos) {
        self.suspected_since.get_or_insert(since);
    }

    /// Ends that at `now`. Forks of before may be read later.
    pub fn end_suspicion(&mut self, now: Nanos) {
        if let Some(since) = self.suspected_since.take() {
            self.windows.add(since, now);
        }
    }

    /// Returns the next child to evaluate, when everything up to the drain `completed` was evaluated.
    /// Its evaluation must be reported by [`Self::completed`] or [`Self::deferred`] before the next
    /// call, because its own children may follow. A child of a parent that `is_suspect` is always a
    /// candidate: a user may control the parent although it is not moved, so no window contains its
    /// forks.
    pub fn next_candidate(
        &mut self,
        completed: Drain,
        is_suspect: impl Fn(Pid) -> bool,
    ) -> Option<Fork> {
        while self.waiting.front().is_some_and(|&(begun, _)| begun < completed) {
            let (_, fork) = self.waiting.pop_front()?;
            self.judged += 1;
            if self.is_candidate(fork, &is_suspect) {
                return Some(fork);
            }
        }
        self.forget();
        None
    }

    fn is_candidate(&mut self, fork: Fork, is_suspect: &impl Fn(Pid) -> bool) -> bool {
        if !self.may_be_misplaced(fork, is_suspect) {
            return false;
        }
        if let Some(own) = self.evaluated_since(fork.child, fork.at) {
            self.windows.add(fork.at, own.ended);
            return false;
        }
        if let Some(own) = self.pending.get_mut(&fork.child).filter(|own| own.1 >= fork.at) {
            own.0 = own.0.min(fork.at);
            self.wait_since(fork.at);
            return false;
        }
        true
    }

    fn may_be_misplaced(&self, fork: Fork, is_suspect: &impl Fn(Pid) -> bool) -> bool {
        self.suspected_since.is_some()
            || self.scan.is_some_and(|began| began <= fork.at)
            || self.evaluated.get(&fork.parent).is_some_and(|parent| fork.at <= parent.ended)
            || self.windows.contains(fork.at)
            || self.pending_since.is_some_and(|since| since <= fork.at)
            || is_suspect(fork.parent)
    }

    /// Checks whether forks are queued.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Returns the time up to which forks were checked: all forks during evaluations that ended
    /// earlier are checked.
    pub const fn horizon(&self) -> Nanos {
        self.horizon
    }

    /// Releases memory after a burst.
    pub fn shrink(&mut self) {
        if self.evaluated.capacity() > 4 * self.evaluated.len() + 1024 {
            self.evaluated.shrink_to(2 * self.evaluated.len());
            self.oldest.shrink_to(2 * self.oldest.len());
            self.waiting.shrink_to(2 * self.waiting.len());
            self.windows.shrink();
        }
    }

    fn forget(&mut self) {
        while let Some(&(began, recorded)) = self.reads.front() {
            if recorded > self.judged {
                break;
            }
            self.reads.pop_front();
            self.horizon = self.horizon.max(began);
        }
        while let Some(&(ended, pid)) = self.oldest.front() {
            if ended >= self.horizon {
                break;
            }
            self.oldest.pop_front();
            // A later evaluation of the same process has its own entry in the queue.
            if self.evaluated.get(&pid).is_some_and(|last| last.ended == ended) {
                self.evaluated.remove(&pid);
            }
        }
        self.windows.forget_before(self.horizon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(raw: u32) -> Pid {
        Pid::new(raw).unwrap()
    }

    fn fork(at: u64, parent: u32, child: u32) -> Fork {
        Fork { at: Nanos(at), parent: pid(parent), child: pid(child) }
    }

    /// Returns a tracker with `forks` of a completely evaluated drain.
    fn tracker(forks: &[Fork]) -> ForkTracker {
        let mut tracker = ForkTracker::default();
        for fork in forks {
            assert!(tracker.record(*fork, Drain(1)));
        }
        tracker
    }

    fn evaluated(since: u64, ended: u64) -> Evaluated {
        Evaluated { since: Nanos(since), opened: Nanos(ended), ended: Nanos(ended) }
    }

    /// Returns the children that must be evaluated, none of which has children.
    fn candidates(tracker: &mut ForkTracker) -> Vec<u32> {
        let forks = std::iter::from_fn(|| tracker.next_candidate(Drain(2), |_| false));
        forks.map(|fork| fork.child.get()).collect()
    }

    #[test]
    fn a_child_born_before_the_end_of_an_evaluation_is_a_candidate_and_one_born_after_is_not() {
        let mut tracker = tracker(&[fork(9, 1, 2), fork(11, 1, 3)]);
        tracker.completed(pid(1), evaluated(10, 10));
        assert_eq!(candidates(&mut tracker), [2]);
        assert!(!tracker.is_waiting());
    }

    #[test]
    fn a_child_of_the_creators_parent_is_a_candidate_in_the_window_alone() {
        let mut tracker =
            tracker(&[fork(4, 70, 2), fork(5, 70, 3), fork(10, 70, 4), fork(11, 70, 5)]);
        tracker.completed(pid(1), evaluated(5, 10));
        assert_eq!(candidates(&mut tracker), [3, 4]);
    }

    #[test]
    fn a_fork_waits_for_a_drain_that_began_after_it_was_read() {
        let mut tracker = tracker(&[]);
        assert!(tracker.record(fork(5, 1, 2), Drain(3)));
        assert_eq!(tracker.next_candidate(Drain(3), |_| false), None);
        tracker.completed(pid(1), evaluated(4, 10));
        assert_eq!(tracker.next_candidate(Drain(4), |_| false), Some(fork(5, 1, 2)));
    }

    #[test]
    fn a_chain_of_gone_parents_is_followed() {
        let mut tracker = tracker(&[fork(5, 1, 2), fork(12, 2, 3)]);
        tracker.completed(pid(1), evaluated(4, 10));
        assert_eq!(tracker.next_candidate(Drain(2), |_| false), Some(fork(5, 1, 2)));
        tracker.completed(pid(2), evaluated(5, 13));
        assert_eq!(tracker.next_candidate(Drain(2), |_| false), Some(fork(12, 2, 3)));
    }

    #[test]
    fn a_child_that_was_evaluated_itself_is_not_evaluated_again_but_what_it_created_before_is() {
        // PID 2 is born outside in the window of 1, creates 3 with CLONE_PARENT, and is evaluated
        // then.
        let mut tracker = tracker(&[fork(5, 1, 2), fork(14, 1, 3), fork(19, 1, 4)]);
        tracker.completed(pid(1), evaluated(4, 10));
        tracker
            .completed(pid(2), Evaluated { since: Nanos(15), opened: Nanos(16), ended: Nanos(18) });
        assert_eq!(candidates(&mut tracker), [3]);
    }

    #[test]
    fn an_evaluation_of_an_earlier_process_of_the_same_pid_does_not_count_for_the_child() {
        let mut tracker = tracker(&[fork(5, 1, 2)]);
        tracker.completed(pid(2), Evaluated { since: Nanos(1), opened: Nanos(4), ended: Nanos(9) });
        tracker.completed(pid(1), evaluated(3, 10));
        assert_eq!(candidates(&mut tracker), [2]);
    }

    #[test]
    fn while_an_evaluation_waits_every_later_fork_is_a_candidate() {
        let mut tracker = tracker(&[fork(4, 70, 2), fork(5, 70, 3), fork(500, 70, 4)]);
        tracker.deferred(pid(1), Nanos(5), Nanos(6));
        assert_eq!(candidates(&mut tracker), [3, 4]);
        tracker.completed(pid(1), evaluated(5, 600));
        assert!(tracker.record(fork(600, 70, 5), Drain(1)));
        assert!(tracker.record(fork(601, 70, 6), Drain(1)));
        assert_eq!(candidates(&mut tracker), [5]);
    }

    #[test]
    fn a_child_that_waits_itself_is_not_evaluated_again() {
        let mut tracker = tracker(&[fork(5, 1, 2), fork(6, 70, 3)]);
        tracker.deferred(pid(2), Nanos(7), Nanos(8));
        tracker.completed(pid(1), evaluated(5, 5));
        assert_eq!(candidates(&mut tracker), [3], "created by 2 before its own change");
    }

    #[test]
    fn every_fork_since_a_scan_began_is_a_candidate() {
        let mut tracker = tracker(&[fork(4, 70, 2), fork(5, 70, 3)]);
        tracker.begin_scan(Nanos(5));
        assert_eq!(candidates(&mut tracker), [3]);
        tracker.end_scan(Nanos(9));
        assert!(tracker.record(fork(9, 70, 4), Drain(1)));
        assert!(tracker.record(fork(10, 70, 5), Drain(1)));
        assert_eq!(candidates(&mut tracker), [4]);
    }

    #[test]
    fn children_of_a_suspect_parent_are_candidates_unless_they_were_evaluated() {
        let mut tracker = tracker(&[fork(4, 70, 2), fork(5, 71, 3), fork(6, 70, 4)]);
        tracker.completed(pid(4), evaluated(8, 8));
        let candidate = tracker.next_candidate(Drain(2), |parent| parent == pid(70));
        assert_eq!(candidate, Some(fork(4, 70, 2)));
        assert_eq!(tracker.next_candidate(Drain(2), |parent| parent == pid(70)), None);
    }

    #[test]
    fn every_fork_is_a_candidate_when_asked_for() {
        let mut tracker = tracker(&[fork(4, 70, 2)]);
        tracker.suspect_every_fork(Nanos(3));
        assert_eq!(candidates(&mut tracker), [2]);
        // Those of before its end are read after it.
        tracker.end_suspicion(Nanos(9));
        for at in [2, 3, 9, 10] {
            assert!(tracker.record(fork(at, 70, 10 + at as u32), Drain(1)));
        }
        assert_eq!(candidates(&mut tracker), [13, 19]);
    }

    #[test]
    fn evaluations_are_forgotten_when_all_forks_that_they_can_concern_are_judged() {
        let mut tracker = ForkTracker::default();
        tracker.completed(pid(1), evaluated(1, 1));
        tracker.completed(pid(2), evaluated(2, 2));
        tracker.completed(pid(1), evaluated(5, 5));
        assert!(tracker.record(fork(1, 7, 8), Drain(1)));
        tracker.emptied(Nanos(4));
        assert_eq!(tracker.next_candidate(Drain(1), |_| false), None);
        assert_eq!(tracker.evaluated.len(), 2, "a fork still waits");
        // It was read later, so it does not keep evaluations that ended before the earlier read.
        assert!(tracker.record(fork(9, 7, 9), Drain(5)));
        assert_eq!(tracker.next_candidate(Drain(2), |_| false), Some(fork(1, 7, 8)));
        assert_eq!(tracker.next_candidate(Drain(2), |_| false), None);
        assert_eq!(tracker.horizon(), Nanos(4));
        assert_eq!(tracker.evaluated.get(&pid(2)), None);
        assert_eq!(tracker.evaluated[&pid(1)].ended, Nanos(5), "the later evaluation counts");
    }

    #[test]
    fn what_has_the_same_time_stamp_counts_as_born_before() {
        let mut tracker = tracker(&[fork(10, 1, 2), fork(5, 70, 3), fork(5, 70, 4)]);
        tracker.completed(pid(1), evaluated(10, 10));
        assert_eq!(candidates(&mut tracker), [2]);
        tracker.suspect_every_fork(Nanos(0));
        assert!(tracker.record(fork(5, 70, 3), Drain(1)));
        assert!(tracker.record(fork(5, 70, 4), Drain(1)));
        tracker.completed(pid(3), evaluated(5, 5));
        tracker.deferred(pid(4), Nanos(5), Nanos(5));
        assert!(candidates(&mut tracker).is_empty(), "they were opened then");
    }

    #[test]
    fn the_children_of_a_process_that_stays_are_no_candidates() {
        let mut tracker = tracker(&[fork(5, 1, 2), fork(5, 70, 3)]);
        tracker.completed(pid(1), evaluated(6, 8));
        tracker.deferred(pid(1), Nanos(4), Nanos(4));
        tracker.dismissed(pid(1));
        assert!(candidates(&mut tracker).is_empty());
    }

    #[test]
    fn forks_are_no_candidates_for_evaluations_that_a_scan_replaces() {
        let mut tracker = tracker(&[fork(5, 70, 2)]);
        tracker.deferred(pid(1), Nanos(4), Nanos(4));
        tracker.drop_pending();
        assert!(candidates(&mut tracker).is_empty());
    }

    #[test]
    fn an_evaluation_counts_until_forks_of_its_end_are_judged() {
        let mut tracker = ForkTracker::default();
        tracker.completed(pid(1), evaluated(4, 4));
        tracker.emptied(Nanos(4));
        assert_eq!(tracker.evaluated.len(), 1);
        tracker.emptied(Nanos(5));
        assert_eq!(tracker.evaluated.len(), 0);
    }

    #[test]
    fn a_child_born_when_the_window_of_a_waiting_process_opens_is_a_candidate() {
        let mut tracker = tracker(&[fork(4, 1, 2), fork(5, 1, 3)]);
        assert_eq!(tracker.waits_since(pid(1)), None);
        tracker.deferred(pid(1), Nanos(5), Nanos(6));
        assert_eq!(tracker.waits_since(pid(1)), Some(Nanos(5)));
        assert_eq!(candidates(&mut tracker), [3]);
    }

    #[test]
    fn memory_that_is_half_in_use_is_not_released() {
        let mut tracker = ForkTracker::default();
        let mut add = |range: std::ops::RangeInclusive<u32>, at| {
            range.for_each(|raw| tracker.completed(pid(raw), evaluated(at, at)));
        };
        add(1..=7000, 1);
        add(1..=2000, 5);
        tracker.emptied(Nanos(2));
        let before = tracker.evaluated.capacity();
        assert_eq!(tracker.evaluated.len(), 2000);
        tracker.shrink();
        assert_eq!(tracker.evaluated.capacity(), before);
    }

    #[test]
    fn memory_is_released_after_a_burst() {
        let mut tracker = ForkTracker::default();
        for raw in 1..=20_000 {
            assert!(tracker.record(fork(1, 1, raw), Drain(1)));
            tracker.completed(pid(raw), evaluated(1, 1));
        }
        tracker.shrink();
        assert!(tracker.evaluated.capacity() >= 20_000, "all are in use");
        assert!(candidates(&mut tracker).is_empty());
        tracker.emptied(Nanos(2));
        for raw in 1..=100 {
            assert!(tracker.record(fork(3, 1, raw), Drain(3)));
            tracker.completed(pid(raw), evaluated(3, 3));
        }
        tracker.shrink();
        let kept = [tracker.evaluated.capacity(), tracker.oldest.capacity()];
        assert!(kept.iter().all(|&kept| (200..400).contains(&kept)), "{kept:?}");
        assert!((200..400).contains(&tracker.waiting.capacity()));
    }

    #[test]
    fn a_full_ring_says_so() {
        let mut tracker = ForkTracker::default();
        for _ in 0..WAITING {
            assert!(tracker.record(fork(1, 1, 2), Drain(1)));
        }
        assert!(!tracker.record(fork(1, 1, 2), Drain(1)));
    }
}
