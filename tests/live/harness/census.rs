//! Where processes are, from `/proc`.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// A living process and its v2 group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resident {
    pub(crate) pid: u32,
    pub(crate) cgroup: String,
}

/// The group of a process in the hierarchy of a v1 controller, or of v2 for the empty name. `None`
/// when the process is gone.
pub(crate) fn cgroup_of(pid: u32, controller: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then(|| path.to_owned())
    })
}

/// All living processes whose effective user is `uid`.
pub(crate) fn of(uid: u32) -> Vec<Resident> {
    pids().filter(|&pid| effective_uid(pid) == Some(uid)).filter_map(resident).collect()
}

/// The living processes of `uid` that are not in `group`.
pub(crate) fn outside(uid: u32, group: &str) -> Vec<Resident> {
    of(uid).into_iter().filter(|resident| resident.cgroup != group).collect()
}

/// Every pid in `/proc`.
pub(crate) fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// The owner of `/proc/PID` is the effective user, also of a process that may not be dumped.
fn effective_uid(pid: u32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|metadata| metadata.uid())
}

/// `None` for the dead, also when nobody has reaped them yet.
fn resident(pid: u32) -> Option<Resident> {
    let cgroup = cgroup_of(pid, "")?;
    is_alive(pid).then_some(Resident { pid, cgroup })
}

fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name is in parentheses and may hold any byte; the state follows it.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}
