//! Evaluations scheduled for a later time: rechecks of placements, and retries of temporary
//! refusals.

use std::collections::{BTreeMap, VecDeque};

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::event::{Cause, Nanos, Pid};
use crate::tracking::queue::EvaluationRequest;

/// Delay before the first retry; each later delay is twice as long.
const FIRST_RETRY_NS: u64 = 100_000_000;
/// Upper limit of the delay between retries.
const LAST_RETRY_NS: u64 = 60_000_000_000;
/// Maximum number of processes to be retried; a scan covers the others when these are done.
const MOST_RETRIES: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Rechecks {
    /// In the order of time, because the delay is constant.
    queue: VecDeque<(Nanos, EvaluationRequest)>,
    /// Due time of the recheck of each process's last placement. Rechecks of earlier placements are
    /// dropped: the process is elsewhere because it was placed again.
    latest: HashMap<Pid, Nanos, FixedState>,
    /// Number of attempts before a retry; `None` for a second evaluation without a refusal.
    retries: BTreeMap<(Nanos, Pid), Option<u32>>,
    /// Due time of each retry.
    retry_of: HashMap<Pid, Nanos, FixedState>,
    /// Set if a process was not added because there were too many.
    is_overflown: bool,
}

/// Returns the number of attempts before this evaluation, which is a retry or the first.
pub(super) fn attempts_before(evaluation: EvaluationRequest) -> u32 {
    let is_retry = evaluation.cause.contains(Cause::RETRY);
    if is_retry { u32::try_from(evaluation.placement).unwrap_or(u32::MAX) } else { 0 }
}

impl Rechecks {
    /// Schedules the recheck of a placement.
    pub(super) fn after_placement(&mut self, due: Nanos, evaluation: EvaluationRequest) {
        self.latest.insert(evaluation.pid, due);
        self.queue.push_back((due, evaluation));
    }

    /// Schedules a second evaluation of a process that may not be linked to its cgroup yet: one that had no
    /// event of its own, which only a linked process can cause.
    pub(super) fn after_birth(
        &mut self,
        evaluation: EvaluationRequest,
        delay: Option<u64>,
        now: Nanos,
    ) {
        const LINKED: Cause = Cause::EXEC.or(Cause::UID).or(Cause::GID).or(Cause::RECHECK);
        if let Some(delay) = delay.filter(|_| !evaluation.cause.intersects(LINKED)) {
            let due = now.plus(delay);
            let again = EvaluationRequest::after(evaluation.pid, Cause::RECHECK, due, 0);
            self.after_placement(due, again);
        }
    }

    /// Schedules a retry of a move that was refused at `now`, or of a read that failed, after `attempts` earlier ones.
    pub(super) fn retry(&mut self, pid: Pid, now: Nanos, attempts: u32) {
        if let Some(&due) = self.retry_of.get(&pid) {
            // A second evaluation becomes a retry, after which children of the process are looked for.
            self.retries.entry((due, pid)).and_modify(|before| {
                before.get_or_insert(attempts);
            });
            return;
        }
        if self.retries.len() >= MOST_RETRIES {
            self.is_overflown = true;
            return;
        }
        self.add(pid, now, Some(attempts));
    }

    /// Schedules a second evaluation of a process whose IDs may have changed for an instant only. Without
    /// a free place it is omitted: only a log record depends on it.
    pub(super) fn confirm(&mut self, pid: Pid, now: Nanos) {
        if !self.retry_of.contains_key(&pid) && self.retries.len() < MOST_RETRIES {
            self.add(pid, now, None);
        }
    }

    fn add(&mut self, pid: Pid, now: Nanos, attempts: Option<u32>) {
        let exponent = attempts.unwrap_or(0);
        let delay = FIRST_RETRY_NS.checked_shl(exponent).unwrap_or(LAST_RETRY_NS);
        let due = now.plus(delay.min(LAST_RETRY_NS));
        self.retries.insert((due, pid), attempts);
        self.retry_of.insert(pid, due);
    }

    /// Returns the next evaluation due at `now`.
    pub(super) fn next_due(&mut self, now: Nanos) -> Option<EvaluationRequest> {
        while let Some(&(due, evaluation)) = self.queue.front().filter(|(due, _)| *due <= now) {
            self.queue.pop_front();
            if self.latest.get(&evaluation.pid) == Some(&due) {
                self.latest.remove(&evaluation.pid);
                return Some(evaluation);
            }
        }
        let (&(due, pid), &attempts) = self.retries.first_key_value()?;
        if due > now {
            return None;
        }
        self.retries.pop_first();
        self.retry_of.remove(&pid);
        let Some(attempts) = attempts else {
            return Some(EvaluationRequest::at_once(pid, Cause::SCAN, now));
        };
        // Carries the number of attempts in place of a placement.
        Some(EvaluationRequest::after(pid, Cause::RETRY, now, u64::from(attempts) + 1))
    }

    /// Reports once whether processes were not added, when no other process has to be retried: then
    /// the cause of the refusals has probably passed.
    pub(super) fn take_overflown(&mut self) -> bool {
        self.retries.is_empty() && std::mem::take(&mut self.is_overflown)
    }

    /// Returns the time of the next evaluation.
    pub(super) fn due(&self) -> Option<Nanos> {
        let recheck = self.queue.front().map(|&(due, _)| due);
        let retry = self.retries.first_key_value().map(|(&(due, _), _)| due);
        recheck.into_iter().chain(retry).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(raw: u32) -> Pid {
        Pid::new(raw).unwrap()
    }

    #[test]
    fn a_refusal_turns_a_second_evaluation_into_a_retry() {
        let mut rechecks = Rechecks::default();
        rechecks.confirm(pid(1), Nanos(0));
        rechecks.retry(pid(1), Nanos(10), 0);
        rechecks.retry(pid(1), Nanos(20), 5);
        let due = rechecks.due().unwrap();
        let evaluation = rechecks.next_due(due).unwrap();
        assert_eq!((evaluation.cause, attempts_before(evaluation)), (Cause::RETRY, 1));
        assert_eq!(rechecks.next_due(due.plus(LAST_RETRY_NS)), None);
    }

    fn recheck(raw: u32, placement: u64) -> EvaluationRequest {
        EvaluationRequest::after(pid(raw), Cause::RECHECK, Nanos(0), placement)
    }

    #[test]
    fn only_the_latest_placement_of_a_process_is_rechecked() {
        let mut rechecks = Rechecks::default();
        rechecks.after_placement(Nanos(10), recheck(1, 100));
        rechecks.after_placement(Nanos(11), recheck(2, 200));
        rechecks.after_placement(Nanos(12), recheck(1, 300));
        assert_eq!(rechecks.due(), Some(Nanos(10)));
        assert_eq!(rechecks.next_due(Nanos(9)), None);
        let next = std::iter::from_fn(|| rechecks.next_due(Nanos(20)));
        let next = next.map(|evaluation| (evaluation.pid.get(), evaluation.placement));
        assert_eq!(next.collect::<Vec<_>>(), [(2, 200), (1, 300)]);
        assert!(rechecks.latest.is_empty());
    }

    #[test]
    fn processes_beyond_the_limit_are_reported_when_the_others_are_done() {
        let mut rechecks = Rechecks::default();
        let most = u32::try_from(MOST_RETRIES).unwrap();
        (1..=most + 1).for_each(|raw| rechecks.retry(pid(raw), Nanos(0), 0));
        for _ in 0..most {
            assert!(!rechecks.take_overflown());
            assert!(rechecks.next_due(Nanos(FIRST_RETRY_NS)).is_some());
        }
        assert!(rechecks.take_overflown() && !rechecks.take_overflown());
    }

    #[test]
    fn a_refused_process_is_tried_again_later_and_later() {
        let mut rechecks = Rechecks::default();
        let mut now = Nanos(0);
        let mut waited = Vec::new();
        let mut attempts = 0;
        for _ in 0..12 {
            rechecks.retry(pid(1), now, attempts);
            rechecks.retry(pid(1), now, 0);
            let due = rechecks.due().unwrap();
            waited.push(due.since(now) / 100_000_000);
            now = due;
            let evaluation = rechecks.next_due(now).unwrap();
            assert_eq!((evaluation.pid, evaluation.cause), (pid(1), Cause::RETRY));
            attempts = u32::try_from(evaluation.placement).unwrap();
        }
        assert_eq!(waited, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
    }
}
