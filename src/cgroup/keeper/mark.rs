//! Which groups are ours. The directory itself says so in an extended attribute, which is gone with it:
//! a group of the same name that somebody else makes later is not ours. It names the text of the
//! destination that the group was made for, because two texts can lead to one name.
//!
//! Whoever may write to a directory can change its mark. He could remove the group himself, so that a
//! removal may rely on it; what a group is given may not, or its owner could choose among the tables.
//! Such a group gets its settings when a process enters it, by the rule.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, getxattr, setxattr};

/// Kernels before 5.7 refuse it on cgroup directories. `trusted.` would need `CAP_SYS_ADMIN`.
const NAME: &str = "user.cgruled";

/// Whether nobody but root can have set the mark of a directory.
pub(super) fn is_sure(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|seen| seen.uid() == 0 && seen.mode() & 0o022 == 0)
}

/// Reads and sets marks.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// Those that the kernel did not take; a restart forgets them, and then the groups stay.
    kept: HashMap<PathBuf, String>,
}

impl Marks {
    pub(super) fn put(&mut self, directory: &Path, text: String) {
        match setxattr(directory, NAME, text.as_bytes(), XattrFlags::empty()) {
            Ok(()) => drop(self.kept.remove(directory)),
            Err(rustix::io::Errno::NOENT) => {}
            Err(_) => drop(self.kept.insert(directory.to_owned(), text)),
        }
    }

    /// The text that a group of ours was made for.
    pub(super) fn of(&self, directory: &Path) -> Option<String> {
        let mut buffer = [0; 4096];
        match getxattr(directory, NAME, &mut buffer[..]) {
            Ok(length) => String::from_utf8(buffer.get(..length)?.to_vec()).ok(),
            Err(_) => self.kept.get(directory).filter(|_| directory.is_dir()).cloned(),
        }
    }

    pub(super) fn forget(&mut self, directory: &Path) {
        self.kept.remove(directory);
    }
}
