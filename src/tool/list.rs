//! `cgrulectl list`: lists the rules in evaluation order, as a table, names or JSON.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use serde::Serialize;

use super::asking::{self, Notes};
use super::command::{Command, Failure, Flag, Given};
use super::locale;
use super::rows::{self, Row};
use super::words::{self, Words};
use crate::config::diagnostic::has_errors;
use crate::config::escape::{Escaped, EscapedBytes};
use crate::daemon;
use crate::rebuild::Survey;
use crate::rules::lint::{self, Dead};
use crate::rules::{Action, Rule, RuleId};

pub use super::rows::Look;

pub(super) const COMMAND: Command = Command {
    name: "list",
    operands: "",
    summary: "List the rules in evaluation order",
    flags: &[
        Flag::new("full", "do not cut lines to 80 columns, show full paths"),
        Flag::new("names", "print only the names of rules, each once"),
        Flag::new("json", "an array with one object per rule"),
    ],
    examples: &[
        (
            "list",
            "the first matching rule decides; ! marks rules that never match or cannot be applied",
        ),
        ("list --rules ./rules.d --no-legacy", "list the rules of one directory"),
    ],
    ends_at_operand: false,
    run,
};

fn run(given: &Given, out: &mut dyn Write) -> Result<u8, Failure> {
    given.no_operands()?;
    let survey = daemon::survey(&asking::as_in_force(given, Notes::Said), None);
    if given.has("json") {
        json(&survey, out)?;
    } else if given.has("names") {
        names(&survey, out)?;
    } else {
        let is_ascii = !locale::is_unicode();
        table(&survey, Look { is_full: given.has("full"), is_ascii }, out)?;
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
pub fn table(survey: &Survey, look: Look, out: &mut dyn Write) -> io::Result<()> {
    let rules = &survey.loaded.rules;
    let words = Words::new(&survey.loaded.names);
    let dead: HashMap<RuleId, Dead> = lint::dead(rules).into_iter().collect();
    let row = |(at, rule): (usize, &Rule)| Row::Rule {
        number: at + 1,
        mark: if dead.contains_key(&id(at)) || rule.action.inapplicable().is_some() {
            '!'
        } else {
            ' '
        },
        name: words::name(rule).unwrap_or_else(|| "-".to_owned()),
        text: words.asked(rule),
        target: words::done(rule),
        origin: if look.is_full { words::origin(rule) } else { words::short_origin(rule) },
    };
    let rows: Vec<Row> = rules.iter().enumerate().map(row).collect();
    rows::show(&rows, Some("MATCH → CGROUP"), look, out)?;
    for (at, rule) in rules.iter().enumerate() {
        if let Some(why) = dead.get(&id(at)) {
            writeln!(out, "\n! {} ({}) never matches:", at + 1, words::origin(rule))?;
            writeln!(out, "  {}", cause(*why, rules))?;
        }
        if let Some(reason) = rule.action.inapplicable() {
            writeln!(out, "\n! {} ({}) cannot be applied:", at + 1, words::origin(rule))?;
            writeln!(out, "  {}; matching processes are not moved", Escaped(&reason.to_string()))?;
        }
    }
    Ok(())
}

/// Writes the names of the rules, one per line, each once; rules without a name are omitted.
///
/// # Errors
/// The output cannot be written.
pub fn names(survey: &Survey, out: &mut dyn Write) -> io::Result<()> {
    let mut seen = HashSet::new();
    let names = survey.loaded.rules.iter().filter_map(words::name);
    names.filter(|name| seen.insert(name.clone())).try_for_each(|name| writeln!(out, "{name}"))
}

/// Returns the reason for which a rule never matches.
fn cause(dead: Dead, rules: &[Rule]) -> String {
    match dead {
        Dead::ShadowedBy(id) => {
            let origin = rules.get(id.0 as usize).map(words::origin).unwrap_or_default();
            format!("rule {} ({origin}) comes first and matches everything that it does", id.0 + 1)
        }
        Dead::HoldsForNobody => "its exclusions cover everything that it selects".to_owned(),
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
pub fn json(survey: &Survey, out: &mut dyn Write) -> io::Result<()> {
    let rules = &survey.loaded.rules;
    let words = Words::new(&survey.loaded.names);
    let dead: HashMap<RuleId, Dead> = lint::dead(rules).into_iter().collect();
    let listed = |(at, rule): (usize, &Rule)| {
        let targets = rule.action.written_targets();
        let own = dead.get(&id(at));
        Listed {
            number: at + 1,
            name: rule.name.to_string(),
            file: EscapedBytes(rule.origin.file.as_os_str().as_encoded_bytes()).to_string(),
            line: rule.origin.line,
            when: words.asked(rule),
            ignore: matches!(rule.action, Action::Ignore(_)),
            cgroup: targets.iter().map(|target| target.destination.to_string()).collect(),
            inapplicable: rule.action.inapplicable().map(ToString::to_string),
            shadowed_by: own.and_then(|dead| match dead {
                Dead::ShadowedBy(id) => Some(id.0 + 1),
                Dead::HoldsForNobody => None,
            }),
            never_matches: own.is_some(),
        }
    };
    let all: Vec<Listed> = rules.iter().enumerate().map(listed).collect();
    super::json::write(&all, out)
}
