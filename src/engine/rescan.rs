//! Scheduling of scans of all processes, with limits on their CPU time.

use std::io;

use super::Engine;
use super::turn::TurnStage;
use crate::engine::kernel::Kernel;
use crate::event::{Cause, Nanos, Pid};
use crate::tracking::queue::EvaluationRequest;

/// Minimum pause between a scan and the next [`Urgency::Limited`] one.
const PAUSE_NS: u64 = 1_000_000_000;
/// Minimum pause as a multiple of the duration of the last scan: limited scans use at most a tenth
/// of one CPU.
const PAUSE_FACTOR: u64 = 9;

/// Time until a list of processes that failed is read again.
const RETRY_NS: u64 = 100_000_000;

/// Urgency of a requested scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Scan after a loss or a possible misplacement. Users can cause it as often as they like, so
    /// it is rate-limited.
    Limited,
    /// Scan after a change of the rules, started at once.
    Now,
}

/// State of the requested or running scan.
#[derive(Debug, Default)]
pub(super) struct Rescan {
    /// Processes of the list that were not taken yet, oldest last. A process born after the list was
    /// read inherits the cgroup of its parent, and the fork tracker covers those that need an
    /// evaluation.
    left: Vec<Pid>,
    wanted: Option<Urgency>,
    /// Set if forks were lost since the last scan began.
    lost: bool,
    is_running: bool,
    /// Time before which no scan begins, after the list of processes could not be read.
    not_before: Nanos,
    began: Nanos,
    ended: Nanos,
    /// Duration of the last scan, without other work done between its parts.
    cost: u64,
    is_first_over: bool,
}

impl Rescan {
    /// Requests a scan, keeping a more urgent request.
    pub(super) fn want(&mut self, urgency: Urgency) {
        self.wanted = self.wanted.max(Some(urgency));
    }

    /// Requests a scan because the kernel dropped events.
    pub(super) fn want_after_loss(&mut self) {
        self.lost = true;
        self.want(Urgency::Limited);
    }

    /// Checks whether forks were lost since the last scan began.
    pub(super) const fn has_lost(&self) -> bool {
        self.lost
    }

    /// Reports whether forks were lost since the last call.
    pub(super) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// Returns the earliest start of the requested scan. `None` when none is requested, or one is
    /// running.
    pub(super) fn due(&self) -> Option<Nanos> {
        if self.is_running {
            return None;
        }
        let due = match self.wanted? {
            Urgency::Now => Nanos(0),
            Urgency::Limited => {
                self.ended.plus(PAUSE_NS.max(self.cost.saturating_mul(PAUSE_FACTOR)))
            }
        };
        Some(due.max(self.not_before))
    }

    /// Checks whether the requested scan may begin at `now`.
    pub(super) fn may_begin(&self, now: Nanos) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// Returns the duration of the last scan in nanoseconds.
    pub(super) const fn last_cost(&self) -> u64 {
        self.cost
    }

    /// Checks whether a scan is running or due.
    pub(super) fn has_work(&self, kernel: &impl Kernel) -> bool {
        self.is_running || self.due().is_some_and(|due| due <= kernel.now())
    }

    /// Begins a scan: lists all processes.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(super) fn begin(&mut self, kernel: &mut impl Kernel, now: Nanos) -> io::Result<()> {
        self.left.clear();
        if let Err(error) = kernel.processes(|pid| self.left.push(pid)) {
            self.left = Vec::new();
            self.not_before = now.plus(RETRY_NS);
            return Err(error);
        }
        // Taken from the end: oldest first, so that parents come before their children.
        self.left.reverse();
        self.wanted = None;
        self.is_running = true;
        self.began = now;
        self.cost = 0;
        Ok(())
    }

    /// Returns the next process of the list.
    pub(super) fn next(&mut self) -> Option<Pid> {
        let next = self.left.pop();
        if self.left.is_empty() {
            self.left = Vec::new();
        }
        next
    }

    /// Returns since when children of a process can be misplaced that is evaluated: for one of the list, since
    /// the list was read and not since its turn came. Its move would wait for forks that have a time stamp
    /// and are not queued yet, but it is not moved before the reply arrives.
    pub(super) fn since(&self, evaluation: EvaluationRequest) -> Nanos {
        if evaluation.cause.contains(Cause::SCAN) {
            evaluation.since.min(self.began)
        } else {
            evaluation.since
        }
    }

    /// Adds the duration of a part of this scan.
    pub(super) fn add_cost(&mut self, nanoseconds: u64) {
        self.cost += nanoseconds;
    }

    /// Ends the scan if all processes of its list were taken. Returns whether it ended.
    pub(super) fn end_if_over(&mut self, now: Nanos) -> bool {
        if !self.is_over() {
            return false;
        }
        self.is_running = false;
        self.ended = now;
        self.is_first_over = true;
        true
    }

    /// Checks whether all processes of the running scan were taken.
    fn is_over(&self) -> bool {
        self.is_running && self.left.is_empty()
    }

    /// Checks whether no urgent scan is requested or running, and every fork up to the end of the
    /// last scan was checked: `horizon` is the time up to which forks were checked.
    pub(super) fn is_complete(&self, horizon: Nanos) -> bool {
        self.is_first_over
            && self.wanted != Some(Urgency::Now)
            && !self.is_running
            && horizon > self.ended
    }
}

impl<K: Kernel> Engine<K> {
    /// Begins the requested scan if it may begin now.
    pub(super) fn begin_scan(&mut self) -> io::Result<()> {
        // Called in every round: without this check the clock would be read each time.
        if self.rescan.due().is_none() {
            return Ok(());
        }
        let now = self.kernel.now();
        if !self.rescan.may_begin(now) {
            return Ok(());
        }
        self.own_credentials.begin_scan();
        if self.rescan.has_lost() {
            // Forks of before the loss, which may be read after it.
            self.pass_on()?;
        }
        let has_lost = self.rescan.take_lost();
        if has_lost {
            self.sticky.search(&mut self.kernel);
            self.ancestry.search(&mut self.kernel);
            self.placer.origins().search(&mut self.kernel);
        }
        // Before the list is read: children born later are not in it.
        self.intake.forks.begin_scan(now);
        let begun = self.rescan.begin(&mut self.kernel, now);
        if self.tolerate("list of processes", begun)?.is_none() {
            if has_lost {
                self.rescan.want_after_loss();
            }
            return Ok(());
        }
        self.metrics.scans.increment();
        self.pass_on()
    }

    /// Adds the duration of a part of a scan, or of evaluations after external moves, to its cost.
    pub(super) fn end_part_of(&mut self, stage: TurnStage, has_begun: bool) {
        if !has_begun || !matches!(stage, TurnStage::Scan | TurnStage::Moves) {
            return;
        }
        let cost = self.kernel.now().since(self.stage_began);
        if stage == TurnStage::Scan {
            self.rescan.add_cost(cost);
        } else {
            self.placer.moves().add_cost(cost);
        }
    }

    pub(super) fn end_scan(&mut self) {
        if !self.rescan.is_over() {
            return;
        }
        let now = self.kernel.now();
        if self.rescan.end_if_over(now) {
            self.intake.forks.end_scan(now);
            // Check the forks of the meantime soon.
            self.intake.forks_are_due = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake_kernel::FakeKernel;

    /// Runs a scan without processes from `began` to `ended`.
    fn scan(rescan: &mut Rescan, began: u64, ended: u64) {
        let mut kernel = FakeKernel::new();
        assert!(rescan.may_begin(Nanos(began)));
        rescan.begin(&mut kernel, Nanos(began)).unwrap();
        assert!(rescan.has_work(&kernel) && !rescan.may_begin(Nanos(began)));
        rescan.add_cost(ended - began);
        assert!(rescan.next().is_none() && rescan.end_if_over(Nanos(ended)));
        assert!(!rescan.end_if_over(Nanos(ended)));
    }

    #[test]
    fn losses_cause_one_scan_a_second_and_a_tenth_of_a_cpu() {
        let mut rescan = Rescan::default();
        rescan.want(Urgency::Now);
        scan(&mut rescan, 10, 20);
        assert_eq!(rescan.due(), None);
        rescan.want_after_loss();
        rescan.want_after_loss();
        assert_eq!(rescan.due(), Some(Nanos(20 + PAUSE_NS)));
        assert!(!rescan.may_begin(Nanos(PAUSE_NS)));
        scan(&mut rescan, PAUSE_NS + 20, 3 * PAUSE_NS + 20);
        assert!(rescan.take_lost() && !rescan.take_lost());
        rescan.want(Urgency::Limited);
        assert_eq!(rescan.due(), Some(Nanos(3 * PAUSE_NS + 20 + 18 * PAUSE_NS)));
        rescan.want(Urgency::Now);
        rescan.want(Urgency::Limited);
        assert!(rescan.may_begin(Nanos(3 * PAUSE_NS + 21)), "a reload does not wait");
    }

    #[test]
    fn complete_is_a_scan_whose_forks_are_judged_although_another_is_wanted() {
        let mut rescan = Rescan::default();
        rescan.want(Urgency::Now);
        assert!(!rescan.is_complete(Nanos(100)));
        scan(&mut rescan, 10, 20);
        assert!(!rescan.is_complete(Nanos(20)));
        rescan.want_after_loss();
        assert!(rescan.is_complete(Nanos(21)));
        rescan.want(Urgency::Now);
        assert!(!rescan.is_complete(Nanos(21)));
    }
}
