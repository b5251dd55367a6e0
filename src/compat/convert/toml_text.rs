//! Writes values and rules as TOML and checks that the text has the intended meaning; it collects
//! no diagnostics.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use crate::config::rules_toml;
use crate::rules::context::{ArgumentTest, ContextCriteria, TextTest};
use crate::rules::destination::{Destination, DestinationPart, Specifier};
use crate::rules::{Action, Criteria, ExeTest, GroupTest, LeaveUnits, Rule, UserTest};

/// Returns a string in quotes, with escapes.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            other if other.is_control() => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04X}", u32::from(other));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// Returns a list of quoted strings.
pub(super) fn list(items: &[impl AsRef<str>]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item.as_ref())).collect();
    format!("[{}]", items.join(", "))
}

/// Returns the text without control characters, so that it stays in one comment.
pub(super) fn comment(text: &str) -> String {
    let text = text.trim_end_matches(['\r', '\n', ' ', '\t']);
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Returns a destination in the syntax of a TOML rule.
pub(super) fn destination(destination: &Destination) -> String {
    let pieces = destination.pieces();
    if pieces.is_empty() {
        return "/".to_owned();
    }
    let piece = |piece: DestinationPart| match piece {
        DestinationPart::Literal(text) => text.replace('%', "%%"),
        DestinationPart::Field(field) => format!("%{}", letter(field)),
    };
    pieces.into_iter().map(piece).collect()
}

const fn letter(field: Specifier) -> char {
    match field {
        Specifier::UserName => 'u',
        Specifier::UserId => 'U',
        Specifier::GroupName => 'g',
        Specifier::GroupId => 'G',
        Specifier::Program => 'p',
        Specifier::ProcessId => 'P',
    }
}

/// Returns a program in the syntax of a TOML rule. Names of legacy rules are literal.
pub(super) fn exe(test: &ExeTest) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match test {
        ExeTest::PathGlob(glob) | ExeTest::BaseGlob(glob) => text(glob.as_bytes()),
        ExeTest::Path(literal) | ExeTest::Base(literal) => literally(&text(literal)),
    }
}

/// Returns a text or a pattern in the syntax of a TOML rule.
pub(super) fn text_test(test: &TextTest) -> String {
    let text = String::from_utf8_lossy(test.as_bytes()).into_owned();
    match test {
        TextTest::Is(_) => literally(&text),
        TextTest::Matches(_) => text,
    }
}

/// Escapes a name so that it is not a pattern. Outside of patterns a backslash is literal.
pub(super) fn literally(text: &str) -> String {
    if !text.contains(['*', '?', '[']) {
        return text.to_owned();
    }
    let escaped = |c: char| [matches!(c, '*' | '?' | '[' | '\\').then_some('\\'), Some(c)];
    text.chars().flat_map(escaped).flatten().collect()
}

/// Checks whether a TOML rule is equivalent to `meant`.
///
/// # Errors
/// Returns the difference.
pub(super) fn says(text: &str, meant: &Rule) -> Result<(), String> {
    let file: Arc<Path> = Arc::from(Path::new("/converted.toml"));
    let parsed = rules_toml::parse(&file, &format!("version = 1\n{text}"));
    if let Some(error) = parsed.diagnostics.iter().find(|diagnostic| diagnostic.is_error()) {
        return Err(error.message.clone());
    }
    let [read] = &*parsed.rules else {
        return Err("it would not be read as one rule".to_owned());
    };
    let is_same = same_criteria(&read.rule.when, &meant.when)
        && read.rule.not.is_empty()
        && (meant.when.exes.is_empty() || read.rule.exe_anywhere == meant.exe_anywhere)
        && leaves_units(&read.rule) == leaves_units(meant)
        && read.rule.is_gated == meant.is_gated
        && same_action(&read.rule.action, &meant.action);
    is_same.then_some(()).ok_or_else(|| "a TOML rule would have a different meaning".to_owned())
}

fn leaves_units(rule: &Rule) -> bool {
    let moves = matches!(&rule.action, Action::Place(_));
    moves && rule.leave_units != LeaveUnits::No
}

fn same_criteria(read: &Criteria, meant: &Criteria) -> bool {
    let read_users: Vec<&UserTest> = read.users.iter().filter(|test| !is_anybody(test)).collect();
    let meant_groups: Vec<&GroupTest> = meant.groups.iter().collect();
    read_users == meant.users.iter().collect::<Vec<_>>()
        && read.groups.iter().collect::<Vec<_>>() == meant_groups
        && read.exes.len() == meant.exes.len()
        && read.exes.iter().zip(&meant.exes).all(|(read, meant)| same_exe(read, meant))
        && match (&read.context, &meant.context) {
            (Some(read), Some(meant)) => same_context(read, meant),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
}

fn same_context(read: &ContextCriteria, meant: &ContextCriteria) -> bool {
    let same_argument = |(read, meant): (&ArgumentTest, &ArgumentTest)| {
        read.position == meant.position && same_texts(&read.tests, &meant.tests)
    };
    let compared = |context: &ContextCriteria| ContextCriteria {
        from: Vec::new(),
        arguments: Vec::new(),
        ..context.clone()
    };
    compared(read) == compared(meant)
        && same_texts(&read.from, &meant.from)
        && read.arguments.len() == meant.arguments.len()
        && read.arguments.iter().zip(&meant.arguments).all(same_argument)
}

fn same_texts(read: &[TextTest], meant: &[TextTest]) -> bool {
    read.len() == meant.len()
        && read.iter().zip(meant).all(|(read, meant)| text_parts(read) == text_parts(meant))
}

/// Returns the literal prefix of a test, and the pattern after it.
fn text_parts(test: &TextTest) -> (Vec<u8>, &[u8]) {
    match test {
        TextTest::Is(text) => (text.to_vec(), &[]),
        TextTest::Matches(glob) => (glob.literal_prefix().into_owned(), glob.split_prefix().1),
    }
}

fn is_anybody(test: &UserTest) -> bool {
    match test {
        UserTest::Glob(glob) => glob.is_any(),
        UserTest::Name(_) | UserTest::NameOrId(..) | UserTest::Human(_) | UserTest::Ids(..) => {
            false
        }
    }
}

/// Returns the parts that a test compares: whether it tests the path, the literal prefix, the
/// pattern after it.
fn parts(test: &ExeTest) -> (bool, Vec<u8>, &[u8]) {
    match test {
        ExeTest::Path(text) => (true, text.clone(), &[]),
        ExeTest::Base(text) => (false, text.clone(), &[]),
        ExeTest::PathGlob(glob) => {
            (true, glob.literal_prefix().into_owned(), glob.split_prefix().1)
        }
        ExeTest::BaseGlob(glob) => {
            (false, glob.literal_prefix().into_owned(), glob.split_prefix().1)
        }
    }
}

fn same_exe(read: &ExeTest, meant: &ExeTest) -> bool {
    parts(read) == parts(meant)
}

/// Checks whether an action moves processes to the first target of another, or leaves them alike.
fn same_action(read: &Action, meant: &Action) -> bool {
    match (read, meant) {
        (Action::Place(read), Action::Place(meant)) => match (read.first(), meant.first()) {
            (Some(read), Some(meant)) => read.destination.pieces() == meant.destination.pieces(),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        },
        // A process is left in its cgroup both by ignoring it and by a rule that cannot be applied.
        (Action::Ignore(when), Action::Inapplicable(_)) => when.is_always(),
        (Action::Ignore(read), Action::Ignore(meant)) => read == meant,
        (Action::Ignore(_), Action::Place(_))
        | (Action::Place(_), Action::Ignore(_) | Action::Inapplicable(_))
        | (Action::Inapplicable(_) | Action::Observe(_), _)
        | (_, Action::Observe(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_so_that_toml_reads_them_back() {
        for text in ["a", "a\"b", "a\\b", "a\nb", "\u{7f}", "ü"] {
            let parsed: toml::Table = format!("key = {}", quoted(text)).parse().unwrap();
            assert_eq!(parsed["key"].as_str(), Some(text));
        }
    }

    #[test]
    fn names_stay_names() {
        assert_eq!(literally("a\\b"), "a\\b");
        assert_eq!(literally("a*[\\"), "a\\*\\[\\\\");
    }
}
