//! Values of `user`, `group` and `exe` → tests. Pure.

use std::collections::HashSet;
use std::ops::Range;

use toml::de::{DeInteger, DeTable, DeValue};

use super::table::{Piece, Value, alternatives, shortened};
use crate::event::{Gid, Uid};
use crate::rules::glob::Glob;
use crate::rules::{Criteria, ExeTest, GroupTest, UserTest};

/// The keys that are criteria.
pub(super) const CRITERIA_KEYS: [&str; 3] = ["user", "group", "exe"];
/// The key of a unit table that selects users.
pub(super) const USERS_KEY: &str = "users";
/// The kernel's "no id": no process has it, and `setuid(-1)` means "leave it".
const NO_ID: u32 = u32::MAX;

/// What a name in a rule names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameKind {
    /// A user.
    User,
    /// A group.
    Group,
    /// The groups whose names match a pattern.
    GroupPattern,
}

/// A user's or group's name in a rule, for complaints after the name service was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// What is named.
    pub kind: NameKind,
    /// The name.
    pub name: String,
    /// Its bytes in the file.
    pub span: Range<usize>,
}

/// Reads the criteria of a rule, or of its `not`. Values that are wrong are reported and left out:
/// the caller drops the rule when anything was reported.
pub(super) fn criteria(
    table: &DeTable<'_>,
    piece: &mut Piece<'_, '_>,
    mentions: &mut Vec<Mention>,
) -> Criteria {
    let users = each(table, "user", piece, user);
    let groups = each(table, "group", piece, group);
    let exes = each(table, "exe", piece, exe);
    for (test, span) in &users {
        if let UserTest::Name(name) = test {
            mention(NameKind::User, name, span, piece, mentions);
        }
    }
    for (test, span) in &groups {
        match test {
            GroupTest::Name(name) => mention(NameKind::Group, name, span, piece, mentions),
            GroupTest::Glob(glob) => {
                let pattern = String::from_utf8_lossy(glob.as_bytes());
                mention(NameKind::GroupPattern, &pattern, span, piece, mentions);
            }
            GroupTest::Ids(..) => {}
        }
    }
    Criteria { users: tests(users), groups: tests(groups), exes: tests(exes) }
}

/// Reads `users` of a unit table: the forms of the rule key `user`.
pub(super) fn users(
    table: &DeTable<'_>,
    piece: &mut Piece<'_, '_>,
    mentions: &mut Vec<Mention>,
) -> Vec<UserTest> {
    let users = each(table, USERS_KEY, piece, unit_user);
    for (test, span) in &users {
        if let UserTest::Name(name) = test {
            mention(NameKind::User, name, span, piece, mentions);
        }
    }
    tests(users)
}

fn mention(
    kind: NameKind,
    name: &str,
    span: &Range<usize>,
    piece: &Piece<'_, '_>,
    mentions: &mut Vec<Mention>,
) {
    mentions.push(Mention { kind, name: name.to_owned(), span: piece.span(span.clone()) });
}

/// The tests without their spans, in no more memory than they need: most rules have one, and there
/// may be 10,000 rules.
fn tests<T>(spanned: Vec<(T, Range<usize>)>) -> Vec<T> {
    let mut tests = Vec::with_capacity(spanned.len());
    tests.extend(spanned.into_iter().map(|(test, _)| test));
    tests
}

/// Reads one key, whose value is one alternative or a list of them.
fn each<T>(
    table: &DeTable<'_>,
    key: &str,
    piece: &mut Piece<'_, '_>,
    read: fn(&Value<'_>, &mut Piece<'_, '_>) -> Option<T>,
) -> Vec<(T, Range<usize>)> {
    let Some(value) = table.get(key) else { return Vec::new() };
    let alternatives = alternatives(value);
    if alternatives.is_empty() {
        let help = match key {
            USERS_KEY => "write users = [\"*\"] for all users".to_owned(),
            key => format!("leave {key} out to match every {key}"),
        };
        piece.error_help(value.span(), format!("{key} lists nothing"), help);
    }
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for alternative in alternatives {
        if !seen.insert(as_written(alternative)) {
            piece.warning(alternative.span(), format!("{key} lists this twice"), "leave one out");
        } else if let Some(test) = read(alternative, piece) {
            found.push((test, alternative.span()));
        }
    }
    found
}

/// What makes two alternatives the same.
fn as_written(value: &Value<'_>) -> String {
    match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => format!("{:?}", value.span()),
    }
}

fn user(value: &Value<'_>, piece: &mut Piece<'_, '_>) -> Option<UserTest> {
    Some(match id_or_name(value, "user", piece)? {
        IdOrName::Ids(first, last) => UserTest::Ids(Uid(first), Uid(last)),
        IdOrName::Glob(glob) => UserTest::Glob(glob),
        IdOrName::Name(name) => UserTest::Name(name),
    })
}

/// Reads one entry of `users`. The help of the rule key `user` for `@group` and `user:program` names keys that
/// a unit table does not have.
fn unit_user(value: &Value<'_>, piece: &mut Piece<'_, '_>) -> Option<UserTest> {
    if let DeValue::String(text) = value.get_ref() {
        if text.starts_with('@') || text.contains(':') {
            let message = format!("\"{}\" cannot be the name of a user", shortened(text));
            let help = "a unit table selects users by name, UID, range or pattern, not by group or program";
            piece.error_help(value.span(), message, help);
            return None;
        }
    }
    user(value, piece)
}

fn group(value: &Value<'_>, piece: &mut Piece<'_, '_>) -> Option<GroupTest> {
    Some(match id_or_name(value, "group", piece)? {
        IdOrName::Ids(first, last) => GroupTest::Ids(Gid(first), Gid(last)),
        IdOrName::Glob(glob) => GroupTest::Glob(glob),
        IdOrName::Name(name) => GroupTest::Name(name),
    })
}

enum IdOrName {
    Ids(u32, u32),
    Glob(Glob),
    Name(String),
}

fn id_or_name(value: &Value<'_>, what: &str, piece: &mut Piece<'_, '_>) -> Option<IdOrName> {
    if let DeValue::Integer(number) = value.get_ref() {
        let id = integer_id(number);
        return checked_id(id, value, what, piece).map(|id| IdOrName::Ids(id, id));
    }
    if !value.get_ref().is_str() {
        piece.wrong_type(value, what, "a name, a number or a list of these");
        return None;
    }
    let text = piece.string(value, what)?;
    if is_pattern(text) {
        return glob(value, text, piece).map(IdOrName::Glob);
    }
    let numeric = |c: char| c.is_ascii_digit() || c == '-' || c == ' ';
    if text.chars().all(numeric) && text.contains(|c: char| c.is_ascii_digit()) {
        return ids(value, text, what, piece);
    }
    if text.contains([':', '/']) || text.starts_with(['@', '%', '+', '-']) {
        let message = format!("\"{}\" cannot be the name of a {what}", shortened(text));
        piece.error_help(value.span(), message, name_help(text, what));
        return None;
    }
    Some(IdOrName::Name(text.to_owned()))
}

/// What may have been meant by something that is no name. `@group` and `user:program` are how
/// cgrules.conf says it.
fn name_help(text: &str, what: &str) -> String {
    match (text.strip_prefix('@'), text.split_once(':')) {
        (Some(name), _) if !name.is_empty() => format!("write group = \"{}\"", shortened(name)),
        (_, Some((name, exe))) if !name.is_empty() && !exe.is_empty() => {
            format!("write {what} = \"{}\" and exe = \"{}\"", shortened(name), shortened(exe))
        }
        _ => {
            "write a name, a number, a range as \"1000-1999\" or a pattern as \"site-*\"".to_owned()
        }
    }
}

/// A number or a range of numbers.
fn ids(value: &Value<'_>, text: &str, what: &str, piece: &mut Piece<'_, '_>) -> Option<IdOrName> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    if [first, last].iter().any(|part| part.is_empty() || part.contains(['-', ' '])) {
        let message = format!("\"{}\" is no range of ids", shortened(text));
        piece.error_help(value.span(), message, "write it as \"1000-1999\"");
        return None;
    }
    let first = checked_id(first.parse().ok(), value, what, piece)?;
    let last = checked_id(last.parse().ok(), value, what, piece)?;
    if first > last {
        let help = format!("write \"{last}-{first}\"");
        piece.error_help(value.span(), "the range ends before it begins", help);
        return None;
    }
    Some(IdOrName::Ids(first, last))
}

fn integer_id(number: &DeInteger<'_>) -> Option<u32> {
    u32::from_str_radix(number.as_str(), number.radix()).ok()
}

fn checked_id(
    id: Option<u32>,
    value: &Value<'_>,
    what: &str,
    piece: &mut Piece<'_, '_>,
) -> Option<u32> {
    let found = id.filter(|&id| id != NO_ID);
    if found.is_none() {
        let message = match id {
            Some(_) => format!("{NO_ID} is no {what} id: the kernel reads it as -1"),
            None => format!("{what} id is not between 0 and {}", NO_ID - 1),
        };
        piece.error(value.span(), message);
    }
    found
}

/// A backslash alone makes no pattern: it is in names, as in `DOMAIN\user`.
fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn glob(value: &Value<'_>, text: &str, piece: &mut Piece<'_, '_>) -> Option<Glob> {
    match Glob::parse(text.as_bytes()) {
        Ok(glob) => Some(glob),
        Err(error) => {
            let at = error.offset.min(text.len());
            let span = piece.within(&value.span(), text, at..at + 1);
            piece.error(span, error.message.to_string());
            None
        }
    }
}

fn exe(value: &Value<'_>, piece: &mut Piece<'_, '_>) -> Option<ExeTest> {
    if !value.get_ref().is_str() {
        piece.wrong_type(value, "exe", "a path, a name or a list of these");
        return None;
    }
    let text = piece.string(value, "exe")?;
    if let Some((message, help)) = exe_fault(text) {
        piece.error_help(value.span(), message, help);
        return None;
    }
    let absolute = text.starts_with('/');
    if is_pattern(text) {
        let glob = glob(value, text, piece)?;
        return Some(if absolute { ExeTest::PathGlob(glob) } else { ExeTest::BaseGlob(glob) });
    }
    let bytes = text.as_bytes().to_vec();
    Some(if absolute { ExeTest::Path(bytes) } else { ExeTest::Base(bytes) })
}

/// Why no executable can have this path, and what to write. The kernel gives absolute paths without
/// empty, `.` and `..` components.
fn exe_fault(text: &str) -> Option<(String, String)> {
    if !text.starts_with('/') {
        let last = text.rsplit('/').next().unwrap_or_default();
        if text.contains('/') {
            let help = format!("write it from / on, or \"{}\" for any directory", shortened(last));
            return Some(("exe is a relative path".to_owned(), help));
        }
        let is_dot = text == "." || text == "..";
        return is_dot.then(|| ("exe is a directory".to_owned(), "name a program".to_owned()));
    }
    if text.ends_with('/') {
        let help = format!("write \"{}**\" for every program below it", shortened(text));
        return Some(("exe is a directory".to_owned(), help));
    }
    let odd = text[1..].split('/').find(|part| matches!(*part, "" | "." | ".."))?;
    let message = match odd {
        "" => "exe has // in it".to_owned(),
        dots => format!("exe has /{dots}/ in it"),
    };
    Some((message, "write the path as `readlink -f` prints it".to_owned()))
}
