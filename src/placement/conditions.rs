//! The conditions of rules that the index does not know: the context of a process, and for rules that
//! ignore processes their cgroup and scheduling. The kernel reports no change of these, so the state
//! at the evaluation counts.
//!
//! A rule that tests where a process is moves it away from there. Such a process keeps the rule,
//! across reloads and restarts, because it is in the cgroup to which the rule leads: see
//! [`Conditions::test`]. Must not trust what a user can change.

use std::sync::Arc;

use super::Missing;
use super::container::{ContainerFacts, ContainerPlace, FactNames, by_namespaces, by_path};
use crate::event::Uid;
use crate::kernel::process::path_in;
use crate::policy::context_rules::ContextRules;
use crate::rules::ancestry::Ancestor;
use crate::rules::container::Container;
use crate::rules::context::{ContextMismatch, Login, Place};
use crate::rules::explain::Mismatch;
use crate::rules::ignore::Scheduling;
use crate::rules::{Action, Rule, RuleId};

/// Facts about a process. Each is read only if a rule that could match depends on it.
pub trait ConditionFacts: ContainerFacts {
    /// Returns the text of its `/proc/PID/cgroup`.
    fn cgroup(&mut self) -> Option<&[u8]>;

    /// Checks whether it has a real-time scheduling policy.
    fn is_real_time(&mut self) -> bool;

    /// Returns the programs of its ancestors that rules test.
    fn ancestors(&mut self) -> Arc<[Ancestor]>;

    /// Returns its login UID; `None` if it is not set.
    fn login(&mut self) -> Option<Uid>;

    /// Returns the arguments of its program, the text of its `/proc/PID/cmdline`. `None` if they cannot
    /// be read.
    ///
    /// # Errors
    /// They must be read first.
    fn arguments(&mut self) -> Result<Option<&[u8]>, Missing>;

    /// Returns the rule with criteria on the place of a process that placed this one last, if a user may
    /// have moved it to this cgroup since.
    fn placed_by(&mut self, hierarchy: usize, path: &[u8]) -> Option<RuleId>;
}

/// Tests the conditions of rules for one process, and keeps what was read of it.
#[derive(Debug)]
pub struct Conditions<'p, F> {
    rules: &'p ContextRules,
    facts: F,
    position: Option<Position>,
    /// Its cgroup, as [`path_of_units`] found it.
    path: Option<Option<(usize, Vec<u8>, usize)>>,
    ancestors: Option<Arc<[Ancestor]>>,
    login: Option<Option<Uid>>,
    /// The container that the path of its cgroup names.
    by_path: Option<Option<Container>>,
    /// The container that its namespaces show.
    by_namespaces: Option<Option<Container>>,
}

/// Where a process is, as far as criteria on its place are concerned.
#[derive(Debug)]
enum Position {
    /// In a cgroup that shows where it comes from: the path in `/proc/PID/cgroup`.
    Original(Vec<u8>),
    /// In the cgroup to which rules with such criteria lead: the path from the top of the hierarchy.
    Placed(Vec<u8>),
    /// Moved out of the cgroup of this rule on behalf of a user, to this path. A move by root gives a
    /// process a new origin, as that of a login into its session.
    MovedFrom(RuleId, Vec<u8>),
    /// Unknown: it has exited, or the host has no such hierarchy.
    Unknown,
}

impl<'p, F: ConditionFacts> Conditions<'p, F> {
    /// Creates the tests for the process with these facts.
    pub fn new(rules: &'p ContextRules, facts: F) -> Self {
        Self {
            rules,
            facts,
            position: None,
            path: None,
            ancestors: None,
            login: None,
            by_path: None,
            by_namespaces: None,
        }
    }

    /// Returns the first condition that the process does not meet, for a rule whose other criteria it
    /// meets.
    ///
    /// While the process is in the cgroup to which rules with criteria on its place lead, these
    /// criteria are met for those rules and for no other rule: its place does not show where it came
    /// from. That holds only if a user cannot have moved it there.
    ///
    /// # Errors
    /// Data that must be read first.
    pub fn test(&mut self, id: RuleId, rule: &Rule) -> Result<Option<Mismatch>, Missing> {
        if !self.circumstances_apply(rule) {
            return Ok(Some(Mismatch::Circumstances));
        }
        if rule.tests_login() {
            if let Some(miss) = self.login_mismatch(rule)? {
                return Ok(Some(Mismatch::Context(miss)));
            }
        }
        if rule.tests_ancestors() {
            if let Some(miss) = self.ancestor_mismatch(id, rule) {
                return Ok(Some(Mismatch::Context(miss)));
            }
        }
        if rule.tests_place() {
            if let Some(miss) = self.place_mismatch(id, rule)? {
                return Ok(Some(Mismatch::Context(miss)));
            }
        }
        // Last, because another thread reads them.
        if !rule.tests_arguments() {
            return Ok(None);
        }
        Ok(rule.argument_mismatch(self.facts.arguments()?).map(Mismatch::Context))
    }

    /// Checks whether a test found the process in the cgroup to which rules with criteria on its place
    /// lead.
    pub fn is_placed(&self) -> bool {
        matches!(self.position, Some(Position::Placed(_)))
    }

    /// Returns the container of the process and whether its namespaces alone show it. `None` outside of containers,
    /// and if its place does not show where it comes from.
    ///
    /// # Errors
    /// Its namespaces must be read first.
    pub fn container(&mut self) -> Result<Option<&Container>, Missing> {
        let (rules, facts, path) = (self.rules, &mut self.facts, &mut self.path);
        self.position.get_or_insert_with(|| position(rules, facts, path));
        self.find_container(true)
    }

    /// Checks whether a test found the process in the root cgroup. The kernel shows that also for a child
    /// that it does not have linked to its cgroup yet.
    pub fn is_at_root(&self) -> bool {
        matches!(&self.position, Some(Position::Original(path)) if matches!(&**path, b"" | b"/"))
    }

    /// Checks the conditions of a rule that ignores processes.
    fn circumstances_apply(&mut self, rule: &Rule) -> bool {
        let Action::Ignore(when) = rule.action.intended() else { return true };
        let place =
            when.below.is_none() || self.facts.cgroup().is_some_and(|text| when.means_place(text));
        place
            && (when.scheduling == Scheduling::Any
                || when.scheduling.means(self.facts.is_real_time()))
    }

    fn login_mismatch(&mut self, rule: &Rule) -> Result<Option<ContextMismatch>, Missing> {
        let login = *self.login.get_or_insert_with(|| self.facts.login());
        let Some(uid) = login else { return Ok(rule.login_mismatch(None)) };
        let name = if rule.needs_login_name() { self.facts.user_name(uid)? } else { None };
        Ok(rule.login_mismatch(Some(Login { uid, name: name.as_deref() })))
    }

    /// A process in the cgroup to which the rule leads counts as one with such an ancestor: the daemon may have been
    /// restarted since that exited. A user cannot have moved it there.
    fn ancestor_mismatch(&mut self, id: RuleId, rule: &Rule) -> Option<ContextMismatch> {
        let ancestors = self.ancestors.get_or_insert_with(|| self.facts.ancestors());
        let miss = rule.ancestor_mismatch(ancestors)?;
        let is_kept = miss == ContextMismatch::Below && self.is_in_cgroup_of(id);
        (!is_kept).then_some(miss)
    }

    fn is_in_cgroup_of(&mut self, id: RuleId) -> bool {
        let (rules, facts) = (self.rules, &mut self.facts);
        let path = self.path.get_or_insert_with(|| path_of_units(rules, facts));
        let Some((index, path, top)) = path else { return false };
        let below = path.get(*top..).unwrap_or_default();
        rules.leads_to(id, below) && is_way_of_root(rules, facts, (*index, path, *top))
    }

    fn place_mismatch(
        &mut self,
        id: RuleId,
        rule: &Rule,
    ) -> Result<Option<ContextMismatch>, Missing> {
        let (rules, facts, path) = (self.rules, &mut self.facts, &mut self.path);
        let position = self.position.get_or_insert_with(|| position(rules, facts, path));
        let keeps = match position {
            Position::Placed(path) => rules.leads_to(id, path),
            Position::MovedFrom(by, _) if id < *by => false,
            Position::MovedFrom(by, _) if id == *by => true,
            // A user must not get an earlier rule by a move. If the rule does not match any more, a later
            // one can.
            Position::Original(path) | Position::MovedFrom(_, path) => {
                let miss = rule.place_mismatch(&rules.place(path));
                return match miss.is_none() && rule.tests_container() {
                    true => self.container_mismatch(rule),
                    false => Ok(miss),
                };
            }
            Position::Unknown => {
                let nowhere = rule.place_mismatch(&Place { unit: None, cgroup: b"" });
                return Ok(nowhere.or(Some(ContextMismatch::Place)));
            }
        };
        Ok((!keeps).then_some(ContextMismatch::Place))
    }

    fn container_mismatch(&mut self, rule: &Rule) -> Result<Option<ContextMismatch>, Missing> {
        let container = self.find_container(rule.tests_any_container())?.cloned();
        rule.container_mismatch(container.as_ref(), &mut FactNames(&mut self.facts))
    }

    /// Returns the container of the process, of which a test has found the position. The namespaces are read only if
    /// a test needs them and the path of its cgroup names no container: each is one more call for the thread that
    /// moves processes.
    fn find_container(&mut self, by_any: bool) -> Result<Option<&Container>, Missing> {
        let (rules, facts) = (self.rules, &mut self.facts);
        let (
            Some(Position::Original(path) | Position::MovedFrom(_, path)),
            Some((hierarchy, tree)),
        ) = (&self.position, rules.hierarchy(facts.hierarchies()))
        else {
            return Ok(None);
        };
        let top = tree.top.trim_end_matches('/').len();
        let place = ContainerPlace { hierarchy, path, top };
        let named = self.by_path.get_or_insert_with(|| by_path(rules, place, facts));
        if named.is_some() || !by_any {
            return Ok(named.as_ref());
        }
        if self.by_namespaces.is_none() {
            self.by_namespaces = Some(by_namespaces(rules, place, facts)?);
        }
        Ok(self.by_namespaces.as_ref().and_then(Option::as_ref))
    }
}

fn position(
    rules: &ContextRules,
    facts: &mut impl ConditionFacts,
    path: &mut Option<Option<(usize, Vec<u8>, usize)>>,
) -> Position {
    let path = path.get_or_insert_with(|| path_of_units(rules, facts)).clone();
    let Some((index, path, top)) = path else { return Position::Unknown };
    // A cgroup outside of the mount is that of no rule.
    let below = path.get(top..).unwrap_or_default();
    if rules.lead_to(below) && is_way_of_root(rules, facts, (index, &path, top)) {
        return Position::Placed(below.to_vec());
    }
    match facts.placed_by(index, &path) {
        Some(by) => Position::MovedFrom(by, path),
        None => Position::Original(path),
    }
}

/// Returns the path of the process in the hierarchy of units, with the index of that and the length of the path of its
/// top.
fn path_of_units(
    rules: &ContextRules,
    facts: &mut impl ConditionFacts,
) -> Option<(usize, Vec<u8>, usize)> {
    let (index, tree) = rules.hierarchy(facts.hierarchies())?;
    let (listed, top) = (tree.listed.clone(), tree.top.trim_end_matches('/').len());
    let path = facts.cgroup().and_then(|text| path_in(text, listed.as_bytes()))?;
    Some((index, path.to_vec(), top))
}

/// Checks whether root owns the cgroups from the one below the managed root to this one, and nobody else may move
/// processes into them.
fn is_way_of_root(
    rules: &ContextRules,
    facts: &impl ConditionFacts,
    (index, path, top): (usize, &[u8], usize),
) -> bool {
    let below = path.get(top..).unwrap_or_default();
    rules
        .steps(below)
        .all(|step| facts.sole_owner(index, &path[..top + step.len()]) == Some(Uid(0)))
}

#[cfg(test)]
#[path = "conditions_tests.rs"]
mod tests;
