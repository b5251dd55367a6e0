//! Repairs the table after the kernel dropped forks: finds descendants whose forks are unknown, and drops entries whose
//! PID may have been reused.

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use super::{Birth, Entry, Inheritance, Inherited, QUEUED_NS};
use crate::engine::kernel::Kernel;
use crate::event::{Nanos, Pid};

impl<V: Inherited> Inheritance<V> {
    /// Records that at `now` the kernel had dropped no forks, and all that it had queued before were read. The fork of
    /// a process that was evaluated shortly before may not be queued yet: the kernel lists a process first.
    pub(in crate::engine) fn confirm(&mut self, now: Nanos) {
        self.unconfirmed.retain(|&(_, evaluated)| now.since(evaluated) < QUEUED_NS);
    }

    /// Marks the living children of all processes with heirs after the kernel dropped forks, and reports each that is
    /// new, with its parent: `report(parent, child, birth)`. Children older than the mark cannot be distinguished. A descendant that was not evaluated before the loss
    /// and is no such child loses its mark: another process may have its PID. Entries of exited processes are removed:
    /// forks with their PIDs that are read later can be made by other processes, whose own forks were lost.
    pub(in crate::engine) fn search(
        &mut self,
        kernel: &mut impl Kernel,
        mut report: impl FnMut(Pid, Pid, Birth),
    ) {
        for (pid, _) in std::mem::take(&mut self.unconfirmed) {
            if let Some(entry) = self.entries.get_mut(&pid).filter(|entry| entry.is_inherited) {
                entry.started = 0;
            }
        }
        let mut unknown: HashSet<Pid, FixedState> =
            self.entries.iter().filter(|(_, one)| one.is_unknown()).map(|(&pid, _)| pid).collect();
        let known = self.entries.iter().filter(|(_, one)| !one.is_unknown());
        let mut parents: Vec<(Pid, Entry<V>)> = known
            .filter(|(_, one)| one.mark.of_child().is_some())
            .map(|(&pid, entry)| (pid, entry.clone()))
            .collect();
        while let Some((parent, entry)) = parents.pop() {
            let found = children(parent, kernel);
            if !entry.is_unknown() && kernel.identity(parent) != Some(entry.started) {
                // The process that has the PID now may have inherited from its own parent meanwhile.
                let is_it = |now: &Entry<V>| now.started == entry.started;
                if self.entries.get(&parent).is_some_and(is_it) {
                    self.remove(parent);
                }
                continue;
            }
            let Some(mark) = entry.mark.of_child() else { continue };
            for child in found {
                let own = self.entries.get(&child).cloned();
                let is_of_child = |own: &Entry<V>| {
                    own.is_unknown() || kernel.identity(child) == Some(own.started)
                };
                if let Some(own) = own.filter(is_of_child) {
                    let both = own.mark.with_inherited(&mark);
                    let is_new = unknown.remove(&child) || both.is_some();
                    let own = Entry { mark: both.unwrap_or_else(|| own.mark.clone()), ..own };
                    if is_new && self.insert(child, own.clone()) {
                        parents.push((child, own));
                    }
                    continue;
                }
                if !is_child(child, parent, kernel) {
                    continue;
                }
                report(parent, child, self.inherit(child, entry.since, mark.clone()));
                if let Some(own) = self.entries.get(&child) {
                    parents.push((child, own.clone()));
                }
            }
        }
        unknown.into_iter().for_each(|pid| self.remove(pid));
    }
}

/// Checks whether a listed child is one still: another process may have its PID by now.
pub(in crate::engine) fn is_child(child: Pid, parent: Pid, kernel: &mut impl Kernel) -> bool {
    kernel.status(child).is_some_and(|status| status.parent == Some(parent))
}

/// Returns the living children of a process.
pub(in crate::engine) fn children(parent: Pid, kernel: &mut impl Kernel) -> Vec<Pid> {
    let mut children = Vec::new();
    kernel.children(parent, |child| children.push(child));
    children
}
