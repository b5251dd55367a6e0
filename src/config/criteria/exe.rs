//! Converts the values of `exe` to tests.

use super::{glob, is_pattern};
use crate::config::table::{TomlSection, Value, shortened};
use crate::rules::ExeTest;

/// Reads an executable, the value of this key: a path, a base name, or a pattern of either.
pub(super) fn exe(
    value: &Value<'_>,
    key: &str,
    piece: &mut TomlSection<'_, '_>,
) -> Option<ExeTest> {
    if !value.get_ref().is_str() {
        piece.wrong_type(value, key, "a path, a name or a list of these");
        return None;
    }
    let text = piece.string(value, key)?;
    if let Some((message, help)) = exe_fault(text, key) {
        piece.error_help(value.span(), message, help);
        return None;
    }
    let absolute = text.starts_with('/');
    if is_pattern(text) {
        let glob = glob(value, text, piece)?;
        return Some(if absolute { ExeTest::PathGlob(glob) } else { ExeTest::BaseGlob(glob) });
    }
    let bytes = text.as_bytes().to_vec();
    Some(if absolute { ExeTest::Path(bytes) } else { ExeTest::Base(bytes) })
}

/// Returns the reason why no executable can have this path, with a replacement. Paths from the
/// kernel are absolute and have no empty, `.` or `..` components.
fn exe_fault(text: &str, key: &str) -> Option<(String, String)> {
    if !text.starts_with('/') {
        let last = text.rsplit('/').next().unwrap_or_default();
        if text.contains('/') {
            let help = format!(
                "write an absolute path, or \"{}\" to match it in any directory",
                shortened(last)
            );
            return Some((format!("{key} is a relative path"), help));
        }
        let is_dot = text == "." || text == "..";
        return is_dot
            .then(|| (format!("{key} is a directory"), "write the name of a program".to_owned()));
    }
    if text.ends_with('/') {
        let help = format!("write \"{}**\" to match every program below it", shortened(text));
        return Some((format!("{key} is a directory"), help));
    }
    let odd = text[1..].split('/').find(|part| matches!(*part, "" | "." | ".."))?;
    let message = match odd {
        "" => format!("{key} contains //"),
        dots => format!("{key} contains /{dots}/"),
    };
    Some((message, "write the path as `readlink -f` prints it".to_owned()))
}
