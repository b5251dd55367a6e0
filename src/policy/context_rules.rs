//! What the criteria on the place of a process need of the whole policy. A move changes the place of a
//! process, so that the rule that caused it would not match any more. Therefore a process in the
//! cgroup to which such a rule leads keeps the rule: see [`crate::placement::conditions`]. Pure.

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

use crate::cgroup::mounts::{Hierarchies, Hierarchy};
use crate::cgroup::unit::Unit;
use crate::rules::context::{Place, TextTest};
use crate::rules::{PathBase, Rule, RuleId};

/// The cgroups of the rules with criteria on the place of a process.
#[derive(Debug, Default)]
pub struct ContextRules {
    /// The managed and delegated roots.
    roots: [Box<str>; 2],
    /// Index of the hierarchy that shows the place of a process.
    hierarchy: Option<usize>,
    /// The paths of destinations without specifiers, from the top of the hierarchy.
    paths: HashSet<Box<[u8]>, FixedState>,
    /// The paths of all other destinations.
    patterns: Vec<TextTest>,
    /// The path of the destination of each rule with criteria on the place or the ancestors of a process.
    by_rule: HashMap<RuleId, TextTest, FixedState>,
}

impl ContextRules {
    /// Collects the destinations of these rules. `roots` are those of the policy.
    pub fn new(rules: &[Rule], hierarchies: &Hierarchies, roots: [&str; 2]) -> Self {
        let hierarchy = hierarchies.of_units();
        let roots = roots.map(|root| Box::from(root.trim_end_matches('/')));
        let mut found = Self { roots, hierarchy, ..Self::default() };
        let is_kept = |rule: &Rule| rule.tests_place() || rule.tests_ancestors();
        for (id, rule) in (0..).map(RuleId).zip(rules).filter(|(_, rule)| is_kept(rule)) {
            // A move in other hierarchies does not change the place.
            let Some(target) = rule.action.targets().first().filter(|target| {
                hierarchy.is_some_and(|own| hierarchies.span_of(target).0.has(own))
            }) else {
                continue;
            };
            let root = match target.below {
                PathBase::Root => &found.roots[0],
                PathBase::Top => &found.roots[1],
            };
            let test = target.destination.test(root);
            match &test {
                // The ancestors of a process are known wherever it is.
                _ if !rule.tests_place() => {}
                TextTest::Is(path) => {
                    found.paths.insert(path.clone());
                }
                TextTest::Matches(_) => found.patterns.push(test.clone()),
            }
            found.by_rule.insert(id, test);
        }
        found
    }

    /// Returns the hierarchy that shows the place of a process.
    pub fn hierarchy<'h>(&self, hierarchies: &'h Hierarchies) -> Option<(usize, &'h Hierarchy)> {
        let index = self.hierarchy?;
        Some((index, hierarchies.get(index)?))
    }

    /// Checks whether a rule with criteria on the place of a process leads to this cgroup.
    pub fn lead_to(&self, path: &[u8]) -> bool {
        self.paths.contains(path) || self.patterns.iter().any(|pattern| pattern.accepts(path))
    }

    /// Checks whether this rule leads to this cgroup.
    pub fn leads_to(&self, rule: RuleId, path: &[u8]) -> bool {
        self.by_rule.get(&rule).is_some_and(|test| test.accepts(path))
    }

    /// Returns the paths of the cgroups from the one below the managed root to this one.
    pub fn steps<'p>(&self, path: &'p [u8]) -> impl Iterator<Item = &'p [u8]> + use<'p> {
        let root = self.roots.iter().map(|root| root.as_bytes());
        let below = root.filter(|root| path.starts_with(root)).map(<[u8]>::len).max();
        let start = below.unwrap_or(0) + 1;
        let slashes = (start..path.len()).filter(|&at| path[at] == b'/');
        slashes.chain([path.len()]).map(|end| &path[..end])
    }

    /// Returns the place of a process in this cgroup.
    pub fn place<'p>(&self, path: &'p [u8]) -> Place<'p> {
        let roots = [&*self.roots[0], &*self.roots[1]];
        Place { unit: Unit::of_bytes(path, &roots).name(), cgroup: path }
    }
}
