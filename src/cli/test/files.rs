//! Rule files to test, and the files of the host. Must never change one.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::command::ToolError;
use crate::cli::regular;
use crate::config::escape::EscapedBytes;
use crate::policy::load::{FileOutcome, GivenFile, GivenKind, NameService, Sources, load};

/// Absolute path of a rule file, and its contents.
pub(super) type RuleFile = (Arc<Path>, Vec<u8>);

/// Files that a daemon on this host would use, in their order.
pub(super) struct HostFiles {
    files: Vec<GivenFile>,
    /// Indexes of the files of the first directory, in which an administrator installs rules.
    first: Range<usize>,
}

impl HostFiles {
    /// Reads the files that the daemon accepts.
    pub(super) fn read(sources: &Sources) -> Self {
        let loaded = load(sources, &NameService::default());
        let used = loaded.files.iter().filter(|file| match file.outcome {
            FileOutcome::Loaded(_) => true,
            FileOutcome::Mask
            | FileOutcome::HiddenBy(_)
            | FileOutcome::Skipped
            | FileOutcome::Refused => false,
        });
        let files = used.filter_map(|file| {
            let is_legacy = file.path.parent() == Some(&sources.cgrules_d)
                || *file.path == *sources.cgrules_conf;
            let is_rules = file
                .path
                .parent()
                .is_some_and(|own| sources.directories.iter().any(|directory| directory == own));
            let kind = match (is_rules, is_legacy) {
                (true, _) => GivenKind::Rules,
                (false, true) => GivenKind::Legacy,
                (false, false) => return None,
            };
            Some((kind, Arc::clone(&file.path), loaded.contents.get(&file.path)?.to_vec()))
        });
        let files: Vec<GivenFile> = files.collect();
        let directory = sources.directories.first().map(PathBuf::as_path);
        let start = files.iter().take_while(|(kind, ..)| *kind == GivenKind::Legacy).count();
        let inside = files[start..].iter().take_while(|(_, path, _)| path.parent() == directory);
        let first = start..start + inside.count();
        Self { files, first }
    }

    /// Returns all files.
    pub(super) fn files(&self) -> &[GivenFile] {
        &self.files
    }

    /// Returns the files of TOML rules.
    pub(super) fn rule_files(&self) -> Vec<RuleFile> {
        let rules = self.files.iter().filter(|(kind, ..)| *kind == GivenKind::Rules);
        rules.map(|(_, path, bytes)| (Arc::clone(path), bytes.clone())).collect()
    }

    /// Adds a file as if it were installed: in place of the one with its name, else in the first
    /// directory.
    pub(super) fn install(&mut self, path: &Arc<Path>, bytes: &[u8]) {
        let file = (GivenKind::Rules, Arc::clone(path), bytes.to_vec());
        let name = path.file_name();
        let mut rules = self.files.iter_mut().filter(|(kind, ..)| *kind == GivenKind::Rules);
        if let Some(same) = rules.find(|(_, own, _)| own.file_name() == name) {
            *same = file;
            return;
        }
        let first = &self.files[self.first.clone()];
        let before = first.iter().take_while(|(_, own, _)| own.file_name() < name).count();
        self.files.insert(self.first.start + before, file);
        self.first.end += 1;
    }
}

/// Reads the given rule files, and those of given directories in the order of their names.
///
/// # Errors
/// A file cannot be read, or is no rule file.
pub(super) fn given(operands: &[PathBuf]) -> Result<Vec<RuleFile>, ToolError> {
    let mut files = Vec::new();
    for operand in operands {
        let path = std::path::absolute(operand).unwrap_or_else(|_| operand.clone());
        if !fs::metadata(&path).map_err(|error| unreadable(&path, &error))?.is_dir() {
            if !is_rule_file(&path) {
                let message = format!("test: {}: use rule files NN-name.toml", shown(&path));
                return Err(ToolError::Usage(message));
            }
            files.push(read(&path)?);
            continue;
        }
        let entries = fs::read_dir(&path).map_err(|error| unreadable(&path, &error))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.retain(|path| is_rule_file(path));
        paths.sort();
        for path in paths {
            files.push(read(&path)?);
        }
    }
    Ok(files)
}

fn is_rule_file(path: &Path) -> bool {
    GivenKind::of(path) == Some(GivenKind::Rules)
}

fn read(path: &Path) -> Result<RuleFile, ToolError> {
    let (bytes, _) = regular::read(path).map_err(|error| unreadable(path, &error))?;
    Ok((Arc::from(path), bytes))
}

fn unreadable(path: &Path, error: &io::Error) -> ToolError {
    ToolError::Failed(format!("{}: {error}", shown(path)))
}

fn shown(path: &Path) -> EscapedBytes<'_> {
    EscapedBytes(path.as_os_str().as_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_installed_in_place_of_one_of_its_name_or_by_its_name() {
        let file = |kind, path: &str| (kind, Arc::from(Path::new(path)), Vec::new());
        let mut host = HostFiles {
            files: vec![
                file(GivenKind::Legacy, "/etc/cgrules.conf"),
                file(GivenKind::Rules, "/etc/r/40-a.toml"),
                file(GivenKind::Rules, "/etc/r/60-b.toml"),
                file(GivenKind::Rules, "/usr/r/20-c.toml"),
            ],
            first: 1..3,
        };
        for path in ["/x/50-n.toml", "/x/60-b.toml", "/x/70-z.toml", "/x/20-c.toml", "/x/10-a.toml"]
        {
            host.install(&Arc::from(Path::new(path)), b"");
        }
        let paths: Vec<_> =
            host.files().iter().map(|(_, path, _)| path.to_str().unwrap()).collect();
        let expected = [
            "/etc/cgrules.conf",
            "/x/10-a.toml",
            "/etc/r/40-a.toml",
            "/x/50-n.toml",
            "/x/60-b.toml",
            "/x/70-z.toml",
            "/x/20-c.toml",
        ];
        assert_eq!(paths, expected);
    }
}
