//! Detection of an unused named v1 hierarchy of systemd, as on hosts with another init system.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use crate::cgroup::mounts::Hierarchies;

/// Root directory of the named v1 hierarchy of systemd. Held open, because its path takes 13 us to
/// look up in an idle daemon.
#[derive(Debug)]
pub(super) struct SystemdRoot {
    directory: File,
    /// True if the whole hierarchy is mounted there.
    is_whole: bool,
}

impl SystemdRoot {
    /// Opens the root. Returns `None` if the hierarchy is not mounted.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn open(hierarchies: &Hierarchies) -> io::Result<Option<Self>> {
        let Some(tree) = hierarchies.iter().find(|tree| tree.is_systemds()) else {
            return Ok(None);
        };
        Ok(Some(Self { directory: File::open(&tree.mount_point)?, is_whole: tree.top == "/" }))
    }

    /// Checks whether the hierarchy has cgroups below its root, as far as that is visible.
    pub(super) fn has_groups(&self) -> bool {
        // kernfs counts two links, and one for each directory in it.
        let is_empty = self.directory.metadata().is_ok_and(|found| found.nlink() == 2);
        !self.is_whole || !is_empty
    }
}
