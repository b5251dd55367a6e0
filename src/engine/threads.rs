//! Processes with a thread that has other credentials than the leader.
//!
//! Credentials belong to a thread; a process is classified by those of its leader. A child that
//! such a thread forks may therefore need another cgroup than the process, and no event precedes
//! the fork. While there is such a process, every forked child is evaluated: with `CLONE_PARENT`
//! the fork event does not name it.

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use super::Engine;
use super::job::Evaluation;
use crate::engine::kernel::Kernel;
use crate::event::{Cause, Nanos, Pid};
use crate::kernel::process::ProcessHandle;
use crate::tracking::queue::{EvaluationRequest, Threads};

/// Maximum number of recorded processes. Beyond it every fork is a candidate until the next scan.
const MOST: usize = 4096;
/// Minimum time between two checks of the recorded processes.
const SWEEP_NS: u64 = 1_000_000_000;
/// Number of processes checked at once.
const SWEEP: usize = 64;

/// Processes known to have such threads.
#[derive(Debug, Default)]
pub(super) struct OwnCredentials {
    processes: HashSet<Pid, FixedState>,
    overflown: bool,
    swept: Nanos,
}

impl OwnCredentials {
    /// Resets the overflow: the scan that begins finds all such processes.
    pub(super) fn begin_scan(&mut self) {
        self.overflown = false;
    }

    fn add(&mut self, pid: Pid) {
        if self.processes.len() < MOST {
            self.processes.insert(pid);
        } else {
            self.overflown = true;
        }
    }

    fn is_empty(&self) -> bool {
        self.processes.is_empty() && !self.overflown
    }
}

impl<K: Kernel> Engine<K> {
    /// Checks whether a thread of the process has other credentials than the process is classified
    /// by, if that can have changed, and records the result. `is_single` is `true` if it is known
    /// to have one thread.
    pub(super) fn note_threads(
        &mut self,
        evaluation: EvaluationRequest,
        handle: &ProcessHandle,
        is_single: bool,
    ) {
        let may_find = evaluation.cause.intersects(Cause::SCAN | Cause::ASKED);
        if evaluation.threads == Threads::None && !may_find && self.own_credentials.is_empty() {
            return;
        }
        let pid = evaluation.pid;
        let ids = (handle.uid, handle.gid);
        let is_known = self.own_credentials.processes.contains(&pid);
        let differs = match evaluation.threads {
            // Events of threads may have been lost, or occurred before the start.
            Threads::None if may_find => !is_single && self.kernel.has_thread_of_others(pid, ids),
            Threads::None if !is_known => return,
            Threads::One(thread) if !is_known => {
                self.kernel.thread_ids(pid, thread).is_some_and(|own| own != ids)
            }
            Threads::None | Threads::One(_) | Threads::Several => {
                self.kernel.has_thread_of_others(pid, ids)
            }
        };
        if differs {
            self.own_credentials.add(pid);
        } else if is_known {
            self.own_credentials.processes.remove(&pid);
        }
        self.suspect_forks(evaluation.since);
    }

    /// Makes every fork a candidate while there is such a process: one of `since` this time, if it is
    /// the first.
    fn suspect_forks(&mut self, since: Nanos) {
        if self.own_credentials.is_empty() {
            self.intake.forks.end_suspicion(self.kernel.now());
        } else {
            self.intake.forks.suspect_every_fork(since);
        }
    }

    /// Removes processes after their threads exited or changed back.
    pub(super) fn sweep_threads(&mut self) {
        let own = &mut self.own_credentials;
        if own.is_empty() {
            return;
        }
        let now = self.kernel.now();
        if now.since(own.swept) < SWEEP_NS {
            return;
        }
        own.swept = now;
        let some: Vec<Pid> = own.processes.iter().copied().take(SWEEP).collect();
        for pid in some {
            // Removed and added again, so that all processes are checked in turn.
            self.own_credentials.processes.remove(&pid);
            let Some(handle) = self.kernel.open_process(pid) else { continue };
            let is_mixed = self.kernel.has_thread_of_others(pid, (handle.uid, handle.gid));
            if is_mixed {
                self.own_credentials.add(pid);
            }
            // No event reports that the leader has exited, and from now on another thread determines the rule; or
            // that another thread became the leader, by an exec that hangs.
            if !is_mixed || self.kernel.has_leader_exited(pid) {
                let evaluation = EvaluationRequest::at_once(pid, Cause::RECHECK, now);
                self.answered.push_back(Evaluation::new(evaluation));
            }
        }
        self.suspect_forks(now);
    }
}
