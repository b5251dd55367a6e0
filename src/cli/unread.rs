//! Rule files that the daemon reads and the caller cannot, so that an answer without them may be wrong.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::escape::EscapedBytes;

/// Maximum of paths in the message; the others are counted.
const NAMED: usize = 3;

/// Returns the files that failed to load as a whole and that the caller has no permission to read.
pub(super) fn files(diagnostics: &[Diagnostic]) -> Vec<PathBuf> {
    let whole =
        diagnostics.iter().filter(|own| own.severity == Severity::Error && own.place.is_none());
    let denied = whole.map(|own| own.file.to_path_buf()).filter(|file| {
        let access = faccessat(AT_FDCWD, file, AccessFlags::R_OK, AtFlags::AT_EACCESS);
        access == Err(Errno::EACCES)
    });
    let mut denied: Vec<PathBuf> = denied.collect();
    denied.dedup();
    denied
}

/// Returns the note about unreadable files. `None` if there are none.
pub(super) fn told(files: &[PathBuf]) -> Option<String> {
    let named = files.iter().take(NAMED).map(|file| file.as_os_str().as_encoded_bytes());
    let mut names: Vec<String> = named.map(|file| EscapedBytes(file).to_string()).collect();
    if files.len() > NAMED {
        names.push(format!("{} more", files.len() - NAMED));
    }
    (!files.is_empty()).then(|| {
        format!("cannot read {}, which the daemon uses: run cgrulectl as root", names.join(", "))
    })
}
