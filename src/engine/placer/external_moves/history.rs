//! Processes whose external moves were reverted, or that were left in another cgroup.

use super::bounded_map::BoundedMap;
use crate::engine::placer::places::CgroupPlace;
use crate::event::Pid;

/// Maximum number of processes, 200 bytes each. When it is exceeded the oldest is dropped: its next
/// external move is reverted once more.
const MAX_ENTRIES: usize = 4096;

#[derive(Debug)]
struct PastMove {
    /// Identity that distinguishes processes with one PID, see [`crate::kernel::process::ProcFs::identity`].
    identity: u64,
    /// Cgroups in which the process is left.
    left_in: Option<Vec<CgroupPlace>>,
}

/// External moves since the policy became active, by process.
#[derive(Debug, Default)]
pub(in crate::engine::placer) struct ExternalMoveHistory(BoundedMap<Pid, PastMove, MAX_ENTRIES>);

impl ExternalMoveHistory {
    /// Checks whether a move of the process was reverted or left.
    pub(in crate::engine::placer) fn has(
        &self,
        pid: Pid,
        identity: impl FnOnce() -> Option<u64>,
    ) -> bool {
        // The identity costs a system call, which only few processes need.
        self.0.get(&pid).is_some()
            && identity().is_some_and(|identity| self.was_reverted(pid, identity))
    }

    /// Checks whether the process was left in these cgroups.
    pub(super) fn is_left_in(&self, pid: Pid, identity: u64, places: &[CgroupPlace]) -> bool {
        self.of(pid, identity).is_some_and(|entry| entry.left_in.as_deref() == Some(places))
    }

    /// Checks whether an earlier move of the process was reverted or left.
    pub(super) fn was_reverted(&self, pid: Pid, identity: u64) -> bool {
        self.of(pid, identity).is_some()
    }

    /// Records that a move of the process is reverted.
    pub(in crate::engine::placer) fn reverted(&mut self, pid: Pid, identity: u64) {
        self.0.insert(pid, PastMove { identity, left_in: None });
    }

    /// Records that the process is left in these cgroups.
    pub(super) fn left(&mut self, pid: Pid, identity: u64, places: &[CgroupPlace]) {
        self.0.insert(pid, PastMove { identity, left_in: Some(places.to_vec()) });
    }

    /// Removes a process that changed, or that an administrator requested: its next move is the
    /// first again.
    pub(in crate::engine::placer) fn forget(&mut self, pid: Pid) {
        self.0.remove(&pid);
    }

    /// Removes all entries when another policy becomes active.
    pub(in crate::engine::placer) fn clear(&mut self) {
        self.0.clear();
    }

    fn of(&self, pid: Pid, identity: u64) -> Option<&PastMove> {
        self.0.get(&pid).filter(|entry| entry.identity == identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(raw: u32) -> Pid {
        Pid::new(raw).unwrap()
    }

    #[test]
    fn a_process_is_known_by_its_identity() {
        let mut history = ExternalMoveHistory::default();
        history.reverted(pid(5), 100);
        assert!(history.was_reverted(pid(5), 100) && !history.was_reverted(pid(5), 101));
        let a = [CgroupPlace::new(0, b"/a")];
        let b = [CgroupPlace::new(0, b"/b")];
        assert!(!history.is_left_in(pid(5), 100, &a));
        history.left(pid(5), 100, &a);
        assert!(history.is_left_in(pid(5), 100, &a) && !history.is_left_in(pid(5), 100, &b));
        assert!(history.has(pid(5), || Some(100)) && !history.has(pid(5), || None));
        history.forget(pid(5));
        assert!(!history.was_reverted(pid(5), 100));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut history = ExternalMoveHistory::default();
        for round in 0..3 {
            for raw in 1..=2 * MAX_ENTRIES as u32 {
                history.reverted(pid(raw), 1);
                if round == 1 {
                    history.forget(pid(raw));
                }
            }
        }
        let (entries, positions) = history.0.lengths();
        assert!(entries <= MAX_ENTRIES && positions <= 2 * MAX_ENTRIES);
        assert!(history.was_reverted(pid(2 * MAX_ENTRIES as u32), 1));
        assert!(!history.was_reverted(pid(1), 1));
    }
}
