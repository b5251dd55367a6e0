//! Owner tags: an extended attribute on the directory of each cgroup that cgruled created. It
//! disappears with the directory, so a later cgroup of the same name is not taken for one of
//! cgruled. The tag contains the destination text, because two texts can lead to the same path.
//!
//! Every user with write access to a directory can change its tag. Such a user could also remove
//! the cgroup, so a removal may rely on the tag. Configuration must not, or the owner could choose
//! among the tables; such a cgroup is configured when the rule places a process into it.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, getxattr, setxattr};

/// Kernels before 5.7 reject it on cgroup directories. `trusted.` would need `CAP_SYS_ADMIN`.
const NAME: &str = "user.cgruled";

/// Checks whether only root can have set the tag of a directory.
pub(in crate::cgroup) fn is_trusted(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|seen| seen.uid() == 0 && seen.mode() & 0o022 == 0)
}

/// The owner tags, on disk or else in memory.
#[derive(Debug, Default)]
pub(in crate::cgroup) struct OwnerTags {
    /// Tags that the kernel rejected. They are lost at a restart; those cgroups are then never
    /// removed.
    kept: HashMap<PathBuf, String>,
}

impl OwnerTags {
    pub(super) fn put(&mut self, directory: &Path, text: String) {
        match setxattr(directory, NAME, text.as_bytes(), XattrFlags::empty()) {
            Ok(()) => drop(self.kept.remove(directory)),
            Err(rustix::io::Errno::NOENT) => {}
            Err(_) => drop(self.kept.insert(directory.to_owned(), text)),
        }
    }

    /// Returns the destination text for which a cgroup of cgruled was created.
    pub(in crate::cgroup) fn of(&self, directory: &Path) -> Option<String> {
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
