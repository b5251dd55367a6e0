//! Files and directories on the command line of `cgrulectl check`.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::command::ToolError;
use crate::cli::regular;
use crate::config::escape::EscapedBytes;
use crate::policy::load::{GivenFile, GivenKind};

/// Reads the given files, and the files of given directories. Also returns notes about files that the daemon
/// would refuse because of their owner or mode, and about files that are skipped.
///
/// # Errors
/// A file cannot be read, or is neither a rule nor a settings file.
pub(super) fn given(operands: &[PathBuf]) -> Result<(Vec<GivenFile>, Vec<String>), ToolError> {
    let mut files = Vec::new();
    let mut notes = Vec::new();
    for operand in operands {
        let path = std::path::absolute(operand).unwrap_or_else(|_| operand.clone());
        if !fs::metadata(&path).map_err(|error| unreadable(&path, &error))?.is_dir() {
            let Some(kind) = GivenKind::of(&path) else {
                let known =
                    "NN-name.toml, cgruled.toml, or legacy files named for cgrules or cgconfig";
                let message = format!("check: {}: unknown kind of file: use {known}", shown(&path));
                return Err(ToolError::Usage(message));
            };
            files.push(read(kind, path, &mut notes)?);
            continue;
        }
        let entries = fs::read_dir(&path).map_err(|error| unreadable(&path, &error))?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            match GivenKind::of(&path) {
                Some(kind) => files.push(read(kind, path, &mut notes)?),
                None => notes.push(format!("{}: skipped, unknown kind of file", shown(&path))),
            }
        }
    }
    Ok((files, notes))
}

fn read(kind: GivenKind, path: PathBuf, notes: &mut Vec<String>) -> Result<GivenFile, ToolError> {
    let (bytes, metadata) = regular::read(&path).map_err(|error| unreadable(&path, &error))?;
    let distrust = distrust(&metadata).map(|why| {
        format!("{} {why}: the daemon would refuse it if installed like this", shown(&path))
    });
    notes.extend(distrust);
    Ok((kind, Arc::from(path), bytes))
}

/// Returns the reason for which the daemon would refuse a file.
fn distrust(metadata: &Metadata) -> Option<String> {
    match (metadata.uid(), metadata.mode() & 0o022) {
        (0, 0) => None,
        (0, _) => Some("is writable by users other than root".to_owned()),
        (uid, _) => Some(format!("is owned by user {uid}, not by root")),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> ToolError {
    ToolError::Failed(format!("{}: {error}", shown(path)))
}

fn shown(path: &Path) -> EscapedBytes<'_> {
    EscapedBytes(path.as_os_str().as_encoded_bytes())
}
