//! Current cgroup of a process that is not in the cgroup of its rule, and the check whether a user
//! can have moved it there.

use super::Placer;
use crate::cgroup::mounts::HierarchySet;
use crate::cgroup::unit::Unit;
use crate::engine::kernel::Kernel;
use crate::event::{Pid, Uid};
use crate::placement::stay::elsewhere;
use crate::policy::Policy;

/// Slice that contains the sessions and the service manager of root.
const ROOT_SLICE: &[u8] = b"/user.slice/user-0.slice/";
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

    /// Returns the owner of the cgroup, or `None` if it does not exist any more.
    pub(super) fn owner(&self, kernel: &impl Kernel) -> Option<Uid> {
        kernel.group_owner(self.hierarchy, &self.path)
    }

    /// Checks whether users can have processes moved to the cgroup. Not to the scope of a session, to
    /// which root moves every login.
    pub(super) fn is_moved_by_users(&self, policy: &Policy, kernel: &impl Kernel) -> bool {
        let is_session = matches!(Unit::of(&self.text(), &policy.roots()), Unit::Session(..));
        !is_session && is_users(policy, self, kernel)
    }

    /// Returns the path as text for log records.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.path).into_owned()
    }
}

impl Placer {
    /// Returns the cgroups of a process with this content of `/proc/PID/cgroup`, in those
    /// hierarchies in which it is not in the cgroup `self.path`.
    pub(super) fn places_elsewhere(
        &self,
        text: &[u8],
        span: HierarchySet,
        kernel: &impl Kernel,
    ) -> Vec<CgroupPlace> {
        let found = elsewhere(kernel.hierarchies(), span, &self.path, text).into_iter();
        found.map(|(hierarchy, path)| CgroupPlace { hierarchy, path: path.to_vec() }).collect()
    }
}

/// Returns the cgroup of a process in the hierarchy with this ID, the first field of a line in
/// `/proc/PID/cgroup`.
pub(super) fn place_in(
    kernel: &mut impl Kernel,
    id: u32,
    (pid, thread): (Pid, Option<Pid>),
) -> Option<CgroupPlace> {
    let text = kernel.cgroup(pid, thread)?;
    let start = format!("{id}:");
    let line =
        text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(start.as_bytes()))?;
    let colon = line.iter().position(|&byte| byte == b':')?;
    let listed = line[..colon].to_vec();
    let path = line[colon + 1..].to_vec();
    let mut trees = kernel.hierarchies().iter();
    let hierarchy = trees.position(|tree| tree.listed.as_bytes() == listed)?;
    Some(CgroupPlace { hierarchy, path })
}

/// See [`CgroupPlace::is_moved_by_users`].
pub(crate) fn is_moved_by_users(
    policy: &Policy,
    (hierarchy, path): (usize, &[u8]),
    kernel: &impl Kernel,
) -> bool {
    CgroupPlace { hierarchy, path: path.to_vec() }.is_moved_by_users(policy, kernel)
}

/// Checks whether a user controls this cgroup: it belongs to a session or is below the service
/// manager of a user, or a user other than root may move processes into it.
pub(super) fn is_users(policy: &Policy, place: &CgroupPlace, kernel: &impl Kernel) -> bool {
    let roots = policy.roots();
    let text = place.text();
    match Unit::of(&text, &roots) {
        Unit::OfUser(_) | Unit::Session(..) => !place.path.starts_with(ROOT_SLICE),
        Unit::None | Unit::ForOthers(_) | Unit::Other(_) => {
            place.owner(kernel).is_none_or(|owner| owner != Uid(0))
                || kernel.is_group_writable(place.hierarchy, &place.path)
        }
    }
}
