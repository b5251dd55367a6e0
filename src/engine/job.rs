//! An evaluation to be done, with what is already known.

use crate::kernel::program::Program;
use crate::placement::Purpose;
use crate::tracking::queue::EvaluationRequest;

/// A queue in which the user of a process may have had its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    None,
    /// Of processes that changed.
    Batch,
    /// Of processes that others moved.
    Moves,
}

/// Evaluation to be done, with what is already known.
#[derive(Debug)]
pub(super) struct Evaluation {
    pub(super) evaluation: EvaluationRequest,
    /// Result of an examination, if one was made.
    pub(super) program: Option<Program>,
    /// Identity of the process that changed, if it waited for an examination.
    pub(super) identity: Option<u64>,
    /// Decide by what is known, without further reads.
    pub(super) is_final: bool,
    /// Nothing is read that only counters of rules that observe, or output, need: that was not possible in time.
    pub(super) skips_records: bool,
    /// The process was decided without its executable before: children born since may be misplaced
    /// too.
    pub(super) is_late: bool,
    /// Queue in which the evaluation waited.
    pub(super) queue: Queue,
    /// A client waits for the outcome.
    pub(super) is_asked: bool,
    /// The leader may have exited.
    pub(super) is_careful: bool,
    /// Whether its real user was root when its executable was requested; `None` if no rule tests ancestors, or before.
    pub(super) was_of_root: Option<bool>,
}

impl Evaluation {
    /// Of an evaluation that waits in no queue: if it did, it was completed there when it was begun.
    pub(super) const fn new(evaluation: EvaluationRequest) -> Self {
        Self {
            evaluation: evaluation.outside_batch(),
            program: None,
            identity: None,
            is_final: false,
            skips_records: false,
            is_late: false,
            queue: Queue::None,
            is_asked: false,
            is_careful: false,
            was_of_root: None,
        }
    }

    /// Of a process with this identity.
    pub(super) fn of_process(evaluation: EvaluationRequest, identity: Option<u64>) -> Self {
        Self { identity, ..Self::new(evaluation) }
    }

    pub(super) fn of_batch(evaluation: EvaluationRequest) -> Self {
        Self { evaluation, queue: Queue::Batch, ..Self::new(evaluation) }
    }

    pub(super) fn moved(evaluation: EvaluationRequest) -> Self {
        Self { evaluation, queue: Queue::Moves, ..Self::new(evaluation) }
    }

    pub(super) fn asked(evaluation: EvaluationRequest) -> Self {
        Self { is_asked: true, ..Self::new(evaluation) }
    }

    /// Creates an evaluation with the result of the examination of this process for this purpose; `None` continues
    /// without it.
    pub(super) fn examined(
        evaluation: EvaluationRequest,
        identity: Option<u64>,
        program: Option<Program>,
        purpose: Purpose,
    ) -> Self {
        let is_missing = program.is_none();
        Self {
            is_final: is_missing && purpose == Purpose::Decision,
            skips_records: is_missing && purpose == Purpose::Record,
            identity,
            program,
            ..Self::new(evaluation)
        }
    }

    /// Checks whether it relies on the examination of a process, or on the lack of one.
    pub(super) const fn is_examined(&self) -> bool {
        self.is_final || self.program.is_some()
    }

    /// Creates a repeated evaluation, because the executable may be readable now.
    pub(super) fn late(evaluation: EvaluationRequest) -> Self {
        Self { is_late: true, ..Self::new(evaluation) }
    }
}
