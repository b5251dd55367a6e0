//! Births whose creators may have changed before, while these changes are not evaluated.

use std::collections::VecDeque;
use std::ops::RangeBounds;

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use crate::engine::inheritance::QUEUED_NS;
use crate::event::{Nanos, Pid};
use crate::tracking::fork_tracker::Fork;

/// The maximum number of births that are kept until changes of their creators are evaluated, 24 bytes each.
const MOST_RECENT: usize = 65_536;

/// The process with a PID that is meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Creator {
    /// The one that has it now.
    Present(Pid),
    /// One that may have had it before.
    Earlier(Pid),
}

/// The last births, in the order in which their forks were read.
#[derive(Clone, Debug, Default)]
pub(super) struct Births(VecDeque<Fork>);

impl Births {
    pub(super) fn record(&mut self, fork: Fork) {
        if self.0.len() >= MOST_RECENT {
            self.0.pop_front();
        }
        self.0.push_back(fork);
    }

    /// Returns the birth of the process that had this PID when the last fork was read, if it is recorded.
    pub(super) fn last_of(&self, child: Pid) -> Option<Fork> {
        self.0.iter().rev().find(|fork| fork.child == child).copied()
    }

    /// Drops the births before this time: all changes before it are evaluated.
    pub(super) fn settle(&mut self, until: Nanos) {
        let is_settled = |fork: &Fork| fork.at.plus(QUEUED_NS) < until;
        while self.0.front().is_some_and(is_settled) {
            self.0.pop_front();
        }
    }

    /// Returns the births of the children that a process created in this time and of their descendants, as far as
    /// changes since are not evaluated. In the order of births: a parent comes before its children.
    pub(super) fn below(&self, from: Creator, within: impl RangeBounds<Nanos>) -> Vec<Fork> {
        let (Creator::Present(creator) | Creator::Earlier(creator)) = from;
        let mut parents = HashSet::<Pid, FixedState>::default();
        parents.insert(creator);
        let mut born = Vec::new();
        // A descendant has the PID of the creator by now.
        let mut is_reused = false;
        for &fork in &self.0 {
            let Fork { at, parent, child } = fork;
            if child == creator {
                if matches!(from, Creator::Earlier(_)) && !born.is_empty() {
                    is_reused = parents.contains(&parent);
                    if is_reused {
                        born.push(fork);
                    } else {
                        parents.remove(&creator);
                    }
                } else {
                    // Those so far are children of an earlier process with the PID.
                    born.clear();
                    parents = std::iter::once(creator).collect();
                }
                continue;
            }
            let is_within = within.contains(&at);
            if !is_within && born.is_empty() {
                continue;
            }
            if parents.contains(&parent) && (parent != creator || is_reused || is_within) {
                parents.insert(child);
                born.push(fork);
            } else if parents.remove(&child) {
                // Another process has the PID by now.
                born.retain(|earlier| earlier.child != child);
            }
        }
        born
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns who is below process 50 from this time on, after these births: time, creator and child.
    fn below(from: fn(Pid) -> Creator, since: u64, births: &[(u64, u32, u32)]) -> Vec<u32> {
        let pid = |raw| Pid::new(raw).unwrap();
        let mut all = Births::default();
        for &(at, parent, child) in births {
            all.record(Fork { at: Nanos(at), parent: pid(parent), child: pid(child) });
        }
        let born = all.below(from(pid(50)), Nanos(since)..);
        born.into_iter().map(|fork| fork.child.get()).collect()
    }

    #[test]
    fn descendants_are_those_of_children_born_in_the_time() {
        let births = [(1, 50, 60), (2, 60, 61), (3, 50, 70), (4, 60, 62), (5, 70, 71), (6, 1, 72)];
        assert_eq!(below(Creator::Present, 3, &births), [70, 71]);
        assert_eq!(below(Creator::Present, 0, &births), [60, 61, 70, 62, 71]);
    }

    #[test]
    fn another_process_with_the_pid_of_a_descendant_is_none() {
        let births = [(1, 50, 60), (2, 60, 61), (3, 1, 60), (4, 60, 62)];
        assert_eq!(below(Creator::Present, 0, &births), [61]);
    }

    #[test]
    fn the_children_of_processes_with_the_same_pid_differ() {
        let births = [(1, 50, 60), (2, 1, 50), (3, 50, 70), (4, 60, 61), (5, 70, 71)];
        assert_eq!(below(Creator::Present, 0, &births), [70, 71]);
        assert_eq!(below(Creator::Earlier, 0, &births), [60, 61]);
        // The earlier one may have been born in the time as well.
        assert_eq!(below(Creator::Earlier, 2, &births), [70, 71]);
    }

    #[test]
    fn a_descendant_can_have_the_pid_of_the_creator() {
        let births = [(1, 50, 60), (2, 60, 61), (3, 61, 50), (4, 50, 62), (5, 1, 50), (6, 50, 63)];
        assert_eq!(below(Creator::Earlier, 0, &births), [60, 61, 50, 62]);
    }

    #[test]
    fn settled_births_are_dropped_and_the_oldest_beyond_the_limit() {
        let pid = |raw| Pid::new(raw).unwrap();
        let mut all = Births::default();
        for at in 0..MOST_RECENT as u64 + 1 {
            all.record(Fork { at: Nanos(at), parent: pid(50), child: pid(60) });
        }
        assert_eq!((all.0.len(), all.0[0].at), (MOST_RECENT, Nanos(1)));
        all.settle(Nanos(QUEUED_NS + 10));
        assert_eq!(all.0[0].at, Nanos(10));
    }
}
