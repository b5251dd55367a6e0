//! Text form of an explanation: the result first, then its reasons. Must fit 80 columns unless a word is
//! longer.

use std::io::{self, Write};

use super::Explained;
use super::attributes::{context_attributes, named};
use super::reason::span;
use super::subject::{InspectedProcess, LiveProcess};
use super::verdict::{HierarchyState, PlacementState, Verdict, current};
use crate::cli::inspected_program::InspectedProgram;
use crate::cli::rows::{self, RuleRow};
use crate::cli::rule_wording::{self, RuleWording};
use crate::config::escape::{Escaped, EscapedBytes};
use crate::policy::rebuild::LoadedConfig;
use crate::rules::explain::Mismatch;
use crate::rules::{Action, Rule, RuleId};

/// Columns of a line of text.
const WIDTH: usize = 80;
/// Columns of the label before the text.
const INDENT: usize = 11;
/// Maximum of rules shown without `--all`.
const SHOWN: usize = 20;

/// Output options of an explanation.
#[derive(Clone, Copy, Debug, Default)]
pub struct OutputOptions {
    /// True if the headline is coloured.
    pub color: bool,
    /// True if every rule is shown.
    pub all: bool,
    /// True if arrows and ellipses are written in ASCII.
    pub ascii: bool,
}

/// Writes the explanation of one process.
///
/// # Errors
/// The output cannot be written.
pub fn show(
    survey: &LoadedConfig,
    explained: &Explained,
    options: OutputOptions,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Explained { subject, verdict, .. } = explained;
    let rule = explained.rule(survey);
    let caveats = explained.caveats(survey);
    let (headline, code) = headline(subject, verdict);
    match options.color {
        true => writeln!(out, "\x1b[1;{code}m{headline}\x1b[0m")?,
        false => writeln!(out, "{headline}")?,
    }
    let observed = observed(survey, explained);
    if rule.is_some() || subject.life.is_some() || !caveats.is_empty() || !observed.is_empty() {
        writeln!(out)?;
    }
    if let Some(rule) = rule {
        let name = rule.given_name().map(|name| format!("\"{}\", ", Escaped(name)));
        item("rule", &format!("{}{}", name.unwrap_or_default(), rule_wording::origin(rule)), out)?;
        if rule.is_gated {
            item("gate", "executions of its files wait for the placement", out)?;
        }
    }
    for text in &observed {
        item("observed", text, out)?;
    }
    places(survey, explained, out)?;
    if let Some(since) = since(explained) {
        item("since", &since, out)?;
    }
    for reason in explained.all_reasons(survey) {
        item("reason", &reason, out)?;
    }
    // Else it is among the reasons.
    let is_reason = explained.verdict.state.has_reasons();
    if let Some(last) = explained.external_move.as_ref().filter(|_| !is_reason) {
        item("last", &format!("external move {last}"), out)?;
    }
    for caveat in &caveats {
        item("note", caveat, out)?;
    }
    writeln!(out, "\nAttributes that rules evaluate")?;
    facts(subject, out)?;
    for (word, text) in context_attributes(survey, explained) {
        item(word, &text, out)?;
    }
    if !survey.loaded.rules.is_empty() {
        writeln!(out, "\nRules in evaluation order")?;
    }
    let style = rows::RowOptions { is_full: options.all, is_ascii: options.ascii };
    rows::show(&rules(survey, explained, options.all), None, style, out)
}

/// Returns a text for each rule that would match, but only observes.
fn observed(survey: &LoadedConfig, explained: &Explained) -> Vec<String> {
    let misses = explained.verdict.walk.misses.iter().zip(&*survey.loaded.rules);
    let rules = misses.filter(|(miss, _)| **miss == Mismatch::Observes).map(|(_, rule)| rule);
    let texts = rules.map(|rule| {
        let name = rule.given_name().map(|name| format!("\"{}\", ", Escaped(name)));
        let origin = rule_wording::origin(rule);
        let what = match rule.action.intended() {
            Action::Ignore(_) => "would ignore it".to_owned(),
            Action::Inapplicable(_) | Action::Observe(_) => "would match".to_owned(),
            Action::Place(_) => format!("would move it to {}", rule_wording::done(rule)),
        };
        format!("{}{origin} {what}, but only observes", name.unwrap_or_default())
    });
    texts.collect()
}

/// Returns the text about the time since which a process is in place.
fn since(explained: &Explained) -> Option<String> {
    let moved = explained.moved.filter(|_| explained.verdict.state == PlacementState::InPlace)?;
    Some(match moved {
        Some(ago) => format!("{} ago, when the daemon moved it there", span(ago)),
        None => "unknown: the daemon has no record of moving it".to_owned(),
    })
}

/// Returns the result as one line, and its colour code.
fn headline(subject: &InspectedProcess, verdict: &Verdict) -> (String, u8) {
    let who = match &subject.life {
        Some(life) => format!("Process {} ({})", life.pid, EscapedBytes(&life.comm)),
        None => "The hypothetical process".to_owned(),
    };
    let (what, code) = match verdict.state {
        PlacementState::InPlace => ("is in the cgroup of its rule.", 32),
        PlacementState::Misplaced => ("is NOT in the cgroup of its rule.", 31),
        PlacementState::Unsure if !verdict.unread.is_empty() => {
            ("cannot be evaluated: not all rules can be read.", 33)
        }
        PlacementState::Unsure => ("cannot be evaluated: a rule needs its executable.", 33),
        PlacementState::Outdated => {
            ("cannot be evaluated: the daemon's active rules differ from the files.", 33)
        }
        PlacementState::NoRule if subject.life.is_none() => {
            ("would not be moved: no rule matches.", 33)
        }
        PlacementState::NoRule => ("is not moved: no rule matches.", 33),
        PlacementState::Ignored => ("is not moved: its rule ignores it.", 32),
        PlacementState::Inapplicable if subject.life.is_none() => {
            ("would not be moved: its rule cannot be applied here.", 31)
        }
        PlacementState::Inapplicable => {
            ("is not moved: its rule cannot be applied on this host.", 31)
        }
        PlacementState::Protected => {
            ("is protected: only a rule that names its executable moves it.", 33)
        }
        PlacementState::InSlice => ("stays in the slice of its user, which a table limits.", 32),
        PlacementState::InUnit => {
            ("is left in its systemd unit: its rule does not move it out.", 33)
        }
        PlacementState::InContainer => {
            ("is left in its container: its rule does not move it out.", 33)
        }
        PlacementState::OthersJob => {
            ("is left in the job of another user, which no rule moves.", 33)
        }
        PlacementState::Ended => ("has exited and waits to be reaped by its parent.", 33),
        PlacementState::Imagined => ("would be moved by a rule.", 32),
        PlacementState::Obstructed => ("would not be moved: its rule's cgroup cannot be used.", 31),
    };
    (format!("{who} {what}"), code)
}

/// Writes a label and its text, wrapped: `  label    text`.
fn item(word: &str, text: &str, out: &mut dyn Write) -> io::Result<()> {
    for (index, line) in wrapped(text, WIDTH - INDENT).into_iter().enumerate() {
        let word = if index == 0 { word } else { "" };
        // The longest label fills its columns.
        let gap = if word.len() < INDENT - 2 { "" } else { " " };
        writeln!(out, "  {word:0$}{gap}{line}", INDENT - 2)?;
    }
    Ok(())
}

/// Wraps a text into lines; a word that is longer than a line gets its own.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        let length = line.chars().count() + 1 + word.chars().count();
        if line.is_empty() {
            line.push_str(word);
        } else if length <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn places(survey: &LoadedConfig, explained: &Explained, out: &mut dyn Write) -> io::Result<()> {
    let seats = &explained.verdict.seats;
    let names_trees = survey.hierarchies.len() > 1;
    for HierarchyState { tree, belongs, is, is_right, .. } in seats {
        if !is_right {
            item("expected", &place(belongs.as_bytes(), tree, names_trees), out)?;
        }
        if let Some(is) = is {
            item("actual", &place(is, tree, names_trees), out)?;
        }
    }
    match &explained.subject.life {
        Some(life) if seats.is_empty() => current(&survey.hierarchies, life)
            .iter()
            .try_for_each(|(tree, path)| item("actual", &place(path, tree, names_trees), out)),
        Some(_) | None => Ok(()),
    }
}

/// Formats a cgroup, with the hierarchy if there are several.
fn place(path: &[u8], tree: &str, names_tree: bool) -> String {
    match names_tree {
        true => format!("{}  ({})", EscapedBytes(path), Escaped(tree)),
        false => EscapedBytes(path).to_string(),
    }
}

fn facts(subject: &InspectedProcess, out: &mut dyn Write) -> io::Result<()> {
    let InspectedProcess { who, gid, group, listed_in, program, life, .. } = subject;
    item("user", &named(who.name.as_deref(), who.uid.0), out)?;
    let mut groups = named(group.as_deref(), gid.0);
    if !listed_in.is_empty() {
        groups += &format!("; the user is a member of {}", Escaped(&listed_in.join(", ")));
    }
    item("group", &groups, out)?;
    match program {
        InspectedProgram::Read { path, on_host, invoked, .. } => {
            let mount = if *on_host { "" } else { "  (in another mount namespace)" };
            item("exe", &format!("{}{mount}", EscapedBytes(path)), out)?;
            if let Some(invoked) = invoked {
                item("invoked", &EscapedBytes(invoked).to_string(), out)?;
            }
        }
        InspectedProgram::None if life.is_none() => {}
        InspectedProgram::KernelThread(_) | InspectedProgram::None => item("exe", "none", out)?,
        InspectedProgram::Hidden(why) => {
            item("exe", &format!("unknown: {why}"), out)?;
        }
    }
    life.as_ref().map_or(Ok(()), |life| origin(life, out))
}

fn origin(life: &LiveProcess, out: &mut dyn Write) -> io::Result<()> {
    let Some(age) = life.age else { return Ok(()) };
    let parent = life
        .parent
        .as_ref()
        .map(|parent| format!(", child of {} ({})", parent.pid, EscapedBytes(&parent.comm)));
    item("started", &format!("{} ago{}", span(age), parent.unwrap_or_default()), out)
}

/// Returns the rows of the rules that were evaluated: all, or the nearest mismatches.
fn rules(survey: &LoadedConfig, explained: &Explained, all: bool) -> Vec<RuleRow> {
    let rules = &survey.loaded.rules;
    let walk = &explained.verdict.walk;
    let words = RuleWording::new(&survey.loaded.names);
    let is_shown = shown(rules, &walk.misses, all);
    let mut rows = Vec::new();
    let mut gap: Vec<Mismatch> = Vec::new();
    for ((at, miss), rule) in walk.misses.iter().enumerate().zip(&**rules) {
        if !is_shown[at] {
            gap.push(*miss);
            continue;
        }
        rows.extend(passed_over(&mut gap));
        let observes = *miss == Mismatch::Observes;
        let target = if observes { rule_wording::done(rule) } else { String::new() };
        rows.push(row(at, rule, failed(*miss, rule, &words), target, ' ', all));
    }
    rows.extend(passed_over(&mut gap));
    let Some(RuleId(id)) = walk.winner else { return rows };
    let at = id as usize;
    if let Some(rule) = rules.get(at) {
        rows.push(row(at, rule, "matches".to_owned(), rule_wording::done(rule), '>', all));
    }
    let later = rules.len().saturating_sub(at + 1);
    if later > 0 {
        rows.push(RuleRow::Gap(format!(
            "{} not evaluated: the first match decides",
            counted(later)
        )));
    }
    rows
}

/// Returns for each rule that did not match whether it is shown: of many, only the last that nearly matched.
fn shown(rules: &[Rule], misses: &[Mismatch], all: bool) -> Vec<bool> {
    if all || misses.len() < SHOWN {
        return vec![true; misses.len()];
    }
    let mut shown: Vec<bool> =
        rules.iter().zip(misses).map(|(rule, miss)| is_near(rule, *miss)).collect();
    let mut left = SHOWN - 1;
    for is_shown in shown.iter_mut().rev().filter(|is_shown| **is_shown) {
        *is_shown = left > 0;
        left = left.saturating_sub(1);
    }
    // However many there are: they are what the administrator waits for.
    for (is_shown, miss) in shown.iter_mut().zip(misses) {
        *is_shown |= *miss == Mismatch::Observes;
    }
    shown
}

/// Checks whether every criterion before the one that did not match is given and matches.
fn is_near(rule: &Rule, miss: Mismatch) -> bool {
    match miss {
        Mismatch::User => false,
        Mismatch::Group => !rule.when.users.is_empty(),
        Mismatch::Exe | Mismatch::UnknownExe => {
            !rule.when.users.is_empty() || !rule.when.groups.is_empty()
        }
        Mismatch::ForeignExe
        | Mismatch::NotUser
        | Mismatch::NotGroup
        | Mismatch::NotExe
        | Mismatch::Context(_)
        | Mismatch::Circumstances
        | Mismatch::Observes => true,
    }
}

fn passed_over(gap: &mut Vec<Mismatch>) -> Option<RuleRow> {
    let count = gap.len();
    let kinds: [(&[Mismatch], &str); 3] = [
        (&[Mismatch::User], "for other users"),
        (&[Mismatch::User, Mismatch::Group], "for other users and groups"),
        (&[Mismatch::Exe, Mismatch::UnknownExe], "for other programs"),
    ];
    let all = kinds.iter().find(|(kinds, _)| gap.iter().all(|miss| kinds.contains(miss)));
    let what = all.map_or("for others", |(_, what)| what);
    gap.clear();
    (count > 0).then(|| RuleRow::Gap(format!("{} {what}", counted(count))))
}

fn counted(count: usize) -> String {
    format!("{count} more rule{}", if count == 1 { "" } else { "s" })
}

fn row(at: usize, rule: &Rule, text: String, target: String, mark: char, is_full: bool) -> RuleRow {
    RuleRow::Rule {
        number: at + 1,
        mark,
        name: rule_wording::name(rule).unwrap_or_else(|| "-".to_owned()),
        text,
        target,
        origin: if is_full { rule_wording::origin(rule) } else { rule_wording::short_origin(rule) },
    }
}

/// Returns the criterion that did not match, as text.
pub(in crate::cli) fn failed(miss: Mismatch, rule: &Rule, words: &RuleWording) -> String {
    match miss {
        Mismatch::User => format!("needs user {}", words.users(&rule.when)),
        Mismatch::Group => format!("needs group {}", words.groups(&rule.when)),
        Mismatch::Exe => format!("needs exe {}", RuleWording::exes(&rule.when)),
        Mismatch::UnknownExe => format!("exe unknown, needs {}", RuleWording::exes(&rule.when)),
        Mismatch::ForeignExe => "needs exe in the host's mounts".to_owned(),
        Mismatch::NotUser => format!("excludes user {}", words.users(&rule.not)),
        Mismatch::NotGroup => format!("excludes group {}", words.groups(&rule.not)),
        Mismatch::NotExe => format!("excludes exe {}", RuleWording::exes(&rule.not)),
        Mismatch::Context(miss) => words.context_mismatch(miss, rule),
        Mismatch::Observes => "would match, but observes".to_owned(),
        Mismatch::Circumstances => match rule.action.intended() {
            Action::Ignore(when) => rule_wording::circumstances(when).join("; "),
            Action::Place(_) | Action::Inapplicable(_) | Action::Observe(_) => String::new(),
        },
    }
}
