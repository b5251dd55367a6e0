//! What files said before, for a load that is to take some of them at that. What a file says now may
//! have errors; what it said when it was in force was read and trusted then.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use super::Loader;
use super::trust::{Content, Refusal, TrustedDirectory};
use crate::rules::names::Names;

/// What files say, by their absolute paths; nothing of one that is empty or a link to `/dev/null`.
pub type Contents = BTreeMap<Arc<Path>, Arc<[u8]>>;

/// What is taken for what files and directories say, instead of asking the disk.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    /// Files that say this.
    pub files: Contents,
    /// Directories that have no files but those of `files`.
    pub directories: BTreeSet<Arc<Path>>,
    /// Rule files that are passed over and hide no others.
    pub aside: BTreeSet<Arc<Path>>,
    /// What the name service said, for a time when it fails.
    pub names: Names,
}

impl Overlay {
    /// The names in a directory that is taken as it was.
    fn names(&self, directory: &Path) -> Vec<OsString> {
        let inside = self.files.keys().filter(|path| path.parent() == Some(directory));
        inside.filter_map(|path| path.file_name()).map(OsStr::to_owned).collect()
    }
}

/// A directory that may be read.
pub(super) enum Opened {
    /// It passed the test.
    Trusted(TrustedDirectory),
    /// It did so before.
    AsBefore,
}

impl Loader<'_> {
    /// Opens a directory. `None` if there is none.
    ///
    /// # Errors
    /// It is not trusted.
    pub(super) fn open(&self, path: &Path) -> Result<Option<Opened>, Refusal> {
        if self.overlay.directories.contains(path) {
            return Ok(Some(Opened::AsBefore));
        }
        Ok(TrustedDirectory::open(path, self.owner)?.map(Opened::Trusted))
    }

    /// The names in a directory, in the order of their bytes.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn names(&self, opened: &Opened, path: &Path) -> Result<Vec<OsString>, Refusal> {
        match opened {
            Opened::Trusted(directory) => directory.names(),
            Opened::AsBefore => Ok(self.overlay.names(path)),
        }
    }

    /// Opens a directory and reads the names in it. `None` if there is none.
    ///
    /// # Errors
    /// It is not trusted or cannot be read.
    pub(super) fn list(&self, path: &Path) -> Result<Option<(Opened, Vec<OsString>)>, Refusal> {
        let Some(opened) = self.open(path)? else { return Ok(None) };
        let names = self.names(&opened, path)?;
        Ok(Some((opened, names)))
    }

    /// What a file of at most `limit` bytes says; nothing if it is empty or a link to `/dev/null`. It
    /// counts as one whose words are in force.
    ///
    /// # Errors
    /// It is not trusted or cannot be read.
    pub(super) fn content(
        &mut self,
        directory: &Opened,
        path: &Arc<Path>,
        limit: u64,
    ) -> Result<Arc<[u8]>, Refusal> {
        let bytes = self.read(directory, path, limit)?;
        self.contents.insert(Arc::clone(path), Arc::clone(&bytes));
        Ok(bytes)
    }

    /// The same of a file that only the original would take.
    ///
    /// # Errors
    /// It is not trusted or cannot be read.
    pub(super) fn read(
        &self,
        directory: &Opened,
        path: &Arc<Path>,
        limit: u64,
    ) -> Result<Arc<[u8]>, Refusal> {
        match (self.overlay.files.get(path), directory) {
            (Some(bytes), _) => Ok(Arc::clone(bytes)),
            (None, Opened::AsBefore) => Err(Refusal::missing()),
            (None, Opened::Trusted(directory)) => {
                let name = path.file_name().unwrap_or(OsStr::new("."));
                Ok(match directory.read_up_to(name, limit)? {
                    Content::Bytes(bytes) => bytes.into(),
                    Content::Mask => Arc::default(),
                })
            }
        }
    }
}
