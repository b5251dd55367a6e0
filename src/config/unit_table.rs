//! Parses `[unit."name.service"]` and `[unit."user-%U.slice"]` tables into settings as written; it
//! does not interpret the values.

use std::ops::Range;

use toml::Spanned;
use toml::de::DeString;

use super::criteria::{self, NameRef, USERS_KEY};
use super::group_table::{GroupSetting, settings, settings_beside};
use super::table::{TomlSection, Value, shortened};
use crate::rules::{Origin, UserTest};

/// The only name with a specifier: the slice of a user, by UID.
pub const USER_SLICES: &str = "user-%U.slice";
/// The maximum length of a unit name in bytes.
const MOST: usize = 255;
/// The suffixes of unit types that have a cgroup.
const KINDS: [&str; 6] = [".service", ".slice", ".scope", ".socket", ".mount", ".swap"];

/// The settings of one unit, or of the slices of users.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitTable {
    /// The units that get the settings.
    pub target: UnitTarget,
    /// The settings in the order of the file.
    pub settings: Vec<GroupSetting>,
    /// The line at which the table begins.
    pub origin: Origin,
}

/// The units to which a table applies.
#[derive(Clone, Debug, PartialEq)]
pub enum UnitTarget {
    /// The unit of this name, with its suffix.
    Unit(String),
    /// The slice of each selected user.
    UserSlices {
        /// The selected users, at least one.
        users: Vec<UserTest>,
        /// The user names among them.
        mentions: Vec<NameRef>,
    },
}

/// Reads one table. Invalid settings are omitted. A table with invalid `users` is omitted as a
/// whole, because it would limit fewer users than intended.
pub(super) fn read(
    key: &Spanned<DeString<'_>>,
    value: &Value<'_>,
    piece: &mut TomlSection<'_, '_>,
) -> Option<UnitTable> {
    let unit = key.get_ref().to_string();
    if let Some((message, help)) = name_fault(&unit) {
        piece.error_help(key.span(), message, help);
        return None;
    }
    if !value.get_ref().is_table() {
        let help = "write [unit.\"name.service\"] and the settings below it";
        piece.error_help(key.span(), "unit must have a table for each name", help);
        return None;
    }
    let before = piece.report.errors();
    let (target, settings) = if unit == USER_SLICES {
        let target = user_slices(key.span(), value, piece);
        (target, settings_beside(value, Some(USERS_KEY), piece))
    } else if let Some(span) = users_key(value) {
        let message =
            format!("{USERS_KEY} does not apply to the single unit \"{}\"", shortened(&unit));
        let help = format!(
            "remove {USERS_KEY}, or write [unit.\"{USER_SLICES}\"] for the slices of users"
        );
        piece.error_help(span, message, help);
        (None, settings_beside(value, Some(USERS_KEY), piece))
    } else {
        (Some(UnitTarget::Unit(unit)), settings(value, piece))
    };
    if settings.is_empty() && piece.report.errors() == before {
        piece.warning(key.span(), "table without settings", "remove it");
    }
    let origin = Origin { file: piece.text().file().clone(), line: piece.line(key.span().start) };
    Some(UnitTable { target: target?, settings, origin })
}

/// Reads the users of a table for user slices.
fn user_slices(
    name: Range<usize>,
    value: &Value<'_>,
    piece: &mut TomlSection<'_, '_>,
) -> Option<UnitTarget> {
    let table = value.get_ref().as_table()?;
    if !table.contains_key(USERS_KEY) {
        let message = format!("[unit.\"{USER_SLICES}\"] does not select users");
        let help = format!("add {USERS_KEY} = [\"@human\"], or another list of users");
        piece.error_help(name, message, help);
        return None;
    }
    let before = piece.report.errors();
    let mut mentions = Vec::new();
    let users = criteria::users(table, piece, &mut mentions);
    (piece.report.errors() == before).then_some(UnitTarget::UserSlices { users, mentions })
}

fn users_key(value: &Value<'_>) -> Option<Range<usize>> {
    let table = value.get_ref().as_table()?;
    table.iter().find(|(key, _)| key.get_ref() == USERS_KEY).map(|(key, _)| key.span())
}

/// Returns the error in the name of a table, with a replacement.
fn name_fault(name: &str) -> Option<(String, String)> {
    if name == USER_SLICES || is_unit(name) {
        return None;
    }
    let shown = shortened(name);
    Some(match name.contains('%') {
        true => (
            format!("invalid unit template \"{shown}\""),
            format!(
                "write [unit.\"{USER_SLICES}\"], the only name with a specifier, or the full name of one unit"
            ),
        ),
        false => (
            format!("invalid unit name \"{shown}\""),
            "write the full name of a unit with a cgroup in quotes: [unit.\"php-fpm.service\"]"
                .to_owned(),
        ),
    })
}

/// Checks whether systemd could know a unit by this name. It becomes a command argument, so it must
/// not begin with `-`.
pub(crate) fn is_unit(name: &str) -> bool {
    let stem = KINDS.iter().find_map(|kind| name.strip_suffix(kind));
    stem.is_some_and(|stem| !stem.is_empty() && !stem.ends_with('@'))
        && name.len() <= MOST
        && !name.starts_with(['-', '.'])
        && name.chars().all(|c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c))
}

#[cfg(test)]
#[path = "unit_table_tests.rs"]
mod tests;
