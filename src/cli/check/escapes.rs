//! Lints about rules by which a user leaves the limits of a later rule. Must not report a rule whose cgroup
//! has the same kinds of limits.

use std::collections::HashMap;

use super::lints::Pages;
use crate::cgroup::config::GroupSpecs;
use crate::config::diagnostic::Diagnostic;
use crate::config::escape::EscapedBytes;
use crate::rules::context::ContextCriteria;
use crate::rules::destination::{Specifier, prefixes};
use crate::rules::subsumption::have_common_users;
use crate::rules::{Action, ExeTest, PathBase, Rule, Target};

/// Settings that limit what processes may use. Weights do not: a cgroup may use what others leave.
const LIMITS: [&str; 8] = [
    "cpu.max",
    "io.max",
    "memory.high",
    "memory.max",
    "memory.swap.max",
    "memory.zswap.max",
    "pids.max",
    "cpuset.cpus",
];

/// Returns all diagnostics in the order of the rules.
pub(super) fn all(rules: &[Rule], specs: &GroupSpecs) -> Vec<Diagnostic> {
    let mut pages = Pages::default();
    let mut found = Vec::new();
    let limits = TableLimits::new(specs);
    // A few rules of many: comparing all pairs took 20 s for 50,000 rules.
    let limiting: Vec<LimitingRule<'_>> =
        rules.iter().enumerate().filter_map(|rule| LimitingRule::of(rule, &limits)).collect();
    for (index, rule) in rules.iter().enumerate() {
        let later = &limiting[limiting.partition_point(|limiting| limiting.index <= index)..];
        if let Some((message, help)) = escape(rule, later, &limits) {
            found.push(pages.warning(&rule.origin, message, help));
        }
        if rule.action.targets().iter().any(is_unbounded) {
            let message = "users choose the names of these cgroups, and nothing removes them";
            let help = "a user can create 1,024 in a minute: use %u or %U, or a rule in a TOML file, whose cgroups \
                        are removed when they are empty";
            found.push(pages.warning(&rule.origin, message, help));
        }
    }
    found
}

/// A rule for all programs of its users whose cgroup has limits.
struct LimitingRule<'r> {
    index: usize,
    rule: &'r Rule,
    target: &'r Target,
    limits: Vec<&'r str>,
}

impl<'r> LimitingRule<'r> {
    fn of((index, rule): (usize, &'r Rule), limits: &TableLimits<'r>) -> Option<Self> {
        let target = placed(rule).filter(|_| rule.when.exes.is_empty())?;
        let limits = limits.along(target);
        (!limits.is_empty()).then_some(Self { index, rule, target, limits })
    }
}

/// The limits in the table of each path, which has no slash at either end.
struct TableLimits<'s>(HashMap<&'s str, Vec<&'s str>>);

impl<'s> TableLimits<'s> {
    fn new(specs: &'s GroupSpecs) -> Self {
        let mut limits: HashMap<&str, Vec<&str>> = HashMap::new();
        for table in &specs.tables {
            let keys = table.settings.iter().map(|setting| &*setting.key);
            let keys = keys.filter(|key| LIMITS.contains(key));
            limits.entry(table.text.trim_matches('/')).or_default().extend(keys);
        }
        Self(limits)
    }

    /// Returns the limits of the tables along a destination.
    fn along(&self, target: &Target) -> Vec<&'s str> {
        let paths = [""].into_iter().chain(prefixes(target.destination.as_str()));
        paths.filter_map(|path| self.0.get(path)).flatten().copied().collect()
    }
}

/// Returns message and help if a process of which a user chooses what the rule tests leaves limits that a later rule
/// sets for its users.
fn escape(
    rule: &Rule,
    later: &[LimitingRule<'_>],
    limits: &TableLimits<'_>,
) -> Option<(String, String)> {
    let arranged = arranged(rule)?;
    let target = placed(rule)?;
    let own = limits.along(target);
    for limiting in later {
        let limited = limiting.target;
        let mut lost = limiting.limits.iter().filter(|limit| !own.contains(limit)).peekable();
        let Some(&first) = lost.peek() else { continue };
        if !meet(rule, limiting.rule) || is_below(target, limited) {
            continue;
        }
        let lost: Vec<&str> = lost.copied().collect();
        let message =
            format!("{arranged} leaves {} of {}", lost.join(", "), limited.destination.as_str());
        let help = format!(
            "use a cgroup below {}, or set {first} in [cgroup.\"{}\"] too",
            limited.destination.as_str(),
            target.destination.as_str()
        );
        return Some((message, help));
    }
    None
}

/// Returns the processes of which a user chooses all that a rule tests, beside the user.
fn arranged(rule: &Rule) -> Option<String> {
    if let Some(name) = rule.when.exes.iter().find_map(chosen_name) {
        return Some(format!("any program that a user calls {name}"));
    }
    let context = rule.when.context.as_deref().filter(|_| rule.when.exes.is_empty())?;
    let mut known = context.clone();
    (known.below, known.arguments, known.below_any_user) = Default::default();
    if known != ContextCriteria::default() {
        return None;
    }
    match (context.below.first(), context.arguments.first()) {
        (Some(program), _) => context.below_any_user.then(|| {
            let program = EscapedBytes(written(program));
            format!("any process below {program}, which a user can start,")
        }),
        (None, Some(test)) => {
            let argument = EscapedBytes(test.tests.first()?.as_bytes());
            Some(format!("any process with the argument {argument}"))
        }
        (None, None) => None,
    }
}

fn written(test: &ExeTest) -> &[u8] {
    match test {
        ExeTest::Path(text) | ExeTest::Base(text) => text,
        ExeTest::PathGlob(glob) | ExeTest::BaseGlob(glob) => glob.as_bytes(),
    }
}

/// Returns the name or pattern of a test that a file of any user can match.
fn chosen_name(test: &ExeTest) -> Option<String> {
    match test {
        ExeTest::Base(name) => Some(name.escape_ascii().to_string()),
        ExeTest::BaseGlob(glob) => Some(glob.as_bytes().escape_ascii().to_string()),
        ExeTest::Path(_) | ExeTest::PathGlob(_) => None,
    }
}

/// Returns the destination of a rule that places all users whom it selects.
fn placed(rule: &Rule) -> Option<&Target> {
    let Action::Place(targets) = &rule.action else { return None };
    targets.first().filter(|target| target.below == PathBase::Root && rule.when.groups.is_empty())
}

/// Checks whether two rules select common users.
fn meet(one: &Rule, other: &Rule) -> bool {
    let (one, other) = (&one.when.users, &other.when.users);
    one.is_empty() || other.is_empty() || have_common_users(one, other)
}

fn is_below(target: &Target, above: &Target) -> bool {
    let text = target.destination.as_str().trim_matches('/');
    let above = above.destination.as_str().trim_matches('/');
    is_at_or_below(text, above)
}

fn is_at_or_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Checks whether users choose the names of cgroups that nothing removes: those of cgrules.conf.
fn is_unbounded(target: &Target) -> bool {
    let is_chosen = |field| matches!(field, Specifier::Program | Specifier::ProcessId);
    target.below == PathBase::Top && target.creates && target.destination.fields().any(is_chosen)
}
