//! Checks of the cgroup hierarchies, and of the part that rules may use.

use nix::sys::statvfs::{FsFlags, statvfs};

use super::Finding;
use crate::cgroup::host::{Host, POOL, POOL_PATH};
use crate::cgroup::mounts::{Hierarchies, Version};
use crate::config::daemon_toml::{FastMoves, Root, Settings};

/// Controllers that limits and weights need.
const WANTED: [&str; 4] = ["cpu", "memory", "io", "pids"];

pub(super) fn findings(hierarchies: &Hierarchies, settings: &Settings) -> Vec<Finding> {
    let host = Host::default();
    let mut found = vec![trees(hierarchies)];
    found.extend(controllers(hierarchies));
    found.extend(read_only(hierarchies));
    found.push(fast_moves(hierarchies, settings.fast_moves));
    found.push(systemd(&host, hierarchies, &settings.root));
    found
}

/// Returns a path below which cgroups may be created for a test, without a slash at the end. `None` if
/// systemd owns the tree and has delegated no part of it.
pub(super) fn ground(hierarchies: &Hierarchies, root: &Root) -> Option<String> {
    let unified = match (root, hierarchies.unified()) {
        (Root::Path(path), _) => {
            return Some(path.to_string_lossy().trim_end_matches('/').to_owned());
        }
        (Root::Auto, Some(unified)) if Host::default().runs_systemd() => unified,
        (Root::Auto, _) => return Some(String::new()),
    };
    let pool = unified.mount_point.join(POOL_PATH.trim_start_matches('/'));
    pool.is_dir().then(|| POOL_PATH.to_owned())
}

fn trees(hierarchies: &Hierarchies) -> Finding {
    let mut v1 = Vec::new();
    let mut v2 = None;
    for tree in hierarchies.iter() {
        match tree.version {
            Version::V1 => v1.push(&*tree.listed),
            Version::V2 => v2 = Some(tree.mount_point.display()),
        }
    }
    match (v2, &*v1) {
        (None, []) => Finding::wrong(
            "cgroups",
            "no cgroup hierarchy is mounted",
            "mount -t cgroup2 cgroup2 /sys/fs/cgroup",
        ),
        (Some(at), []) => Finding::ok("cgroups", format!("cgroup v2 at {at}")),
        (Some(at), v1) => {
            let text = format!("hybrid: cgroup v2 at {at}, v1 for {}", v1.join(", "));
            Finding::ok("cgroups", text)
        }
        (None, v1) => Finding::ok("cgroups", format!("cgroup v1 for {}", v1.join(", "))),
    }
}

/// Reports the controllers that no hierarchy has, neither v1 nor v2.
fn controllers(hierarchies: &Hierarchies) -> Option<Finding> {
    if hierarchies.is_empty() {
        return None;
    }
    let missing: Vec<&str> =
        WANTED.into_iter().filter(|name| hierarchies.locate(name).is_none()).collect();
    if missing.is_empty() {
        return Some(Finding::ok("controllers", format!("{} available", WANTED.join(", "))));
    }
    let text = format!("no hierarchy has {}", missing.join(", "));
    let advice = "cgroups work, but without these settings; they are disabled by a boot option such as \
                  cgroup_disable=memory, by the container, or in the kernel's configuration";
    Some(Finding::note("controllers", text, advice))
}

fn read_only(hierarchies: &Hierarchies) -> Option<Finding> {
    let tree = hierarchies.iter().find(|tree| {
        statvfs(&tree.mount_point).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_RDONLY))
    })?;
    let text = format!("{} is mounted read-only", tree.mount_point.display());
    let advice = "no process can be moved there: run the daemon on the host, or remount it with rw";
    Some(Finding::wrong("mounts", text, advice))
}

/// Reports the effect of the setting `fast_moves` on this host.
fn fast_moves(hierarchies: &Hierarchies, setting: FastMoves) -> Finding {
    const TOPIC: &str = "fast moves";
    if !hierarchies.is_empty() && hierarchies.iter().all(|tree| tree.favordynmods) {
        return Finding::ok(TOPIC, "favordynmods is on: all moves are fast, whatever the setting");
    }
    match setting {
        FastMoves::Auto => Finding::ok(TOPIC, "\"auto\": moves are fast, also after a pause"),
        FastMoves::Warm => {
            Finding::ok(TOPIC, "\"warm\": moves are fast while processes are being moved")
        }
        FastMoves::Off => Finding::note(
            TOPIC,
            "\"off\": an isolated move waits for the kernel for milliseconds",
            "set fast_moves = \"auto\", which costs 7 ms of CPU per second while processes are being moved",
        ),
        FastMoves::Expedited => {
            Finding::ok(TOPIC, "\"expedited\": RCU grace periods of the kernel are short")
        }
        FastMoves::Favordynmods if hierarchies.unified().is_some_and(|tree| tree.favordynmods) => {
            Finding::ok(TOPIC, "\"favordynmods\": on for cgroup v2, off for v1")
        }
        FastMoves::Favordynmods if hierarchies.unified().is_none() => Finding::note(
            TOPIC,
            "\"favordynmods\": there is no cgroup v2 hierarchy to set it on",
            "set fast_moves = \"warm\"",
        ),
        FastMoves::Favordynmods => {
            Finding::ok(TOPIC, "\"favordynmods\": the daemon turns it on when it starts")
        }
    }
}

fn systemd(host: &Host, hierarchies: &Hierarchies, root: &Root) -> Finding {
    const TOPIC: &str = "systemd";
    if !host.runs_systemd() {
        return Finding::ok(TOPIC, "not running: the whole cgroup tree is available");
    }
    if let Root::Path(path) = root {
        let text = format!("running; cgroups are created below {}, as configured", path.display());
        return Finding::ok(TOPIC, text);
    }
    match (hierarchies.unified().is_some(), host.knows(POOL)) {
        (true, true) => Finding::ok(TOPIC, format!("running; cgroups are created below {POOL}")),
        (true, false) => Finding::note(
            TOPIC,
            format!("running, but {POOL} is missing: no part of its tree is delegated"),
            "install the units of the package, or set root below a unit with Delegate=yes",
        ),
        (false, _) => {
            Finding::ok(TOPIC, "running on cgroup v1, where it leaves controllers to others")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::FindingState;
    use super::*;
    use crate::cgroup::mounts::Hierarchy;

    fn tree(version: Version, listed: &str, favordynmods: bool) -> Hierarchy {
        Hierarchy {
            version,
            mount_point: "/nonexistent".into(),
            top: "/".into(),
            listed: listed.to_owned(),
            controllers: listed.split(',').map(str::to_owned).collect(),
            favordynmods,
        }
    }

    fn host(trees: &[(Version, &str, bool)]) -> Hierarchies {
        Hierarchies::new(
            trees.iter().map(|&(version, listed, on)| tree(version, listed, on)).collect(),
        )
    }

    #[test]
    fn a_host_without_groups_is_wrong() {
        let found = findings(&host(&[]), &Settings::default());
        assert_eq!((found[0].topic, found[0].state), ("cgroups", FindingState::Wrong));
        assert!(controllers(&host(&[])).is_none());
    }

    #[test]
    fn trees_are_named() {
        let hybrid = host(&[(Version::V1, "cpu,cpuacct", false), (Version::V2, "", false)]);
        let text = "hybrid: cgroup v2 at /nonexistent, v1 for cpu,cpuacct";
        assert_eq!(trees(&hybrid).text, text);
        let missing = controllers(&hybrid).unwrap();
        assert_eq!(
            (missing.state, &*missing.text),
            (FindingState::Note, "no hierarchy has memory, io, pids")
        );
        let old = host(&[(Version::V1, "cpu,memory,blkio,pids", false)]);
        assert_eq!(controllers(&old).unwrap().state, FindingState::Ok);
    }

    #[test]
    fn settings_are_judged_by_what_they_give_here() {
        let plain = host(&[(Version::V2, "", false)]);
        assert_eq!(fast_moves(&plain, FastMoves::Warm).state, FindingState::Ok);
        assert_eq!(fast_moves(&plain, FastMoves::Off).state, FindingState::Note);
        let on = host(&[(Version::V2, "", true)]);
        assert_eq!(fast_moves(&on, FastMoves::Off).state, FindingState::Ok);
        let old = host(&[(Version::V1, "cpu", false)]);
        assert_eq!(fast_moves(&old, FastMoves::Favordynmods).state, FindingState::Note);
        let directory = tempfile::tempdir().unwrap();
        let host = Host::at(directory.path());
        assert_eq!(systemd(&host, &plain, &Root::Auto).state, FindingState::Ok);
        fs::create_dir_all(directory.path().join("run/systemd/system")).unwrap();
        assert_eq!(systemd(&host, &plain, &Root::Auto).state, FindingState::Note);
        assert_eq!(systemd(&host, &plain, &Root::Path("/x".into())).state, FindingState::Ok);
        // Installed by `make install`.
        let units = directory.path().join("usr/local/lib/systemd/system");
        fs::create_dir_all(&units).unwrap();
        fs::write(units.join(POOL), "[Service]\n").unwrap();
        assert_eq!(systemd(&host, &plain, &Root::Auto).state, FindingState::Ok);
    }
}
