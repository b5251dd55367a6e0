//! A file with the contents of the active rule files, so that a file that is invalid at the next
//! start keeps its last valid version, as at a reload.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::PolicyBuilder;
use super::retained::{FileVersions, LastGood};
use crate::sys::atomic_file;

/// The current version of the format.
const VERSION: u32 = 1;
/// The maximum size in bytes: 100,000 rules of 600 bytes.
const MAX_SIZE: u64 = 64 << 20;

/// The JSON document in the file.
#[derive(Debug, Serialize, Deserialize)]
struct StoredDocument {
    version: u32,
    files: BTreeMap<String, StoredFile>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredFile {
    /// Seconds since 1970 at which this content was first read.
    since: u64,
    /// The content, with the character U+0000 to U+00FF for each byte: legacy files need not be
    /// UTF-8.
    content: String,
}

/// The file, and what it contains.
#[derive(Debug)]
pub(super) struct VersionStore {
    path: PathBuf,
    written: FileVersions,
    is_read_only: bool,
}

impl VersionStore {
    /// Creates a store in this directory. A dry run does not write to it.
    pub(super) fn new(directory: &Path, is_read_only: bool) -> Self {
        let path = directory.join("rule-files.json");
        Self { path, written: FileVersions::new(), is_read_only }
    }

    /// Reads the contents. Returns none if the file does not exist or cannot have been written by
    /// cgruled.
    pub(super) fn read(&mut self) -> FileVersions {
        let path = self.path.display();
        let bytes = match atomic_file::read_own(&self.path, MAX_SIZE) {
            Ok(None) => return FileVersions::new(),
            Ok(Some(bytes)) => bytes,
            Err(error) => {
                ::log::warn!("cannot read {path}: {error}; last valid versions are not used");
                return FileVersions::new();
            }
        };
        self.written = parse(&bytes).unwrap_or_else(|| {
            ::log::warn!("invalid state file {path}: last valid versions are not used");
            FileVersions::new()
        });
        self.written.clone()
    }

    /// Writes the contents, unless the file has them.
    pub(super) fn write(&mut self, versions: &FileVersions) {
        if self.is_read_only || *versions == self.written {
            return;
        }
        self.written.clone_from(versions);
        if let Err(error) = replace(&self.path, versions) {
            ::log::warn!(
                "cannot write {}: {error}; after a restart, invalid files have no last valid version",
                self.path.display()
            );
        }
    }
}

impl PolicyBuilder {
    /// Sets the directory in which the contents of the active files are kept for the next start. A
    /// dry run only reads them.
    #[must_use]
    pub fn with_state(self, directory: Option<&Path>, is_dry_run: bool) -> Self {
        Self { store: directory.map(|path| VersionStore::new(path, is_dry_run)), ..self }
    }

    /// Continues as after a load of the files of the last run. Returns false if they are unknown.
    pub(super) fn recall(&mut self) -> bool {
        self.texts = LastGood(self.store.as_mut().map(VersionStore::read).unwrap_or_default());
        if self.texts.0.is_empty() {
            return false;
        }
        let overlay = self.texts.overlay();
        self.diagnostics = self.draft_over(&overlay).loaded.diagnostics;
        true
    }
}

fn parse(bytes: &[u8]) -> Option<FileVersions> {
    let StoredDocument { version, files } = serde_json::from_slice(bytes).ok()?;
    if version != VERSION {
        return None;
    }
    let versions = files.into_iter().map(|(path, file)| {
        let content: Option<Vec<u8>> =
            file.content.chars().map(|letter| u8::try_from(u32::from(letter)).ok()).collect();
        let since = UNIX_EPOCH.checked_add(Duration::from_secs(file.since))?;
        Some((Arc::from(Path::new(&path)), (Arc::from(content?), since)))
    });
    versions.collect()
}

fn replace(path: &Path, versions: &FileVersions) -> io::Result<()> {
    let files = versions.iter().filter_map(|(path, (bytes, since))| {
        let since = since.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let content = bytes.iter().copied().map(char::from).collect();
        Some((path.to_str()?.to_owned(), StoredFile { since, content }))
    });
    let files = files.collect();
    let bytes = serde_json::to_vec(&StoredDocument { version: VERSION, files })?;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    atomic_file::replace(path, 0o600, &bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn versions(content: &[u8]) -> FileVersions {
        let since = UNIX_EPOCH + Duration::from_secs(7);
        FileVersions::from([(Arc::from(Path::new("/etc/a.toml")), (Arc::from(content), since))])
    }

    #[test]
    fn contents_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = VersionStore::new(&directory.path().join("below"), false);
        assert_eq!(store.read(), FileVersions::new());
        for content in [&b"\xffa\0\n"[..], "ä".as_bytes()] {
            store.write(&versions(content));
            let mut later = VersionStore::new(&directory.path().join("below"), true);
            assert_eq!(later.read(), versions(content));
            later.write(&versions(b"other"));
            assert_eq!(later.read(), versions(content), "a dry run writes nothing");
        }
    }

    #[test]
    fn a_file_of_another_version_is_ignored() {
        assert_eq!(parse(b"{\"version\":2,\"files\":{}}"), None);
        let wide = "{\"version\":1,\"files\":{\"/a\":{\"since\":1,\"content\":\"\u{100}\"}}}";
        assert_eq!(parse(wide.as_bytes()), None);
    }

    proptest! {
        #[test]
        fn any_content_is_read_as_it_was(content in proptest::collection::vec(any::<u8>(), 0..99)) {
            let directory = tempfile::tempdir().unwrap();
            let mut store = VersionStore::new(directory.path(), false);
            store.write(&versions(&content));
            prop_assert_eq!(store.read(), versions(&content));
        }

        #[test]
        fn any_bytes_have_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _versions = parse(&bytes);
        }
    }
}
