//! Current cgroup of a process that is not in the cgroup of its rule, and the check whether a user
//! can have moved it there.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::Placer;
use crate::cgroup::mounts::HierarchySet;
use crate::cgroup::unit::Unit;
use crate::event::{Pid, Uid};
use crate::kernel::process::{ProcFs, ProcessHandle, path_in};
use crate::policy::Policy;

/// Slice that contains the sessions and the service manager of root.
const ROOT_SLICE: &[u8] = b"/user.slice/user-0.slice/";
/// Write access to one of these files permits to move processes into the cgroup; `tasks` is for v1.
const FILES: [&str; 2] = ["cgroup.procs", "tasks"];
/// Write permission for group and others.
const WRITABLE: u32 = 0o022;

/// The cgroup of a process in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CgroupPlace {
    hierarchy: usize,
    /// Path from the top of the hierarchy. Names chosen by a user may be invalid UTF-8.
    path: Vec<u8>,
}

impl CgroupPlace {
    #[cfg(test)]
    pub(super) fn new(hierarchy: usize, path: &[u8]) -> Self {
        Self { hierarchy, path: path.to_vec() }
    }

    /// Returns the path as text for log records.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

impl Placer {
    /// Returns the cgroups of a process with this content of `/proc/PID/cgroup`, in those
    /// hierarchies in which it is not in the cgroup `self.path`.
    pub(super) fn places_elsewhere(&self, text: &[u8], span: HierarchySet) -> Vec<CgroupPlace> {
        let trees = self.tree.hierarchies();
        let found = span.indexes().filter_map(|hierarchy| {
            let tree = trees.get(hierarchy)?;
            let path = path_in(text, tree.listed.as_bytes())?.to_vec();
            (!tree.holds(&self.path, text)).then_some(CgroupPlace { hierarchy, path })
        });
        found.collect()
    }

    /// Returns the cgroup of a process in the hierarchy with this ID, the first field of a line in
    /// `/proc/PID/cgroup`.
    pub(super) fn place_in(
        &self,
        proc: &mut ProcFs,
        id: u32,
        (pid, handle): (Pid, &ProcessHandle),
    ) -> Option<CgroupPlace> {
        let text = proc.cgroup(pid, handle.thread)?;
        let start = format!("{id}:");
        let line = text
            .split(|&byte| byte == b'\n')
            .find_map(|line| line.strip_prefix(start.as_bytes()))?;
        let colon = line.iter().position(|&byte| byte == b':')?;
        let listed = &line[..colon];
        let path = line[colon + 1..].to_vec();
        let hierarchy =
            self.tree.hierarchies().iter().position(|tree| tree.listed.as_bytes() == listed)?;
        Some(CgroupPlace { hierarchy, path })
    }

    /// Checks whether a user controls this cgroup: it belongs to a session or is below the service
    /// manager of a user, or a user other than root may move processes into it.
    pub(super) fn is_users(&self, policy: &Policy, place: &CgroupPlace) -> bool {
        let roots = policy.roots();
        let text = place.text();
        match Unit::of(&text, &roots) {
            Unit::OfUser(_) | Unit::Session(..) => !place.path.starts_with(ROOT_SLICE),
            Unit::None | Unit::ForOthers(_) | Unit::Other(_) => {
                self.owner(place).is_none_or(|owner| owner != Uid(0)) || self.is_writable(place)
            }
        }
    }

    /// Returns the owner of a cgroup, or `None` if it does not exist any more.
    pub(super) fn owner(&self, place: &CgroupPlace) -> Option<Uid> {
        let directory = self.directory_of(place)?;
        fs::metadata(directory).ok().map(|metadata| Uid(metadata.uid()))
    }

    /// Checks whether a user other than root may move processes into a cgroup.
    pub(super) fn is_writable(&self, place: &CgroupPlace) -> bool {
        let Some(directory) = self.directory_of(place) else { return false };
        FILES.iter().any(|file| {
            fs::metadata(directory.join(file))
                .is_ok_and(|metadata| metadata.uid() != 0 || metadata.mode() & WRITABLE != 0)
        })
    }

    fn directory_of(&self, place: &CgroupPlace) -> Option<PathBuf> {
        let tree = self.tree.hierarchies().get(place.hierarchy)?;
        let below = tree.below_top(&place.path)?;
        let below = below.strip_prefix(b"/").unwrap_or(below);
        Some(tree.mount_point.join(OsStr::from_bytes(below)))
    }
}
