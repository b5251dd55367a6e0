//! Children of a user's service manager that are about to become units. Must not leave a forged
//! child outside of the cgroup of its rule for longer than five seconds.
//!
//! Between its fork and the exec of its unit such a child still runs the manager's program, or
//! `systemd-executor`, and moves itself into the cgroup of its unit, also where systemd has created
//! it there already (seen with 257). That is not permitted from outside of `user@UID.service`, so a move in between makes
//! the unit fail (`219/CGROUP`). The child gets five seconds. A user can forge such a child, also as
//! an orphan, so their number is limited and each gets the time only once.

use std::collections::VecDeque;

use super::ManagerVerdict;
use crate::engine::kernel::Kernel;
use crate::event::{Nanos, Pid, Uid};
use crate::tracking::queue::EvaluationRequest;

/// Time limit from the first evaluation of a child to its exec. It takes about 5 ms on an idle
/// host, and 1.2 s of CPU time for the executor of systemd 257 on an emulated one: with a limit of
/// one second 12 of 15 units failed there.
const GRACE_NS: u64 = 5_000_000_000;
/// Interval between two evaluations of such a child.
const RECHECK_NS: u64 = 50_000_000;
/// Maximum number of simultaneous children of one user. A manager forks its units one by one.
const MAX_CHILDREN: usize = 32;

#[derive(Debug)]
struct StartingChild {
    uid: Uid,
    pid: Pid,
    first: Nanos,
    /// True while an evaluation is queued.
    is_queued: bool,
}

/// Children within their time limit, of all users.
#[derive(Debug, Default)]
pub(super) struct StartingChildren {
    children: Vec<StartingChild>,
    /// Queued evaluations, ordered by their time.
    queue: VecDeque<(Nanos, EvaluationRequest)>,
}

impl StartingChildren {
    /// Decides about a child of a manager: `Pending` while it is within its time limit.
    pub(super) fn admit(
        &mut self,
        evaluation: EvaluationRequest,
        uid: Uid,
        now: Nanos,
    ) -> ManagerVerdict {
        let known = self.children.iter().position(|child| child.pid == evaluation.pid);
        let index = match known {
            Some(index) if now.since(self.children[index].first) >= GRACE_NS => {
                self.children.swap_remove(index);
                return ManagerVerdict::Movable;
            }
            Some(index) => index,
            None if self.children.iter().filter(|child| child.uid == uid).count()
                >= MAX_CHILDREN =>
            {
                return ManagerVerdict::Movable;
            }
            None => {
                self.children.push(StartingChild {
                    uid,
                    pid: evaluation.pid,
                    first: now,
                    is_queued: false,
                });
                self.children.len() - 1
            }
        };
        let child = &mut self.children[index];
        if !std::mem::replace(&mut child.is_queued, true) {
            self.queue.push_back((now.plus(RECHECK_NS), evaluation));
        }
        ManagerVerdict::Pending
    }

    /// Checks whether the time limit of a child is over.
    pub(super) fn is_over(&self, pid: Pid, now: Nanos) -> bool {
        let child = self.children.iter().find(|child| child.pid == pid);
        child.is_some_and(|child| now.since(child.first) >= GRACE_NS)
    }

    /// Returns a child that must be evaluated again. If it is not [admitted](Self::admit) again
    /// then, it has become another program, and its entry is removed.
    pub(super) fn take_due(
        &mut self,
        kernel: &impl Kernel,
        now: Nanos,
    ) -> Option<EvaluationRequest> {
        self.children.retain(|child| child.is_queued);
        let &(due, evaluation) = self.queue.front()?;
        if due > now {
            return None;
        }
        self.queue.pop_front();
        let exists = kernel.exists(evaluation.pid);
        if let Some(child) = self.children.iter_mut().find(|child| child.pid == evaluation.pid) {
            child.is_queued = false;
        }
        if !exists {
            self.children.retain(|child| child.is_queued);
        }
        Some(evaluation)
    }

    /// Returns the time at which the next child must be evaluated.
    pub(super) fn next_due(&self) -> Option<Nanos> {
        self.queue.front().map(|&(due, _)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fake_kernel::{FakeKernel, FakeProcess};
    use crate::event::Cause;

    const USER: Uid = Uid(5);

    fn evaluation(pid: u32) -> EvaluationRequest {
        EvaluationRequest::at_once(Pid::new(pid).unwrap(), Cause::FORK, Nanos(0))
    }

    fn at(milliseconds: u64) -> Nanos {
        Nanos(milliseconds * 1_000_000)
    }

    #[test]
    fn a_child_that_became_a_unit_is_forgotten() {
        let mut kernel = FakeKernel::new();
        let pid = 40;
        kernel.start(pid, FakeProcess::default());
        let mut starting = StartingChildren::default();
        assert_eq!(starting.next_due(), None);
        assert_eq!(starting.admit(evaluation(pid), USER, at(0)), ManagerVerdict::Pending);
        // An exec of the child does not change its position in the queue.
        assert_eq!(starting.admit(evaluation(pid), USER, at(10)), ManagerVerdict::Pending);
        assert_eq!(starting.next_due(), Some(at(50)));
        assert_eq!(starting.take_due(&kernel, at(49)), None);
        assert_eq!(starting.take_due(&kernel, at(50)), Some(evaluation(pid)));
        // The child became another program, so it was not admitted again.
        assert_eq!(starting.take_due(&kernel, at(100)), None);
        assert!(starting.children.is_empty());
    }

    #[test]
    fn the_time_limit_is_over_for_good() {
        let mut kernel = FakeKernel::new();
        let pid = 40;
        kernel.start(pid, FakeProcess::default());
        let mut starting = StartingChildren::default();
        for now in (0..5000).step_by(50) {
            assert_eq!(
                starting.admit(evaluation(pid), USER, at(now)),
                ManagerVerdict::Pending,
                "{now}"
            );
            assert_eq!(starting.take_due(&kernel, at(now + 50)), Some(evaluation(pid)));
        }
        assert_eq!(starting.admit(evaluation(pid), USER, at(5000)), ManagerVerdict::Movable);
        assert_eq!(starting.next_due(), None);
    }

    #[test]
    fn each_user_has_a_bound() {
        let kernel = FakeKernel::new();
        let mut starting = StartingChildren::default();
        // None of them exists.
        let first = 1 << 23;
        for pid in first..first + 32 {
            assert_eq!(starting.admit(evaluation(pid), USER, at(0)), ManagerVerdict::Pending);
        }
        assert_eq!(starting.admit(evaluation(first + 32), USER, at(0)), ManagerVerdict::Movable);
        assert_eq!(starting.admit(evaluation(first + 33), Uid(6), at(0)), ManagerVerdict::Pending);
        // A child that has exited frees its entry.
        assert_eq!(starting.take_due(&kernel, at(50)), Some(evaluation(first)));
        assert_eq!(starting.admit(evaluation(first + 34), USER, at(50)), ManagerVerdict::Pending);
    }
}
