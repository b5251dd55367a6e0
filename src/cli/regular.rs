//! Reading of files that are given on a command line. Must never block on a file that is not regular.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Maximum size in bytes: 16 times the daemon's own limit.
const MAX_SIZE: u64 = 16 << 20;

/// Reads a regular file.
///
/// # Errors
/// Errors of open(2) and read(2); the file is not regular, or too large.
pub(super) fn read(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    // A FIFO could block without end, and a device could have no end.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SIZE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(io::Error::other("is larger than 16 MiB"));
    }
    Ok((bytes, metadata))
}
