//! Creates and removes throw-away cgroups.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::wait::{PATIENCE, eventually};

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug)]
struct Hierarchy {
    /// Controllers of the hierarchy; empty for v2.
    controllers: Vec<String>,
    mount: PathBuf,
}

/// A cgroup below the root of each hierarchy that contains all cgroups of a test. Removed on drop.
pub(crate) struct Ground {
    name: String,
    hierarchies: Vec<Hierarchy>,
}

impl Ground {
    /// Creates the cgroup on v2. The daemon creates the others when a rule needs them.
    pub(super) fn prepare() -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // A slice, so that units can be below it.
        let name = format!("cgruled-test-{}-{number}.slice", std::process::id());
        let ground = Self { name, hierarchies: hierarchies()? };
        let path = ground.directory("", "").ok_or("no cgroup v2 hierarchy is mounted")?;
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(ground)
    }

    /// Returns the argument of `--root`.
    pub(super) fn root(&self) -> String {
        format!("/{}", self.name)
    }

    /// Returns the path that `/proc/PID/cgroup` has for a process in the cgroup `below`.
    pub(crate) fn at(&self, below: &str) -> String {
        format!("/{}/{below}", self.name)
    }

    /// Reports whether a path of `/proc/PID/cgroup` belongs to the test.
    pub(crate) fn holds(&self, path: &str) -> bool {
        path.strip_prefix(&self.root()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Returns the directory of the cgroup `below` in the hierarchy of a v1 controller (empty: v2).
    /// `None` when that is not mounted.
    pub(crate) fn directory(&self, controller: &str, below: &str) -> Option<PathBuf> {
        let wanted = |hierarchy: &&Hierarchy| match controller {
            "" => hierarchy.controllers.is_empty(),
            name => hierarchy.controllers.iter().any(|one| one == name),
        };
        let hierarchy = self.hierarchies.iter().find(wanted)?;
        Some(hierarchy.mount.join(&self.name).join(below))
    }

    /// Moves a process to the root of the v2 hierarchy, as a third party would.
    pub(crate) fn take_away(&self, pid: u32) {
        let top = self.directory("", "").unwrap().parent().unwrap().join("cgroup.procs");
        fs::write(top, pid.to_string()).unwrap();
    }

    /// Returns the PIDs in the v2 cgroup `below`.
    pub(crate) fn members(&self, below: &str) -> Vec<u32> {
        pids_in(&self.directory("", below).unwrap())
    }

    /// Returns the PIDs in any cgroup of the test, in any hierarchy.
    pub(crate) fn residents(&self) -> Vec<u32> {
        self.groups().iter().flat_map(|group| pids_in(group)).collect()
    }

    /// Returns every cgroup of the test, deepest first.
    fn groups(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for hierarchy in &self.hierarchies {
            collect_depth_first(&hierarchy.mount.join(&self.name), &mut found);
        }
        found
    }

    /// Empties the cgroups. The actors exit by themselves when a test ends. A process that is not
    /// of a test user was moved by mistake: it is moved back to the root, alive.
    fn evacuate(&self) {
        for pid in self.residents() {
            if !is_ours(pid) {
                eprintln!("process {pid}, not of a test user, was in a cgroup of the test");
                for hierarchy in &self.hierarchies {
                    let _ = fs::write(hierarchy.mount.join("cgroup.procs"), pid.to_string());
                }
            }
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.evacuate();
        let removed = eventually(PATIENCE, || {
            let groups = self.groups();
            groups.iter().filter(|group| fs::remove_dir(group).is_err()).count() == 0
        });
        if !removed {
            eprintln!("not removed: {:?}, with {:?}", self.groups(), self.residents());
        }
    }
}

/// Reports whether a user or group ID of a process belongs to the tests. A process that has exited
/// counts as one, since there is nothing to move.
fn is_ours(pid: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return true };
    let ids = status.lines().filter(|line| line.starts_with("Uid:") || line.starts_with("Gid:"));
    let mut numbers = ids.flat_map(str::split_whitespace).filter_map(|id| id.parse::<u32>().ok());
    numbers.any(|id| (61_000..62_000).contains(&id))
}

fn pids_in(group: &Path) -> Vec<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid != 0).collect()
}

fn collect_depth_first(group: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(group) else { return };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        collect_depth_first(&entry.path(), found);
    }
    found.push(group.to_owned());
}

/// Returns the cgroup mounts in the namespace of this thread that show a whole hierarchy.
fn hierarchies() -> Result<Vec<Hierarchy>, String> {
    let path = "/proc/thread-self/mountinfo";
    let text = fs::read_to_string(path).map_err(|error: io::Error| format!("{path}: {error}"))?;
    Ok(text.lines().filter_map(hierarchy).collect())
}

/// Parses a line such as `31 23 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids`.
fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut mount = mount.split(' ').skip(3);
    let (root, point) = (mount.next()?, mount.next()?);
    let mut file_system = file_system.split(' ');
    let (kind, options) = (file_system.next()?, file_system.nth(1)?);
    let controllers = match kind {
        "cgroup2" => Vec::new(),
        "cgroup" => options.split(',').map(str::to_owned).collect(),
        _ => return None,
    };
    (root == "/").then(|| Hierarchy { controllers, mount: PathBuf::from(point) })
}

/// Returns the processes in any cgroup of the test that are not of a test user.
pub(crate) fn strangers(ground: &Ground) -> Vec<u32> {
    ground.residents().into_iter().filter(|&pid| !is_ours(pid)).collect()
}
