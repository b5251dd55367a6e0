//! Parses `[cgroup."path"]` tables into settings as written; it does not interpret the values,
//! which [`crate::cgroup::settings`] does.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::rule_table::{is_controller, parse_destination};
use super::table::{TomlSection, Value};
use crate::rules::Origin;
use crate::rules::destination::Destination;

/// The limit of the recursion; a kernel file has at most three parts, as `hugetlb.2MB.max`.
const MAX_DEPTH: usize = 8;

/// The settings of one cgroup path.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupTable {
    /// The path as written in rules.
    pub path: Destination,
    /// The settings in the order of the file.
    pub settings: Vec<GroupSetting>,
    /// The line at which the table begins.
    pub origin: Origin,
}

/// One setting of a cgroup or unit. A list of strings in the file becomes one setting for each.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSetting {
    /// A kernel file such as `cpu.weight`, or a key of cgruled.
    pub key: String,
    /// The value to write, with its TOML type.
    pub value: SettingValue,
    /// The byte range of the value in the file.
    pub span: Range<usize>,
}

/// The value of a [`GroupSetting`].
#[derive(Clone, Debug, PartialEq)]
pub enum SettingValue {
    /// A string, without the quotes.
    Text(String),
    /// A whole number in the range of TOML.
    Integer(i64),
    /// A decimal number, as written.
    Decimal(String),
    /// A boolean, `true` or `false` in the file.
    Switch(bool),
}

/// Reads one table. Invalid settings are reported and omitted.
pub(super) fn read(
    key: &Spanned<DeString<'_>>,
    value: &Value<'_>,
    piece: &mut TomlSection<'_, '_>,
) -> Option<GroupTable> {
    if !value.get_ref().is_table() {
        let help = "write [cgroup.\"path\"] and the settings below it";
        piece.error_help(key.span(), "cgroup must have a table for each path", help);
        return None;
    }
    let path = parse_destination(key.get_ref(), key.span(), piece)?;
    let settings = settings(value, piece);
    let origin = Origin { file: piece.text().file().clone(), line: piece.line(key.span().start) };
    Some(GroupTable { path, settings, origin })
}

/// Returns the settings of a table in the order of the file.
pub(super) fn settings(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Vec<GroupSetting> {
    settings_beside(value, None, piece)
}

/// Returns the settings of a table except for the key `other`, which is not a setting.
pub(super) fn settings_beside(
    value: &Value<'_>,
    other: Option<&str>,
    piece: &mut TomlSection<'_, '_>,
) -> Vec<GroupSetting> {
    let mut settings = Vec::new();
    let entries = value.get_ref().as_table().into_iter().flat_map(|table| table.iter());
    for (key, value) in entries.filter(|(key, _)| other != Some(&**key.get_ref())) {
        flatten_entry("", key, value, &mut settings, piece);
    }
    settings.sort_by_key(|setting| setting.span.start);
    settings
}

/// Warns about a valid table without settings.
pub(super) fn warning(
    key: &Spanned<DeString<'_>>,
    group: &GroupTable,
    piece: &mut TomlSection<'_, '_>,
) {
    if group.settings.is_empty() {
        piece.warning(key.span(), "table without settings", "remove it");
    }
}

/// Joins the parts of a dotted key: `cpu.weight = 50` is a table in a table.
fn flatten(
    prefix: String,
    value: &Value<'_>,
    settings: &mut Vec<GroupSetting>,
    piece: &mut TomlSection<'_, '_>,
) {
    if let DeValue::Array(values) = value.get_ref() {
        let is_list = values.iter().all(|value| value.get_ref().is_str()) && prefix.contains('.');
        if is_list && !values.is_empty() {
            values.iter().for_each(|value| flatten(prefix.clone(), value, settings, piece));
            return;
        }
    }
    let DeValue::Table(table) = value.get_ref() else {
        if let Some(text) = setting_value(&prefix, value, piece) {
            settings.push(GroupSetting {
                key: prefix,
                value: text,
                span: piece.span(value.span()),
            });
        }
        return;
    };
    for (key, value) in table.iter() {
        flatten_entry(&prefix, key, value, settings, piece);
    }
}

fn flatten_entry(
    prefix: &str,
    key: &Spanned<DeString<'_>>,
    value: &Value<'_>,
    settings: &mut Vec<GroupSetting>,
    piece: &mut TomlSection<'_, '_>,
) {
    let name = if prefix.is_empty() {
        key.get_ref().to_string()
    } else {
        format!("{prefix}.{}", key.get_ref())
    };
    if is_setting(&name) {
        flatten(name, value, settings, piece);
    } else {
        let help = "write the name of a file in a cgroup directory, such as cpu.weight";
        piece.error_help(key.span(), "invalid setting name", help);
    }
}

/// Checks whether a file in a cgroup directory could have this name.
fn is_setting(name: &str) -> bool {
    name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        && name.split('.').count() <= MAX_DEPTH
        && !name.split('.').any(str::is_empty)
        && name.split_once('.').is_none_or(|(word, _)| is_controller(word))
}

fn setting_value(
    key: &str,
    value: &Value<'_>,
    piece: &mut TomlSection<'_, '_>,
) -> Option<SettingValue> {
    match value.get_ref() {
        // An empty cpuset list means that of the parent cgroup.
        DeValue::String(text) if text.is_empty() && key.starts_with("cpuset.") => {
            Some(SettingValue::Text(String::new()))
        }
        DeValue::String(_) => {
            piece.string(value, key).map(|text| SettingValue::Text(text.to_owned()))
        }
        DeValue::Integer(_) => {
            piece.integer(value, key, i64::MIN..=i64::MAX).map(SettingValue::Integer)
        }
        DeValue::Float(number) => Some(SettingValue::Decimal(number.as_str().to_owned())),
        DeValue::Boolean(on) => Some(SettingValue::Switch(*on)),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            piece.wrong_type(value, key, "a string, a number, true or false");
            None
        }
    }
}
