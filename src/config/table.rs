//! Reads TOML tables key by key and reports each invalid value; it has no defaults of its own.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::TextPosition;
use super::source_text::{Diagnostics, SourceText};

/// A value with its span.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// Help for syntax errors, by a part of the message of the TOML parser.
const SYNTAX_HELP: [(&str, &str); 6] = [
    ("unclosed array table", "close it with two brackets, as in [[rule]]"),
    (
        "unclosed table",
        "close it with a bracket, as in [cgroup.\"people\"]; a rule begins with [[rule]]",
    ),
    ("unclosed array", "close the list with ]"),
    ("key with no value", "write key = value, or # before a comment"),
    ("string values must be quoted", "write a text in quotes, as in user = \"alice\""),
    ("duplicate key", "remove one of both"),
];

/// Returns the help for a message of the TOML parser.
fn syntax_help(message: &str) -> Option<&'static str> {
    SYNTAX_HELP.iter().find(|(part, _)| message.contains(part)).map(|&(_, help)| help)
}

/// A parsed section of a text and its report. Spans are relative to the beginning of the section.
pub(super) struct TomlSection<'r, 't> {
    pub(super) report: &'r mut Diagnostics<'t>,
    offset: usize,
}

impl<'r, 't> TomlSection<'r, 't> {
    /// Creates the section that begins at byte `offset`.
    pub(super) fn new(report: &'r mut Diagnostics<'t>, offset: usize) -> Self {
        Self { report, offset }
    }

    /// Returns the span in the whole text.
    pub(super) fn span(&self, span: Range<usize>) -> Range<usize> {
        span.start + self.offset..span.end + self.offset
    }

    /// Returns the line, from 1, of a byte of the section.
    pub(super) fn line(&self, at: usize) -> u32 {
        self.text().line(at + self.offset)
    }

    /// Returns the place of a span in the whole text.
    pub(super) fn place(&self, span: Range<usize>) -> TextPosition {
        self.text().place(self.span(span))
    }

    pub(super) fn text(&self) -> &'t SourceText<'t> {
        self.report.text()
    }

    pub(super) fn error(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.report.error(self.span(span), message);
    }

    pub(super) fn error_help(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.report.error_help(self.span(span), message, help);
    }

    pub(super) fn warning(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.report.warning(Some(self.span(span)), message, help);
    }

    /// Returns the span of `inner`, a byte range of a string value, if the string is written
    /// without escapes; else that of the whole value.
    pub(super) fn within(
        &self,
        value: &Range<usize>,
        text: &str,
        inner: Range<usize>,
    ) -> Range<usize> {
        let whole = self.span(value.clone());
        let written = self.text().as_str().get(whole.start + 1..whole.end.saturating_sub(1));
        if written == Some(text) {
            value.start + 1 + inner.start..value.start + 1 + inner.end
        } else {
            value.clone()
        }
    }

    /// Parses the text as TOML and reports the first syntax error. Further ones are mostly consequences of
    /// it: after an unclosed bracket or string the following lines are read as its content.
    pub(super) fn parse<'i>(&mut self, text: &'i str) -> (DeTable<'i>, TomlStatus) {
        let (table, mut errors) = DeTable::parse_recoverable(text);
        errors.sort_by_key(|error| error.span().map(|span| (span.start, span.end)));
        let Some(first) = errors.first() else { return (table.into_inner(), TomlStatus::Right) };
        let span = first.span().unwrap_or(0..0);
        match syntax_help(first.message()) {
            Some(help) => self.error_help(span, first.message(), help),
            None => self.error(span, first.message()),
        }
        (table.into_inner(), TomlStatus::Wrong)
    }

    /// Reports each key that is not among `known`.
    pub(super) fn only_keys(&mut self, table: &DeTable<'_>, known: &[&str]) {
        for (key, _) in table.iter() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let message = format!("unknown key \"{}\"", shortened(name));
            let help = match did_you_mean(name, known) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("known keys: {}", known.join(", ")),
            };
            self.error_help(key.span(), message, help);
        }
    }

    /// Returns the string of a value, which must not be empty or contain control characters.
    pub(super) fn string<'v>(&mut self, value: &'v Value<'_>, what: &str) -> Option<&'v str> {
        let DeValue::String(text) = value.get_ref() else {
            self.wrong_type(value, what, "a string");
            return None;
        };
        if text.is_empty() {
            self.error(value.span(), format!("{what} is empty"));
            return None;
        }
        match text.char_indices().find(|(_, c)| c.is_control()) {
            Some((at, c)) => {
                let span = self.within(&value.span(), text, at..at + c.len_utf8());
                self.error(span, format!("{what} contains a control character"));
                None
            }
            None => Some(text),
        }
    }

    /// Returns a boolean value, or reports another type.
    pub(super) fn boolean(&mut self, value: &Value<'_>, what: &str) -> Option<bool> {
        let found = value.get_ref().as_bool();
        if found.is_none() {
            self.wrong_type(value, what, "true or false");
        }
        found
    }

    /// Returns an integer in `range`, or reports the value.
    pub(super) fn integer(
        &mut self,
        value: &Value<'_>,
        what: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        let DeValue::Integer(digits) = value.get_ref() else {
            self.wrong_type(value, what, "an integer");
            return None;
        };
        let found = i64::from_str_radix(digits.as_str(), digits.radix()).ok();
        let found = found.filter(|number| range.contains(number));
        if found.is_none() {
            let message = format!("{what} must be between {} and {}", range.start(), range.end());
            self.error(value.span(), message);
        }
        found
    }

    /// Returns a table, or reports another type.
    pub(super) fn table<'v, 'i>(
        &mut self,
        value: &'v Value<'i>,
        what: &str,
    ) -> Option<&'v DeTable<'i>> {
        let found = value.get_ref().as_table();
        if found.is_none() {
            self.wrong_type(value, what, "a table");
        }
        found
    }

    /// Returns the meaning of one of the allowed words, or reports the value.
    pub(super) fn word<T: Copy>(
        &mut self,
        value: &Value<'_>,
        what: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.string(value, what)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|&(_, meaning)| meaning);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            let help = match did_you_mean(text, &known) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("write one of: {}", known.join(", ")),
            };
            let message = format!("invalid value \"{}\" for {what}", shortened(text));
            self.error_help(value.span(), message, help);
        }
        found
    }

    /// Reports that `what` must be `wanted`.
    pub(super) fn wrong_type(&mut self, value: &Value<'_>, what: &str, wanted: &str) {
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        self.error(value.span(), format!("{what} must be {wanted}, not {article} {found}"));
    }
}

/// Returns the items of a list, or a single value as a list of one.
pub(super) fn alternatives<'v, 'i>(value: &'v Value<'i>) -> &'v [Value<'i>] {
    match value.get_ref().as_array() {
        Some(list) => list,
        None => std::slice::from_ref(value),
    }
}

/// The result of parsing a text as TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TomlStatus {
    /// The text is valid TOML.
    Right,
    /// The text has syntax errors; the recovered table may lack keys.
    Wrong,
}

/// Shortens text from a file to at most 60 characters for a message.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(60) {
        Some((end, _)) => Cow::Owned(format!("{}…", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Returns the known word at an edit distance of at most a third of its length.
pub(super) fn did_you_mean<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let lower = word.to_lowercase();
    let distances = known.iter().map(|&candidate| (distance(&lower, candidate), candidate));
    let near = distances.filter(|&(distance, candidate)| distance <= candidate.len().max(3) / 3);
    near.min_by_key(|&(distance, _)| distance).map(|(_, candidate)| candidate)
}

/// Returns the known word that differs by one or two letters. For words that may also be valid as
/// they are.
pub(crate) fn misspelled<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let distances = known.map(|candidate| (distance(word, candidate), candidate));
    let near = distances.filter(|&(distance, _)| (1..=2).contains(&distance));
    near.min_by_key(|&(distance, _)| distance).map(|(_, candidate)| candidate)
}

/// Returns the number of characters to insert, delete, replace or swap with a neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(40).collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_offered() {
        let known = ["user", "group", "exe", "cgroup", "priority"];
        assert_eq!(did_you_mean("usr", &known), Some("user"));
        assert_eq!(did_you_mean("User", &known), Some("user"));
        assert_eq!(did_you_mean("gruop", &known), Some("group"));
        assert_eq!(did_you_mean("cgruop", &known), Some("cgroup"));
        assert_eq!(did_you_mean("weight", &known), None);
        assert_eq!(did_you_mean("", &known), None);
    }

    #[test]
    fn a_word_that_may_be_right_must_be_nearer() {
        let known = ["cpu.weight", "io.max"];
        assert_eq!(misspelled("cpu.wieght", known.into_iter()), Some("cpu.weight"));
        assert_eq!(misspelled("io.mx", known.into_iter()), Some("io.max"));
        assert_eq!(misspelled("io.max", known.into_iter()), None);
        assert_eq!(misspelled("io.stat", known.into_iter()), None);
    }

    #[test]
    fn distance_counts_a_swap_once() {
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
    }
}
