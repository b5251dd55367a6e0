//! The processes that the gate moved for an execution, until it is known to have succeeded or failed. Pure.
//!
//! A process whose execution failed goes on and can create children, in the cgroup of the rule that it has not got.
//! So the children that it creates meanwhile have an entry too.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

use crate::cgroup::tree::GroupId;
use crate::event::{Cause, Nanos, Pid, Uid};
use crate::tracking::fork_tracker::Fork;
use crate::tracking::queue::EvaluationRequest;

/// The maximum number of processes, 200 bytes each, and of those of one user. Beyond it executions go on without a
/// placement.
const MOST: [usize; 2] = [4096, 1024];

/// A process that the gate moved, and the cgroups between which it did.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    /// The user whose limit it counts towards.
    pub(super) user: Uid,
    /// Distinguishes the process from a later one with its PID; `None` for a child.
    pub(super) identity: Option<u64>,
    /// Those that it came from, the text of its `/proc/PID/cgroup`.
    pub(super) home: Arc<[u8]>,
    /// Those that it was moved to.
    pub(super) groups: Arc<[GroupId]>,
}

/// A process that was moved for an execution, or is a child of one.
#[derive(Clone, Debug)]
pub(super) struct GateMove {
    pub(super) origin: Origin,
    /// The creator of a child.
    creator: Option<Pid>,
    /// The time at which the execution began, or the child was born.
    began: Nanos,
    /// The evaluation that follows, with all causes that wait for it.
    evaluation: EvaluationRequest,
    due: Nanos,
    pub(super) is_due: bool,
}

impl GateMove {
    /// Checks whether the evaluation is one for an exec of the process since, and not for an earlier one.
    pub(super) fn has_executed(&self, evaluation: &EvaluationRequest) -> bool {
        evaluation.executed.is_some_and(|executed| executed > self.began)
    }
}

/// All such processes.
#[derive(Debug, Default)]
pub(in crate::engine) struct GateMoves {
    moves: HashMap<Pid, GateMove, FixedState>,
    /// Number of processes of each user.
    used: HashMap<Uid, usize, FixedState>,
    /// Some are over.
    due: BTreeSet<(Nanos, Pid)>,
}

impl GateMoves {
    /// Checks whether there is room for another process of a user.
    pub(super) fn has_room(&self, user: Uid) -> bool {
        let [all, of_user] = MOST;
        self.moves.len() < all && self.used.get(&user).is_none_or(|&used| used < of_user)
    }

    #[cfg(test)]
    pub(in crate::engine) fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    pub(super) fn contains(&self, pid: Pid) -> bool {
        self.moves.contains_key(&pid)
    }

    /// Records the process of `evaluation`, which was moved from `origin`.
    pub(super) fn add(&mut self, evaluation: EvaluationRequest, origin: Origin, due: Nanos) {
        let (creator, began, is_due) = (None, evaluation.since, false);
        let moved = GateMove { origin, creator, began, evaluation, due, is_due };
        self.insert(evaluation.pid, moved);
    }

    fn insert(&mut self, pid: Pid, moved: GateMove) {
        self.due.insert((moved.due, pid));
        *self.used.entry(moved.origin.user).or_default() += 1;
        self.moves.insert(pid, moved);
    }

    /// Records a fork: the PID of the child belongs to no earlier process any more, and the child may be in a cgroup
    /// that its creator should not be in.
    pub(in crate::engine) fn heard(&mut self, fork: Fork) {
        if self.moves.is_empty() {
            return;
        }
        let Fork { at, parent, child } = fork;
        self.remove(child);
        let Some(creator) = self.moves.get(&parent) else { return };
        if !self.has_room(creator.origin.user) {
            return;
        }
        if at < creator.began {
            return;
        }
        let evaluation = EvaluationRequest::at_once(child, Cause::FORK | Cause::GATE, at);
        let origin = Origin { identity: None, ..creator.origin.clone() };
        let (due, is_due) = (creator.due, false);
        let creator = Some(parent);
        self.insert(child, GateMove { origin, creator, began: at, evaluation, due, is_due });
    }

    /// Adds what waits for a process to an evaluation of its exec. Returns whether the evaluation must wait, as one for
    /// other changes or for an earlier exec does: then it was added to what waits.
    pub(in crate::engine) fn holds(&mut self, evaluation: &mut EvaluationRequest) -> bool {
        let Some(moved) = self.moves.get_mut(&evaluation.pid) else { return false };
        if moved.has_executed(evaluation) {
            evaluation.absorb(&moved.evaluation);
            return false;
        }
        if !moved.is_due {
            moved.evaluation.absorb(evaluation);
        }
        !moved.is_due
    }

    /// Returns the next evaluation of a process whose execution was not reported in time.
    pub(in crate::engine) fn next_due(&mut self, now: Nanos) -> Option<EvaluationRequest> {
        while let Some(&(due, pid)) = self.due.first().filter(|(due, _)| *due <= now) {
            self.due.pop_first();
            if let Some(moved) = self.moves.get_mut(&pid).filter(|moved| moved.due == due) {
                moved.is_due = true;
                return Some(moved.evaluation);
            }
        }
        None
    }

    /// Returns the time of the next such evaluation.
    pub(in crate::engine) fn due(&self) -> Option<Nanos> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Returns the entry of a process.
    pub(super) fn get(&self, pid: Pid) -> Option<&GateMove> {
        self.moves.get(&pid)
    }

    /// Forgets a process, of which the end of its execution is known.
    pub(super) fn remove(&mut self, pid: Pid) {
        let Some(moved) = self.moves.remove(&pid) else { return };
        if let Some(used) = self.used.get_mut(&moved.origin.user) {
            *used -= 1;
            if *used == 0 {
                self.used.remove(&moved.origin.user);
            }
        }
    }

    /// Forgets a process that is in the cgroup of its rule, and the children that it created since: from `executed` on,
    /// or all if that is not known.
    pub(super) fn confirm(&mut self, pid: Pid, executed: Option<Nanos>) {
        self.remove(pid);
        let since = executed.unwrap_or(Nanos(0));
        let mut left = HashSet::<Pid, FixedState>::default();
        left.insert(pid);
        // A child is recorded after its creator, but the table has no order.
        loop {
            let is_left = |moved: &GateMove| {
                let is_child = moved.creator.is_some_and(|creator| left.contains(&creator));
                is_child && moved.began >= since
            };
            let more: Vec<Pid> = self
                .moves
                .iter()
                .filter(|(_, moved)| is_left(moved))
                .map(|(&pid, _)| pid)
                .collect();
            if more.is_empty() {
                return;
            }
            for pid in more {
                self.remove(pid);
                left.insert(pid);
            }
        }
    }

    /// Returns all processes.
    pub(super) fn pids(&self) -> Vec<Pid> {
        self.moves.keys().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUE: Nanos = Nanos(1000);

    fn pid(raw: u32) -> Pid {
        Pid::new(raw).unwrap()
    }

    fn table() -> GateMoves {
        let mut all = GateMoves::default();
        let (user, identity) = (Uid(1000), Some(1));
        let origin =
            Origin { user, identity, home: Arc::from(&b"0::/\n"[..]), groups: Arc::from([]) };
        let evaluation = EvaluationRequest::at_once(pid(5), Cause::GATE, Nanos(10));
        all.add(evaluation, origin, DUE);
        all
    }

    fn fork(at: u64, parent: u32, child: u32) -> Fork {
        Fork { at: Nanos(at), parent: pid(parent), child: pid(child) }
    }

    #[test]
    fn children_born_before_the_move_or_by_others_are_not_recorded() {
        let mut all = table();
        for fork in [fork(9, 5, 6), fork(11, 7, 8)] {
            all.heard(fork);
            assert!(!all.contains(fork.child));
        }
        all.heard(fork(11, 5, 6));
        all.heard(fork(12, 6, 7));
        assert!(all.contains(pid(6)) && all.contains(pid(7)));
    }

    #[test]
    fn a_success_forgets_those_born_since() {
        for (executed, left) in [(Some(15), vec![6, 7]), (Some(11), vec![]), (None, vec![])] {
            let mut all = table();
            let forks = [fork(11, 5, 6), fork(12, 6, 7), fork(20, 5, 8), fork(21, 8, 9)];
            forks.into_iter().for_each(|one| all.heard(one));
            all.confirm(pid(5), executed.map(Nanos));
            let mut found: Vec<u32> = all.pids().into_iter().map(Pid::get).collect();
            found.sort_unstable();
            assert_eq!(found, left, "{executed:?}");
        }
    }

    #[test]
    fn another_process_with_the_pid_has_no_entry() {
        let mut all = table();
        all.heard(fork(20, 3, 5));
        assert!(all.is_empty());
        assert_eq!(all.next_due(DUE), None);
    }

    #[test]
    fn evaluations_wait_until_the_exec_or_the_end_of_the_time() {
        let mut all = table();
        let mut change = EvaluationRequest::at_once(pid(5), Cause::UID, Nanos(20));
        assert!(all.holds(&mut change));
        let mut earlier = EvaluationRequest::at_once(pid(5), Cause::EXEC, Nanos(9));
        assert!(all.holds(&mut earlier));
        let mut exec = EvaluationRequest::at_once(pid(5), Cause::EXEC, Nanos(30));
        assert!(!all.holds(&mut exec));
        assert_eq!((exec.cause, exec.since), (Cause::EXEC | Cause::UID | Cause::GATE, Nanos(9)));
        assert_eq!(all.next_due(Nanos(999)), None);
        assert_eq!(
            all.next_due(DUE).map(|due| due.cause),
            Some(Cause::EXEC | Cause::UID | Cause::GATE)
        );
        assert!(!all.holds(&mut change));
        let mut other = EvaluationRequest::at_once(pid(6), Cause::UID, Nanos(20));
        assert!(!all.holds(&mut other));
    }

    #[test]
    fn the_table_is_limited() {
        let mut all = table();
        for child in 0..MOST[1] as u32 {
            all.heard(fork(11, 5, 100 + child));
        }
        assert_eq!(all.pids().len(), MOST[1]);
        assert!(!all.has_room(Uid(1000)) && all.has_room(Uid(1001)));
        all.confirm(pid(5), None);
        assert!(all.is_empty() && all.used.is_empty() && all.has_room(Uid(1000)));
    }
}
