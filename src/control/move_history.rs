//! Times of the most recent moves, which show since when a process has been in its cgroup.
//!
//! The hot thread writes 24 bytes per move and reads them only on request. A PID may have been
//! reused since, so each entry contains the identity of its process: see
//! [`crate::kernel::process::ProcFs::identity`].

use crate::event::{Nanos, Pid};

/// The maximum number of moves: 196 KB, resident only as far as used. Older ones are overwritten.
const MOST: usize = 8192;

/// The most recent moves, as a ring buffer.
#[derive(Debug)]
pub struct MoveHistory {
    ring: Box<[(u32, u64, u64)]>,
    next: usize,
}

impl Default for MoveHistory {
    fn default() -> Self {
        // Zeroed pages, which the kernel allocates on first write.
        Self { ring: vec![(0, 0, 0); MOST].into_boxed_slice(), next: 0 }
    }
}

impl MoveHistory {
    /// Records that the process `identity` was moved at `at`.
    pub fn remember(&mut self, pid: Pid, identity: u64, at: Nanos) {
        self.ring[self.next] = (pid.get(), identity, at.0);
        self.next = (self.next + 1) % MOST;
    }

    /// Returns the time of the last move of the process `identity`. `None` if it was never moved,
    /// or too long ago.
    pub fn last(&self, pid: Pid, identity: u64) -> Option<Nanos> {
        let (newer, older) = self.ring.split_at(self.next);
        let mut lines = newer.iter().rev().chain(older.iter().rev());
        let found = lines.find(|&&(number, of, _)| (number, of) == (pid.get(), identity));
        found.map(|&(_, _, at)| Nanos(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(raw: u32) -> Pid {
        Pid::new(raw).unwrap()
    }

    #[test]
    fn the_last_move_of_the_process_and_not_of_its_number() {
        let mut moves = MoveHistory::default();
        moves.remember(pid(5), 50, Nanos(100));
        moves.remember(pid(6), 60, Nanos(150));
        moves.remember(pid(5), 50, Nanos(200));
        assert_eq!(moves.last(pid(5), 50), Some(Nanos(200)));
        assert_eq!(moves.last(pid(5), 51), None);
        assert_eq!(moves.last(pid(7), 50), None);
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut moves = MoveHistory::default();
        let most = u32::try_from(MOST).unwrap();
        (1..=most + 10).for_each(|raw| moves.remember(pid(raw), 1, Nanos(u64::from(raw))));
        assert_eq!(moves.last(pid(10), 1), None);
        assert_eq!(moves.last(pid(11), 1), Some(Nanos(11)));
        assert_eq!(moves.last(pid(most + 10), 1), Some(Nanos(u64::from(most) + 10)));
    }
}
