//! Outcomes of evaluations as clients see them, with the names of the protocol and the codes of the
//! history. Pure.

macro_rules! outcomes {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal,)+) => {
        /// Outcome of an evaluation, for a client.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum EvaluationOutcome {
            $($(#[doc = $doc])+ $name,)+
        }

        impl EvaluationOutcome {
            /// All outcomes, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// Returns the name in the control protocol.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }
        }
    };
}

outcomes! {
    /// The process does not exist any more.
    Gone = "gone",
    /// No rule matches.
    NoRule = "no-rule",
    /// The matching rule ignores the process.
    Ignored = "ignored",
    /// The rule cannot be applied on this host.
    Inapplicable = "inapplicable",
    /// The process is protected from rules that do not name its executable.
    Protected = "protected",
    /// The process requested to stay where it is.
    Sticky = "sticky",
    /// The process already is in the cgroup of its rule.
    InPlace = "in-place",
    /// A recheck found the process in the cgroup of its rule.
    Confirmed = "confirmed",
    /// The process was moved to the cgroup of its rule.
    Placed = "placed",
    /// The process would have been moved without `--dry-run`.
    WouldPlace = "would-place",
    /// The kernel refused the move.
    Refused = "refused",
    /// The evaluation continues when another thread has replied.
    Waiting = "waiting",
    /// The PID was reused during the move.
    Reused = "reused",
    /// Another process moved it away, and it is left there.
    Abandoned = "abandoned",
    /// The process stays in its systemd unit.
    InUnit = "in-unit",
    /// The process stays in a container created by root.
    InContainer = "in-container",
    /// The process stays below the service manager of another user.
    OthersJob = "others-job",
    /// The process stays in the slice of its user.
    InSlice = "in-slice",
}

impl EvaluationOutcome {
    /// Returns the code in a record of the history.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Returns the outcome with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_unique() {
        let mut words: Vec<&str> = Vec::new();
        for (code, &outcome) in (0..).zip(EvaluationOutcome::ALL) {
            assert_eq!(outcome.code(), code);
            assert_eq!(EvaluationOutcome::from_code(code), Some(outcome));
            assert!(!words.contains(&outcome.word()));
            words.push(outcome.word());
        }
        assert_eq!(EvaluationOutcome::from_code(words.len() as u8), None);
    }
}
