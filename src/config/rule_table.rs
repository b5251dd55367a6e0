//! Parses one `[[rule]]` of a rule file; it resolves no names.

use std::ops::Range;
use std::sync::Arc;

use toml::de::DeTable;

use super::criteria::{self, CRITERIA_KEYS, NameRef};
use super::gate::{self, GATE, GatedPath};
use super::observe::OBSERVE;
use super::table::{TomlSection, Value, alternatives, shortened};
use crate::rules::destination::Destination;
use crate::rules::{Action, Criteria, LeaveUnits, Origin, PathBase, Rule, Target};

/// The keys of a rule.
pub const RULE_KEYS: [&str; 21] = [
    "name",
    "user",
    "group",
    "exe",
    "unit",
    "from",
    "below",
    "container",
    "login",
    "argument",
    "not",
    "cgroup",
    "controllers",
    "ignore",
    OBSERVE,
    "priority",
    "exe_anywhere",
    "below_any_user",
    "leave_units",
    "containers",
    GATE,
];

/// A rule as written, with unresolved names and not yet sorted among the rules of other files.
#[derive(Clone, Debug)]
pub struct WrittenRule {
    /// The rule, with names that are not yet resolved.
    pub rule: Rule,
    /// The priority; higher values come first.
    pub priority: i32,
    /// The user and group names in the rule, in no particular order.
    pub mentions: Vec<NameRef>,
    /// The files of a gated rule that acts, in the order of `exe`; none for other rules.
    pub gated: Vec<GatedPath>,
}

/// Reads a rule; `observes` is whether it observes unless it says otherwise. The caller drops it when
/// anything was reported meanwhile.
pub(super) fn read(
    table: &DeTable<'_>,
    header: Range<usize>,
    observes: bool,
    piece: &mut TomlSection<'_, '_>,
) -> Option<WrittenRule> {
    piece.only_keys(table, &RULE_KEYS);
    let mut mentions = Vec::new();
    let mut when = criteria::criteria(table, piece, &mut mentions);
    if !CRITERIA_KEYS.iter().any(|&key| table.contains_key(key)) {
        let help = "write user = \"*\" to match every process";
        piece.error_help(header.clone(), "rule without criteria", help);
    }
    let mut not = negated(table, piece, &mut mentions);
    criteria::below_any_user(table, piece, [&mut when, &mut not]);
    let priority = table.get("priority").map_or(Some(0), |value| priority(value, piece));
    let exe_anywhere = exe_anywhere(table, piece);
    let leave_units = leave_units(table, piece);
    let leave_containers = criteria::leave_containers(table, piece, &mut mentions);
    let observes = match table.get(OBSERVE) {
        Some(value) => piece.boolean(value, OBSERVE).unwrap_or(true),
        None => observes,
    };
    let gated = gate::read(table, observes, piece);
    let action = action(table, &header, piece);
    let first = table.iter().map(|(key, _)| key.span().start).min().unwrap_or(header.start);
    let origin = Origin { file: piece.text().file().clone(), line: piece.line(first) };
    let name = match table.get("name") {
        Some(value) => Arc::from(piece.string(value, "name")?),
        None => default_name(&origin),
    };
    let not = not.into();
    let action = if observes { action?.observed() } else { action? };
    let rule = Rule {
        name,
        origin,
        when,
        not,
        exe_anywhere,
        leave_units,
        leave_containers,
        is_gated: gated.is_some(),
        action,
    };
    // What only observes lets no execution wait, so its files need not be suitable for that.
    let gated = gated.filter(|_| !observes).unwrap_or_default();
    Some(WrittenRule { rule, priority: priority?, mentions, gated })
}

/// Returns `file:line`, with the base name of the file.
pub(super) fn default_name(origin: &Origin) -> Arc<str> {
    let base = origin.file.file_name().unwrap_or_default().to_string_lossy();
    Arc::from(format!("{base}:{}", origin.line))
}

fn negated(
    table: &DeTable<'_>,
    piece: &mut TomlSection<'_, '_>,
    mentions: &mut Vec<NameRef>,
) -> Criteria {
    let Some(value) = table.get("not") else { return Criteria::default() };
    let Some(inner) = piece.table(value, "not") else { return Criteria::default() };
    piece.only_keys(inner, &CRITERIA_KEYS);
    if inner.is_empty() {
        piece.error_help(value.span(), "not is empty", "write not = { user = \"name\" }");
    }
    criteria::criteria(inner, piece, mentions)
}

fn priority(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Option<i32> {
    let range = i64::from(i32::MIN)..=i64::from(i32::MAX);
    piece.integer(value, "priority", range).and_then(|number| i32::try_from(number).ok())
}

fn exe_anywhere(table: &DeTable<'_>, piece: &mut TomlSection<'_, '_>) -> bool {
    let Some(value) = table.get("exe_anywhere") else { return false };
    let found = piece.boolean(value, "exe_anywhere") == Some(true);
    let negated = table.get("not").and_then(|not| not.get_ref().as_table());
    let mut tables = [Some(table), negated].into_iter().flatten();
    if found && !tables.any(|table| table.contains_key("exe")) {
        piece.warning(value.span(), "exe_anywhere has no effect without exe", "remove it");
    }
    found
}

fn leave_units(table: &DeTable<'_>, piece: &mut TomlSection<'_, '_>) -> LeaveUnits {
    let Some(value) = table.get("leave_units") else { return LeaveUnits::No };
    if !table.contains_key("cgroup") {
        piece.warning(value.span(), "leave_units has no effect without cgroup", "remove it");
    }
    match value.get_ref().as_bool() {
        Some(true) => LeaveUnits::Yes,
        Some(false) => LeaveUnits::No,
        None => LeaveUnits::Of(criteria::units(table, "leave_units", piece).into()),
    }
}

fn action(
    table: &DeTable<'_>,
    header: &Range<usize>,
    piece: &mut TomlSection<'_, '_>,
) -> Option<Action> {
    let ignore = match table.get("ignore") {
        Some(value) => piece.boolean(value, "ignore")?,
        None => false,
    };
    let controllers = match table.get("controllers") {
        Some(value) => controllers(value, piece),
        None => Vec::new(),
    };
    match (table.get("cgroup"), ignore) {
        (Some(value), false) => {
            let destination = destination(value, piece)?;
            let below = PathBase::Root;
            Some(Action::Place(vec![Target { destination, controllers, below, creates: true }]))
        }
        (None, true) => {
            if let Some(value) = table.get("controllers") {
                let message = "controllers cannot be combined with ignore = true";
                piece.error_help(value.span(), message, "remove one of them");
            }
            Some(Action::ignore())
        }
        (Some(value), true) => {
            let message = "rule with both cgroup and ignore = true";
            piece.error_help(value.span(), message, "remove one of them");
            None
        }
        (None, false) => {
            let help =
                "write cgroup = \"path\", or ignore = true to leave processes where they are";
            piece.error_help(header.clone(), "rule without cgroup or ignore = true", help);
            None
        }
    }
}

fn destination(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Option<Destination> {
    let text = piece.string(value, "cgroup")?;
    parse_destination(text, value.span(), piece)
}

/// Parses a destination that is written as the string at `span`.
pub(super) fn parse_destination(
    text: &str,
    span: Range<usize>,
    piece: &mut TomlSection<'_, '_>,
) -> Option<Destination> {
    let error = match Destination::parse(text) {
        Ok(destination) => return Some(destination),
        Err(error) => error,
    };
    let at = piece.within(&span, text, error.offset..error.offset + error.len);
    match error.help {
        Some(help) => piece.error_help(at, error.message, help),
        None => piece.error(at, error.message),
    }
    None
}

/// Reads the controllers that a rule names.
fn controllers(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Vec<String> {
    let list = alternatives(value);
    if list.is_empty() {
        piece.error_help(value.span(), "controllers is an empty list", "remove it");
    }
    let mut found: Vec<String> = Vec::with_capacity(list.len());
    for item in list {
        let Some(name) = piece.string(item, "a controller") else { continue };
        if !is_controller(name) {
            let message = format!("invalid controller \"{}\"", shortened(name));
            piece.error_help(
                item.span(),
                message,
                "write a name from /proc/cgroups, or name=hierarchy",
            );
        } else if found.iter().any(|known| known == name) {
            piece.warning(item.span(), "duplicate entry in controllers", "remove one of them");
        } else {
            found.push(name.to_owned());
        }
    }
    found
}

/// Checks whether a controller, or a v1 hierarchy without one, could have this name.
pub(super) fn is_controller(name: &str) -> bool {
    let (word, more) = match name.strip_prefix("name=") {
        Some(hierarchy) => (hierarchy, "_.-"),
        None => (name, "_"),
    };
    let has_upper_case = word == name && name.contains(|c: char| c.is_ascii_uppercase());
    (1..=64).contains(&word.len())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        && !has_upper_case
}
