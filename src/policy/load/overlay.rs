//! Replaces the content of some files by their last valid version during a load; it never changes
//! files. The current version of a file may have errors; the earlier one was read and passed the
//! checks when it became active.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

use super::Loader;
use super::trust::{TrustError, TrustedContent, TrustedDirectory};
use crate::rules::names::ResolvedNames;

/// File contents by absolute path, empty for an empty file or a link to `/dev/null`.
pub type FileContents = BTreeMap<Arc<Path>, Arc<[u8]>>;

/// File contents and directory listings that replace those on disk.
#[derive(Clone, Debug, Default)]
pub struct Overlay {
    /// Files with the content to use.
    pub files: FileContents,
    /// Directories that contain no files but those of `files`.
    pub directories: BTreeSet<Arc<Path>>,
    /// Those of `files` that are read although their directory does not have them.
    pub added: BTreeSet<Arc<Path>>,
    /// Rule files that are ignored and override no others.
    pub aside: BTreeSet<Arc<Path>>,
    /// Earlier answers of the name service, used when it fails.
    pub names: ResolvedNames,
}

impl Overlay {
    /// Returns the names in a directory of the overlay.
    fn names(&self, directory: &Path) -> Vec<OsString> {
        let inside = self.files.keys().filter(|path| path.parent() == Some(directory));
        inside.filter_map(|path| path.file_name()).map(OsStr::to_owned).collect()
    }

    /// Returns the names of the files that are added to a directory.
    fn added<'d>(&'d self, directory: &'d Path) -> impl Iterator<Item = OsString> + 'd {
        let inside = self.added.iter().filter(move |path| path.parent() == Some(directory));
        inside.filter_map(|path| path.file_name()).map(OsStr::to_owned)
    }
}

/// A directory that may be read.
pub(super) enum OverlayDirectory {
    /// A directory that passed the checks of owner and mode.
    Trusted(TrustedDirectory),
    /// A directory of the overlay, which passed them earlier.
    AsBefore,
}

impl Loader<'_> {
    /// Opens a directory. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// Returns a refusal if the directory fails the checks of owner and mode.
    pub(super) fn open(&self, path: &Path) -> Result<Option<OverlayDirectory>, TrustError> {
        if self.overlay.directories.contains(path) {
            return Ok(Some(OverlayDirectory::AsBefore));
        }
        let opened = TrustedDirectory::open(path, self.owner)?.map(OverlayDirectory::Trusted);
        // A missing directory consists of the added files.
        let has_added = self.overlay.added(path).next().is_some();
        Ok(opened.or_else(|| has_added.then_some(OverlayDirectory::AsBefore)))
    }

    /// Returns the names in a directory, sorted by bytes.
    ///
    /// # Errors
    /// Returns a refusal if the directory cannot be read.
    pub(super) fn names(
        &self,
        opened: &OverlayDirectory,
        path: &Path,
    ) -> Result<Vec<OsString>, TrustError> {
        match opened {
            OverlayDirectory::Trusted(directory) => {
                let mut names = directory.names()?;
                names.extend(self.overlay.added(path));
                names.sort_unstable();
                names.dedup();
                Ok(names)
            }
            OverlayDirectory::AsBefore => Ok(self.overlay.names(path)),
        }
    }

    /// Opens a directory and reads the names in it. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// Returns a refusal if the directory fails the checks or cannot be read.
    pub(super) fn list(
        &self,
        path: &Path,
    ) -> Result<Option<(OverlayDirectory, Vec<OsString>)>, TrustError> {
        let Some(opened) = self.open(path)? else { return Ok(None) };
        let names = self.names(&opened, path)?;
        Ok(Some((opened, names)))
    }

    /// Reads a file of at most `limit` bytes and records its content as active. The content is
    /// empty for an empty file or a link to `/dev/null`.
    ///
    /// # Errors
    /// Returns a refusal if the file fails the checks or cannot be read.
    pub(super) fn content(
        &mut self,
        directory: &OverlayDirectory,
        path: &Arc<Path>,
        limit: u64,
    ) -> Result<Arc<[u8]>, TrustError> {
        let bytes = self.read(directory, path, limit)?;
        self.contents.insert(Arc::clone(path), Arc::clone(&bytes));
        Ok(bytes)
    }

    /// Reads a file like [`Self::content`], without recording it. For files that only cgrulesengd
    /// would use.
    ///
    /// # Errors
    /// Returns a refusal if the file fails the checks or cannot be read.
    pub(super) fn read(
        &self,
        directory: &OverlayDirectory,
        path: &Arc<Path>,
        limit: u64,
    ) -> Result<Arc<[u8]>, TrustError> {
        match (self.overlay.files.get(path), directory) {
            (Some(bytes), _) => Ok(Arc::clone(bytes)),
            (None, OverlayDirectory::AsBefore) => Err(TrustError::missing()),
            (None, OverlayDirectory::Trusted(directory)) => {
                let name = path.file_name().unwrap_or(OsStr::new("."));
                Ok(match directory.read_up_to(name, limit)? {
                    TrustedContent::Bytes(bytes) => bytes.into(),
                    TrustedContent::Mask => Arc::default(),
                })
            }
        }
    }
}
