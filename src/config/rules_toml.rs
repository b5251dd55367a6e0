//! Parses TOML rule files; it resolves no names and reads no files.
//!
//! All errors of a file are found in one run. A rule with an error is ignored as a whole: with one
//! criterion less it would match more than intended. In a table of settings only the invalid
//! settings are ignored.

mod test_reader;

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeInteger, DeTable, DeValue};

use super::diagnostic::{Diagnostic, Severity};
use super::group_table::{self, GroupTable};
use super::observe::{self, OBSERVE};
use super::requires::{self, FIRST_WITH_TESTS, ProgramVersion};
use super::rule_table;
use super::sections::sections;
use super::source_text::{Diagnostics, SourceText, text_of};
use super::table::{TomlSection, TomlStatus, Value};
use super::test_table::RuleTest;
use super::unit_table::{self, UnitTable};
use crate::rules::Rule;
use test_reader::TestReader;

pub use super::criteria::{NameKind, NameRef};
pub use super::gate::GatedPath;
pub use super::rule_table::{RULE_KEYS, WrittenRule};

/// The only version of the format so far.
const VERSION: u32 = 1;
/// The keys of a file.
pub const FILE_KEYS: [&str; 7] = ["version", "requires", OBSERVE, "rule", "cgroup", "unit", "test"];

/// The parsed rules and tables of one file, with diagnostics.
#[derive(Debug)]
pub struct ParsedRules {
    /// The valid rules in the order of the file.
    pub rules: Vec<WrittenRule>,
    /// The `[cgroup."path"]` tables, without invalid settings.
    pub groups: Vec<GroupTable>,
    /// The `[unit."name"]` tables, without invalid settings.
    pub units: Vec<UnitTable>,
    /// The valid `[[test]]` tables, at most [`super::test_table::MAX_TESTS`].
    pub tests: Vec<RuleTest>,
    /// The destinations of rules with errors, as far as they can be read: their tables are not unused.
    pub lost_destinations: Vec<String>,
    /// Errors and warnings in the order of the file.
    pub diagnostics: Vec<Diagnostic>,
}

/// Parses the bytes of `file`, which need not be valid text.
pub fn parse_bytes(file: &Arc<Path>, bytes: &[u8]) -> ParsedRules {
    match text_of(file, bytes) {
        Ok(text) => parse(file, text),
        Err(diagnostic) => {
            let rules = Vec::new();
            let groups = Vec::new();
            let units = Vec::new();
            let tests = Vec::new();
            let lost_destinations = Vec::new();
            let diagnostics = vec![diagnostic];
            ParsedRules { rules, groups, units, tests, lost_destinations, diagnostics }
        }
    }
}

/// Parses the text of `file`.
pub fn parse(file: &Arc<Path>, text: &str) -> ParsedRules {
    let text = SourceText::new(file, text);
    let mut reader = RulesReader {
        report: Diagnostics::new(&text),
        rules: Vec::new(),
        groups: Vec::new(),
        units: Vec::new(),
        tests: TestReader::default(),
        lost_destinations: Vec::new(),
        named: HashMap::new(),
        version: None,
        requires: None,
        observes: false,
        observe_key: None,
        last_rule: None,
    };
    let mut ranges = sections(text.as_str()).into_iter();
    let readable = reader.head(ranges.next().unwrap_or(0..0));
    if readable {
        ranges.for_each(|range| reader.section(range));
        reader.expect_version();
        reader.expect_requires();
    }
    let RulesReader { report, rules, groups, units, tests, lost_destinations, .. } = reader;
    let (tests, diagnostics) = (tests.tests, report.finish());
    ParsedRules { rules, groups, units, tests, lost_destinations, diagnostics }
}

struct RulesReader<'t> {
    report: Diagnostics<'t>,
    rules: Vec<WrittenRule>,
    groups: Vec<GroupTable>,
    units: Vec<UnitTable>,
    tests: TestReader,
    lost_destinations: Vec<String>,
    /// The lines of the names that rules and tables have.
    named: HashMap<(&'static str, String), u32>,
    version: Option<u32>,
    requires: Option<ProgramVersion>,
    /// Whether the rules observe that do not say it.
    observes: bool,
    /// The place of the first key for that, in bytes.
    observe_key: Option<Range<usize>>,
    /// The index of the last rule, unless it was refused.
    last_rule: Option<usize>,
}

impl RulesReader<'_> {
    /// Reads the part before the first section. Returns whether parsing can continue: without a
    /// known version the meaning of the rest is undefined.
    fn head(&mut self, range: Range<usize>) -> bool {
        let text = &self.report.text().as_str()[range.clone()];
        let mut piece = TomlSection::new(&mut self.report, range.start);
        let (table, syntax) = piece.parse(text);
        let value = table.get("version");
        self.version = value.and_then(|value| value.get_ref().as_integer()).and_then(known_version);
        let refusal = "no rules of this file are loaded: unknown version";
        match (value, self.version, syntax) {
            (_, None, TomlStatus::Wrong) => {
                self.report.add(Severity::Error, None, refusal.to_owned(), None);
                return false;
            }
            (Some(value), None, TomlStatus::Right) => {
                let help = format!("write version = {VERSION}, the only supported version");
                piece.error_help(value.span(), refusal, help);
                return false;
            }
            (_, Some(_), _) | (None, None, TomlStatus::Right) => {}
        }
        if let Some(value) = table.get("requires") {
            self.requires = requires::read(value, ProgramVersion::own(), &mut piece);
            if self.requires.is_none() {
                return false;
            }
        }
        let whole = (&table, syntax);
        let Some(observes) = observe::of_file(whole, text, &FILE_KEYS, &mut piece) else {
            return false;
        };
        self.observes = observes;
        self.note_observe_key(&table, range.start);
        if syntax == TomlStatus::Right {
            self.document(&table, range);
        }
        true
    }

    /// Reads one rule or table.
    fn section(&mut self, range: Range<usize>) {
        let text = &self.report.text().as_str()[range.clone()];
        let mut piece = TomlSection::new(&mut self.report, range.start);
        let (table, syntax) = piece.parse(text);
        if !begins_rule(text) && may_continue_rule(text, &table, syntax) {
            // In TOML a later [rule.not] is part of the last rule, which matches more without it.
            let at = text.trim_start().lines().next().map_or(0, str::len);
            let help = "write [rule.not] directly below its [[rule]], or use not = { … }";
            piece.error_help(0..at, "preceding rule ignored: this section may belong to it", help);
            let kept = self.last_rule.take().unwrap_or(usize::MAX).min(self.rules.len());
            let lost = self.rules.drain(kept..);
            self.lost_destinations.extend(lost.flat_map(|written| destinations(&written.rule)));
        } else if syntax == TomlStatus::Right {
            self.document(&table, range);
        } else if begins_rule(text) {
            self.lost_destinations.extend(text.lines().filter_map(written_destination));
        }
    }

    /// Reads a section that is valid TOML.
    fn document(&mut self, table: &DeTable<'_>, range: Range<usize>) {
        let mut piece = TomlSection::new(&mut self.report, range.start);
        piece.only_keys(table, &FILE_KEYS);
        if let Some(value) = table.get("rule") {
            self.rules(value, range.start);
        }
        if let Some(value) = table.get("cgroup") {
            self.groups(value, range.start);
        }
        if let Some(value) = table.get("unit") {
            self.units(value, range.start);
        }
        if let Some(value) = table.get("test") {
            self.tests.read(value, range.start, &mut self.report);
        }
    }

    fn rules(&mut self, value: &Value<'_>, offset: usize) {
        let mut piece = TomlSection::new(&mut self.report, offset);
        let DeValue::Array(list) = value.get_ref() else {
            piece.error_help(
                value.span(),
                "rule must be a list",
                "write [[rule]] before each rule",
            );
            return;
        };
        for item in list.iter() {
            let mut piece = TomlSection::new(&mut self.report, offset);
            let Some(table) = piece.table(item, "a rule") else { continue };
            let errors = piece.report.errors();
            self.last_rule = None;
            let written = rule_table::read(table, item.span(), self.observes, &mut piece);
            self.note_observe_key(table, offset);
            self.check_name(table, offset);
            if let (Some(written), true) = (written, self.report.errors() == errors) {
                self.last_rule = Some(self.rules.len());
                self.rules.push(written);
            } else if let Some(text) = table.get("cgroup").and_then(|own| own.get_ref().as_str()) {
                self.lost_destinations.push(text.to_owned());
            }
        }
    }

    fn groups(&mut self, value: &Value<'_>, offset: usize) {
        let mut piece = TomlSection::new(&mut self.report, offset);
        let Some(table) = piece.table(value, "cgroup") else { return };
        for (key, value) in table.iter() {
            let mut piece = TomlSection::new(&mut self.report, offset);
            let errors = piece.report.errors();
            let group = group_table::read(key, value, &mut piece);
            let is_right = piece.report.errors() == errors;
            let line = piece.line(key.span().start);
            let known = self.named.insert(("cgroup", key.get_ref().to_string()), line);
            if let Some(first) = known {
                let message = format!("duplicate table for this cgroup, first in line {first}");
                let mut piece = TomlSection::new(&mut self.report, offset);
                piece.error_help(key.span(), message, "write all its settings in one table");
            } else if let Some(group) = group {
                if is_right {
                    group_table::warning(
                        key,
                        &group,
                        &mut TomlSection::new(&mut self.report, offset),
                    );
                }
                self.groups.push(group);
            }
        }
    }

    fn units(&mut self, value: &Value<'_>, offset: usize) {
        let mut piece = TomlSection::new(&mut self.report, offset);
        let Some(table) = piece.table(value, "unit") else { return };
        for (key, value) in table.iter() {
            let mut piece = TomlSection::new(&mut self.report, offset);
            let unit = unit_table::read(key, value, &mut piece);
            let line = piece.line(key.span().start);
            let known = self.named.insert(("unit", key.get_ref().to_string()), line);
            if let Some(first) = known {
                let message = format!("duplicate table for this unit, first in line {first}");
                let help = match key.get_ref() == unit_table::USER_SLICES {
                    true => "put the table for other users into a separate file",
                    false => "write all its settings in one table",
                };
                piece.error_help(key.span(), message, help);
            } else {
                self.units.extend(unit);
            }
        }
    }

    /// Warns about a duplicate rule name: such rules can be distinguished by line only.
    fn check_name(&mut self, table: &DeTable<'_>, offset: usize) {
        let Some(value) = table.get("name") else { return };
        let Some(name) = value.get_ref().as_str() else { return };
        let mut piece = TomlSection::new(&mut self.report, offset);
        let line = piece.line(value.span().start);
        if let Some(first) = self.named.insert(("rule", name.to_owned()), line) {
            let message = format!("duplicate rule name, first used in line {first}");
            piece.warning(value.span(), message, "give each rule a unique name");
        }
    }

    /// Records the first key with which rules observe.
    fn note_observe_key(&mut self, table: &DeTable<'_>, offset: usize) {
        let key = table.iter().map(|(key, _)| key).find(|key| key.get_ref() == OBSERVE);
        let piece = TomlSection::new(&mut self.report, offset);
        if let (Some(key), None) = (key, &self.observe_key) {
            self.observe_key = Some(piece.span(key.span()));
        }
    }

    /// Warns about tests, and about rules that observe, in a file that an older daemon would not reject as
    /// a whole.
    fn expect_requires(&mut self) {
        let tests = self.tests.first.clone().map(|place| (place, "[[test]]"));
        let observe = self.observe_key.clone().map(|place| (place, OBSERVE));
        let Some((first, what)) = observe.or(tests) else { return };
        if self.requires.is_none_or(|version| version < FIRST_WITH_TESTS) {
            let message = format!("{what} needs cgruled {FIRST_WITH_TESTS} or later");
            let help = format!("write at the top of the file: requires = \"{FIRST_WITH_TESTS}\"");
            self.report.warning(Some(first), message, help);
        }
    }

    fn expect_version(&mut self) {
        let says_something = !self.rules.is_empty()
            || !self.groups.is_empty()
            || !self.units.is_empty()
            || self.tests.first.is_some();
        if self.version.is_none() && says_something {
            let help = format!("begin the file with: version = {VERSION}");
            self.report.warning(None, format!("missing version: read as version {VERSION}"), help);
        }
    }
}

/// Returns the destinations of a rule as written.
pub fn destinations(rule: &Rule) -> Vec<String> {
    let targets = rule.action.intended().written_targets().iter();
    targets.map(|target| target.destination.as_str().to_owned()).collect()
}

/// Returns the destination in a line such as `cgroup = "a"` of a section that is not valid TOML.
fn written_destination(line: &str) -> Option<String> {
    let value = line.trim_start().strip_prefix("cgroup")?.trim_start().strip_prefix('=')?;
    let value = value.trim_start();
    let quote = value.chars().next().filter(|quote| matches!(quote, '"' | '\''))?;
    value.get(1..)?.split(quote).next().map(str::to_owned)
}

/// Checks whether a section begins with `[[rule]]` or a mistyped form of it.
fn begins_rule(text: &str) -> bool {
    let inner = text.trim_start().trim_start_matches('[').trim_start();
    inner.strip_prefix("rule").is_some_and(|rest| rest.trim_start().starts_with(']'))
}

/// Checks whether a section that is not a rule contains a table of a rule. In a section that is not
/// valid TOML every further header may be meant as one, except those of cgroups, units and tests such
/// as `[cgroup.a.cpu]`.
fn may_continue_rule(text: &str, table: &DeTable<'_>, syntax: TomlStatus) -> bool {
    match syntax {
        TomlStatus::Right => table.contains_key("rule"),
        TomlStatus::Wrong => {
            let lines = text.trim_start().lines().skip(1);
            let mut headers = lines.filter_map(|line| line.trim_start().strip_prefix('['));
            headers.any(|header| {
                let word = header.split(['.', ']']).next().map(str::trim);
                !matches!(word, Some("cgroup" | "unit" | "test"))
            })
        }
    }
}

fn known_version(number: &DeInteger<'_>) -> Option<u32> {
    let found = u32::from_str_radix(number.as_str(), number.radix()).ok();
    found.filter(|&version| version == VERSION)
}

#[cfg(test)]
#[path = "rules_toml_tests.rs"]
mod tests;
