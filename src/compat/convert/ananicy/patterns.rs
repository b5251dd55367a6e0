//! Adds the rules with regular expressions of names, which ananicy-cpp tries for a program that no rule names.

use serde_json::Value;

use super::rule_text::{rule_text, title};
use super::selection::Selection;
use super::{AnanicyFile, AnanicyObject, NO_RULE, RuleSet, group, is_rule, name_regex};
use crate::rules::{Criteria, ExeTest, Origin};

const REGEX: &str = "name_regex";

/// A rule with a place in its file.
#[derive(Clone, Copy)]
struct PlacedRule<'f, 's> {
    file: &'f AnanicyFile<'s>,
    number: u32,
    object: &'f AnanicyObject,
}

impl PlacedRule<'_, '_> {
    fn has_regex(&self) -> bool {
        self.object.contains_key(REGEX)
    }

    fn origin(&self) -> Origin {
        Origin { file: self.file.source.file.clone(), line: self.number }
    }

    /// Returns the tests for its regular expression.
    fn tests(&self) -> Result<Vec<ExeTest>, String> {
        let regex = self.object.get(REGEX).and_then(Value::as_str);
        regex.ok_or_else(|| format!("invalid {REGEX}: not a text")).and_then(name_regex::tests)
    }
}

impl RuleSet<'_> {
    /// Adds the rules with regular expressions, up to the last one with a cgroup.
    pub(super) fn patterns(&mut self, files: &[AnanicyFile<'_>]) {
        let rules = files.iter().flat_map(|file| {
            file.objects.iter().map(move |(number, object)| PlacedRule {
                file,
                number: *number,
                object,
            })
        });
        let rules: Vec<PlacedRule<'_, '_>> = rules.filter(|rule| is_rule(rule.object)).collect();
        let moves =
            |rule: &PlacedRule<'_, '_>| rule.has_regex() && self.cgroup_of(rule.object).is_some();
        let Some(last) = rules.iter().rposition(moves) else { return };
        self.draft.blank();
        self.draft.comment("# Regular expressions, for programs that no rule of ananicy names");
        let mut patterns = Vec::new();
        for rule in rules[..=last].iter().filter(|rule| rule.has_regex()) {
            match rule.tests() {
                Ok(exes) => patterns.push((rule, exes)),
                Err(why) => self.draft.lost(&rule.file.lines, rule.number, &why, NO_RULE),
            }
        }
        let Some((first, _)) = patterns.first() else { return };
        let named = self.named(&rules, &patterns.iter().flat_map(|(_, exes)| exes));
        if !named.is_empty() {
            self.draft.comment("# Named by rules without a cgroup: no regular expression counts.");
            self.add(first, "names without a cgroup", named, None);
        }
        for (rule, exes) in patterns {
            let name = format!("{} ({REGEX})", title(&rule.origin()));
            let cgroup = self.cgroup_of(rule.object).map(str::to_owned);
            self.add(rule, &name, exes, cgroup.as_deref());
        }
    }

    /// Returns tests for the names of rules without a cgroup that a regular expression accepts too.
    fn named<'t>(
        &self,
        rules: &[PlacedRule<'_, '_>],
        patterns: &(impl Iterator<Item = &'t ExeTest> + Clone),
    ) -> Vec<ExeTest> {
        let names = rules.iter().filter(|rule| self.cgroup_of(rule.object).is_none());
        let names = names.filter_map(|rule| {
            let name = rule.object.get("name").and_then(Value::as_str)?;
            let selection = Selection::of(name, rule.object).ok()?;
            let is_accepted = patterns.clone().any(|test| accepts(test, name.as_bytes()));
            (is_accepted && !name.is_empty() && selection.arguments.is_empty()).then_some(name)
        });
        let names: std::collections::BTreeSet<&str> = names.collect();
        names.into_iter().map(|name| ExeTest::Base(name.as_bytes().to_vec())).collect()
    }

    fn add(
        &mut self,
        rule: &PlacedRule<'_, '_>,
        name: &str,
        exes: Vec<ExeTest>,
        cgroup: Option<&str>,
    ) {
        let when = Criteria { exes, ..Criteria::default() };
        self.draft.blank();
        match rule_text(name, rule.origin(), when.clone(), cgroup.map(group)) {
            Ok(text) => self.draft.rule(&text, &when),
            Err(why) => self.draft.lost(&rule.file.lines, rule.number, &why, NO_RULE),
        }
    }
}

fn accepts(test: &ExeTest, name: &[u8]) -> bool {
    match test {
        ExeTest::Base(own) => own == name,
        ExeTest::BaseGlob(glob) => glob.matches(name),
        ExeTest::Path(_) | ExeTest::PathGlob(_) => false,
    }
}
