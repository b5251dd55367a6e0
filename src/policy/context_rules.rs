//! What the criteria on the place of a process need of the whole policy. A move changes the place of a
//! process, so that the rule that caused it would not match any more. Therefore a process in the
//! cgroup to which such a rule leads keeps the rule: see [`crate::placement::conditions`]. Pure.

use std::collections::BTreeSet;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

use crate::cgroup::mounts::{Hierarchies, Hierarchy};
use crate::cgroup::unit::Unit;
use crate::rules::context::{Place, TextTest};
use crate::rules::destination::Destination;
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
    /// The top-level cgroups of all rules, if a rule depends on containers.
    at_top: Vec<TextTest>,
}

impl ContextRules {
    /// Collects the destinations of these rules. `roots` are those of the policy.
    pub fn new(rules: &[Rule], hierarchies: &Hierarchies, roots: [&str; 2]) -> Self {
        let hierarchy = hierarchies.of_units();
        let roots = roots.map(|root| Box::from(root.trim_end_matches('/')));
        let at_top = top_level(rules, roots.each_ref().map(|root| &**root));
        let mut found = Self { roots, hierarchy, at_top, ..Self::default() };
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

    /// Checks whether a cgroup is one of rules, or below one.
    pub fn are_above(&self, path: &[u8]) -> bool {
        let first =
            path.iter().skip(1).position(|&byte| byte == b'/').map_or(path, |end| &path[..=end]);
        let is_below = |root: &str| {
            let rest = path.strip_prefix(root.as_bytes());
            !root.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        self.roots.iter().any(|root| is_below(root))
            || self.at_top.iter().any(|test| test.accepts(first))
    }

    /// Returns the managed and delegated roots.
    pub fn roots(&self) -> [&str; 2] {
        [&self.roots[0], &self.roots[1]]
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
        Place { unit: Unit::of_bytes(path, &self.roots()).name(), cgroup: path }
    }
}

/// Returns tests of the top-level cgroups of the rules, if one of them depends on containers. A root that is not that
/// of the hierarchy has none: all of its cgroups are below it.
fn top_level(rules: &[Rule], [root, legacy_root]: [&str; 2]) -> Vec<TextTest> {
    if !rules.iter().any(Rule::needs_container) {
        return Vec::new();
    }
    let targets = rules.iter().flat_map(|rule| rule.action.targets());
    let at_top = targets.filter(|target| match target.below {
        PathBase::Root => root.is_empty(),
        PathBase::Top => legacy_root.is_empty(),
    });
    let names = at_top.map(|target| {
        let text = target.destination.as_str().trim_start_matches('/');
        text.split('/').next().unwrap_or_default()
    });
    let names: BTreeSet<&str> = names.filter(|name| !name.is_empty()).collect();
    names.into_iter().filter_map(|name| Some(Destination::parse(name).ok()?.test(""))).collect()
}
