//! What units of systemd are given, the values checked.

use super::gifts;
use crate::cgroup::provision::UnitGift;
use crate::cgroup::settings::{self, Properties};
use crate::config::UnitTable;
use crate::config::source_text::Report;

/// Reads a `[unit."name"]` table. A setting that is wrong is left out.
pub(super) fn table(table: &UnitTable, report: &mut Report<'_>) -> UnitGift {
    let beside = |key: &str| {
        let found = table.settings.iter().find(|setting| setting.key == key)?;
        Some(gifts::written(found))
    };
    let mut kept = Vec::new();
    for setting in &table.settings {
        let (key, span) = (setting.key.clone(), setting.span.clone());
        if !key.contains('.') {
            let help = "write settings as cpu.weight; what is ours is for groups of ours";
            report.error_help(span, format!("\"{key}\" is no setting of a unit"), help);
            continue;
        }
        match settings::properties(&key, &gifts::written(setting), &beside) {
            Ok(Properties { words, note }) => {
                kept.push((key, words));
                let help = "the ratio to other units is not what their settings say";
                note.into_iter().for_each(|note| report.warning(Some(span.clone()), note, help));
            }
            Err(complaint) => report.error_help(span, complaint.message, complaint.help),
        }
    }
    UnitGift { name: table.unit.clone(), settings: kept, origin: table.origin.clone() }
}
