//! Text form of a plan: a summary, then sums by rule, user and unit, then the processes.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::io::{self, Write};

use super::PlanAnswer;
use crate::cli::format::counted;
use crate::control::difference::DecisionChange;
use crate::control::plan_report::{PlanReport, PlannedRule, PlannedSetting, ProcessPlan};

/// Maximum of processes, and of cgroups, shown without `--all`.
const SHOWN: usize = 20;

/// Output options of a plan.
#[derive(Clone, Copy, Debug, Default)]
pub struct PlanViewOptions {
    /// True if every process is shown.
    pub all: bool,
    /// True if arrows are written in ASCII.
    pub ascii: bool,
}

impl PlanViewOptions {
    pub(super) const fn arrow(self) -> &'static str {
        if self.ascii { "->" } else { "→" }
    }

    /// Returns how many of these are shown.
    pub(super) fn shown(self, count: usize) -> usize {
        if self.all { count } else { count.min(SHOWN) }
    }
}

/// Writes the plan.
///
/// # Errors
/// The output cannot be written.
pub fn show(answer: &PlanAnswer, options: PlanViewOptions, out: &mut dyn Write) -> io::Result<()> {
    let PlanAnswer { report, changes } = answer;
    summary(report, changes, out)?;
    settings(&report.settings, options, out)?;
    let created = report.created.iter().map(|path| format!("  {path}"));
    list("cgroups that would be created", &created.collect::<Vec<_>>(), options, out)?;
    sums("by rule", changes, |one| rules_of(one, options), options, out)?;
    sums("by user", changes, |one| Some(user_of(one)), options, out)?;
    sums("units that would lose processes", changes, |one| one.unit.clone(), options, out)?;
    let processes = changes.iter().map(|one| process(one, options));
    list("processes", &processes.collect::<Vec<_>>(), options, out)
}

fn summary(report: &PlanReport, changes: &[ProcessPlan], out: &mut dyn Write) -> io::Result<()> {
    let of = |change| changes.iter().filter(|one| one.change == change).count() as u64;
    let kinds = [
        (DecisionChange::Moves, "would be moved"),
        (DecisionChange::Rule, "would keep the cgroup, but not the rule"),
        (DecisionChange::Outcome, "would stay for another reason"),
        (DecisionChange::Unknown, "not known"),
    ];
    let rules = counted(report.rules, "rule", "rules");
    let files = counted(report.files, "file", "files");
    let processes = counted(report.processes, "process", "processes");
    writeln!(out, "plan: {rules} from {files}, {processes}")?;
    let mut is_any = !report.settings.is_empty() || !report.created.is_empty();
    for (change, text) in kinds {
        if of(change) > 0 {
            is_any = true;
            writeln!(out, "  {}", counted_as(of(change), text))?;
        }
    }
    if is_any { Ok(()) } else { writeln!(out, "  nothing would change") }
}

fn counted_as(count: u64, text: &str) -> String {
    format!("{} {text}", counted(count, "process", "processes"))
}

fn settings(
    settings: &[PlannedSetting],
    options: PlanViewOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let lines = settings.iter().map(|one| {
        let of = match one.kind.as_str() {
            "daemon" => String::new(),
            kind => format!("{kind} {}: ", one.name),
        };
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "not set".to_owned());
        let later = if one.restart { " (after a restart)" } else { "" };
        let (arrow, key) = (options.arrow(), &one.key);
        format!("  {of}{key}: {} {arrow} {}{later}", value(&one.old), value(&one.new))
    });
    list("settings that would change", &lines.collect::<Vec<_>>(), options, out)
}

/// Writes the numbers of processes by what `key` returns, the greatest first.
fn sums(
    title: &str,
    changes: &[ProcessPlan],
    key: impl Fn(&ProcessPlan) -> Option<String>,
    options: PlanViewOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for name in changes.iter().filter_map(key) {
        *counts.entry(name).or_default() += 1;
    }
    let mut counts: Vec<(String, u64)> = counts.into_iter().collect();
    counts.sort_by_key(|&(_, count)| Reverse(count));
    let lines = counts.into_iter().map(|(name, count)| format!("  {count:>6}  {name}"));
    list(title, &lines.collect::<Vec<_>>(), options, out)
}

fn list(
    title: &str,
    lines: &[String],
    options: PlanViewOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let shown = options.shown(lines.len());
    for (index, line) in lines.iter().take(shown).enumerate() {
        if index == 0 {
            writeln!(out, "\n{title}:")?;
        }
        writeln!(out, "{line}")?;
    }
    match lines.len() - shown {
        0 => Ok(()),
        more => writeln!(out, "  {more} more; --all shows all"),
    }
}

/// Returns the old and the new rule.
fn rules_of(one: &ProcessPlan, options: PlanViewOptions) -> Option<String> {
    if one.change == DecisionChange::Unknown {
        return None;
    }
    let [old, new] = [&one.old, &one.new].map(rule_of);
    Some(if old == new { old } else { format!("{old} {} {new}", options.arrow()) })
}

fn rule_of(rule: &PlannedRule) -> String {
    rule.rule.clone().unwrap_or_else(|| "no rule".to_owned())
}

fn user_of(one: &ProcessPlan) -> String {
    one.user.clone().unwrap_or_else(|| one.uid.to_string())
}

fn process(one: &ProcessPlan, options: PlanViewOptions) -> String {
    let mut text = format!("  {} {} ({}): ", one.pid, one.comm, user_of(one));
    let arrow = options.arrow();
    let moves = one.moves.iter().map(|step| {
        let hierarchy = match step.hierarchy.as_str() {
            "unified" => String::new(),
            name => format!("{name}: "),
        };
        format!("{hierarchy}{} {arrow} {}", step.from, step.to)
    });
    let moves: Vec<String> = moves.collect();
    match one.change {
        DecisionChange::Moves => text += &moves.join("\n      "),
        DecisionChange::Rule | DecisionChange::Outcome => {
            text += &format!("stays in {}", one.cgroup);
        }
        DecisionChange::Unknown => text += &format!("not known: {}", one.new.reason),
    }
    if let Some(rules) = rules_of(one, options) {
        text += &format!("\n      rule: {rules}");
    }
    let is_stay = one.change != DecisionChange::Unknown && one.old.outcome != one.new.outcome;
    if is_stay && one.moves.is_empty() {
        let reason = Some(&one.new.reason).filter(|reason| !reason.is_empty());
        let outcome = match reason {
            Some(reason) => format!("{}: {reason}", one.new.outcome),
            None => one.new.outcome.clone(),
        };
        text += &format!("\n      outcome: {} {arrow} {outcome}", one.old.outcome);
    }
    text
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
