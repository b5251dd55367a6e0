//! Owners and modes of new cgroups.

use crate::cgroup::mounts::Version;
use crate::event::{Gid, Uid};

/// Owner and mode. Parts that are `None` stay as the kernel creates them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileOwnership {
    /// The user ID of the owner.
    pub uid: Option<Uid>,
    /// The group ID of the owner.
    pub gid: Option<Gid>,
    /// The permission bits, including set-id and sticky.
    pub mode: Option<u32>,
}

/// The owners and modes in a new cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupPermissions {
    /// True if the directory and the files that accept processes belong to the user whose process
    /// the cgroup is created for.
    pub is_of_user: bool,
    /// The ownership of the directory.
    pub directory: FileOwnership,
    /// The ownership of the files that accept processes: `tasks` of v1, `cgroup.procs` and
    /// `cgroup.threads` of v2.
    pub task: FileOwnership,
    /// The ownership of `cgroup.procs` on v1, which cgconfigparser treats like the settings.
    pub v1_procs: FileOwnership,
    /// The ownership of `cgroup.subtree_control`.
    pub subtree: FileOwnership,
    /// The ownership of the other files. A mode only removes bits; read-only files stay read-only.
    pub files: FileOwnership,
}

impl GroupPermissions {
    /// Checks whether an owner is set.
    pub fn has_owner(&self) -> bool {
        self.is_of_user || self.directory.uid.is_some()
    }

    /// Returns the permissions of a cgroup of this user.
    pub fn of_user(&self, user: Option<Uid>) -> Self {
        let mut own = *self;
        if own.is_of_user {
            for ownership in [&mut own.directory, &mut own.task, &mut own.v1_procs] {
                ownership.uid = user;
            }
        }
        own
    }

    /// Returns the ownership of the file `name` of a cgroup.
    pub fn of_file(&self, name: &str, version: Version) -> &FileOwnership {
        match (version, name) {
            (Version::V1, "tasks") | (Version::V2, "cgroup.procs" | "cgroup.threads") => &self.task,
            (Version::V1, "cgroup.procs") => &self.v1_procs,
            (Version::V2, "cgroup.subtree_control") => &self.subtree,
            (Version::V1 | Version::V2, _) => &self.files,
        }
    }
}
