//! Which forked children must be looked at. Pure.
//!
//! A child inherits the group its parent is in, so a child of a process that was looked at needs a
//! look of its own only if it was forked *before* that look had its effect: then it inherited the old
//! group, or the facts of a moment that nobody looked at. The kernel announces a fork before the child
//! is linked to its group, so when the write that moves the parent returns, every such child is in the
//! TRAIL socket. The same holds for a parent that was gone when we looked.
//!
//! A fork is judged only when every event that the kernel queued before it was looked at: after a
//! drain of WATCH that *began* after the fork was read from TRAIL has been settled. Until then it waits
//! here. Without the waiting, 5 to 12 of 1,000 daemons that set their uid, fork and leave at once were
//! lost (measured).

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::batch::Drain;
use super::{Nanos, Pid};

/// Forks that can wait at once; more are a loss, answered by a scan. 32 bytes each, allocated when
/// needed; a fork rate of 20,000/s fills it in three seconds.
pub const WAITING: usize = 65_536;

/// One fork of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// When the kernel announced it.
    pub at: Nanos,
    /// Who forked.
    pub parent: Pid,
    /// The new process.
    pub child: Pid,
}

/// Forks that wait for judgement, and the looks they are judged by.
#[derive(Debug, Default)]
pub struct Trail {
    waiting: VecDeque<(Drain, Fork)>,
    looked: HashMap<Pid, Nanos, FixedState>,
    oldest: VecDeque<(Nanos, Pid)>,
    read_since: Nanos,
}

impl Trail {
    /// A fork was read from TRAIL while `begun` was the last drain of WATCH that had begun. `false`
    /// when there was no room: the fork is lost.
    #[must_use]
    pub fn heard(&mut self, fork: Fork, begun: Drain) -> bool {
        if self.waiting.len() >= WAITING {
            return false;
        }
        self.waiting.push_back((begun, fork));
        true
    }

    /// TRAIL was read from `began` until it was empty. Forks that concern a look before `began` were
    /// in it, so once all that wait are judged, such looks can be forgotten.
    pub fn read(&mut self, began: Nanos) {
        self.read_since = began;
    }

    /// A look at `pid` had its effect, if any, at `at`: placed, in place, or found gone.
    pub fn looked(&mut self, pid: Pid, at: Nanos) {
        self.looked.insert(pid, at);
        self.oldest.push_back((at, pid));
    }

    /// The next child to look at, when everything up to the drain `settled` was looked at. Its look
    /// must be reported by [`Self::looked`] before the next call: its own children may follow.
    pub fn next_suspect(&mut self, settled: Drain) -> Option<Fork> {
        while self.waiting.front().is_some_and(|&(begun, _)| begun < settled) {
            let (_, fork) = self.waiting.pop_front()?;
            if self.looked.get(&fork.parent).is_some_and(|&looked| fork.at <= looked) {
                return Some(fork);
            }
        }
        if self.waiting.is_empty() {
            self.forget();
        }
        None
    }

    /// Whether forks wait.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives memory of a storm back.
    pub fn shrink(&mut self) {
        if self.looked.capacity() > 4 * self.looked.len() + 1024 {
            self.looked.shrink_to(2 * self.looked.len());
            self.oldest.shrink_to(2 * self.oldest.len());
            self.waiting.shrink_to(2 * self.waiting.len());
        }
    }

    fn forget(&mut self) {
        while let Some(&(at, pid)) = self.oldest.front() {
            if at >= self.read_since {
                break;
            }
            self.oldest.pop_front();
            // A later look at the same process has its own place in the queue.
            if self.looked.get(&pid) == Some(&at) {
                self.looked.remove(&pid);
            }
        }
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

    #[test]
    fn a_child_born_before_the_look_is_a_suspect_and_one_born_after_is_not() {
        let mut trail = Trail::default();
        trail.looked(pid(1), Nanos(10));
        assert!(trail.heard(fork(9, 1, 2), Drain(1)));
        assert!(trail.heard(fork(11, 1, 3), Drain(1)));
        assert_eq!(trail.next_suspect(Drain(2)), Some(fork(9, 1, 2)));
        assert_eq!(trail.next_suspect(Drain(2)), None);
        assert!(!trail.is_waiting());
    }

    #[test]
    fn a_fork_waits_for_a_drain_that_began_after_it_was_read() {
        let mut trail = Trail::default();
        assert!(trail.heard(fork(5, 1, 2), Drain(3)));
        assert_eq!(trail.next_suspect(Drain(3)), None);
        trail.looked(pid(1), Nanos(10));
        assert_eq!(trail.next_suspect(Drain(4)), Some(fork(5, 1, 2)));
    }

    #[test]
    fn a_chain_of_gone_parents_is_followed() {
        let mut trail = Trail::default();
        trail.looked(pid(1), Nanos(10));
        for fork in [fork(5, 1, 2), fork(6, 2, 3)] {
            assert!(trail.heard(fork, Drain(1)));
        }
        assert_eq!(trail.next_suspect(Drain(2)), Some(fork(5, 1, 2)));
        trail.looked(pid(2), Nanos(12));
        assert_eq!(trail.next_suspect(Drain(2)), Some(fork(6, 2, 3)));
    }

    #[test]
    fn looks_are_forgotten_when_all_forks_before_the_reading_are_judged() {
        let mut trail = Trail::default();
        trail.looked(pid(1), Nanos(1));
        trail.looked(pid(2), Nanos(2));
        trail.looked(pid(1), Nanos(5));
        assert!(trail.heard(fork(1, 7, 8), Drain(1)));
        trail.read(Nanos(4));
        assert_eq!(trail.next_suspect(Drain(1)), None);
        assert_eq!(trail.looked.len(), 2, "a fork still waits");
        assert_eq!(trail.next_suspect(Drain(2)), None);
        assert_eq!(trail.looked.get(&pid(2)), None);
        assert_eq!(trail.looked.get(&pid(1)), Some(&Nanos(5)), "the later look counts");
    }

    #[test]
    fn a_full_ring_says_so() {
        let mut trail = Trail::default();
        for _ in 0..WAITING {
            assert!(trail.heard(fork(1, 1, 2), Drain(1)));
        }
        assert!(!trail.heard(fork(1, 1, 2), Drain(1)));
    }
}
