//! The files that a command line names.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::escape::EscapedBytes;
use crate::load::Kind;
use crate::tool::command::Failure;
use crate::tool::regular;

/// What a file is, its absolute path, and what is in it.
type GivenFile = (Kind, Arc<Path>, Vec<u8>);

/// Reads files, and the files of directories. Also says for whom the daemon would not read them, and
/// which are passed over.
///
/// # Errors
/// One cannot be read, or is none of ours.
pub(super) fn given(operands: &[OsString]) -> Result<(Vec<GivenFile>, Vec<String>), Failure> {
    let (mut files, mut notes) = (Vec::new(), Vec::new());
    for operand in operands {
        let path = std::path::absolute(operand).unwrap_or_else(|_| PathBuf::from(operand));
        let failed = |error: io::Error| Failure::Failed(format!("{}: {error}", shown(&path)));
        if !fs::metadata(&path).map_err(failed)?.is_dir() {
            let Some(kind) = Kind::of(&path) else {
                let known =
                    "NN-name.toml, cgruled.toml, or legacy files named for cgrules or cgconfig";
                return Err(Failure::Usage(format!("check: {}: is none of {known}", shown(&path))));
            };
            files.push(read(kind, path, &mut notes)?);
            continue;
        }
        let entries = fs::read_dir(&path).map_err(failed)?;
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            match Kind::of(&path) {
                Some(kind) => files.push(read(kind, path, &mut notes)?),
                None => notes.push(format!("{}: is passed over, no file of ours", shown(&path))),
            }
        }
    }
    Ok((files, notes))
}

fn read(kind: Kind, path: PathBuf, notes: &mut Vec<String>) -> Result<GivenFile, Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("{}: {error}", shown(&path)));
    let (bytes, metadata) = regular::read(&path).map_err(failed)?;
    let distrust = distrust(&metadata).map(|why| {
        format!("{} {why}: installed like this the daemon would refuse it", shown(&path))
    });
    notes.extend(distrust);
    Ok((kind, Arc::from(path), bytes))
}

/// Why the daemon would not believe a file.
fn distrust(metadata: &Metadata) -> Option<String> {
    match (metadata.uid(), metadata.mode() & 0o022) {
        (0, 0) => None,
        (0, _) => Some("is writable by others than root".to_owned()),
        (uid, _) => Some(format!("is owned by user {uid}, not by root")),
    }
}

fn shown(path: &Path) -> EscapedBytes<'_> {
    EscapedBytes(path.as_os_str().as_encoded_bytes())
}
