//! Programs that processes were found not to run any more, before the event of that was evaluated.

use super::mark::{AncestryMark, Found};
use crate::engine::inheritance::QUEUED_NS;
use crate::event::{Nanos, Pid};
use crate::rules::ancestry::Ancestor;

/// The maximum number of programs. The oldest is dropped: those born after its end stay below it.
const MOST_DEPARTED: usize = 1024;
/// The end of the time of a process that is not known to have ended.
pub(super) const NO_END: Nanos = Nanos(u64::MAX);

/// A program that a process does not run any more.
#[derive(Clone, Debug)]
pub(super) struct DepartedProgram {
    pub(super) pid: Pid,
    pub(super) program: Ancestor,
    /// The fork of a later process with the PID, if one ended it: children from then on are those of that.
    pub(super) until: Nanos,
    pub(super) found: Found,
    /// The event of the change is of before this time.
    pub(super) noted: Nanos,
}

impl DepartedProgram {
    /// Returns what a process ran according to its mark, if its children do not have it from its ancestors too.
    pub(super) fn of(pid: Pid, mark: &AncestryMark, until: Nanos, noted: Nanos) -> Option<Self> {
        let found = mark.found;
        mark.adds().map(|program| Self { pid, program, until, found, noted })
    }
}

/// The last departed programs, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct DepartedPrograms(Vec<DepartedProgram>);

impl DepartedPrograms {
    pub(super) fn add(&mut self, departed: DepartedProgram) {
        if self.0.len() >= MOST_DEPARTED {
            self.0.remove(0);
        }
        self.0.push(departed);
    }

    /// Takes the programs of the processes that had a PID.
    pub(super) fn take_of(&mut self, pid: Pid) -> Vec<DepartedProgram> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let all = std::mem::take(&mut self.0).into_iter();
        let (taken, left) = all.partition(|departed| departed.pid == pid);
        self.0 = left;
        taken
    }

    /// Drops those whose event was read: all changes before this time are evaluated, and an event can be queued late.
    pub(super) fn settle(&mut self, until: Nanos) {
        self.0.retain(|departed| departed.noted.plus(QUEUED_NS) >= until);
    }
}
