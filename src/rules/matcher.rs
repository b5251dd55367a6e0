//! Rules compiled into an index: the first match in rule order, at a cost that does not grow with
//! the number of rules. Pure.
#![allow(missing_docs)]

use super::names::Identity;
use super::{Facts, Rule, RuleId};
use crate::event::Gid;

/// The compiled index over one set of rules.
#[derive(Debug)]
pub struct Matcher {}

/// What is left of the rules for one user id.
#[derive(Debug)]
pub struct Plan {}

impl Matcher {
    pub fn compile(_rules: &[Rule]) -> Self {
        Self {}
    }
    pub fn plan(&self, _rules: &[Rule], _who: &Identity) -> Plan {
        Plan {}
    }
    /// Whether a plan may depend on the user's name or listed groups at all.
    pub fn asks_identity(&self) -> bool {
        true
    }
    /// Whether an executable rule comes before `than` for this plan and group.
    pub fn asks_exe(&self, _plan: &Plan, _gid: Gid, _than: Option<RuleId>) -> bool {
        true
    }
    pub fn decide(&self, _plan: &Plan, _facts: &Facts<'_>) -> Option<RuleId> {
        None
    }
}
