//! Conditions on the decisions that `watch` and `history` show. Both must mean the same by the same flag.

use std::collections::HashMap;

use nix::unistd::{Uid, User};

use super::command::ToolError;
use crate::config::escape::{Escaped, EscapedBytes};
use crate::control::history::message::RecordedEvaluation;
use crate::control::protocol::WatchedDecision;
use crate::policy::load::NameService;

/// Flags of the conditions.
#[derive(Debug, Default, clap::Args)]
pub(super) struct DecisionConditions {
    /// only processes of this user (name or UID)
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// only decisions by this rule (name or FILE:LINE)
    #[arg(long, value_name = "RULE")]
    pub(super) rule: Option<String>,
    /// only this executable (path or base name)
    #[arg(long, value_name = "PATH")]
    exe: Option<String>,
    /// also rechecks, and processes that exited or match no rule
    #[arg(long)]
    pub(super) all: bool,
}

/// Outcomes omitted without `--all`: they are frequent and change nothing.
const DULL: [&str; 3] = ["gone", "no-rule", "confirmed"];

/// Part of a decision to which conditions apply.
#[derive(Clone, Copy, Debug)]
pub(super) struct DecisionFacts<'d> {
    uid: Option<u32>,
    rule: Option<&'d str>,
    origin: Option<(&'d str, u32)>,
    exe: Option<&'d str>,
    outcome: &'d str,
}

impl<'d> From<&'d WatchedDecision> for DecisionFacts<'d> {
    fn from(own: &'d WatchedDecision) -> Self {
        Self {
            uid: own.uid,
            rule: own.rule.as_deref(),
            origin: own.file.as_deref().zip(own.line),
            exe: own.exe.as_deref(),
            outcome: &own.outcome,
        }
    }
}

impl<'d> From<&'d RecordedEvaluation> for DecisionFacts<'d> {
    fn from(own: &'d RecordedEvaluation) -> Self {
        Self {
            uid: own.uid,
            rule: own.rule.as_deref(),
            origin: own.file.as_deref().zip(own.line),
            exe: own.exe.as_deref(),
            outcome: &own.outcome,
        }
    }
}

/// Conditions on the decisions that are shown.
#[derive(Debug, Default)]
pub(super) struct DecisionFilter<'g> {
    uid: Option<u32>,
    rule: Option<&'g str>,
    exe: Option<&'g str>,
    /// `exe` with links resolved, as the kernel reports it: `/usr/bin/dash` for `/bin/sh`.
    resolved: Option<String>,
    pub(super) has_dull: bool,
}

impl<'g> DecisionFilter<'g> {
    /// Creates the filter of these conditions for the command with this name.
    ///
    /// # Errors
    /// The user does not exist or cannot be looked up.
    pub(super) fn new(command: &str, given: &'g DecisionConditions) -> Result<Self, ToolError> {
        let uid = given.user.as_deref().map(|user| uid(command, user)).transpose()?;
        let rule = given.rule.as_deref();
        let exe = given.exe.as_deref();
        let resolved = exe.filter(|exe| exe.contains('/')).and_then(resolved);
        Ok(Self { uid, rule, exe, resolved, has_dull: given.all })
    }

    /// Returns the UID of the only user whose decisions are shown, if there is such a condition.
    pub(super) const fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// Checks whether a decision meets all conditions.
    pub(super) fn admits<'d>(&self, decision: impl Into<DecisionFacts<'d>>) -> bool {
        let DecisionFacts { uid, rule, origin, exe, outcome } = decision.into();
        self.uid.is_none_or(|wanted| uid == Some(wanted))
            && self.rule.is_none_or(|wanted| rule.is_some_and(|name| is_rule(wanted, name, origin)))
            && self.exe.is_none_or(|wanted| {
                exe.is_some_and(|exe| {
                    exe == wanted
                        || self.resolved.as_deref() == Some(exe)
                        || !wanted.contains('/') && exe.rsplit('/').next() == Some(wanted)
                })
            })
            && (self.has_dull || !DULL.contains(&outcome))
    }
}

/// Checks whether `wanted` is the name of a rule, its file and line, or the end of these.
pub(super) fn is_rule(wanted: &str, name: &str, origin: Option<(&str, u32)>) -> bool {
    if wanted.is_empty() || wanted == name {
        return wanted == name;
    }
    let origin = origin.map_or_else(String::new, |(file, line)| format!("{file}:{line}"));
    origin.strip_suffix(wanted).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

/// Resolves the links of a path, and escapes it as the daemon does.
fn resolved(path: &str) -> Option<String> {
    let path = std::fs::canonicalize(path).ok()?;
    Some(EscapedBytes(path.as_os_str().as_encoded_bytes()).to_string())
}

fn uid(command: &str, text: &str) -> Result<u32, ToolError> {
    let found = NameService::default().uid_of(text).map_err(|error| {
        ToolError::Failed(format!("NSS lookup of user {} failed: {error}", Escaped(text)))
    })?;
    found
        .map(|uid| uid.0)
        .ok_or_else(|| ToolError::Usage(format!("{command}: unknown user: {}", Escaped(text))))
}

/// Cache of user names by UID.
#[derive(Debug, Default)]
pub(super) struct UserNames(HashMap<u32, String>);

impl UserNames {
    /// Returns the name of a user for output, or the UID of one without a name.
    pub(super) fn of(&mut self, uid: Option<u32>) -> &str {
        let Some(uid) = uid else { return "?" };
        self.0.entry(uid).or_insert_with(|| {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            user.map_or_else(|| uid.to_string(), |user| Escaped(&user.name).to_string())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECISION: DecisionFacts<'_> = DecisionFacts {
        uid: Some(1000),
        rule: Some("people"),
        origin: Some(("/etc/cgruled/rules.d/50-people.toml", 7)),
        exe: Some("/usr/bin/make"),
        outcome: "placed",
    };

    #[test]
    fn filters_must_all_hold() {
        let all = DecisionFilter {
            uid: Some(1000),
            rule: Some("people"),
            exe: Some("make"),
            ..DecisionFilter::default()
        };
        assert!(all.admits(DECISION));
        let resolved = Some("/usr/bin/make".to_owned());
        let link = DecisionFilter { exe: Some("/bin/make"), resolved, ..DecisionFilter::default() };
        assert!(link.admits(DECISION));
        let path = DecisionFilter { exe: Some("/usr/bin/make"), ..DecisionFilter::default() };
        assert!(path.admits(DECISION));
        for wrong in [
            DecisionFilter { uid: Some(1), ..DecisionFilter::default() },
            DecisionFilter { rule: Some("peopl"), ..DecisionFilter::default() },
            DecisionFilter { exe: Some("/make"), ..DecisionFilter::default() },
            DecisionFilter { exe: Some("ake"), ..DecisionFilter::default() },
        ] {
            assert!(!wrong.admits(DECISION), "{wrong:?}");
        }
        for rule in [
            "/etc/cgruled/rules.d/50-people.toml:7",
            "50-people.toml:7",
            "rules.d/50-people.toml:7",
        ] {
            let place = DecisionFilter { rule: Some(rule), ..DecisionFilter::default() };
            assert!(place.admits(DECISION), "{rule}");
        }
        for rule in ["people.toml:7", "50-people.toml:17", "50-people.toml", "7", ":7", "", "/"] {
            let place = DecisionFilter { rule: Some(rule), ..DecisionFilter::default() };
            assert!(!place.admits(DECISION), "{rule}");
        }
        let dull = DecisionFacts { outcome: "no-rule", ..DECISION };
        assert!(!DecisionFilter::default().admits(dull));
        assert!(DecisionFilter { has_dull: true, ..DecisionFilter::default() }.admits(dull));
    }
}
