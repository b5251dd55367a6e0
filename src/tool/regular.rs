//! Files whose paths come from a command line.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bytes of the largest file that is read: 16 times what the daemon takes.
const MAX_SIZE: u64 = 16 << 20;

/// The contents of a regular file. Nothing else is read: a FIFO could be waited for without end, and a device
/// have none.
///
/// # Errors
/// As open(2) and read(2); it is no regular file, or too large.
pub(super) fn read(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
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
