//! Repairs the table after the kernel dropped forks: finds descendants whose forks are unknown, and drops entries whose
//! PID may have been reused.

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use super::{PinTable, PinnedProcess};
use crate::engine::kernel::Kernel;
use crate::event::{Nanos, Pid};

/// Time in which the kernel has queued the fork of a process that it lists. Between both it does not sleep, so the
/// process that forks only waits for a CPU.
const QUEUED_NS: u64 = 1_000_000_000;

impl PinTable {
    /// Records that at `now` the kernel had dropped no forks, and all that it had queued before were read. The fork of
    /// a process that was evaluated shortly before may not be queued yet: the kernel lists a process first.
    pub fn confirm(&mut self, now: Nanos) {
        self.unconfirmed.retain(|&(_, evaluated)| now.since(evaluated) < QUEUED_NS);
    }

    /// Pins the living children of all processes with descendants after the kernel dropped forks.
    /// Children older than the pin cannot be distinguished. A descendant that was not evaluated before the loss
    /// and is no such child loses its pin: another process may have its PID. Entries of exited processes are removed:
    /// forks with their PIDs that are read later can be made by other processes, whose own forks were lost.
    pub fn search(&mut self, kernel: &mut impl Kernel) {
        for (pid, _) in std::mem::take(&mut self.unconfirmed) {
            if let Some(entry) = self.entries.get_mut(&pid).filter(|entry| entry.is_inherited) {
                entry.started = 0;
            }
        }
        let mut unknown: HashSet<Pid, FixedState> =
            self.entries.iter().filter(|(_, one)| one.is_unknown()).map(|(&pid, _)| pid).collect();
        let known = self.entries.iter().filter(|(_, one)| one.has_heirs && !one.is_unknown());
        let mut parents: Vec<(Pid, PinnedProcess)> =
            known.map(|(&pid, &entry)| (pid, entry)).collect();
        let now = kernel.now();
        while let Some((parent, entry)) = parents.pop() {
            if !entry.is_unknown() && kernel.identity(parent) != Some(entry.started) {
                self.remove(parent);
                continue;
            }
            let mut children = Vec::new();
            kernel.children(parent, |child| children.push(child));
            for child in children {
                let own = self.entries.get(&child).copied();
                let is_of_child = |own: &PinnedProcess| {
                    own.is_unknown() || kernel.identity(child) == Some(own.started)
                };
                if let Some(own) = own.filter(is_of_child) {
                    if unknown.remove(&child) {
                        parents.push((child, own));
                    }
                    continue;
                }
                self.inherit(child, entry.since, entry, now);
                if let Some(&own) = self.entries.get(&child) {
                    parents.push((child, own));
                }
            }
        }
        unknown.into_iter().for_each(|pid| self.remove(pid));
    }
}
