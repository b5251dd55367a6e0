//! Checks the settings of systemd units and resolves the users they apply to; it does not talk to
//! systemd.

use super::group_specs;
use super::resolver::Resolver;
use crate::cgroup::config::{GroupSpecs, UnitSpec, UserSliceSpec};
use crate::cgroup::settings::{self, UnitProperties};
use crate::config::source_text::Diagnostics;
use crate::config::{UnitTable, UnitTarget};

/// Adds a `[unit."name"]` table to `specs`. Invalid settings are omitted, and so is a table for
/// users that do not exist.
pub(super) fn table(
    table: &UnitTable,
    report: &mut Diagnostics<'_>,
    resolver: &mut Resolver<'_>,
    specs: &mut GroupSpecs,
) {
    let settings = properties(table, report);
    let origin = table.origin.clone();
    match &table.target {
        UnitTarget::Unit(name) => {
            specs.units.push(UnitSpec { name: name.clone(), settings, origin });
        }
        UnitTarget::UserSlices { users, mentions } => {
            let users = resolver.users(users.clone(), mentions.clone(), report);
            if !users.is_empty() {
                specs.user_slices.push(UserSliceSpec { users, settings, origin });
            }
        }
    }
}

/// Returns the settings of a table as properties, by their keys.
/// Returns the value of a setting of the table as written.
fn value_of(table: &UnitTable, key: &str) -> Option<String> {
    let found = table.settings.iter().find(|setting| setting.key == key)?;
    Some(group_specs::written(found))
}

fn properties(table: &UnitTable, report: &mut Diagnostics<'_>) -> Vec<(String, Vec<String>)> {
    let mut kept = Vec::new();
    for setting in &table.settings {
        let key = setting.key.clone();
        let span = setting.span.clone();
        if !key.contains('.') {
            let help = "use keys such as cpu.weight; owner, mode, required and remove_when_empty \
                        apply to [cgroup] tables only";
            report.error_help(span, format!("invalid unit setting \"{key}\""), help);
            continue;
        }
        if kept.iter().any(|(known, _)| *known == key) {
            let help = "write the devices in one string, with commas between them";
            report.error_help(span, format!("{key} of a unit accepts no list"), help);
            continue;
        }
        let properties =
            settings::properties(&key, &group_specs::written(setting), &|key| value_of(table, key));
        match properties {
            Ok(UnitProperties { words, note }) => {
                kept.push((key, words));
                let help = "the ratio to other units differs from their settings";
                note.into_iter().for_each(|note| report.warning(Some(span.clone()), note, help));
            }
            Err(diagnostic) => report.error_help(span, diagnostic.message, diagnostic.help),
        }
    }
    kept
}
