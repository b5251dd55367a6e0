//! The cgroups in which processes were last found in place, so that a process that is found elsewhere by a scan is known
//! to have been moved by another: a scan has no mover, and without this record it cannot tell an
//! external move from a process whose event was lost.

use super::bounded_map::BoundedMap;
use crate::cgroup::mounts::HierarchySet;
use crate::event::Pid;

/// Entries at most, 40 bytes each; the oldest are forgotten. A process has one for each destination
/// of its rule.
const MAX_ENTRIES: usize = 16_384;

/// A destination of the rule of a process, by its index in the rule.
type Key = (Pid, usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::placer) struct PlacedIn {
    /// Which process of the PID: see [`crate::kernel::process::ProcFs::identity`].
    pub(in crate::engine::placer) identity: u64,
    /// The number of the cgroup, which depends on all that the rule and its destination depend on.
    pub(in crate::engine::placer) cgroup: u64,
    /// The hierarchies in which it is there.
    pub(in crate::engine::placer) span: HierarchySet,
}

/// Processes that were placed, or that a scan found in place, since rules were read.
#[derive(Debug, Default)]
pub(in crate::engine::placer) struct Placements(BoundedMap<Key, PlacedIn, MAX_ENTRIES>);

impl Placements {
    /// Records that the process is in this cgroup.
    pub(in crate::engine::placer) fn record(&mut self, pid: Pid, index: usize, placed: PlacedIn) {
        self.0.insert((pid, index), placed);
    }

    /// Checks whether the process was last in place in this cgroup.
    pub(in crate::engine::placer) fn has(
        &self,
        pid: Pid,
        index: usize,
        cgroup: u64,
        identity: impl FnOnce() -> Option<u64>,
    ) -> bool {
        // The identity costs a system call, which only few processes need.
        self.0.get(&(pid, index)).is_some_and(|entry| {
            entry.cgroup == cgroup && identity().is_some_and(|identity| entry.identity == identity)
        })
    }

    /// Returns where the process was last in place.
    pub(in crate::engine::placer) fn last(&self, pid: Pid, index: usize) -> Option<PlacedIn> {
        self.0.get(&(pid, index)).copied()
    }

    /// Forgets all: other rules are active.
    pub(in crate::engine::placer) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(raw: u32) -> Pid {
        Pid::new(raw).unwrap()
    }

    fn placed(identity: u64, cgroup: u64) -> PlacedIn {
        PlacedIn { identity, cgroup, span: HierarchySet::of(&[0]) }
    }

    #[test]
    fn a_process_is_known_by_its_identity_and_its_last_cgroup() {
        let mut placements = Placements::default();
        placements.record(pid(5), 0, placed(100, 7));
        fn has(own: &Placements, index: usize, cgroup: u64, identity: u64) -> bool {
            own.has(pid(5), index, cgroup, || Some(identity))
        }
        assert!(has(&placements, 0, 7, 100));
        assert!(!has(&placements, 0, 7, 101) && !has(&placements, 0, 8, 100));
        assert!(!has(&placements, 1, 7, 100) && !placements.has(pid(5), 0, 7, || None));
        // A process that changed is in another cgroup, and then elsewhere it was not moved from the first.
        placements.record(pid(5), 0, placed(100, 8));
        assert!(has(&placements, 0, 8, 100) && !has(&placements, 0, 7, 100));
        placements.record(pid(5), 1, placed(100, 9));
        assert!(has(&placements, 0, 8, 100) && has(&placements, 1, 9, 100));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut placements = Placements::default();
        let most = MAX_ENTRIES as u32;
        (0..3).for_each(|_| {
            (1..=2 * most).for_each(|raw| placements.record(pid(raw), 0, placed(1, 1)));
        });
        let (entries, positions) = placements.0.lengths();
        assert!(entries <= MAX_ENTRIES);
        assert_eq!(positions, entries);
        assert!(placements.has(pid(2 * most), 0, 1, || Some(1)));
        assert!(!placements.has(pid(1), 0, 1, || Some(1)));
    }
}
