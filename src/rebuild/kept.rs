//! Files with new errors, which are taken at what they said before: a broken file of one package changes
//! nothing for the others. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::diagnostic::Diagnostic;
use crate::config::escape::Escaped;
use crate::load::{Contents, Loaded, Outcome, Overlay};

/// What came of a file, or directory, because it has new errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stays {
    /// What it said counts, which was read then for the first time.
    AsOf(SystemTime),
    /// A directory: what its files said counts.
    Directory,
    /// It is passed over: this file, which it would hide, stays in force.
    Aside(Arc<Path>),
}

/// A file, or directory, with new errors that is not taken at what it says now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its absolute path.
    pub file: Arc<Path>,
    /// What counts instead.
    pub stays: Stays,
    /// Its new errors, at least one.
    pub errors: Vec<Diagnostic>,
}

impl fmt::Display for Kept {
    /// `/etc/cgruled/rules.d/50-a.toml: 2 new errors: what it said before stays in force`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, s) = (self.errors.len(), if self.errors.len() == 1 { "" } else { "s" });
        write!(f, "{}: {count} new error{s}: ", Escaped(&self.file.to_string_lossy()))?;
        match &self.stays {
            Stays::AsOf(_) => f.write_str("what it said before stays in force"),
            Stays::Directory => f.write_str("what its files said before stays in force"),
            Stays::Aside(other) => {
                write!(f, "{} stays in force", Escaped(&other.to_string_lossy()))
            }
        }
    }
}

/// All files that are kept in one load, and what the load is to take for them.
#[derive(Clone, Debug, Default)]
pub struct Keeping {
    /// In the order in which they were found.
    pub files: Vec<Kept>,
    /// What is taken for them.
    pub overlay: Overlay,
}

/// What the files in force say, and when each was read first as it is.
#[derive(Debug, Default)]
pub(super) struct Texts(BTreeMap<Arc<Path>, (Arc<[u8]>, SystemTime)>);

impl Texts {
    /// Takes what files say that come into force now.
    pub(super) fn adopt(&mut self, contents: Contents, now: SystemTime) {
        let mut old = std::mem::take(&mut self.0);
        let text = |(path, bytes): (Arc<Path>, Arc<[u8]>)| {
            let same = old.remove(&path).filter(|(before, _)| *before == bytes);
            (path, same.unwrap_or((bytes, now)))
        };
        self.0 = contents.into_iter().map(text).collect();
    }

    /// Adds to `keeping` the files whose new errors can be undone by what is in force. Whether there
    /// are any; then all files are to be read again, since what one says may depend on another.
    pub(super) fn keep(&self, keeping: &mut Keeping, loaded: &Loaded, new: &[&Diagnostic]) -> bool {
        let mut added: Vec<Kept> = Vec::new();
        for &error in new {
            if let Some(kept) = added.iter_mut().find(|kept| kept.file == error.file) {
                kept.errors.push(error.clone());
            } else if let Some(stays) = self.stays(&error.file, &mut keeping.overlay, loaded) {
                added.push(Kept {
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

    /// What stays of a file or directory, which goes into `overlay`. `None` when it is there already, or
    /// is as it was, or was not in force and hides nothing that was.
    fn stays(&self, file: &Arc<Path>, overlay: &mut Overlay, loaded: &Loaded) -> Option<Stays> {
        if overlay.files.contains_key(file)
            || overlay.directories.contains(file)
            || overlay.aside.contains(file)
        {
            return None;
        }
        if let Some((bytes, since)) = self.0.get(file) {
            // The same text: a name that nobody has any more, or another file is the cause.
            let is_changed = loaded.contents.get(file) != Some(bytes);
            return is_changed.then(|| {
                overlay.files.insert(Arc::clone(file), Arc::clone(bytes));
                Stays::AsOf(*since)
            });
        }
        let inside: Vec<_> = self.0.iter().filter(|(p, _)| p.parent() == Some(file)).collect();
        if !inside.is_empty() {
            let texts = inside.into_iter().map(|(path, (bytes, _))| (path.clone(), bytes.clone()));
            overlay.files.extend(texts);
            overlay.directories.insert(Arc::clone(file));
            return Some(Stays::Directory);
        }
        let hidden = self.hidden_by(file, loaded)?;
        overlay.aside.insert(Arc::clone(file));
        Some(Stays::Aside(hidden))
    }

    /// The file in force that `file` hides.
    fn hidden_by(&self, file: &Arc<Path>, loaded: &Loaded) -> Option<Arc<Path>> {
        let is_it = |outcome: &Outcome| matches!(outcome, Outcome::HiddenBy(by) if by == file);
        let mut hidden = loaded.files.iter().filter(|seen| is_it(&seen.outcome));
        hidden.find(|seen| self.0.contains_key(&seen.path)).map(|seen| Arc::clone(&seen.path))
    }
}

#[cfg(test)]
#[path = "kept_tests.rs"]
mod tests;
