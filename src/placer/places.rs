//! Where a process is that is not in the cgroup of its rule, and whether a user can have moved it there.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::Placer;
use crate::cgroup::mounts::Span;
use crate::cgroup::unit::Unit;
use crate::event::{Pid, Uid};
use crate::policy::Policy;
use crate::process::{Grip, Proc, path_in};

/// Where the cgroups of root's own sessions and service manager are.
const ROOT_SLICE: &[u8] = b"/user.slice/user-0.slice/";
/// Who may write to one of these may move processes into the cgroup; `tasks` is v1's.
const FILES: [&str; 2] = ["cgroup.procs", "tasks"];
/// Group and others may write.
const WRITABLE: u32 = 0o022;

/// The cgroup of a process in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    hierarchy: usize,
    /// From the top of the hierarchy. A user may choose a name that is not text.
    path: Vec<u8>,
}

impl Place {
    #[cfg(test)]
    pub(super) fn new(hierarchy: usize, path: &[u8]) -> Self {
        Self { hierarchy, path: path.to_vec() }
    }

    /// Returns the path as text for a log.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

impl Placer {
    /// Returns where a process with this text of `/proc/PID/cgroup` is, in those hierarchies in which it is not in
    /// the cgroup `self.path`.
    pub(super) fn places_elsewhere(&self, text: &[u8], span: Span) -> Vec<Place> {
        let trees = self.tree.hierarchies();
        let found = span.indexes().filter_map(|hierarchy| {
            let tree = trees.get(hierarchy)?;
            let path = path_in(text, tree.listed.as_bytes())?.to_vec();
            (!tree.holds(&self.path, text)).then_some(Place { hierarchy, path })
        });
        found.collect()
    }

    /// Returns where a process is in the hierarchy with this ID, as the first field of a line of
    /// `/proc/PID/cgroup` has it.
    pub(super) fn place_in(
        &self,
        proc: &mut Proc,
        id: u32,
        (pid, grip): (Pid, &Grip),
    ) -> Option<Place> {
        let text = proc.cgroup(pid, grip.thread)?;
        let start = format!("{id}:");
        let line = text
            .split(|&byte| byte == b'\n')
            .find_map(|line| line.strip_prefix(start.as_bytes()))?;
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (listed, path) = (&line[..colon], line[colon + 1..].to_vec());
        let hierarchy =
            self.tree.hierarchies().iter().position(|tree| tree.listed.as_bytes() == listed)?;
        Some(Place { hierarchy, path })
    }

    /// Returns whether a user controls this cgroup: it is in a session or below a service manager of a user, or
    /// another than root may move processes into it.
    pub(super) fn is_users(&self, policy: &Policy, place: &Place) -> bool {
        let grounds = policy.grounds();
        let text = place.text();
        match Unit::of(&text, &grounds) {
            Unit::OfUser(_) | Unit::Session(..) => !place.path.starts_with(ROOT_SLICE),
            Unit::None | Unit::ForOthers(_) | Unit::Other(_) => {
                self.owner(place).is_none_or(|owner| owner != Uid(0)) || self.is_writable(place)
            }
        }
    }

    /// Returns the owner of a cgroup. `None` if it is gone.
    pub(super) fn owner(&self, place: &Place) -> Option<Uid> {
        let directory = self.directory_of(place)?;
        fs::metadata(directory).ok().map(|metadata| Uid(metadata.uid()))
    }

    /// Returns whether another than root may move processes into a cgroup.
    pub(super) fn is_writable(&self, place: &Place) -> bool {
        let Some(directory) = self.directory_of(place) else { return false };
        FILES.iter().any(|file| {
            fs::metadata(directory.join(file))
                .is_ok_and(|metadata| metadata.uid() != 0 || metadata.mode() & WRITABLE != 0)
        })
    }

    fn directory_of(&self, place: &Place) -> Option<PathBuf> {
        let tree = self.tree.hierarchies().get(place.hierarchy)?;
        let below = tree.below_top(&place.path)?;
        let below = below.strip_prefix(b"/").unwrap_or(below);
        Some(tree.mount_point.join(OsStr::from_bytes(below)))
    }
}
