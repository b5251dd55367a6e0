//! Files with new errors, of which the daemon keeps the last valid version active.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::date;
use crate::config::escape::Escaped;
use crate::control::protocol::LastGoodFiles;
use crate::control::status::KeptFile;
use crate::policy::load::{FileContents, Overlay};

/// Returns the replacements for file contents with which the rules are those that the daemon has active.
pub(super) fn overlay(kept: LastGoodFiles) -> Overlay {
    let texts = kept.texts.into_iter();
    Overlay {
        files: texts.map(|(name, text)| (path(name), Arc::from(text.into_bytes()))).collect(),
        directories: kept.directories.into_iter().map(path).collect(),
        aside: kept.aside.into_iter().map(path).collect(),
        ..Overlay::default()
    }
}

/// Checks whether the contents are the same, except for bytes that are not UTF-8, which the daemon does not send.
pub(super) fn are_same(some: &FileContents, others: &FileContents) -> bool {
    let mut pairs = some.iter().zip(others);
    some.len() == others.len()
        && pairs.all(|((path, bytes), (other, text))| {
            path == other && String::from_utf8_lossy(bytes) == String::from_utf8_lossy(text)
        })
}

fn path(text: String) -> Arc<Path> {
    Arc::from(PathBuf::from(text))
}

/// Returns the note about a file of which the daemon does not use the current version.
pub(super) fn words(kept: &KeptFile) -> String {
    let file = Escaped(&kept.file);
    match (&kept.instead, kept.since) {
        (Some(instead), _) => {
            format!("{file} ignored because of errors: {} stays active", Escaped(instead))
        }
        (None, Some(since)) => format!("{file} kept at last valid version, read {}", date(since)),
        (None, None) => format!("files of {file} kept at last valid version"),
    }
}
