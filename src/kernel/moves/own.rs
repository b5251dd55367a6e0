//! Moves by the daemon itself, which are not external.

use super::TracedMove;

/// Maximum number of the daemon's threads that can have moved processes. One is added for each read
/// that blocked a leader.
const MAX_OWN_THREADS: usize = 128;

/// The daemon's own process and threads, whose moves are not external.
#[derive(Debug)]
pub struct OwnMoves {
    /// Threads that moved processes or may do so.
    threads: Vec<u32>,
    process: u32,
}

impl Default for OwnMoves {
    fn default() -> Self {
        Self { threads: Vec::new(), process: std::process::id() }
    }
}

impl OwnMoves {
    /// Returns the PID of the daemon.
    pub const fn process(&self) -> u32 {
        self.process
    }

    /// Returns the IDs of the added threads.
    pub fn threads(&self) -> &[u32] {
        &self.threads
    }

    /// Adds the calling thread. Returns whether it is new.
    pub fn add_current_thread(&mut self) -> bool {
        let own = u32::try_from(nix::unistd::gettid().as_raw()).unwrap_or(0);
        let is_new = !self.threads.contains(&own);
        if is_new {
            if self.threads.len() >= MAX_OWN_THREADS {
                self.threads.remove(0);
            }
            self.threads.push(own);
        }
        is_new
    }

    /// Checks whether the daemon made the move, or is the moved process.
    pub fn includes(&self, traced: &TracedMove) -> bool {
        self.threads.contains(&traced.mover) || traced.pid == self.process
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Nanos;

    #[test]
    fn moves_of_the_daemon_are_its_own() {
        let mut own = OwnMoves::default();
        let thread = u32::try_from(nix::unistd::gettid().as_raw()).unwrap();
        fn traced(mover: u32, pid: u32) -> TracedMove {
            TracedMove { at: Nanos(7), mover, pid, is_birth: false, hierarchy: 0 }
        }
        assert!(!own.includes(&traced(thread, 41)));
        assert!(own.add_current_thread() && !own.add_current_thread());
        assert_eq!(own.threads(), [thread]);
        let moves = [(900, 40), (thread, 41), (900, own.process()), (901, 40), (900, 0), (900, 42)];
        let others = moves.into_iter().filter(|&(mover, pid)| !own.includes(&traced(mover, pid)));
        assert_eq!(others.collect::<Vec<_>>(), [(900, 40), (901, 40), (900, 0), (900, 42)]);
    }
}
