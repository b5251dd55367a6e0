//! Converts the values of `exe` to tests.

use super::{glob, is_pattern};
use crate::config::table::{TomlSection, Value, shortened};
use crate::rules::ExeTest;

/// Reads an executable: a path, a base name, or a pattern of either.
pub(super) fn exe(value: &Value<'_>, piece: &mut TomlSection<'_, '_>) -> Option<ExeTest> {
    if !value.get_ref().is_str() {
        piece.wrong_type(value, "exe", "a path, a name or a list of these");
        return None;
    }
    let text = piece.string(value, "exe")?;
    if let Some((message, help)) = exe_fault(text) {
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
fn exe_fault(text: &str) -> Option<(String, String)> {
    if !text.starts_with('/') {
        let last = text.rsplit('/').next().unwrap_or_default();
        if text.contains('/') {
            let help = format!(
                "write an absolute path, or \"{}\" to match it in any directory",
                shortened(last)
            );
            return Some(("exe is a relative path".to_owned(), help));
        }
        let is_dot = text == "." || text == "..";
        return is_dot
            .then(|| ("exe is a directory".to_owned(), "write the name of a program".to_owned()));
    }
    if text.ends_with('/') {
        let help = format!("write \"{}**\" to match every program below it", shortened(text));
        return Some(("exe is a directory".to_owned(), help));
    }
    let odd = text[1..].split('/').find(|part| matches!(*part, "" | "." | ".."))?;
    let message = match odd {
        "" => "exe contains //".to_owned(),
        dots => format!("exe contains /{dots}/"),
    };
    Some((message, "write the path as `readlink -f` prints it".to_owned()))
}
