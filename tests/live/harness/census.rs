//! Reads the cgroups of processes from `/proc`.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// A living process and its v2 cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resident {
    pub(crate) pid: u32,
    pub(crate) cgroup: String,
}

/// Returns the cgroup of a process in the hierarchy of a v1 controller, or of v2 for the empty
/// name. `None` when the process is gone.
pub(crate) fn cgroup_of(pid: u32, controller: &str) -> Option<String> {
    cgroup_of_path(&format!("/proc/{pid}/cgroup"), controller)
}

fn cgroup_of_path(path: &str, controller: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then(|| path.to_owned())
    })
}

/// Returns all living processes with the effective UID `uid`.
pub(crate) fn of(uid: u32) -> Vec<Resident> {
    pids().filter(|&pid| may_be_of(pid, uid)).filter_map(|pid| resident(pid, uid)).collect()
}

/// Returns the living processes of `uid` that are not in `group`.
pub(crate) fn outside(uid: u32, group: &str) -> Vec<Resident> {
    of(uid).into_iter().filter(|resident| resident.cgroup != group).collect()
}

/// Returns every PID in `/proc`.
pub(crate) fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Returns a live thread of a process: the leader, or another one if the leader has exited. `None`
/// when the process is gone or a zombie.
pub(crate) fn live_thread(pid: u32) -> Option<u32> {
    if status_of(pid, pid)?.is_alive {
        return Some(pid);
    }
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    threads
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .find(|&tid| status_of(pid, tid).is_some_and(|status| status.is_alive))
}

/// Returns the v2 cgroup of a thread, `None` when the thread is gone.
pub(crate) fn cgroup_of_thread(pid: u32, tid: u32) -> Option<String> {
    cgroup_of_path(&format!("/proc/{pid}/task/{tid}/cgroup"), "")
}

/// Reports whether a process may belong to a user: the owner of `/proc/PID` is the effective user
/// of the leader. A leader that has exited is not considered, as its IDs are frozen.
fn may_be_of(pid: u32, uid: u32) -> bool {
    let owner = fs::metadata(format!("/proc/{pid}")).map(|metadata| metadata.uid());
    owner.is_ok_and(|owner| owner == uid) || live_thread(pid).is_some_and(|tid| tid != pid)
}

fn resident(pid: u32, uid: u32) -> Option<Resident> {
    let tid = live_thread(pid)?;
    let is_theirs = status_of(pid, tid)?.effective_uid == uid;
    let cgroup = cgroup_of_thread(pid, tid)?;
    is_theirs.then_some(Resident { pid, cgroup })
}

struct Status {
    is_alive: bool,
    effective_uid: u32,
}

/// Reads the state of one thread from `status`: a hanging exec makes `stat` hang too.
fn status_of(pid: u32, tid: u32) -> Option<Status> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/status")).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let state = field("State:\t")?.chars().next()?;
    let effective_uid = field("Uid:\t")?.split('\t').nth(1)?.parse().ok()?;
    Some(Status { is_alive: !matches!(state, 'Z' | 'X'), effective_uid })
}
