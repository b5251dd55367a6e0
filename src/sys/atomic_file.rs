//! Atomic replacement of files: a reader finds the old content or the new one, never a mixture.
//! Must not be used for files that must survive a power loss, because nothing is synced.
#![deny(unsafe_code)]

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// Replaces the content of `path` by `bytes`, with permissions `mode`. The new content is written
/// to `path.new`, which is then renamed.
///
/// # Errors
/// As unlink(2), open(2), write(2) and rename(2).
pub fn replace(path: &Path, mode: u32, bytes: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    // The file is created anew: one that was left over may have another owner or mode, and a
    // symbolic link in its place must not be followed.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    file.write_all(bytes)?;
    fs::rename(&draft, path)
}

/// Reads a file that this program wrote. Returns `None` if it does not exist.
///
/// # Errors
/// As open(2) and read(2); or another user could have written the file, or it is larger than
/// `most` bytes.
pub fn read_own(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    let opened =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let is_ours = metadata.is_file()
        && metadata.uid() == geteuid().as_raw()
        && metadata.mode() & 0o022 == 0
        && metadata.len() < most;
    if !is_ours {
        return Err(io::Error::other("not a file that only its owner can write, or too large"));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn a_link_in_place_of_the_draft_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        let draft = directory.path().join("a.json.new");
        let other = directory.path().join("other");
        fs::write(&other, "other").unwrap();
        for text in ["one", "two"] {
            symlink(&other, &draft).unwrap();
            replace(&path, 0o600, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_to_string(&other).unwrap(), "other");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(!draft.exists());
    }
}
