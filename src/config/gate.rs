//! Parses `gate` of a rule: executions of the files in `exe` wait for the placement. It must accept only a rule of which
//! each file is known by its path, because the kernel reports executions of single files.

use std::ops::Range;

use toml::de::DeTable;

use super::criteria::is_pattern;
use super::table::{TomlSection, Value, alternatives, shortened};

/// The key of a rule.
pub(super) const GATE: &str = "gate";

/// A file of a gated rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatedPath {
    /// The absolute path as written.
    pub path: Vec<u8>,
    /// The byte range of its value in the rule file.
    pub span: Range<usize>,
}

/// Reads the files of a gated rule; `None` for a rule that is not gated.
pub(super) fn read(
    table: &DeTable<'_>,
    observes: bool,
    piece: &mut TomlSection<'_, '_>,
) -> Option<Vec<GatedPath>> {
    let value = table.get(GATE)?;
    if !piece.boolean(value, GATE)? {
        return None;
    }
    for key in ["ignore", "exe_anywhere"] {
        if table.get(key).is_some_and(|other| other.get_ref().as_bool() == Some(true)) {
            let message = format!("gate cannot be combined with {key} = true");
            piece.error_help(value.span(), message, "remove one of them");
        }
    }
    if observes {
        let help = "remove gate until the rule is active";
        piece.warning(value.span(), "gate has no effect while the rule observes", help);
    }
    let Some(exe) = table.get("exe") else {
        let help = "add exe with the absolute paths of the files, or remove gate";
        piece.error_help(value.span(), "gate without exe", help);
        return Some(Vec::new());
    };
    Some(alternatives(exe).iter().filter_map(|item| gated_path(item, piece)).collect())
}

/// Returns the file of a value of `exe`. A value that `exe` does not allow either has an error of its own.
fn gated_path(item: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Option<GatedPath> {
    let text = item.get_ref().as_str()?;
    if text.is_empty() {
        return None;
    }
    let what = match (is_pattern(text), text.contains('/')) {
        (true, _) => "a pattern",
        (false, false) => "a base name",
        (false, true) => {
            return Some(GatedPath {
                path: text.as_bytes().to_vec(),
                span: piece.span(item.span()),
            });
        }
    };
    let message = format!("gate with {what}: \"{}\"", shortened(text));
    let help =
        "write absolute paths without wildcards in exe, or move this value to a rule without gate";
    piece.error_help(item.span(), message, help);
    None
}
