//! `[unit."name.service"]` tables: what a unit of systemd gets, as it is written. Pure.

use toml::Spanned;
use toml::de::DeString;

use super::group_table::{Setting, settings};
use super::table::{Piece, Value, shortened};
use crate::rules::Origin;

/// Bytes of the longest name.
const MOST: usize = 255;
/// The kinds of units that have a cgroup.
const KINDS: [&str; 6] = [".service", ".slice", ".scope", ".socket", ".mount", ".swap"];

/// The settings of one unit.
#[derive(Clone, Debug, PartialEq)]
pub struct UnitTable {
    /// The name with its suffix.
    pub unit: String,
    /// The settings in the order of the file.
    pub settings: Vec<Setting>,
    /// Where the table begins.
    pub origin: Origin,
}

/// Reads one table. A setting with anything wrong in it is left out.
pub(super) fn read(
    key: &Spanned<DeString<'_>>,
    value: &Value<'_>,
    piece: &mut Piece<'_, '_>,
) -> Option<UnitTable> {
    let unit = key.get_ref().to_string();
    if !is_unit(&unit) {
        let message = format!("\"{}\" cannot be a unit with a cgroup", shortened(&unit));
        let help = "write its whole name in quotes: [unit.\"php-fpm.service\"]";
        piece.error_help(key.span(), message, help);
        return None;
    }
    if !value.get_ref().is_table() {
        let help = "write [unit.\"name.service\"] and the settings below it";
        piece.error_help(key.span(), "unit must have a table for each name", help);
        return None;
    }
    let errors = piece.report.errors();
    let settings = settings(value, piece);
    if settings.is_empty() && piece.report.errors() == errors {
        piece.warning(key.span(), "the table has no settings", "leave it out");
    }
    let origin = Origin { file: piece.text().file().clone(), line: piece.line(key.span().start) };
    Some(UnitTable { unit, settings, origin })
}

/// Whether systemd could know a unit by this name. It is an argument of a command, so it may not begin
/// with `-`.
fn is_unit(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let stem = KINDS.iter().find_map(|kind| name.strip_suffix(kind));
    stem.is_some_and(|stem| !stem.is_empty() && !stem.ends_with('@'))
        && name.len() <= MOST
        && !name.starts_with(['-', '.'])
        && name.chars().all(is_word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_units() {
        for name in ["php-fpm.service", "user-1000.slice", "a@b.service", "dev-sda\\x2d1.swap"] {
            assert!(is_unit(name), "{name}");
        }
        let long = "a".repeat(300) + ".service";
        for name in
            ["php-fpm", ".service", "-.slice", "--all.service", "a b.service", "a@.service", &long]
        {
            assert!(!is_unit(name), "{name}");
        }
    }
}
