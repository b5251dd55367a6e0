//! Evaluations that wait for an executable, and users whose executables are slow to read.
//!
//! An examination that is not over after [`DECIDE_NS`] is not waited for: the process is decided by what is
//! known, and evaluated again when the answer comes. A user whose executable blocked the hot thread has all
//! of them read by other threads for a while, so that one user can block it for 5 ms in ten seconds.

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Engine;
use super::evaluation::Job;
use crate::event::batch::Look;
use crate::event::{Cause, Nanos, Pid, Uid};
use crate::exe_pool::Examination;
use crate::process::Grip;
use crate::program::Examined;
use crate::sys;

/// An evaluation waits so long for an examination.
const DECIDE_NS: u64 = 100_000_000;
/// Executables of a user are not read by the hot thread for so long after one blocked it.
const SLOW_NS: u64 = 10_000_000_000;
/// Users who are remembered for that. With more, the hot thread reads no executable at all.
const MOST_SLOW: usize = 4096;
/// Reads that block threads which were the hot one. With more, likewise.
const MOST_BLOCKED: usize = 64;

/// One examination.
#[derive(Clone, Copy, Debug)]
struct Pending {
    number: u64,
    look: Look,
    /// Which process of that PID.
    identity: Option<u64>,
    is_decided: bool,
}

/// What is known of slow executables.
#[derive(Debug, Default)]
pub(super) struct Executables {
    pending: HashMap<Pid, Pending, FixedState>,
    /// When the evaluations of `pending` are decided without the examination, in order.
    deadlines: VecDeque<(Nanos, Pid, u64)>,
    /// Until when executables of these users are read by others.
    slow: HashMap<Uid, Nanos, FixedState>,
    /// Reads that block, and of whom.
    blocked: HashMap<Pid, Uid, FixedState>,
    last: u64,
}

impl Executables {
    /// Forgets what waits: a scan follows.
    pub(super) fn forget(&mut self) {
        self.pending.clear();
        self.deadlines.clear();
    }

    /// Since when an evaluation of the process waits.
    pub(super) fn waits_since(&self, pid: Pid) -> Option<Nanos> {
        self.pending.get(&pid).map(|pending| pending.look.since)
    }

    /// The next evaluation to be decided without its examination at `now`.
    pub(super) fn next_late(&mut self, now: Nanos) -> Option<Look> {
        while let Some(&(due, pid, number)) = self.deadlines.front() {
            if due > now {
                return None;
            }
            self.deadlines.pop_front();
            let pending = self.pending.get_mut(&pid).filter(|pending| pending.number == number);
            if let Some(pending) = pending.filter(|pending| !pending.is_decided) {
                pending.is_decided = true;
                return Some(pending.look);
            }
        }
        None
    }

    /// When [`Self::next_late`] has something.
    pub(super) fn due(&self) -> Option<Nanos> {
        self.deadlines.front().map(|&(due, ..)| due)
    }

    /// Whether the hot thread may read executables of `user`.
    pub(super) fn may_be_read(&mut self, user: Uid) -> bool {
        if self.slow.is_empty() && self.blocked.is_empty() {
            return true;
        }
        if self.blocked.len() >= MOST_BLOCKED || self.slow.len() >= MOST_SLOW {
            let now = sys::monotonic();
            self.slow.retain(|_, until| *until > now);
            return self.blocked.len() < MOST_BLOCKED && self.slow.len() < MOST_SLOW;
        }
        if self.blocked.values().any(|&of| of == user) {
            return false;
        }
        let Some(&until) = self.slow.get(&user) else { return true };
        let is_over = until <= sys::monotonic();
        if is_over {
            self.slow.remove(&user);
        }
        is_over
    }

    /// A read of an executable of `user` blocks the thread that was the hot one.
    pub(super) fn block(&mut self, pid: Pid, user: Uid) {
        self.blocked.insert(pid, user);
        if self.slow.len() < MOST_SLOW {
            self.slow.insert(user, sys::monotonic().plus(SLOW_NS));
        }
    }
}

impl Engine {
    /// Lets other threads examine the executable of a process. Whether the evaluation waits for it.
    pub(super) fn examine(&mut self, job: &Job, grip: &Grip, raw: Option<Box<[u8]>>) -> bool {
        let pid = job.look.pid;
        let identity = self.proc.identity_of(pid, grip);
        let same = self.executables.pending.get_mut(&pid).filter(|pending| {
            pending.identity == identity && !job.look.cause.intersects(Cause::EXEC)
        });
        if let Some(pending) = same {
            pending.look.cause = pending.look.cause | job.look.cause;
            return !pending.is_decided;
        }
        self.executables.last += 1;
        let number = self.executables.last;
        let user = self.policy.accountable(grip.uid);
        if !self.desk.examine(user, Examination { pid, number, raw }) {
            self.metrics.refused_examinations.increment();
            return false;
        }
        let due = sys::monotonic().plus(DECIDE_NS);
        let pending = Pending { number, look: job.look, identity, is_decided: false };
        self.executables.pending.insert(pid, pending);
        self.executables.deadlines.push_back((due, pid, number));
        true
    }

    /// An examination is over.
    pub(super) fn take_examined(&mut self, pid: Pid, number: u64, examined: Examined) {
        let is_meant = |pending: &&Pending| pending.number == number;
        let Some(&pending) = self.executables.pending.get(&pid).filter(is_meant) else { return };
        self.executables.pending.remove(&pid);
        self.metrics.waited_for_program.increment();
        let identity = self.proc.identity(pid);
        let program = match examined {
            Examined::Program(program) if identity == pending.identity => Some(program),
            Examined::Program(_) | Examined::Changed | Examined::Unreadable | Examined::Gone => {
                None
            }
        };
        if program.as_ref().is_some_and(|program| program.is_unreadable) {
            self.metrics.unreadable_executables.increment();
        }
        if pending.is_decided {
            self.remember_wait(pending.look);
        }
        self.answered.push_back(Job::examined(pending.look, program, pending.is_decided));
    }

    /// A read that blocked is over: evaluates the process again.
    pub(super) fn take_readable(&mut self, pid: Pid) {
        self.executables.blocked.remove(&pid);
        let look = Look::at_once(pid, Cause::RETRY, sys::monotonic());
        self.answered.push_back(Job::late(look));
    }
}
