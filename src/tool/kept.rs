//! Files with new errors, which the daemon takes at what they said before.

use super::figures::date;
use crate::config::escape::Escaped;
use crate::control::status::KeptFile;

/// That a file stays as it was, in words.
pub(super) fn words(kept: &KeptFile) -> String {
    let file = Escaped(&kept.file);
    match (&kept.instead, kept.since) {
        (Some(instead), _) => {
            format!("{file} has errors and is passed over: {} stays in force", Escaped(instead))
        }
        (None, Some(since)) => format!("{file} stays as it was, read {}", date(since)),
        (None, None) => format!("the files of {file} stay as they were"),
    }
}
