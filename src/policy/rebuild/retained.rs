//! Last valid versions of files with new errors: a broken file of one package must not change
//! anything for other files. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::diagnostic::Diagnostic;
use crate::config::escape::Escaped;
use crate::policy::load::{FileContents, FileOutcome, Loaded, Overlay};

/// Content that is used for a file or directory with new errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Last valid version of the file, with the time at which it was first read.
    AsOf(SystemTime),
    /// Last valid versions of all files of a directory.
    Directory,
    /// The file is ignored: this one, which it would override, stays active.
    Aside(Arc<Path>),
}

/// File or directory that is not used in its current version, because that has new errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained {
    /// Absolute path of the file or directory.
    pub file: Arc<Path>,
    /// Content that is used instead.
    pub stays: Fallback,
    /// New errors of the file, at least one.
    pub errors: Vec<Diagnostic>,
}

impl fmt::Display for Retained {
    /// Formats `/etc/cgruled/rules.d/50-a.toml: 2 new errors: the last valid version stays active`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.errors.len();
        let s = if self.errors.len() == 1 { "" } else { "s" };
        write!(f, "{}: {count} new error{s}: ", Escaped(&self.file.to_string_lossy()))?;
        match &self.stays {
            Fallback::AsOf(_) => f.write_str("the last valid version stays active"),
            Fallback::Directory => f.write_str("the last valid versions of its files stay active"),
            Fallback::Aside(other) => {
                write!(f, "{} stays active", Escaped(&other.to_string_lossy()))
            }
        }
    }
}

/// Files of one load that are used in their last valid version.
#[derive(Clone, Debug, Default)]
pub struct RetainedFiles {
    /// The files, in the order in which they were found.
    pub files: Vec<Retained>,
    /// Contents that replace those of the files.
    pub overlay: Overlay,
}

/// Contents of files, with the time at which each was first read.
pub(super) type FileVersions = BTreeMap<Arc<Path>, (Arc<[u8]>, SystemTime)>;

/// Contents of the active files.
#[derive(Debug, Default)]
pub(super) struct LastGood(pub(super) FileVersions);

impl LastGood {
    /// Returns an overlay with exactly these files.
    pub(super) fn overlay(&self) -> Overlay {
        let directories = self.0.keys().filter_map(|path| path.parent()).map(Arc::from).collect();
        Overlay { files: self.contents(), directories, ..Overlay::default() }
    }

    /// Stores the contents of the files that become active.
    pub(super) fn adopt(&mut self, contents: FileContents, now: SystemTime) {
        let mut old = std::mem::take(&mut self.0);
        let versions = contents.into_iter().map(|(path, bytes)| {
            let same = old.remove(&path).filter(|(before, _)| *before == bytes);
            (path, same.unwrap_or((bytes, now)))
        });
        self.0 = versions.collect();
    }

    /// Returns the contents of the active files.
    pub(super) fn contents(&self) -> FileContents {
        let files = self.0.iter();
        files.map(|(path, (bytes, _))| (Arc::clone(path), Arc::clone(bytes))).collect()
    }

    /// Adds those files to `keeping` that have new errors which an active version avoids. Returns
    /// whether there are any; then all files must be read again, because one file can affect
    /// another.
    pub(super) fn keep(
        &self,
        keeping: &mut RetainedFiles,
        loaded: &Loaded,
        new: &[&Diagnostic],
    ) -> bool {
        let mut added: Vec<Retained> = Vec::new();
        for &error in new {
            if let Some(kept) = added.iter_mut().find(|kept| kept.file == error.file) {
                kept.errors.push(error.clone());
            } else if let Some(stays) = self.stays(&error.file, &mut keeping.overlay, loaded) {
                added.push(Retained {
                    file: Arc::clone(&error.file),
                    stays,
                    errors: vec![error.clone()],
                });
            }
        }
        let is_any = !added.is_empty();
        keeping.files.append(&mut added);
        is_any
    }

    /// Returns the retained version of a file or directory and adds it to `overlay`. `None` if it
    /// is already there, or is unchanged, or was not active and overrides no active file.
    fn stays(&self, file: &Arc<Path>, overlay: &mut Overlay, loaded: &Loaded) -> Option<Fallback> {
        if overlay.files.contains_key(file)
            || overlay.directories.contains(file)
            || overlay.aside.contains(file)
        {
            return None;
        }
        if let Some((bytes, since)) = self.0.get(file) {
            // Unchanged content: the cause is a deleted user or group, or another file.
            let is_changed = loaded.contents.get(file) != Some(bytes);
            return is_changed.then(|| {
                overlay.files.insert(Arc::clone(file), Arc::clone(bytes));
                Fallback::AsOf(*since)
            });
        }
        let inside: Vec<_> = self.0.iter().filter(|(p, _)| p.parent() == Some(file)).collect();
        if !inside.is_empty() {
            let texts = inside.into_iter().map(|(path, (bytes, _))| (path.clone(), bytes.clone()));
            overlay.files.extend(texts);
            overlay.directories.insert(Arc::clone(file));
            return Some(Fallback::Directory);
        }
        let hidden = self.hidden_by(file, loaded)?;
        overlay.aside.insert(Arc::clone(file));
        Some(Fallback::Aside(hidden))
    }

    /// Returns the active file that `file` overrides.
    fn hidden_by(&self, file: &Arc<Path>, loaded: &Loaded) -> Option<Arc<Path>> {
        let files = loaded.files.iter();
        let mut hidden =
            files.filter(|seen| matches!(&seen.outcome, FileOutcome::HiddenBy(by) if by == file));
        hidden.find(|seen| self.0.contains_key(&seen.path)).map(|seen| Arc::clone(&seen.path))
    }
}

#[cfg(test)]
#[path = "retained_tests.rs"]
mod tests;
