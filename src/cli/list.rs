//! `cgrulectl list`: lists the rules in evaluation order, as a table, names or JSON.

mod hits;

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use serde::Serialize;

use super::command::{DaemonFlags, ToolError};
use super::daemon_client::{self, RunNotes};
use super::locale;
use super::rows::{self, RuleRow};
use super::rule_wording::{self, RuleWording};
use crate::config::diagnostic::has_errors;
use crate::config::escape::{Escaped, EscapedBytes};
use crate::daemon;
use crate::policy::rebuild::LoadedConfig;
use crate::rules::lint::{self, Unreachable};
use crate::rules::{Action, Rule, RuleId};

pub use super::rows::RowOptions;

#[derive(clap::Args)]
#[command(
    about = "List the rules in evaluation order",
    after_help = "\
Examples:
  cgrulectl list
      the first matching rule decides; ! marks rules that never match or
      cannot be applied, ~ those that only observe
  cgrulectl list --hits
      how often each active rule matched and moved a process
  cgrulectl list --rules ./rules.d --no-legacy
      list the rules of one directory"
)]
pub(super) struct ListArgs {
    /// do not cut lines to 80 columns, show full paths
    #[arg(long)]
    full: bool,
    /// print only the names of rules, each once
    #[arg(long)]
    names: bool,
    /// the counters of the active rules, from the daemon
    #[arg(long, conflicts_with = "names")]
    hits: bool,
    /// an array with one object per rule
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonFlags,
}

pub(super) fn run(given: &ListArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let is_ascii = !locale::is_unicode();
    let style = RowOptions { is_full: given.full, is_ascii };
    if given.hits {
        hits::run(&given.daemon, given.json, style, out)?;
        return Ok(0);
    }
    let survey = daemon::survey(&daemon_client::as_active(&given.daemon, RunNotes::Said), None);
    if given.json {
        json(&survey, out)?;
    } else if given.names {
        names(&survey, out)?;
    } else {
        table(&survey, style, out)?;
    }
    if has_errors(&survey.loaded.diagnostics) {
        eprintln!("cgrulectl: invalid rules are not listed; run 'cgrulectl check' to see them");
    }
    Ok(0)
}

/// Writes the rules as a table, followed by the reasons for which some can never match or be applied.
///
/// # Errors
/// The output cannot be written.
pub fn table(survey: &LoadedConfig, style: RowOptions, out: &mut dyn Write) -> io::Result<()> {
    let rules = &survey.loaded.rules;
    let words = RuleWording::new(&survey.loaded.names);
    let dead: HashMap<RuleId, Unreachable> = lint::dead(rules).into_iter().collect();
    let rows = rules.iter().enumerate().map(|(at, rule)| RuleRow::Rule {
        number: at + 1,
        mark: match dead.contains_key(&id(at)) || rule.action.inapplicable().is_some() {
            true => '!',
            false if rule.action.observes() => '~',
            false => ' ',
        },
        name: rule_wording::name(rule).unwrap_or_else(|| "-".to_owned()),
        text: words.asked(rule),
        target: rule_wording::done(rule),
        origin: if style.is_full {
            rule_wording::origin(rule)
        } else {
            rule_wording::short_origin(rule)
        },
    });
    rows::show(&rows.collect::<Vec<RuleRow>>(), Some("MATCH → CGROUP"), style, out)?;
    for (at, rule) in rules.iter().enumerate() {
        if let Some(why) = dead.get(&id(at)) {
            writeln!(out, "\n! {} ({}) never matches:", at + 1, rule_wording::origin(rule))?;
            writeln!(out, "  {}", cause(*why, rules))?;
        }
        if let Some(reason) = rule.action.inapplicable() {
            writeln!(out, "\n! {} ({}) cannot be applied:", at + 1, rule_wording::origin(rule))?;
            writeln!(out, "  {}; matching processes are not moved", Escaped(&reason.to_string()))?;
        }
    }
    footer("~ only observing", rules, |rule| rule.action.observes(), out)?;
    footer("gated", rules, |rule| rule.is_gated, out)
}

/// Writes the numbers of the rules with an attribute, if there are any.
fn footer(
    title: &str,
    rules: &[Rule],
    has: impl Fn(&Rule) -> bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let found = rules.iter().enumerate().filter(|(_, rule)| has(rule));
    let numbers: Vec<String> = found.map(|(at, _)| (at + 1).to_string()).collect();
    match numbers.is_empty() {
        true => Ok(()),
        false => writeln!(out, "\n{title}: {}", numbers.join(", ")),
    }
}

/// Writes the names of the rules, one per line, each once; rules without a name are omitted.
///
/// # Errors
/// The output cannot be written.
pub fn names(survey: &LoadedConfig, out: &mut dyn Write) -> io::Result<()> {
    let mut seen = HashSet::new();
    let names = survey.loaded.rules.iter().filter_map(rule_wording::name);
    names.filter(|name| seen.insert(name.clone())).try_for_each(|name| writeln!(out, "{name}"))
}

/// Returns the reason for which a rule never matches.
fn cause(dead: Unreachable, rules: &[Rule]) -> String {
    match dead {
        Unreachable::ShadowedBy(id) => {
            let origin = rules.get(id.0 as usize).map(rule_wording::origin).unwrap_or_default();
            format!("rule {} ({origin}) comes first and matches everything that it does", id.0 + 1)
        }
        Unreachable::HoldsForNobody => "its exclusions cover everything that it selects".to_owned(),
    }
}

fn id(index: usize) -> RuleId {
    RuleId(u32::try_from(index).unwrap_or(u32::MAX))
}

/// JSON object for a rule. Fields are added, and must never be renamed.
#[derive(Serialize)]
struct Listed {
    number: usize,
    name: String,
    file: String,
    line: u32,
    when: String,
    ignore: bool,
    /// Whether it only observes, with the action in the other fields.
    observe: bool,
    /// Whether executions of its files wait for the placement.
    gate: bool,
    cgroup: Vec<String>,
    /// Reason for which the rule cannot be applied on this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    inapplicable: Option<String>,
    /// Position of the earlier rule that matches everything that this one does.
    #[serde(skip_serializing_if = "Option::is_none")]
    shadowed_by: Option<u32>,
    never_matches: bool,
}

/// Writes the rules as a JSON array of objects.
///
/// # Errors
/// The output cannot be written.
pub fn json(survey: &LoadedConfig, out: &mut dyn Write) -> io::Result<()> {
    let rules = &survey.loaded.rules;
    let words = RuleWording::new(&survey.loaded.names);
    let dead: HashMap<RuleId, Unreachable> = lint::dead(rules).into_iter().collect();
    let listed = rules.iter().enumerate().map(|(at, rule)| {
        let action = rule.action.intended();
        let targets = action.written_targets();
        let own = dead.get(&id(at));
        Listed {
            number: at + 1,
            name: rule.name.to_string(),
            file: EscapedBytes(rule.origin.file.as_os_str().as_encoded_bytes()).to_string(),
            line: rule.origin.line,
            when: words.asked(rule),
            ignore: matches!(action, Action::Ignore(_)),
            observe: rule.action.observes(),
            gate: rule.is_gated,
            cgroup: targets.iter().map(|target| target.destination.to_string()).collect(),
            inapplicable: rule.action.inapplicable().map(ToString::to_string),
            shadowed_by: own.and_then(|dead| match dead {
                Unreachable::ShadowedBy(id) => Some(id.0 + 1),
                Unreachable::HoldsForNobody => None,
            }),
            never_matches: own.is_some(),
        }
    });
    super::json::write(&listed.collect::<Vec<Listed>>(), out)
}
