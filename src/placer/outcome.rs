//! What a look came to.

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
}

impl Outcome {
    /// Its word in the control protocol.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::NoRule => "no-rule",
            Self::Ignored => "ignored",
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
        }
    }
}
