//! When all processes are evaluated.

use std::io;

use super::{Engine, Stage};
use crate::event::{Nanos, Pid};
use crate::process::Proc;
use crate::source::scan::Scan;
use crate::sys;

/// A scan that is not urgent begins this long after the last one at the earliest.
const PAUSE_NS: u64 = 1_000_000_000;
/// And at least so many times the duration of the last one: such scans take a tenth of one CPU at most.
const PAUSE_FACTOR: u64 = 9;

/// How soon a scan is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Something was lost or may be misplaced: soon, but users can cause that as often as they like.
    Limited,
    /// Rules changed: at once.
    Now,
}

/// The scan that is wanted, or runs.
#[derive(Debug, Default)]
pub(super) struct Rescan {
    scan: Scan,
    wanted: Option<Urgency>,
    /// Whether forks were lost since the last scan began.
    lost: bool,
    is_running: bool,
    began: Nanos,
    ended: Nanos,
    /// Time that the last scan took, without what was done between its parts.
    cost: u64,
    is_first_over: bool,
}

impl Rescan {
    /// A scan is wanted.
    pub(super) fn want(&mut self, urgency: Urgency) {
        self.wanted = self.wanted.max(Some(urgency));
    }

    /// A scan is wanted because the kernel dropped events.
    pub(super) fn want_after_loss(&mut self) {
        self.lost = true;
        self.want(Urgency::Limited);
    }

    /// Whether forks were lost since this was asked last.
    pub(super) fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.lost)
    }

    /// When the wanted scan may begin. `None` when none is wanted, or one runs.
    pub(super) fn due(&self) -> Option<Nanos> {
        if self.is_running {
            return None;
        }
        match self.wanted? {
            Urgency::Now => Some(Nanos(0)),
            Urgency::Limited => {
                Some(self.ended.plus(PAUSE_NS.max(self.cost.saturating_mul(PAUSE_FACTOR))))
            }
        }
    }

    /// Whether the wanted scan may begin at `now`.
    pub(super) fn may_begin(&self, now: Nanos) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// Returns the time that the last scan took.
    pub(super) const fn last_cost(&self) -> u64 {
        self.cost
    }

    /// Whether there is something to do now.
    pub(super) fn has_work(&self) -> bool {
        self.is_running || self.due().is_some_and(|due| due <= sys::monotonic())
    }

    /// Lists all processes.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub(super) fn begin(&mut self, proc: &Proc, now: Nanos) -> io::Result<()> {
        self.scan.begin(proc)?;
        self.wanted = None;
        self.is_running = true;
        self.began = now;
        self.cost = 0;
        Ok(())
    }

    /// The next process of the list.
    pub(super) fn next(&mut self) -> Option<Pid> {
        self.scan.take_next()
    }

    /// A part of this scan took so many nanoseconds.
    pub(super) fn add_cost(&mut self, nanoseconds: u64) {
        self.cost += nanoseconds;
    }

    /// Ends the scan when its list is done. Whether it did.
    pub(super) fn end_if_over(&mut self, now: Nanos) -> bool {
        if !self.is_over() {
            return false;
        }
        self.is_running = false;
        self.ended = now;
        self.is_first_over = true;
        true
    }

    /// Whether the list of the scan that runs is done.
    fn is_over(&self) -> bool {
        self.is_running && !self.scan.is_running()
    }

    /// Whether no urgent scan is wanted or runs, and every fork until the end of the last one was judged,
    /// as it was up to `horizon`.
    pub(super) fn is_complete(&self, horizon: Nanos) -> bool {
        self.is_first_over
            && self.wanted != Some(Urgency::Now)
            && !self.is_running
            && horizon > self.ended
    }
}

impl Engine {
    /// Begins the scan that is wanted, if it may begin now.
    pub(super) fn begin_scan(&mut self) -> io::Result<()> {
        // In every round: without this, the clock would be read for nothing.
        if self.rescan.due().is_none() {
            return Ok(());
        }
        let now = sys::monotonic();
        if !self.rescan.may_begin(now) {
            return Ok(());
        }
        self.metrics.scans.increment();
        self.own_credentials.begin_scan();
        if self.rescan.take_lost() {
            self.sticky.search(&mut self.proc);
        }
        // Before the list is read: what is born later is not in it.
        self.intake.forks.begin_scan(now);
        self.placer.with_descriptors(|| self.rescan.begin(&self.proc, now))?;
        self.pass_on()
    }

    /// Adds what a part of a scan, or of evaluations after external moves, took to its cost.
    pub(super) fn end_part_of(&mut self, stage: Stage, has_begun: bool) {
        if !has_begun || !matches!(stage, Stage::Scan | Stage::Moves) {
            return;
        }
        let cost = sys::monotonic().since(self.stage_began);
        if stage == Stage::Scan {
            self.rescan.add_cost(cost);
        } else {
            self.placer.moves().add_cost(cost);
        }
    }

    pub(super) fn end_scan(&mut self) {
        if !self.rescan.is_over() {
            return;
        }
        let now = sys::monotonic();
        if self.rescan.end_if_over(now) {
            self.intake.forks.end_scan(now);
            // So that the forks of the meantime are judged soon.
            self.intake.trail_is_due = true;
        }
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    /// A scan of nothing from `began` to `ended`.
    fn scan(rescan: &mut Rescan, began: u64, ended: u64) {
        let root = tempfile::tempdir().unwrap();
        let proc = Proc::open(root.path()).unwrap();
        assert!(rescan.may_begin(Nanos(began)));
        rescan.begin(&proc, Nanos(began)).unwrap();
        assert!(rescan.has_work() && !rescan.may_begin(Nanos(began)));
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
