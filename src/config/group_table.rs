//! `[cgroup."path"]` tables: what a group gets, as it is written. Pure. What the values mean is the
//! business of [`crate::cgroup::settings`].

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::rule_table::{is_controller, parse_destination};
use super::table::{Piece, Value};
use crate::rules::Origin;
use crate::rules::destination::Destination;

/// Bounds the recursion; a kernel file has at most three words, as `hugetlb.2MB.max`.
const MAX_DEPTH: usize = 8;

/// The settings of one destination.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupTable {
    /// The path as rules write it.
    pub path: Destination,
    /// The settings in the order of the file.
    pub settings: Vec<Setting>,
    /// Where the table begins.
    pub origin: Origin,
}

/// One setting of a group.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The kernel's file, as `cpu.weight`, or a key of ours.
    pub key: String,
    /// What to write.
    pub value: SettingValue,
    /// The bytes of the value in the file.
    pub span: Range<usize>,
}

/// The value of a [`Setting`].
#[derive(Clone, Debug, PartialEq)]
pub enum SettingValue {
    /// A string.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Another number, as written.
    Decimal(String),
    /// True or false.
    Switch(bool),
}

/// Reads one table. A setting with anything wrong in it is left out.
pub(super) fn read(
    key: &Spanned<DeString<'_>>,
    value: &Value<'_>,
    piece: &mut Piece<'_, '_>,
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

/// The settings of a table in the order of the file.
pub(super) fn settings(value: &Value<'_>, piece: &mut Piece<'_, '_>) -> Vec<Setting> {
    settings_beside(value, None, piece)
}

/// The settings of a table that has the key `other` besides, which is not a setting.
pub(super) fn settings_beside(
    value: &Value<'_>,
    other: Option<&str>,
    piece: &mut Piece<'_, '_>,
) -> Vec<Setting> {
    let mut settings = Vec::new();
    let entries = value.get_ref().as_table().into_iter().flat_map(|table| table.iter());
    for (key, value) in entries.filter(|(key, _)| other != Some(&**key.get_ref())) {
        flatten_entry("", key, value, &mut settings, piece);
    }
    settings.sort_by_key(|setting| setting.span.start);
    settings
}

/// Complains of a table that is right and says nothing.
pub(super) fn remark(key: &Spanned<DeString<'_>>, group: &GroupTable, piece: &mut Piece<'_, '_>) {
    if group.settings.is_empty() {
        piece.warning(key.span(), "the table has no settings", "leave it out");
    }
}

/// `cpu.weight = 50` is a table in a table: put the words together again.
fn flatten(
    prefix: String,
    value: &Value<'_>,
    settings: &mut Vec<Setting>,
    piece: &mut Piece<'_, '_>,
) {
    let DeValue::Table(table) = value.get_ref() else {
        if let Some(text) = setting_value(&prefix, value, piece) {
            settings.push(Setting { key: prefix, value: text, span: piece.span(value.span()) });
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
    settings: &mut Vec<Setting>,
    piece: &mut Piece<'_, '_>,
) {
    let name = if prefix.is_empty() {
        key.get_ref().to_string()
    } else {
        format!("{prefix}.{}", key.get_ref())
    };
    if is_setting(&name) {
        flatten(name, value, settings, piece);
    } else {
        let help = "write the name of a file in a cgroup directory, as cpu.weight";
        piece.error_help(key.span(), "this cannot be a setting of a group", help);
    }
}

/// Whether a file in a cgroup directory could have this name.
fn is_setting(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    name.chars().all(is_word)
        && name.split('.').count() <= MAX_DEPTH
        && !name.split('.').any(str::is_empty)
        && name.split_once('.').is_none_or(|(word, _)| is_controller(word))
}

fn setting_value(key: &str, value: &Value<'_>, piece: &mut Piece<'_, '_>) -> Option<SettingValue> {
    match value.get_ref() {
        // An empty list of processors is that of the group above.
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
