//! Outcomes of an evaluation, and their names in the control protocol.

use nix::errno::Errno;

use crate::cgroup::tree::{CgroupError, CgroupOperation};
use crate::control::outcome::EvaluationOutcome;
use crate::policy::observer::{DecisionResult, PlacementError};
use crate::rules::RuleId;

/// Outcome of the evaluation of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Placement {
    /// The process does not exist any more.
    Gone,
    /// No rule matches the process.
    NoRule,
    /// The matching rule ignores the process.
    Ignored,
    /// The rule cannot be applied on this host.
    Inapplicable,
    /// The process is protected from rules that do not name its executable.
    Protected,
    /// The process requested to stay where it is.
    Sticky,
    /// The process already is in the cgroup of its rule.
    InPlace,
    /// The process was moved to the cgroup of its rule.
    Placed,
    /// The process would have been moved without `--dry-run`.
    WouldPlace,
    /// The kernel refused the move of the process.
    Refused,
    /// A reply from another thread is needed first.
    Waiting,
    /// The process was moved, but its PID may have been reused meanwhile, so it must be evaluated
    /// again.
    Replaced,
    /// Another process moved it away for the second time, so it is left there.
    GivenUp,
    /// The process stays in its systemd unit, because its rule does not allow to leave it.
    InUnit,
    /// The process is in a container created by root.
    InContainer,
    /// The process is a job below the service manager of another user, without a rule that moves
    /// processes of that user.
    OthersJob,
    /// The process stays in the slice of its user, which a table limits.
    InSlice,
}

impl Placement {
    /// Returns the outcome as clients see it.
    pub(crate) const fn of_evaluation(self) -> EvaluationOutcome {
        match self {
            Self::Gone => EvaluationOutcome::Gone,
            Self::NoRule => EvaluationOutcome::NoRule,
            Self::Ignored => EvaluationOutcome::Ignored,
            Self::Inapplicable => EvaluationOutcome::Inapplicable,
            Self::Protected => EvaluationOutcome::Protected,
            Self::Sticky => EvaluationOutcome::Sticky,
            Self::InPlace => EvaluationOutcome::InPlace,
            Self::Placed => EvaluationOutcome::Placed,
            Self::WouldPlace => EvaluationOutcome::WouldPlace,
            Self::Refused => EvaluationOutcome::Refused,
            Self::Waiting => EvaluationOutcome::Waiting,
            Self::Replaced => EvaluationOutcome::Reused,
            Self::GivenUp => EvaluationOutcome::Abandoned,
            Self::InUnit => EvaluationOutcome::InUnit,
            Self::InContainer => EvaluationOutcome::InContainer,
            Self::OthersJob => EvaluationOutcome::OthersJob,
            Self::InSlice => EvaluationOutcome::InSlice,
        }
    }

    /// Returns the name of the outcome in the control protocol.
    pub const fn word(self) -> &'static str {
        self.of_evaluation().word()
    }

    /// Converts the outcome for an observer; `None` while the evaluation is incomplete. `obstacle`
    /// is the reason for which the process was not placed.
    pub(crate) fn ending(
        self,
        rule: RuleId,
        obstacle: Option<PlacementError>,
    ) -> Option<DecisionResult> {
        Some(match (self, obstacle) {
            (Self::Waiting, _) => return None,
            (Self::Sticky, _) => DecisionResult::Sticky,
            (Self::NoRule, _) => DecisionResult::NoRule,
            (Self::Ignored, _) => DecisionResult::Ignored(rule),
            (Self::Refused | Self::InPlace | Self::Placed | Self::Inapplicable, Some(met)) => {
                DecisionResult::Failed(rule, met)
            }
            (
                Self::Gone
                | Self::Inapplicable
                | Self::Protected
                | Self::InPlace
                | Self::Placed
                | Self::WouldPlace
                | Self::Refused
                | Self::Replaced
                | Self::GivenUp
                | Self::InUnit
                | Self::InContainer
                | Self::OthersJob
                | Self::InSlice,
                _,
            ) => DecisionResult::Done(rule),
        })
    }
}

pub(super) fn obstacle(refusal: &CgroupError) -> PlacementError {
    match (refusal.step, refusal.errno) {
        (CgroupOperation::Open, Errno::ENOENT) => PlacementError::NoGroup,
        (
            CgroupOperation::Open
            | CgroupOperation::Create
            | CgroupOperation::Set
            | CgroupOperation::Write,
            _,
        ) => PlacementError::Kernel,
    }
}
