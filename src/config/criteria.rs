//! Converts the values of the criteria of a rule to tests; it resolves no names.

pub(super) mod account;
mod container;
mod context;
mod exe;

pub(super) use container::leave_containers;
pub(super) use context::{below_any_user, units};
use exe::exe;

use std::collections::HashSet;
use std::ops::Range;

use toml::de::{DeInteger, DeTable, DeValue};

use super::table::{TomlSection, Value, alternatives, shortened};
use crate::event::{Gid, Uid};
use crate::rules::glob::Glob;
use crate::rules::human::{HUMAN, HumanUids};
use crate::rules::{Criteria, GroupTest, UserTest};

pub(super) const CRITERIA_KEYS: [&str; 9] =
    ["user", "group", "exe", "unit", "from", "below", "container", "login", "argument"];
/// The key of a unit table that selects users.
pub(super) const USERS_KEY: &str = "users";
/// The kernel's invalid ID: no process has it, and `setuid(-1)` leaves the ID unchanged.
const NO_ID: u32 = u32::MAX;

/// The kind of a name in a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameKind {
    /// One user, from the key `user` or `users`.
    User,
    /// One group, from the key `group`.
    Group,
    /// All groups with a name that matches a pattern.
    GroupPattern,
}

/// A reference to a user or group by name, kept for diagnostics after name resolution.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameRef {
    /// The kind of the name, a user or a group.
    pub kind: NameKind,
    /// The name or pattern as written.
    pub name: String,
    /// The byte range in the file.
    pub span: Range<usize>,
}

/// Reads the criteria of a rule, or of its `not`. Invalid values are reported and omitted: the
/// caller drops the rule when anything was reported.
pub(super) fn criteria(
    table: &DeTable<'_>,
    piece: &mut TomlSection<'_, '_>,
    mentions: &mut Vec<NameRef>,
) -> Criteria {
    let users = each(table, "user", piece, |value, piece| user(value, "user", piece));
    let groups = each(table, "group", piece, group);
    let exes = each(table, "exe", piece, |value, piece| exe(value, "exe", piece));
    mention_users(&users, piece, mentions);
    for (test, span) in &groups {
        match test {
            GroupTest::Name(name) | GroupTest::NameOrId(name, _) => {
                mention(NameKind::Group, name, span, piece, mentions);
            }
            GroupTest::Glob(glob) => {
                let pattern = String::from_utf8_lossy(glob.as_bytes());
                mention(NameKind::GroupPattern, &pattern, span, piece, mentions);
            }
            GroupTest::Ids(..) => {}
        }
    }
    let context = context::context(table, piece, mentions);
    Criteria { users: tests(users), groups: tests(groups), exes: tests(exes), context }
}

/// Reads `users` of a unit table, which accepts the forms of the rule key `user`.
pub(super) fn users(
    table: &DeTable<'_>,
    piece: &mut TomlSection<'_, '_>,
    mentions: &mut Vec<NameRef>,
) -> Vec<UserTest> {
    let users = each(table, USERS_KEY, piece, unit_user);
    mention_users(&users, piece, mentions);
    tests(users)
}

fn mention_users(
    tests: &[(UserTest, Range<usize>)],
    piece: &TomlSection<'_, '_>,
    mentions: &mut Vec<NameRef>,
) {
    for (test, span) in tests {
        if let UserTest::Name(name) | UserTest::NameOrId(name, _) = test {
            mention(NameKind::User, name, span, piece, mentions);
        }
    }
}

fn mention(
    kind: NameKind,
    name: &str,
    span: &Range<usize>,
    piece: &TomlSection<'_, '_>,
    mentions: &mut Vec<NameRef>,
) {
    mentions.push(NameRef { kind, name: name.to_owned(), span: piece.span(span.clone()) });
}

/// Returns the tests without their spans.
fn tests<T>(spanned: Vec<(T, Range<usize>)>) -> Vec<T> {
    // Exact capacity: most rules have one test, and there may be 10,000 rules.
    let mut tests = Vec::with_capacity(spanned.len());
    tests.extend(spanned.into_iter().map(|(test, _)| test));
    tests
}

/// Reads one key with one alternative or a list of them.
fn each<T>(
    table: &DeTable<'_>,
    key: &str,
    piece: &mut TomlSection<'_, '_>,
    read: impl Fn(&Value<'_>, &mut TomlSection<'_, '_>) -> Option<T>,
) -> Vec<(T, Range<usize>)> {
    let Some(value) = table.get(key) else { return Vec::new() };
    let alternatives = alternatives(value);
    if alternatives.is_empty() {
        let help = match key {
            USERS_KEY => "write users = [\"*\"] for all users".to_owned(),
            "leave_units" => "write leave_units = true to leave every unit".to_owned(),
            "containers" => "write containers = true to leave every container".to_owned(),
            "container" => "write container = true to match every container of root".to_owned(),
            key => format!("remove {key} to match every {key}"),
        };
        piece.error_help(value.span(), format!("{key} is an empty list"), help);
    }
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for alternative in alternatives {
        if !seen.insert(as_written(alternative)) {
            piece.warning(
                alternative.span(),
                format!("duplicate entry in {key}"),
                "remove one of them",
            );
        } else if let Some(test) = read(alternative, piece) {
            found.push((test, alternative.span()));
        }
    }
    found
}

/// Returns the text by which duplicates are detected.
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

fn user(value: &Value<'_>, key: &str, piece: &mut TomlSection<'_, '_>) -> Option<UserTest> {
    if value.get_ref().as_str() == Some(HUMAN) {
        return Some(UserTest::Human(HumanUids::default()));
    }
    id_or_name(value, key, piece).map(user_test)
}

fn user_test(id: IdOrName) -> UserTest {
    match id {
        IdOrName::Ids(first, last) => UserTest::Ids(Uid(first), Uid(last)),
        IdOrName::Glob(glob) => UserTest::Glob(glob),
        IdOrName::Name(name) => UserTest::Name(name),
        IdOrName::NameOrId(name, id) => UserTest::NameOrId(name, Uid(id)),
    }
}

/// Reads one entry of `users`.
fn unit_user(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Option<UserTest> {
    // The help of the rule key `user` would suggest keys that a unit table does not have.
    if let DeValue::String(text) = value.get_ref() {
        if text.starts_with('@') && text != HUMAN || text.contains(':') {
            let message = format!("invalid user name \"{}\"", shortened(text));
            let help = "a unit table selects users by name, UID, range or pattern, not by group or program";
            piece.error_help(value.span(), message, help);
            return None;
        }
    }
    user(value, "user", piece)
}

fn group(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Option<GroupTest> {
    Some(match id_or_name(value, "group", piece)? {
        IdOrName::Ids(first, last) => GroupTest::Ids(Gid(first), Gid(last)),
        IdOrName::Glob(glob) => GroupTest::Glob(glob),
        IdOrName::Name(name) => GroupTest::Name(name),
        IdOrName::NameOrId(name, id) => GroupTest::NameOrId(name, Gid(id)),
    })
}

enum IdOrName {
    Ids(u32, u32),
    Glob(Glob),
    Name(String),
    NameOrId(String, u32),
}

fn id_or_name(value: &Value<'_>, what: &str, piece: &mut TomlSection<'_, '_>) -> Option<IdOrName> {
    if let DeValue::Integer(number) = value.get_ref() {
        let id = integer_id(number);
        return checked_id(id, value, what, piece).map(|id| IdOrName::Ids(id, id));
    }
    if !value.get_ref().is_str() {
        piece.wrong_type(value, what, "a name, a number or a list of these");
        return None;
    }
    let text = piece.string(value, what)?;
    named_ids(value, text, what, piece)
}

/// Reads a name, an ID, a range of IDs or a pattern in a string.
fn named_ids(
    value: &Value<'_>,
    text: &str,
    what: &str,
    piece: &mut TomlSection<'_, '_>,
) -> Option<IdOrName> {
    if is_pattern(text) {
        let glob = glob(value, text, piece)?;
        warn_of_escapes(value, text, what, piece);
        return Some(IdOrName::Glob(glob));
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return name_of_digits(value, text, what, piece);
    }
    if text.chars().all(|c| matches!(c, '0'..='9' | '-' | ' '))
        && text.contains(|c: char| c.is_ascii_digit())
    {
        return ids(value, text, what, piece);
    }
    if text.contains([':', '/']) || text.starts_with(['@', '%', '+', '-']) {
        let message = format!("invalid {what} name \"{}\"", shortened(text));
        piece.error_help(value.span(), message, name_help(text, what));
        return None;
    }
    Some(IdOrName::Name(text.to_owned()))
}

/// Reports a backslash before a wildcard: the pattern of a name such as `DOMAIN\user` needs two, and
/// no name contains a wildcard that one could escape.
fn warn_of_escapes(value: &Value<'_>, text: &str, what: &str, piece: &mut TomlSection<'_, '_>) {
    let mut meant = String::new();
    let mut has_escape = false;
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        meant.push(character);
        match (character, rest.peek()) {
            ('\\', Some('*' | '?' | '[')) => {
                has_escape = true;
                meant.push('\\');
            }
            // The second of two: the next character is not escaped.
            ('\\', Some('\\')) => meant.extend(rest.next()),
            _ => {}
        }
    }
    if has_escape {
        let message = format!(
            "\"{}\" matches no {what}: \\ removes the meaning of the wildcard after it",
            shortened(text)
        );
        let help =
            format!("write '{}', in single quotes, for names with a backslash", shortened(&meant));
        piece.warning(value.span(), message, help);
    }
}

/// Suggests a replacement for an invalid name. `@group` and `user:program` are `cgrules.conf`
/// syntax.
fn name_help(text: &str, what: &str) -> String {
    if text == HUMAN {
        return format!("write user = \"{HUMAN}\": it selects users");
    }
    match (text.strip_prefix('@'), text.split_once(':')) {
        (Some(name), _) if !name.is_empty() => format!("write group = \"{}\"", shortened(name)),
        (_, Some((name, exe))) if !name.is_empty() && !exe.is_empty() => {
            format!("write {what} = \"{}\" and exe = \"{}\"", shortened(name), shortened(exe))
        }
        _ => "write a name, an ID, a range such as \"1000-1999\" or a pattern such as \"site-*\""
            .to_owned(),
    }
}

/// Reads a text of digits: a name, because sites name accounts by student or staff numbers, or an ID
/// if no account has that name. A number that is too large for an ID can only be a name.
fn name_of_digits(
    value: &Value<'_>,
    text: &str,
    what: &str,
    piece: &mut TomlSection<'_, '_>,
) -> Option<IdOrName> {
    let name = text.to_owned();
    match text.parse() {
        Ok(id) => checked_id(Some(id), value, what, piece).map(|id| IdOrName::NameOrId(name, id)),
        Err(_) => Some(IdOrName::Name(name)),
    }
}

/// Reads a range of IDs.
fn ids(
    value: &Value<'_>,
    text: &str,
    what: &str,
    piece: &mut TomlSection<'_, '_>,
) -> Option<IdOrName> {
    let (first, last) = text.split_once('-').unwrap_or((text, ""));
    if [first, last].iter().any(|part| part.is_empty() || part.contains(['-', ' '])) {
        let message = format!("invalid ID range \"{}\"", shortened(text));
        piece.error_help(value.span(), message, "write a range such as \"1000-1999\"");
        return None;
    }
    let first = checked_id(first.parse().ok(), value, what, piece)?;
    let last = checked_id(last.parse().ok(), value, what, piece)?;
    if first > last {
        let help = format!("write \"{last}-{first}\"");
        piece.error_help(value.span(), "invalid ID range: the first ID is above the last", help);
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
    piece: &mut TomlSection<'_, '_>,
) -> Option<u32> {
    let found = id.filter(|&id| id != NO_ID);
    if found.is_none() {
        let message = match id {
            Some(_) => format!("invalid {what} ID {NO_ID}: the kernel reads it as -1"),
            None => format!("{what} ID must be between 0 and {}", NO_ID - 1),
        };
        piece.error(value.span(), message);
    }
    found
}

/// Checks whether a text is a pattern. A backslash alone does not make one: it occurs in names such
/// as `DOMAIN\user`.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

fn glob(value: &Value<'_>, text: &str, piece: &mut TomlSection<'_, '_>) -> Option<Glob> {
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
