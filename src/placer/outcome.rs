//! What a look came to.

use nix::errno::Errno;

use crate::cgroup::tree::{Refusal, Step};
use crate::narrator::{Ending, Obstacle};
use crate::rules::RuleId;

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// There is no such process any more.
    Gone,
    /// No rule matches.
    NoRule,
    /// A rule says to leave it.
    Ignored,
    /// Its rule cannot be applied on this host, so it stays where it is.
    Inapplicable,
    /// It is never moved by a rule that does not name it.
    Protected,
    /// It asked to stay where it is.
    Sticky,
    /// It is where it belongs.
    InPlace,
    /// It was moved.
    Placed,
    /// It would have been moved but for `--dry-run`.
    WouldPlace,
    /// The kernel refused.
    Refused,
    /// An answer from another thread is needed first.
    Waiting,
    /// It was moved, but its number may have changed hands meanwhile: look again.
    Replaced,
    /// It was taken back for the second time and is left there.
    GivenUp,
    /// A unit of systemd would lose it, which its rule does not allow.
    InUnit,
    /// It is in a container that root created.
    InContainer,
    /// It is a job below the service manager of another user, of whom no rule moves a process.
    OthersJob,
    /// It stays in the slice of its user, which a table limits.
    InSlice,
}

impl Outcome {
    /// Its word in the control protocol.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::NoRule => "no-rule",
            Self::Ignored => "ignored",
            Self::Inapplicable => "inapplicable",
            Self::Protected => "protected",
            Self::Sticky => "sticky",
            Self::InPlace => "in-place",
            Self::Placed => "placed",
            Self::WouldPlace => "would-place",
            Self::Refused => "refused",
            Self::Waiting => "waiting",
            Self::Replaced => "reused",
            Self::GivenUp => "given-up",
            Self::InUnit => "in-unit",
            Self::InContainer => "in-container",
            Self::OthersJob => "others-job",
            Self::InSlice => "in-slice",
        }
    }

    /// The same for who tells of looks; `None` while it is not over. `obstacle` is what the process met.
    pub(crate) fn ending(self, rule: RuleId, obstacle: Option<Obstacle>) -> Option<Ending> {
        Some(match (self, obstacle) {
            (Self::Waiting, _) => return None,
            (Self::Sticky, _) => Ending::Sticky,
            (Self::NoRule, _) => Ending::NoRule,
            (Self::Ignored, _) => Ending::Ignored(rule),
            (Self::Refused | Self::InPlace | Self::Placed | Self::Inapplicable, Some(met)) => {
                Ending::Failed(rule, met)
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
            ) => Ending::Done(rule),
        })
    }
}

pub(super) fn obstacle(refusal: &Refusal) -> Obstacle {
    match (refusal.step, refusal.errno) {
        (Step::Open, Errno::ENOENT) => Obstacle::NoGroup,
        (Step::Open | Step::Create | Step::Set | Step::Write, _) => Obstacle::Kernel,
    }
}
