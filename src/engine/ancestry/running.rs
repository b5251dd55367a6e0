//! A process that runs a program, as an evaluation tells it.

use crate::event::{Nanos, Pid};

/// When a process changed, as far as one evaluation is for these changes.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct ChangeTimes {
    /// Time of the first change that is not evaluated.
    pub(in crate::engine) first: Nanos,
    /// Time from which it may run its program: that of the last exec that is evaluated, else of the change.
    pub(in crate::engine) since: Nanos,
}

/// A process for which it is recorded what it runs.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct RunningProcess {
    pub(in crate::engine) pid: Pid,
    pub(in crate::engine) identity: u64,
    /// A time before it was found to have this identity: a fork with a later one ends it.
    pub(in crate::engine) seen: Nanos,
    /// Its executable was read later than this.
    pub(in crate::engine) read_from: Nanos,
    pub(in crate::engine) changes: ChangeTimes,
    /// An event of the process told these times.
    pub(in crate::engine) is_event: bool,
}
