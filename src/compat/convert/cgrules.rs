//! Converts `cgrules.conf` to TOML rules; it reads no files.

use std::collections::HashMap;

use super::draft::{SourceLines, TomlDraft};
use super::toml_text::{destination, exe, list, quoted, says, text_test};
use super::{HostFacts, SourceFile};
use crate::config::cgrules_conf;
use crate::config::diagnostic::Diagnostic;
use crate::config::rules_toml::WrittenRule;
use crate::rules::context::{ContextCriteria, TextTest};
use crate::rules::glob::Glob;
use crate::rules::ignore::{IgnoreWhen, Scheduling};
use crate::rules::overbroad::{Overbroad, width};
use crate::rules::{Action, Criteria, ExeTest, GroupTest, Rule, Target, UserTest};

const ONE_GROUP: &str = "a TOML rule has one cgroup, and this line names another one";
const NUMBER: &str =
    "cgrulesengd reads the number as a name and skips the line; TOML reads it as an ID";
const NO_COUNTERPART: &str = "a TOML rule cannot express this";

/// Adds the rules of a file.
pub(super) fn convert(source: &SourceFile, host: &HostFacts<'_>, draft: &mut TomlDraft) {
    draft.has_rules();
    let parsed = cgrules_conf::parse(&source.file, &source.text);
    let lines = SourceLines::new(source);
    draft.blank();
    draft.comment(&format!("# {}", source.file.display()));
    let complaints = complaints(&parsed.diagnostics);
    draft.pass_on(parsed.diagnostics);
    let rules: HashMap<u32, &WrittenRule> =
        parsed.rules.iter().map(|written| (written.rule.origin.line, written)).collect();
    let mut file = CgrulesFile { source, host, lines: &lines, draft, group: None };
    for (number, line) in lines.all() {
        let (text, warning) = cut(line);
        match (text.is_empty(), text.starts_with('%'), rules.get(&number)) {
            (true, _, _) => file.no_rule(line, warning),
            (false, true, _) => file.continuation(number, text, complaints.get(&number)),
            (false, false, Some(written)) => file.rule(number, written, warning),
            (false, false, None) => {
                file.group = None;
                let why = complaints.get(&number).map_or("not a rule", String::as_str);
                file.draft.blank();
                file.draft.left_out(&lines, number, why);
            }
        }
    }
}

/// Returns the reason why each line is not a rule: its first error, else its first warning.
fn complaints(diagnostics: &[Diagnostic]) -> HashMap<u32, String> {
    let mut complaints = HashMap::new();
    let (errors, others): (Vec<_>, Vec<_>) = diagnostics.iter().partition(|own| own.is_error());
    for diagnostic in errors.into_iter().chain(others) {
        let line = diagnostic.place.as_ref().map_or(0, |place| place.line);
        complaints.entry(line).or_insert_with(|| diagnostic.message.clone());
    }
    complaints
}

/// Splits a line into its text and its comment, which includes the `#`.
fn cut(line: &str) -> (&str, Option<&str>) {
    let read = line.split('\0').next().unwrap_or_default();
    let (text, warning) = match read.find('#') {
        Some(at) => (&read[..at], Some(&read[at..])),
        None => (read, None),
    };
    (text.trim_matches([' ', '\t', '\r', '\u{b}', '\u{c}']), warning)
}

struct CgrulesFile<'f, 's> {
    source: &'f SourceFile,
    host: &'f HostFacts<'f>,
    lines: &'f SourceLines<'s>,
    draft: &'f mut TomlDraft,
    /// The targets of the rule that `%` lines continue.
    group: Option<Vec<Target>>,
}

impl CgrulesFile<'_, '_> {
    fn no_rule(&mut self, line: &str, warning: Option<&str>) {
        match warning {
            Some(warning) => self.draft.comment(warning),
            None if line.trim().is_empty() => self.draft.blank(),
            None => {}
        }
    }

    fn rule(&mut self, number: u32, written: &WrittenRule, warning: Option<&str>) {
        self.draft.blank();
        if let Some(warning) = warning {
            self.draft.comment(warning);
        }
        self.group = None;
        if written.rule.when.exes.iter().any(is_never) {
            return self.draft.left_out(self.lines, number, "no program can have this path");
        }
        let targets = match &written.rule.action {
            Action::Ignore(when) if !when.is_always() => {
                return self.conditional(number, written, when);
            }
            action @ (Action::Ignore(_)
            | Action::Place(_)
            | Action::Inapplicable(_)
            | Action::Observe(_)) => action.targets(),
        };
        let text = self.text(number, written, targets);
        // For a process, ignoring it and moving it nowhere are the same.
        if let Err(why) = says(&text, &written.rule) {
            let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
            if written.mentions.iter().any(|mention| is_number(&mention.name)) {
                return self.draft.lost(
                    self.lines,
                    number,
                    NUMBER,
                    "if the ID is meant, write the rule in TOML",
                );
            }
            self.draft.lost(self.lines, number, &why, NO_COUNTERPART);
            return self.keep_place(number, written);
        }
        self.group = Some(targets.to_vec());
        if let Some(first) = targets.first() {
            self.draft.uses(&destination(&first.destination));
        }
        self.remark(number, written, targets);
        self.write(number, written, &text);
    }

    /// Writes a rule, as a comment if a user or group does not exist.
    fn write(&mut self, number: u32, written: &WrittenRule, text: &str) {
        let unknown =
            written.mentions.iter().find(|name| !(self.host.knows)(name.kind, &name.name));
        if let Some(unknown) = unknown {
            let how = format!("\"{}\" does not exist on this host", unknown.name.escape_debug());
            let help = "cgrulesengd skips the line; the rule is written as a comment";
            self.draft.differs(self.lines, number, &how, help);
            return self.draft.disabled(text);
        }
        self.draft.rule(text, &written.rule.when);
    }

    /// Reports what a rule moves that its author may not expect.
    fn remark(&mut self, number: u32, written: &WrittenRule, targets: &[Target]) {
        if matches!(width(&written.rule), Some(Overbroad::Everybody)) {
            let how = "moves processes of root and of all services, as cgrulesengd does";
            let help =
                "select regular users (user = \"@human\") or a program if that is not intended";
            self.draft.differs(self.lines, number, how, help);
        }
        if let Some(name) = self.absent_controller(targets) {
            let how = format!(
                "no v1 hierarchy of this host has the controller \"{}\": cgrulesengd moves nothing",
                name.escape_debug()
            );
            self.draft.differs(
                self.lines,
                number,
                &how,
                "this rule does move: remove it if that is not intended",
            );
        }
    }

    /// Writes a rule that ignores the processes of one that cannot be expressed: without it they
    /// would match a wider rule after it.
    fn keep_place(&mut self, number: u32, written: &WrittenRule) {
        let text = self.text(number, written, &[]);
        let ignoring = Rule { action: Action::ignore(), ..written.rule.clone() };
        if says(&text, &ignoring).is_err() {
            return;
        }
        self.draft.comment("# In its place, so that no later rule matches its processes:");
        match written.mentions.iter().all(|name| (self.host.knows)(name.kind, &name.name)) {
            true => self.draft.lines(&text),
            false => self.draft.disabled(&text),
        }
    }

    fn text(&mut self, number: u32, written: &WrittenRule, targets: &[Target]) -> String {
        let rule = &written.rule;
        let mut text = "[[rule]]\n".to_owned();
        let mut key = |name: &str, value: String| text.extend([name, " = ", &value, "\n"]);
        let base = self.source.file.file_name().unwrap_or_default().to_string_lossy();
        key("name", quoted(&format!("{}:{number}", base.replace(char::is_control, "?"))));
        for test in &rule.when.users {
            if let UserTest::Name(name) = test {
                key("user", quoted(name));
            }
        }
        for test in &rule.when.groups {
            if let GroupTest::Name(name) = test {
                key("group", quoted(name));
            }
        }
        for test in &rule.when.exes {
            key("exe", quoted(&exe(test)));
            key("exe_anywhere", "true".to_owned());
        }
        if let Some(context) = &rule.when.context {
            key("from", list(&context.from.iter().map(text_test).collect::<Vec<_>>()));
        }
        if rule.when.is_empty() {
            key("user", quoted("*"));
        }
        let Some(first) = targets.first() else {
            key("ignore", "true".to_owned());
            return text;
        };
        let controllers = self.controllers(targets);
        if !controllers.is_empty() {
            key("controllers", list(&controllers));
        }
        key("cgroup", quoted(&destination(&first.destination)));
        // cgrulesengd does not distinguish units.
        key("leave_units", "true".to_owned());
        text
    }

    /// Returns a controller for which cgrulesengd has no hierarchy on a host with v1.
    fn absent_controller<'t>(&self, targets: &'t [Target]) -> Option<&'t str> {
        let v1 = &self.host.controllers;
        let same = targets.iter().filter(|target| is_same_group(target, &targets[0]));
        let mut names = same.flat_map(|target| &target.controllers);
        let absent = names.find(|name| *name != "*" && !v1.contains(name))?;
        (!v1.is_empty()).then_some(absent)
    }

    /// Returns the controllers of all targets with the same cgroup as the first one.
    fn controllers(&self, targets: &[Target]) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        let same = targets.iter().filter(|target| is_same_group(target, &targets[0]));
        for name in same.flat_map(|target| &target.controllers) {
            let stands_for = match &**name {
                "*" => &self.host.controllers[..],
                _ => std::slice::from_ref(name),
            };
            for name in stands_for {
                if !names.contains(name) {
                    names.push(name.clone());
                }
            }
        }
        names
    }

    /// Converts a rule that ignores processes under a condition: `from` can require their cgroup.
    fn conditional(&mut self, number: u32, written: &WrittenRule, when: &IgnoreWhen) {
        let why = match (when.below.as_deref(), when.scheduling) {
            (Some(place), Scheduling::Any) if self.host.controllers.is_empty() => {
                return self.ignore_from(number, written, place);
            }
            (Some(place), _) => {
                format!(
                    "it ignores only processes that are in \"{}\" already",
                    place.escape_debug()
                )
            }
            (None, Scheduling::RealTime) => "it ignores only real-time processes".to_owned(),
            (None, Scheduling::NotRealTime | Scheduling::Any) => {
                "it ignores only processes without real-time scheduling".to_owned()
            }
        };
        let help = "a TOML rule has no such condition, and from compares the cgroup of one hierarchy: \
                    keep this rule in cgrules.conf";
        self.draft.lost(self.lines, number, &why, help);
    }

    /// Converts a rule that ignores the processes in a cgroup and below it, on a host with cgroup v2 alone.
    fn ignore_from(&mut self, number: u32, written: &WrittenRule, place: &str) {
        let from = places(place);
        let context = ContextCriteria { from, ..ContextCriteria::default() };
        let when = Criteria { context: Some(Box::new(context)), ..written.rule.when.clone() };
        let rule = Rule { when, action: Action::ignore(), ..written.rule.clone() };
        let ignoring = WrittenRule { rule, ..written.clone() };
        let text = self.text(number, &ignoring, &[]);
        match says(&text, &ignoring.rule) {
            Ok(()) => self.write(number, &ignoring, &text),
            Err(why) => self.draft.lost(self.lines, number, &why, NO_COUNTERPART),
        }
    }

    /// Converts a `%` line. It needs no text of its own if its controllers are part of the rule.
    fn continuation(&mut self, number: u32, text: &str, diagnostic: Option<&String>) {
        let Some(targets) = &self.group else {
            let why =
                diagnostic.map_or("it continues a rule that is not converted", String::as_str);
            return self.draft.left_out(self.lines, number, why);
        };
        match self.own_group(text, targets) {
            Some(true) => {}
            Some(false) => {
                let help = "on cgroup v2 a process is in one cgroup: decide which one to use";
                self.draft.lost(self.lines, number, ONE_GROUP, help);
            }
            None => {
                let why = diagnostic.map_or("it moves no processes", String::as_str);
                self.draft.left_out(self.lines, number, why);
            }
        }
    }

    /// Checks whether a continuation line leads to the rule's first cgroup. Returns `None` if it
    /// moves nothing.
    fn own_group(&self, text: &str, targets: &[Target]) -> Option<bool> {
        let rest = text.trim_start_matches(|c: char| !c.is_ascii_whitespace() && c != '\u{b}');
        // Parsed as if it began a rule.
        let parsed = cgrules_conf::parse(&self.source.file, &format!("*{rest}"));
        let own = match parsed.rules.into_iter().next()?.rule.action {
            Action::Place(targets) => targets.into_iter().next()?,
            // A continuation line moves processes even with the option ignore.
            Action::Ignore(_) => return Some(false),
            Action::Inapplicable(_) | Action::Observe(_) => return None,
        };
        let is_it =
            |known: &Target| is_same_group(known, &own) && known.controllers == own.controllers;
        let index = targets.iter().position(is_it)?;
        Some(is_same_group(&targets[index], &targets[0]))
    }
}

fn is_same_group(a: &Target, b: &Target) -> bool {
    a.destination.pieces() == b.destination.pieces()
}

/// Returns tests for the paths of a cgroup and of all below it; `/` means the root of the hierarchy alone.
fn places(place: &str) -> Vec<TextTest> {
    if place == "/" {
        return vec![TextTest::Is(b"/"[..].into())];
    }
    let path = format!("/{}", place.strip_suffix('/').unwrap_or(place));
    let below = Glob::starting_with(format!("{path}/").as_bytes());
    vec![TextTest::Is(path.as_bytes().into()), TextTest::Matches(below)]
}

/// Checks whether no program can have this path: paths from the kernel begin with a slash.
fn is_never(test: &ExeTest) -> bool {
    match test {
        ExeTest::Path(path) => !path.starts_with(b"/"),
        ExeTest::PathGlob(glob) => !glob.as_bytes().starts_with(b"/"),
        ExeTest::Base(_) | ExeTest::BaseGlob(_) => false,
    }
}

#[cfg(test)]
#[path = "cgrules_tests.rs"]
mod tests;
