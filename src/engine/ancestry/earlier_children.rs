//! Children of earlier processes with the PID of one that was found before its fork was read.

use std::ops::Range;

use super::AncestryTable;
use super::births::Creator;
use super::mark::FoundBy;
use crate::engine::inheritance::QUEUED_NS;
use crate::engine::kernel::Kernel;
use crate::event::{Nanos, Pid};
use crate::rules::ancestry::Ancestor;
use crate::tracking::fork_tracker::Fork;

/// Children that are not those of the process with these programs if it began after their births.
#[derive(Clone, Debug)]
pub(super) struct EarlierChildren {
    pid: Pid,
    /// That of the process with the programs.
    identity: u64,
    programs: Vec<Ancestor>,
    /// Time of their births.
    within: Range<Nanos>,
}

impl AncestryTable {
    /// The child may have been found before this fork was read: until then the forks with its PID were those of an earlier
    /// process, and take nothing from it.
    pub(super) fn begin(&mut self, fork: Fork) {
        let Some(entry) = self.marks.entry(fork.child) else { return };
        let found_by = entry.mark.found_by;
        if found_by == FoundBy::Fork {
            return;
        }
        let Some(programs) = entry.mark.for_children.clone() else { return };
        let earlier = self.births.last_of(fork.child);
        let creator = earlier.and_then(|birth| self.marks.entry(birth.parent));
        let of_earlier = creator.and_then(|entry| entry.mark.for_children.clone());
        let of_earlier = of_earlier.unwrap_or_default();
        let children = EarlierChildren {
            pid: fork.child,
            identity: entry.started,
            programs: programs.iter().filter(|one| !of_earlier.contains(one)).cloned().collect(),
            within: earlier.map_or(Nanos(0), |birth| birth.at)..fork.at,
        };
        let is_unread = |parent: Pid| {
            let is_born = |birth: Fork| birth.parent == parent && birth.at == entry.from;
            !earlier.is_some_and(is_born) && fork.at <= entry.since.plus(QUEUED_NS)
        };
        if fork.at <= entry.since || matches!(found_by, FoundBy::List(by) if is_unread(by)) {
            self.withdraw_earlier(&children);
            self.marks.begin(fork.child, fork.at);
        } else {
            // A process is listed before its fork has a time stamp, so this may be its own as well as that of a later one.
            self.doubtful.push(children);
        }
    }

    /// After forks were read: takes programs from children of earlier processes. A later one would have the PID by now.
    pub(in crate::engine) fn identify(&mut self, kernel: &mut impl Kernel) {
        for doubtful in std::mem::take(&mut self.doubtful) {
            if kernel.identity(doubtful.pid) == Some(doubtful.identity) {
                self.withdraw_earlier(&doubtful);
            }
        }
    }

    /// Takes the programs from these children.
    fn withdraw_earlier(&mut self, children: &EarlierChildren) {
        let EarlierChildren { pid, programs, within, .. } = children;
        for program in programs {
            self.has_withdrawn |= self.withdraw(Creator::Earlier(*pid), program, within.clone());
        }
    }
}
