//! The text of a file of the host that has a default without it, such as `/etc/nsswitch.conf`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Returns the first `most` bytes of a file as text. `None` if it cannot be read, which is the same as for a host
/// without it.
pub(super) fn read(path: &Path, most: u64) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(most).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
