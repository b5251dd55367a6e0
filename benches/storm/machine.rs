//! Describes the machine: the mode of its kernel, and the environment of measurements.
//!
//! Created: the cgroup `cgruled-bench-PID` in the v2 hierarchy and in v1 `pids`; a tracing instance
//! of that name; and, in a private mount namespace that ends with the benchmark, a copy of /etc, an
//! empty /run and tracefs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::Result;

pub(crate) const TRACEFS: &str = "/sys/kernel/tracing";
pub(crate) const RCU_EXPEDITED: &str = "/sys/kernel/rcu_expedited";

/// The v1 controller of the v1 measurements: cheap, and rarely managed by other software.
pub(crate) const V1_CONTROLLER: &str = "pids";

/// The hierarchy that a subject places into.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Hierarchy {
    V1,
    V2,
}

impl Hierarchy {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Hierarchy::V1 => "v1",
            Hierarchy::V2 => "v2",
        }
    }

    /// Returns the mount point, if the hierarchy is mounted.
    pub(crate) fn mount(self) -> Option<PathBuf> {
        match self {
            Hierarchy::V1 => mount_point("cgroup", V1_CONTROLLER),
            Hierarchy::V2 => mount_point("cgroup2", "rw"),
        }
    }

    /// Returns the line of `/proc/PID/cgroup` for this hierarchy: its start up to the path, and the path.
    pub(crate) fn line(self, text: &str) -> Option<(&str, &str)> {
        text.lines().find_map(|line| {
            let mut field = line.splitn(3, ':');
            let (id, controllers, path) = (field.next()?, field.next()?, field.next()?);
            let ours = match self {
                Hierarchy::V1 => controllers.split(',').any(|name| name == V1_CONTROLLER),
                Hierarchy::V2 => id == "0",
            };
            ours.then(|| (&line[..line.len() - path.len()], path))
        })
    }
}

/// Returns the first mount point of this type with this option.
fn mount_point(kind: &str, option: &str) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let found = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|field| field[2] == kind && field[3].split(',').any(|own| own == option));
    found.map(|field| PathBuf::from(field[1]))
}

/// Returns the mount point of the v1 hierarchy of the memory controller.
pub(crate) fn memory_mount() -> Option<PathBuf> {
    mount_point("cgroup", "memory")
}

/// Cgroups of the rules.
const LEAVES: [&str; 3] = ["one", "user", "exe"];

/// Environment of the measuring process.
pub(crate) struct Ground {
    pub(crate) work: PathBuf,
    /// Name of the cgroup in the root of each hierarchy, and of the tracing instance.
    pub(crate) name: String,
}

impl Ground {
    /// Creates the cgroups. The supervisor, our parent, removes them.
    pub(crate) fn stand_on(work: &Path) -> Result<Self> {
        nix::sys::signal::SigSet::all().thread_unblock()?;
        let name = name_of(nix::unistd::getppid().as_raw().unsigned_abs());
        let ground = Self { work: work.to_owned(), name };
        for hierarchy in [Hierarchy::V1, Hierarchy::V2] {
            for leaf in LEAVES {
                if let Some(group) = ground.group(hierarchy, leaf) {
                    fs::create_dir_all(group)?;
                }
            }
        }
        Ok(ground)
    }

    /// Returns the directory of a cgroup of the benchmark.
    pub(crate) fn group(&self, hierarchy: Hierarchy, leaf: &str) -> Option<PathBuf> {
        hierarchy.mount().map(|top| top.join(&self.name).join(leaf))
    }

    /// Creates a cgroup with this much memory, without swap.
    pub(crate) fn limited_memory(&self, bytes: u64) -> Result<PathBuf> {
        let mount = memory_mount().ok_or("the v1 memory controller is not mounted")?;
        let group = mount.join(&self.name);
        fs::create_dir_all(&group)?;
        fs::write(group.join("memory.limit_in_bytes"), bytes.to_string())?;
        Ok(group)
    }

    /// Returns the path of a cgroup of the benchmark as `/proc/PID/cgroup` shows it.
    pub(crate) fn path(&self, leaf: &str) -> String {
        format!("/{}/{leaf}", self.name)
    }
}

const PREFIX: &str = "cgruled-bench-";

fn name_of(supervisor: u32) -> String {
    format!("{PREFIX}{supervisor}")
}

/// Returns the PIDs of exited supervisors that left cgroups behind: after a SIGKILL they cannot clean up.
pub(crate) fn ended_supervisors() -> Vec<u32> {
    let tops = [Hierarchy::V1, Hierarchy::V2].into_iter().filter_map(Hierarchy::mount);
    let entries = tops.filter_map(|top| fs::read_dir(top).ok()).flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix(PREFIX)?.parse().ok())
        .filter(|pid| !Path::new(&format!("/proc/{pid}")).exists())
        .collect()
}

/// Creates a private mount namespace, so that a real cgrulesengd finds its files
/// without a change to the real /etc.
pub(crate) fn enter_private_mounts(work: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let etc = work.join("etc");
    if !Command::new("cp").arg("-a").arg("/etc").arg(&etc).status()?.success() {
        return Err("cannot copy /etc".into());
    }
    mount(Some(&etc), "/etc", None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    if !Path::new(TRACEFS).join("instances").exists() {
        mount(Some("tracefs"), TRACEFS, Some("tracefs"), MsFlags::empty(), None::<&str>)?;
    }
    Ok(())
}

/// Unmounts the copy of /etc, so that the working directory can be removed.
pub(crate) fn leave_private_mounts() {
    if let Err(error) = umount2("/etc", MntFlags::MNT_DETACH) {
        eprintln!("storm: cannot unmount the private /etc: {error}");
    }
}

pub(crate) fn remove_groups(supervisor: u32) {
    let mounts = [Hierarchy::V1.mount(), Hierarchy::V2.mount(), memory_mount()];
    for top in mounts.into_iter().flatten().map(|mount| mount.join(name_of(supervisor))) {
        // A killed process occupies its cgroup until it is reaped.
        let removed = (0..100).any(|_| {
            remove_tree(&top);
            let gone = !top.exists();
            if !gone {
                std::thread::sleep(Duration::from_millis(20));
            }
            gone
        });
        if !removed {
            eprintln!("storm: cannot remove {}", top.display());
        }
    }
}

/// Removes children first: a cgroup with children cannot be removed. The caller detects failures by
/// the directories that are left.
fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _left = fs::remove_dir(group);
}

pub(crate) fn trace_instance(name: &str) -> PathBuf {
    Path::new(TRACEFS).join("instances").join(name)
}

pub(crate) fn remove_trace_instance(supervisor: u32) {
    let dir = trace_instance(&name_of(supervisor));
    if dir.exists() && fs::remove_dir(&dir).is_err() {
        eprintln!("storm: cannot remove {}", dir.display());
    }
}

/// Saved state of the kernel setting: the daemon may change it and must restore it; if
/// it did not, the benchmark does.
#[must_use]
pub(crate) struct RcuExpedited(Option<String>);

impl RcuExpedited {
    pub(crate) fn remember() -> Self {
        Self(fs::read_to_string(RCU_EXPEDITED).ok())
    }

    pub(crate) fn restore(&self) {
        let Some(before) = &self.0 else { return };
        if fs::read_to_string(RCU_EXPEDITED).is_ok_and(|now| now != *before) {
            eprintln!(
                "storm: the daemon did not restore rcu_expedited; restoring {}",
                before.trim()
            );
            if let Err(error) = fs::write(RCU_EXPEDITED, before) {
                eprintln!("storm: {RCU_EXPEDITED}: {error}");
            }
        }
    }
}

/// The limit of PIDs, restored on drop.
#[must_use]
pub(crate) struct PidMax(String);

const PID_MAX: &str = "/proc/sys/kernel/pid_max";

impl PidMax {
    pub(crate) fn remember() -> Result<Self> {
        Ok(Self(fs::read_to_string(PID_MAX)?))
    }

    pub(crate) fn raise(pids: u32) -> Result<Self> {
        let before = Self::remember()?;
        if before.0.trim().parse::<u32>()? < pids {
            fs::write(PID_MAX, pids.to_string())?;
        }
        Ok(before)
    }
}

impl Drop for PidMax {
    fn drop(&mut self) {
        if let Err(error) = fs::write(PID_MAX, &self.0) {
            eprintln!("storm: {PID_MAX}: {error}");
        }
    }
}

/// Returns the properties of the kernel that determine the speed of a move, each with its name.
pub(crate) fn mode() -> Vec<(&'static str, String)> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let boot = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let favored = mounts
        .lines()
        .filter(|line| line.contains(" cgroup"))
        .any(|line| line.contains("favordynmods"));
    let option = boot.split_whitespace().find(|word| word.starts_with("cgroup_favordynmods"));
    vec![
        ("kernel", first_line("/proc/sys/kernel/osrelease")),
        ("CPUs", std::thread::available_parallelism().map_or(0, usize::from).to_string()),
        ("load before", first_line("/proc/loadavg")),
        ("favordynmods in mount options", if favored { "yes" } else { "no" }.into()),
        ("cgroup_favordynmods= at boot", option.unwrap_or("not given").into()),
        ("rcu_expedited", first_line(RCU_EXPEDITED)),
        ("rcu_normal", first_line("/sys/kernel/rcu_normal")),
        ("v2 mounted at", place(Hierarchy::V2)),
        ("v1 pids mounted at", place(Hierarchy::V1)),
    ]
}

/// Returns the percentage of CPU time that other processes use while the benchmark is idle.
pub(crate) fn other_load() -> u64 {
    let before = cpu_ticks();
    std::thread::sleep(Duration::from_millis(500));
    let after = cpu_ticks();
    let (busy, all) = (after.0 - before.0, after.1 - before.1);
    (100 * busy).checked_div(all).unwrap_or(0)
}

/// Returns busy and total ticks since boot. Columns: user nice system idle iowait irq softirq steal.
fn cpu_ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> =
        first.split_whitespace().skip(1).take(8).filter_map(|word| word.parse().ok()).collect();
    let all: u64 = ticks.iter().sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    (all - idle, all)
}

fn place(hierarchy: Hierarchy) -> String {
    hierarchy.mount().map_or_else(|| "not mounted".into(), |top| top.display().to_string())
}

fn first_line(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|error| error.to_string(), |text| text.trim().to_owned())
}
