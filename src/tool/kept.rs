//! Files with new errors, which the daemon takes at what they said before.

use std::path::Path;
use std::sync::Arc;

use super::figures::date;
use crate::config::escape::Escaped;
use crate::control::protocol::KeptTexts;
use crate::control::status::KeptFile;
use crate::load::Overlay;

/// What is to be taken for what files say, to see the rules that the daemon has.
pub(super) fn overlay(kept: KeptTexts) -> Overlay {
    let path = |path: String| Arc::from(Path::new(&path));
    let text = |(name, text): (String, String)| (path(name), Arc::from(text.into_bytes()));
    Overlay {
        files: kept.texts.into_iter().map(text).collect(),
        directories: kept.directories.into_iter().map(path).collect(),
        aside: kept.aside.into_iter().map(path).collect(),
        ..Overlay::default()
    }
}

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
