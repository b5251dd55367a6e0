//! Files that the daemon reads and whoever asks may not, so that an answer without them may be wrong.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::escape::EscapedBytes;

/// How many are named.
const NAMED: usize = 3;

/// Those of the files with an error as a whole that we have no right to read.
pub(super) fn files(diagnostics: &[Diagnostic]) -> Vec<PathBuf> {
    let is_whole = |own: &&Diagnostic| own.severity == Severity::Error && own.place.is_none();
    let files = diagnostics.iter().filter(is_whole).map(|own| &*own.file);
    let is_denied = |file: &&std::path::Path| {
        let asked = faccessat(AT_FDCWD, *file, AccessFlags::R_OK, AtFlags::AT_EACCESS);
        asked == Err(Errno::EACCES)
    };
    let mut denied: Vec<PathBuf> = files.filter(is_denied).map(PathBuf::from).collect();
    denied.dedup();
    denied
}

/// That they are not read. `None` when there are none.
pub(super) fn told(files: &[PathBuf]) -> Option<String> {
    let shown = |file: &PathBuf| EscapedBytes(file.as_os_str().as_encoded_bytes()).to_string();
    let mut names: Vec<String> = files.iter().take(NAMED).map(shown).collect();
    if files.len() > NAMED {
        names.push(format!("{} more", files.len() - NAMED));
    }
    (!files.is_empty()).then(|| {
        format!("you may not read {}, which the daemon goes by: ask as root", names.join(", "))
    })
}
