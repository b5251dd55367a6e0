//! Evaluations that wait for an executable, and users with executables that are slow to read.
//!
//! An evaluation waits at most [`DECIDE_NS`] for an examination: then the process is decided by
//! what is known, and evaluated again when the result arrives. After an executable of a user
//! blocked the hot thread, all executables of this user are read by other threads for ten seconds,
//! so that one user can block it for 5 ms in ten seconds.

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Engine;
use super::job::Evaluation;
use super::known::NeededRead;
use super::rescan::Urgency;
use crate::engine::kernel::Kernel;
use crate::event::{Cause, Nanos, Pid, Uid};
use crate::kernel::process::ProcessHandle;
use crate::kernel::program::Examined;
use crate::placement::Purpose;
use crate::tracking::queue::EvaluationRequest;

/// Maximum wait of an evaluation for its examination.
const DECIDE_NS: u64 = 100_000_000;
/// Time for which the hot thread reads no executables of a user after one blocked it.
const SLOW_NS: u64 = 10_000_000_000;
/// Maximum number of recorded slow users. Beyond it the hot thread reads no executables.
const MOST_SLOW: usize = 4096;
/// Maximum number of threads blocked in a read. Beyond it the hot thread reads no executables.
const MOST_BLOCKED: usize = 64;

#[derive(Clone, Copy, Debug)]
struct PendingExamination {
    number: u64,
    evaluation: EvaluationRequest,
    /// Identity of the process, which distinguishes it from a later one with the same PID.
    identity: Option<u64>,
    wants_arguments: bool,
    purpose: Purpose,
    is_decided: bool,
    /// The process executed another program since, and was evaluated for that.
    is_outdated: bool,
    /// A scan saw the process since. It follows a loss, perhaps that of an exec after the executable was examined.
    is_scanned: bool,
    /// See [`Evaluation::was_of_root`].
    was_of_root: Option<bool>,
}

#[derive(Debug, Default)]
pub(super) struct Executables {
    pending: HashMap<Pid, PendingExamination, FixedState>,
    /// Results for evaluations in `pending`, in order of arrival, with the number of the examination.
    results: VecDeque<(Pid, u64, Examined)>,
    /// Deadlines of the evaluations in `pending`, in order.
    deadlines: VecDeque<(Nanos, Pid, u64)>,
    /// End of the time for which other threads read the executables of a user.
    slow: HashMap<Uid, Nanos, FixedState>,
    /// Blocked reads, with the user of each.
    blocked: HashMap<Pid, Uid, FixedState>,
    last: u64,
}

impl Executables {
    /// Drops all pending examinations, and returns the evaluations without them: a scan follows.
    pub(super) fn forget(&mut self) -> impl Iterator<Item = Evaluation> + use<> {
        self.results.clear();
        self.deadlines.clear();
        let pending = std::mem::take(&mut self.pending).into_values();
        pending.map(|pending| Evaluation::of_process(pending.evaluation, pending.identity))
    }

    /// Returns since when an evaluation of the process waits.
    pub(super) fn waits_since(&self, pid: Pid) -> Option<Nanos> {
        let pending = self.pending.get(&pid).filter(|pending| !pending.is_outdated);
        pending.map(|pending| pending.evaluation.since)
    }

    /// Returns the time of the first change of the process whose evaluation waits, decided or not.
    pub(super) fn changed_since(&self, pid: Pid) -> Option<Nanos> {
        self.pending.get(&pid).map(|pending| pending.evaluation.since)
    }

    /// Records that an exec of the process is evaluated: what is examined may be the program before, and what the
    /// evaluation that waits finds began with this exec.
    pub(super) fn executed(&mut self, pid: Pid, at: Option<Nanos>) {
        if self.pending.is_empty() {
            return;
        }
        if let Some(pending) = self.pending.get_mut(&pid) {
            pending.is_outdated = true;
            pending.evaluation.executed = pending.evaluation.executed.max(at);
        }
    }

    /// Checks whether no evaluation waits for an examination.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Checks whether results of examinations were not applied yet.
    pub(super) fn has_results(&self) -> bool {
        !self.results.is_empty()
    }

    /// Checks whether an evaluation waits for this examination. A later one replaces it.
    fn waits_for(&self, pid: Pid, number: u64) -> bool {
        self.pending.get(&pid).is_some_and(|pending| pending.number == number)
    }

    /// Returns the next evaluation with a deadline that has passed at `now`.
    pub(super) fn next_late(&mut self, now: Nanos) -> Option<Evaluation> {
        while let Some(&(due, pid, number)) = self.deadlines.front() {
            if due > now {
                return None;
            }
            self.deadlines.pop_front();
            let pending = self.pending.get_mut(&pid).filter(|pending| pending.number == number);
            let open = pending.filter(|pending| !pending.is_decided && !pending.is_outdated);
            if let Some(pending) = open {
                pending.is_decided = true;
                let PendingExamination { evaluation, identity, purpose, .. } = *pending;
                return Some(Evaluation::examined(evaluation, identity, None, purpose));
            }
        }
        None
    }

    /// Returns the time of the next deadline.
    pub(super) fn due(&self) -> Option<Nanos> {
        self.deadlines.front().map(|&(due, ..)| due)
    }

    /// Returns the number of a new examination.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Checks whether the hot thread may read executables of `user`.
    pub(super) fn may_be_read(&mut self, user: Uid, kernel: &impl Kernel) -> bool {
        if self.slow.is_empty() && self.blocked.is_empty() {
            return true;
        }
        if self.blocked.len() >= MOST_BLOCKED || self.slow.len() >= MOST_SLOW {
            let now = kernel.now();
            self.slow.retain(|_, until| *until > now);
            return self.blocked.len() < MOST_BLOCKED && self.slow.len() < MOST_SLOW;
        }
        if self.blocked.values().any(|&of| of == user) {
            return false;
        }
        let Some(&until) = self.slow.get(&user) else { return true };
        let is_over = until <= kernel.now();
        if is_over {
            self.slow.remove(&user);
        }
        is_over
    }

    /// Records that a read of an executable of `user` blocks the former hot thread.
    pub(super) fn block(&mut self, pid: Pid, user: Uid, now: Nanos) {
        self.blocked.insert(pid, user);
        if self.slow.len() < MOST_SLOW {
            self.slow.insert(user, now.plus(SLOW_NS));
        }
    }
}

impl<K: Kernel> Engine<K> {
    /// Requests an examination of the executable of a process by other threads. Returns whether the
    /// evaluation waits for it.
    pub(super) fn examine(
        &mut self,
        job: &Evaluation,
        handle: &ProcessHandle,
        needed: &NeededRead,
        purpose: Purpose,
    ) -> bool {
        let wants_arguments = needed.wants_arguments();
        let pid = job.evaluation.pid;
        let identity = self.kernel.identity_of(pid, handle);
        let same = self.executables.pending.get_mut(&pid).filter(|pending| {
            pending.identity == identity
                && !pending.is_outdated
                && (pending.wants_arguments || !wants_arguments)
                && !job.evaluation.cause.intersects(Cause::EXEC)
        });
        if let Some(pending) = same {
            pending.evaluation.absorb(&job.evaluation);
            if purpose == Purpose::Decision {
                pending.purpose = purpose;
            }
            pending.is_scanned |= job.evaluation.cause.contains(Cause::SCAN);
            return !pending.is_decided;
        }
        let number = self.executables.next_number();
        let user = self.policy.accountable(handle.uid);
        if !self.kernel.examine(user, needed.to_examination(pid, number)) {
            self.metrics.refused_examinations.increment();
            return false;
        }
        let due = self.kernel.now().plus(DECIDE_NS);
        let mut evaluation = job.evaluation;
        if let Some(earlier) = self.executables.pending.get(&pid) {
            // Its time and its thread still count.
            if earlier.identity == identity {
                evaluation.absorb(&earlier.evaluation);
            }
            if earlier.is_decided && earlier.purpose == Purpose::Decision {
                self.scan_for_children();
            }
        }
        let pending = PendingExamination {
            number,
            evaluation,
            identity,
            wants_arguments,
            purpose,
            is_decided: false,
            is_outdated: false,
            is_scanned: false,
            was_of_root: job.was_of_root,
        };
        self.executables.pending.insert(pid, pending);
        self.executables.deadlines.push_back((due, pid, number));
        true
    }

    /// Handles the result of an examination. It is applied by [`Self::next_examined`]: until then the process may
    /// execute another program and be evaluated for that.
    pub(super) fn take_examined(&mut self, pid: Pid, number: u64, examined: Examined) {
        if !self.executables.waits_for(pid, number) {
            self.take_planned_examination(number, examined);
        } else {
            self.metrics.examinations.increment();
            self.executables.results.push_back((pid, number, examined));
        }
    }

    /// Returns the next evaluation whose examination has a result.
    pub(super) fn next_examined(&mut self) -> Option<Evaluation> {
        while let Some((pid, number, examined)) = self.executables.results.pop_front() {
            if self.executables.waits_for(pid, number) {
                let pending = self.executables.pending.remove(&pid)?;
                return Some(self.evaluation_of(pending, examined));
            }
        }
        None
    }

    fn evaluation_of(&mut self, pending: PendingExamination, examined: Examined) -> Evaluation {
        // The event of the exec in between may have been lost, and a scan may wait for this result.
        let has_changed = examined == Examined::Changed;
        let program = match examined {
            Examined::Program(program) => Some(program),
            Examined::Changed | Examined::Unreadable | Examined::Gone => None,
        };
        if program.as_ref().is_some_and(|program| program.is_unreadable) {
            self.metrics.unreadable_executables.increment();
        }
        let PendingExamination { evaluation, identity, purpose, .. } = pending;
        // Only counters missed it otherwise.
        let is_late = pending.is_decided && purpose == Purpose::Decision;
        if is_late {
            self.remember_wait(evaluation);
            if program.is_none() {
                self.scan_for_children();
            }
        }
        if pending.is_scanned {
            // After this result, and not in place of it: a slow file would decide nothing if a scan came during each
            // examination.
            let again =
                EvaluationRequest::at_once(evaluation.pid, Cause::RECHECK, self.kernel.now());
            self.answered.push_back(Evaluation::new(again));
        }
        // The exec may have been decided without its executable, which is needed now.
        if pending.is_outdated || has_changed {
            return Evaluation { is_late, ..Evaluation::of_process(evaluation, identity) };
        }
        let job = Evaluation::examined(evaluation, identity, program, purpose);
        Evaluation { is_late, was_of_root: pending.was_of_root, ..job }
    }

    /// Returns the evaluation, or one without what was examined if another process has the PID by now: that has an
    /// executable of its own, and perhaps no event. The changes were those of the earlier one.
    pub(super) fn of_present_process(
        &mut self,
        job: Evaluation,
        handle: &ProcessHandle,
    ) -> Evaluation {
        let is_unknown = job.identity.is_none() && !job.is_examined();
        if is_unknown || self.kernel.identity_of(job.evaluation.pid, handle) == job.identity {
            return job;
        }
        self.note_departure(&job);
        let Evaluation { evaluation: EvaluationRequest { pid, .. }, is_late, .. } = job;
        if is_late {
            self.scan_for_children();
        }
        let now = self.kernel.now();
        Evaluation { is_late, ..Evaluation::new(EvaluationRequest::at_once(pid, Cause::SCAN, now)) }
    }

    /// Handles the end of a blocked read: evaluates the process again.
    pub(super) fn take_readable(&mut self, pid: Pid) {
        self.executables.blocked.remove(&pid);
        self.scan_for_children();
        let evaluation = EvaluationRequest::at_once(pid, Cause::RETRY, self.kernel.now());
        self.answered.push_back(Evaluation::late(evaluation));
    }

    /// A process was decided without its executable, and may have exited or execute another program. Its
    /// children since then were not recorded.
    fn scan_for_children(&mut self) {
        self.rescan.want(Urgency::Limited);
    }
}
