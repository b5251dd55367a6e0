//! Processes that lost their rule after another process had moved them: children born in between may be elsewhere.
//!
//! The trace of moves is read late, when the process may have executed another program already and has no rule.
//! A scan for each moved process without a rule would be one for each login.

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

use crate::event::{Nanos, Pid};
use crate::kernel::moves::TracedMove;

/// Upper limit of the difference between the clocks of moves and of forks or events on two CPUs. A PID is not assigned
/// again that soon: exit, wait and fork take longer.
pub(super) const CLOCKS_DIFFER_NS: u64 = 10_000;
/// Maximum number of forks, and of changes, between two reads of the trace, 16 bytes each: those of 2 s at 30,000 a
/// second. A process whose fork is not among them counts as moved; with more changes, each moved process as changed.
pub(super) const MAX_BETWEEN_READS: usize = 65_536;
/// Number of forks, and of changes, for which memory is kept.
pub(super) const KEPT_BETWEEN_READS: usize = 1024;

#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Processes that were evaluated for an event since the trace was read and had no rule, with the time.
    since_read: Vec<(Pid, Nanos)>,
    is_overflown: bool,
    /// Moved processes that changed after that.
    changed: HashSet<Pid, FixedState>,
}

impl Changes {
    /// Records a process that was evaluated at `now` for an event and has no rule.
    pub(super) fn note(&mut self, pid: Pid, now: Nanos) {
        if self.since_read.len() < MAX_BETWEEN_READS {
            self.since_read.push((pid, now));
        } else {
            self.is_overflown = true;
        }
    }

    /// Compares the changes with the moves that were just read.
    pub(super) fn compare(&mut self, known: &HashMap<Pid, TracedMove, FixedState>) {
        self.changed.clear();
        if std::mem::take(&mut self.is_overflown) {
            self.changed.extend(known.keys());
        } else if !known.is_empty() {
            let is_later = |&&(pid, at): &&(Pid, Nanos)| {
                let last = known.get(&pid).filter(|last| is_by_another(last));
                last.is_some_and(|last| last.at <= at.plus(CLOCKS_DIFFER_NS))
            };
            self.changed.extend(self.since_read.iter().filter(is_later).map(|&(pid, _)| pid));
        }
        self.since_read.clear();
        self.since_read.shrink_to(KEPT_BETWEEN_READS);
    }

    /// Records a process that was moved again before it was evaluated: children born in between are in a cgroup
    /// of which nothing else tells.
    pub(super) fn moved_again(&mut self, pid: Pid) {
        self.changed.insert(pid);
    }

    /// Checks whether the moved process has changed, or was moved again, and forgets it.
    pub(super) fn take(&mut self, pid: Pid) -> bool {
        self.changed.remove(&pid)
    }
}

/// Checks whether another process made the move. One of a service that systemd starts moves itself before its exec, and
/// only root can move itself out of the cgroup of a rule.
pub(super) const fn is_by_another(traced: &TracedMove) -> bool {
    traced.mover != traced.pid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved(pid: u32, at: u64) -> HashMap<Pid, TracedMove, FixedState> {
        let pid = Pid::new(pid).unwrap();
        let traced =
            TracedMove { at: Nanos(at), mover: 1, pid: pid.get(), is_birth: false, hierarchy: 0 };
        [(pid, traced)].into_iter().collect()
    }

    #[test]
    fn only_a_moved_process_that_changed_later_counts_and_once() {
        let pid = Pid::new(5).unwrap();
        let mut changes = Changes::default();
        for (at, has_changed) in [(100_000, false), (200_000, true)] {
            changes.note(pid, Nanos(at));
            changes.compare(&moved(5, 150_000));
            assert_eq!((changes.take(pid), changes.take(pid)), (has_changed, false));
        }
        changes.note(pid, Nanos(200_000));
        changes.compare(&moved(6, 150_000));
        assert!(!changes.take(pid), "another one was moved");
        changes.note(Pid::new(1).unwrap(), Nanos(200_000));
        changes.compare(&moved(1, 150_000));
        assert!(!changes.take(Pid::new(1).unwrap()), "it moved itself");
    }

    #[test]
    fn with_too_many_changes_each_moved_process_counts_as_changed() {
        let mut changes = Changes::default();
        for raw in 1..=u32::try_from(MAX_BETWEEN_READS).unwrap() + 1 {
            changes.note(Pid::new(raw + 9).unwrap(), Nanos(1));
        }
        changes.compare(&moved(5, 150_000));
        assert!(
            changes.take(Pid::new(5).unwrap())
                && changes.since_read.capacity() <= KEPT_BETWEEN_READS
        );
        changes.compare(&moved(5, 150_000));
        assert!(!changes.take(Pid::new(5).unwrap()));
    }
}
