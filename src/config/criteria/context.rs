//! Converts the values of `unit`, `from`, `below`, `login` and `argument` to tests, and collects those of `container`.

use toml::de::DeTable;

use super::container::containers;
use super::exe::exe;
use super::{NameRef, each, glob, is_pattern, mention_users, tests, user};
use crate::config::table::{TomlSection, Value, shortened};
use crate::rules::Criteria;
use crate::rules::context::{ArgumentTest, ContextCriteria, TextTest, UNIT_ENDINGS};

/// Reads the criteria on the context of a process. `None` if there are none.
pub(super) fn context(
    table: &DeTable<'_>,
    piece: &mut TomlSection<'_, '_>,
    mentions: &mut Vec<NameRef>,
) -> Option<Box<ContextCriteria>> {
    let units = units(table, "unit", piece);
    let from = tests(each(table, "from", piece, cgroup));
    let below = tests(each(table, "below", piece, |value, piece| exe(value, "below", piece)));
    let containers = containers(table, piece, mentions);
    let logins = each(table, "login", piece, |value, piece| user(value, "login", piece));
    mention_users(&logins, piece, mentions);
    let arguments = arguments(table, piece);
    let logins = tests(logins);
    let found = ContextCriteria {
        units,
        from,
        below,
        below_any_user: false,
        containers,
        logins,
        arguments,
    };
    (found != ContextCriteria::default()).then(|| Box::new(found))
}

/// Reads `below_any_user`, which concerns the programs of ancestors that the rule requires and excludes.
pub(in crate::config) fn below_any_user(
    table: &DeTable<'_>,
    piece: &mut TomlSection<'_, '_>,
    [when, not]: [&mut Criteria; 2],
) {
    let Some(value) = table.get("below_any_user") else { return };
    if piece.boolean(value, "below_any_user") != Some(true) {
        return;
    }
    let contexts = [when, not].map(|criteria| criteria.context.as_deref_mut());
    let mut has_effect = false;
    for context in contexts.into_iter().flatten().filter(|context| !context.below.is_empty()) {
        context.below_any_user = true;
        has_effect = true;
    }
    if !has_effect && !names_below(table) {
        piece.warning(value.span(), "below_any_user has no effect without below", "remove it");
    }
}

/// Checks whether the rule has the key `below`, perhaps with an invalid value.
fn names_below(table: &DeTable<'_>) -> bool {
    let negated = table.get("not").and_then(|not| not.get_ref().as_table());
    [Some(table), negated].into_iter().flatten().any(|table| table.contains_key("below"))
}

/// Reads a key with units: names, patterns or a list of these.
pub(in crate::config) fn units(
    table: &DeTable<'_>,
    key: &str,
    piece: &mut TomlSection<'_, '_>,
) -> Vec<TextTest> {
    tests(each(table, key, piece, |value, piece| unit(value, key, piece)))
}

/// Reads the name of a unit, or a pattern.
fn unit(value: &Value<'_>, key: &str, piece: &mut TomlSection<'_, '_>) -> Option<TextTest> {
    let wanted = match key {
        "leave_units" => "true, false, the name of a systemd unit, a pattern or a list of units",
        _ => "the name of a systemd unit, a pattern or a list of these",
    };
    let text = text(value, key, wanted, piece)?;
    // A pattern such as "user@*" has no ending of its own.
    let may_end =
        text.ends_with(['*', '?', ']']) || UNIT_ENDINGS.iter().any(|end| text.ends_with(end));
    let help = if text.contains('/') {
        format!("write from = \"{}\" for a cgroup", shortened(text))
    } else if text.ends_with(".slice") {
        "a slice contains units; write from = \"/user.slice/**\" for all processes below a slice"
            .to_owned()
    } else if !may_end {
        format!("write \"{}.service\", or another unit that has processes", shortened(text))
    } else {
        return test(value, text, piece);
    };
    let message = format!("\"{}\" is not a unit with processes", shortened(text));
    piece.error_help(value.span(), message, help);
    None
}

/// Reads `argument`: alternatives for any argument, or a table of positions with alternatives for each.
fn arguments(table: &DeTable<'_>, piece: &mut TomlSection<'_, '_>) -> Vec<ArgumentTest> {
    let Some(value) = table.get("argument") else { return Vec::new() };
    let Some(positions) = value.get_ref().as_table() else {
        let tests = tests(each(table, "argument", piece, argument));
        return vec![ArgumentTest { position: None, tests }];
    };
    if positions.is_empty() {
        piece.error_help(value.span(), "argument is empty", "write argument.1 = \"--daemon\"");
    }
    let mut found = Vec::new();
    for (key, _) in positions.iter() {
        let name = key.get_ref();
        let position = Some(name).filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(position) = position.and_then(|name| name.parse().ok()) else {
            let message = format!("\"{}\" is not the position of an argument", shortened(name));
            let help = "write argument.1 for the first one, or argument = \"text\" for any";
            piece.error_help(key.span(), message, help);
            continue;
        };
        let tests = tests(each(positions, name, piece, argument));
        found.push(ArgumentTest { position: Some(position), tests });
    }
    found
}

/// Reads an argument, or a pattern.
fn argument(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Option<TextTest> {
    if !value.get_ref().is_str() {
        piece.wrong_type(value, "argument", "an argument, a pattern or a list of these");
        return None;
    }
    let text = piece.string(value, "argument")?;
    if !is_pattern(text) {
        return Some(TextTest::Is(text.as_bytes().into()));
    }
    // Arguments are no paths, so that a star also means slashes.
    glob(value, text, piece).map(|pattern| TextTest::Matches(pattern.across_slashes()))
}

/// Reads the path of a cgroup, or a pattern.
fn cgroup(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Option<TextTest> {
    let text = text(value, "from", "the path of a cgroup, a pattern or a list of these", piece)?;
    let help = if !text.starts_with('/') {
        format!("write the path as /proc/PID/cgroup shows it: \"/{}\"", shortened(text))
    } else if text.ends_with('/') && text.len() > 1 {
        format!("write \"{}**\" to match every cgroup below it", shortened(text))
    } else if text[1..].split('/').any(|part| matches!(part, "." | "..")) || text.contains("//") {
        "write the path as /proc/PID/cgroup shows it".to_owned()
    } else {
        return test(value, text, piece);
    };
    let message = format!("\"{}\" is not the path of a cgroup", shortened(text));
    piece.error_help(value.span(), message, help);
    None
}

fn text<'v>(
    value: &'v Value<'_>,
    key: &str,
    wanted: &str,
    piece: &mut TomlSection<'_, '_>,
) -> Option<&'v str> {
    if !value.get_ref().is_str() {
        piece.wrong_type(value, key, wanted);
        return None;
    }
    piece.string(value, key)
}

fn test(value: &Value<'_>, text: &str, piece: &mut TomlSection<'_, '_>) -> Option<TextTest> {
    if is_pattern(text) {
        return glob(value, text, piece).map(TextTest::Matches);
    }
    Some(TextTest::Is(text.as_bytes().into()))
}
