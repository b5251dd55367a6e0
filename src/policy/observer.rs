//! Interface for an observer that reports evaluations in the log format of another daemon, for
//! scripts that wait for its lines. Must not affect decisions. `cgruled` has no observer, which
//! costs the hot thread one comparison.

use std::fmt::Debug;

use crate::event::{Gid, Nanos, Uid};
use crate::rules::RuleId;
use crate::tracking::queue::EvaluationRequest;

/// Observer that receives each completed evaluation of an existing process.
pub trait DecisionObserver: Debug + Send {
    /// Reports that the rules are active and their diagnostics are logged.
    fn begin(&mut self);

    /// Checks whether [`DecisionEvent::program`] is used, so that the executable must be read for it.
    fn shows_program(&self) -> bool;

    /// Reports a completed evaluation. Called on the hot thread: it may read more about the process
    /// from `process`, depending on the log level, and must not block.
    fn tell(&self, event: &DecisionEvent<'_>, process: &mut dyn ObservedProcess);

    /// Reports that the kernel dropped events. Called on the hot thread, at `now`, after each loss.
    fn lost(&self, now: Nanos);
}

/// Process of an evaluation, of which an observer can read more.
pub trait ObservedProcess {
    /// Returns its real user ID and group ID. `None` when it does not exist any more.
    fn real_ids(&mut self) -> Option<(Uid, Gid)>;

    /// Returns its command name (comm).
    fn comm(&mut self) -> Option<&[u8]>;
}

/// Result of an evaluation, with the data that a report needs.
#[derive(Clone, Copy, Debug)]
pub struct DecisionEvent<'a> {
    /// The process, and the events that caused its evaluation.
    pub evaluation: EvaluationRequest,
    /// Its effective user ID and group ID.
    pub ids: (Uid, Gid),
    /// Its program, if it was read: the script or link that was invoked, if known, or the
    /// executable as the kernel shows it.
    pub program: Option<&'a [u8]>,
    /// Final result of the evaluation.
    pub ending: DecisionResult,
}

/// Result of an evaluation as far as an observer distinguishes results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecisionResult {
    /// The process requested to stay where it is.
    Sticky,
    /// No rule matches the process.
    NoRule,
    /// The matching rule ignores the process.
    Ignored(RuleId),
    /// The process is in the cgroup of this rule, or it has exited.
    Done(RuleId),
    /// The process could not be placed in the cgroup of this rule.
    Failed(RuleId, PlacementError),
}

/// Reason for which a process could not be placed in the cgroup of its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementError {
    /// Invalid destination: it is outside of the hierarchy, or a controller is named twice.
    Nowhere,
    /// Controller in the rule that this host does not have.
    NoController,
    /// Missing cgroup that the rule does not create.
    NoGroup,
    /// Error returned by the kernel.
    Kernel,
}
