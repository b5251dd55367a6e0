//! The difference between two decisions about a process: between those of two sets of rules, or of two times. Pure.

use serde::{Deserialize, Serialize};

/// Outcome of a decision that depends on something that is not known.
pub const UNKNOWN: &str = "unknown";

/// A decision about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided<'d> {
    /// The name of the rule that decides, if one does.
    pub rule: Option<&'d str>,
    /// The cgroup in which the process is after the decision was carried out.
    pub cgroup: &'d str,
    /// The outcome by its name in the protocol, or [`UNKNOWN`].
    pub outcome: &'d str,
}

/// What differs between two decisions about a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DecisionChange {
    /// The process gets into another cgroup.
    Moves,
    /// It stays in its cgroup, and another rule decides, or none.
    Rule,
    /// It stays in its cgroup by the same rule, for another reason.
    Outcome,
    /// A decision is not known.
    Unknown,
}

/// Returns the difference between two decisions, `None` if there is none.
pub fn difference(before: Decided<'_>, after: Decided<'_>) -> Option<DecisionChange> {
    if before.outcome == UNKNOWN || after.outcome == UNKNOWN {
        Some(DecisionChange::Unknown)
    } else if before.cgroup != after.cgroup {
        Some(DecisionChange::Moves)
    } else if before.rule != after.rule {
        Some(DecisionChange::Rule)
    } else if before.outcome != after.outcome {
        Some(DecisionChange::Outcome)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: Decided<'_> = Decided { rule: Some("web"), cgroup: "/web", outcome: "in-place" };

    #[test]
    fn the_most_important_difference_counts() {
        let other = Decided { rule: Some("mail"), ..WEB };
        assert_eq!(difference(WEB, WEB), None);
        assert_eq!(difference(WEB, other), Some(DecisionChange::Rule));
        assert_eq!(difference(WEB, Decided { rule: None, ..WEB }), Some(DecisionChange::Rule));
        let moved = Decided { cgroup: "/mail", outcome: "would-place", ..other };
        assert_eq!(difference(WEB, moved), Some(DecisionChange::Moves));
        let stays = Decided { outcome: "in-unit", ..WEB };
        assert_eq!(difference(WEB, stays), Some(DecisionChange::Outcome));
    }

    #[test]
    fn what_is_not_known_is_no_equality() {
        let unknown = Decided { outcome: UNKNOWN, ..WEB };
        for (before, after) in [(unknown, WEB), (WEB, unknown), (unknown, unknown)] {
            assert_eq!(difference(before, after), Some(DecisionChange::Unknown));
        }
    }
}
