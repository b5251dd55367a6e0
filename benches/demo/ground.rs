//! Provides the throw-away cgroup, the directory with the rules, and the UID.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, Uid, User};

use crate::Result;

const PREFIX: &str = "cgruled-demo-";
/// Range that is searched for an unused UID.
const UIDS: std::ops::Range<u32> = 61_000..62_000;

/// Resources of the demo; all are removed on drop.
pub(crate) struct Ground {
    work: tempfile::TempDir,
    /// Directory of the parent of all other cgroups.
    pub(crate) top: PathBuf,
    pub(crate) uid: u32,
    is_v2: bool,
}

/// Numbers of processes of the UID.
pub(crate) struct Census {
    pub(crate) living: usize,
    pub(crate) misplaced: usize,
}

impl Ground {
    pub(crate) fn prepare() -> Result<Self> {
        let (mount, is_v2) =
            mounted().ok_or("needs a mounted cgroup v2 hierarchy, or a v1 hierarchy with pids")?;
        remove_abandoned(&mount);
        let uid = unused_uid().ok_or("every uid from 61000 to 61999 is in use")?;
        let work = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let top = mount.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&top)
            .map_err(|error| format!("cannot create {}: {error}", top.display()))?;
        let ground = Self { work, top, uid, is_v2 };
        ground.publish(ground.work(), 0o755)?;
        fs::create_dir(ground.rules_directory())?;
        ground.publish(&ground.rules_directory(), 0o755)?;
        let file = ground.rules_directory().join("50-demo.toml");
        fs::write(&file, ground.rules())?;
        ground.publish(&file, 0o644)?;
        Ok(ground)
    }

    /// Sets a mode independently of the umask: the daemon rejects files that others may
    /// write, and the user must read.
    pub(crate) fn publish(&self, path: &Path, mode: u32) -> Result<()> {
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
    }

    pub(crate) fn work(&self) -> &Path {
        self.work.path()
    }

    pub(crate) fn actors(&self) -> PathBuf {
        self.work().join("actors")
    }

    pub(crate) fn rules_directory(&self) -> PathBuf {
        self.work().join("rules.d")
    }

    /// Returns the cgroup in the notation of the daemon.
    pub(crate) fn group(&self) -> String {
        format!("/{}", self.top.file_name().unwrap_or_default().to_string_lossy())
    }

    /// Returns the path of a cgroup without that of the demo.
    pub(crate) fn leaf<'p>(&self, path: &'p str) -> &'p str {
        path.strip_prefix(&self.group()).unwrap_or(path).trim_start_matches('/')
    }

    pub(crate) fn rules(&self) -> String {
        let uid = self.uid;
        let controllers = if self.is_v2 { "" } else { "controllers = \"pids\"\n" };
        let rule = |name: &str, exe: &str, group: &str| {
            format!(
                "\n[[rule]]\nname = \"{name}\"\nuser = {uid}\n{exe}{controllers}cgroup = \"{group}\"\n"
            )
        };
        [
            "version = 1\n".to_owned(),
            rule("a script", "exe = \"nightly-report\"\n", "reports"),
            rule("a pattern", "exe = \"/**/sle*\"\n", "sleepers"),
            rule("all the rest", "", "user-%U"),
        ]
        .concat()
    }

    /// Counts the processes of the user, and those that are not in the cgroup of their rule.
    pub(crate) fn census(&self) -> Census {
        let mut census = Census { living: 0, misplaced: 0 };
        for pid in self.processes() {
            // A process without an executable is a zombie.
            let Ok(exe) = fs::read_link(format!("/proc/{pid}/exe")) else { continue };
            let Some(place) = self.place(pid) else { continue };
            let is_sleep = exe.file_name().is_some_and(|name| name == "sleep");
            let user = format!("user-{}", self.uid);
            let leaves = if is_sleep { ["sleepers", "sleepers"] } else { [&*user, "reports"] };
            let is_placed =
                leaves.iter().any(|leaf| place.ends_with(&format!("{}/{leaf}", self.group())));
            census.living += 1;
            census.misplaced += usize::from(!is_placed);
        }
        census
    }

    /// Kills the processes of our UID that are in our cgroup or run our program. Repeats this, as
    /// they may fork meanwhile.
    fn end_strays(&self) {
        for _ in 0..200 {
            let strays: Vec<i32> = self.processes().filter(|&pid| self.is_stray(pid)).collect();
            for pid in &strays {
                // The process may have exited since.
                let _gone = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            if has_no_children() && strays.is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_stray(&self, pid: i32) -> bool {
        let exe = fs::read_link(format!("/proc/{pid}/exe"));
        let is_program = exe.as_ref().is_ok_and(|exe| exe.starts_with(self.work()));
        let is_ours = || self.place(pid).is_some_and(|place| place.contains(&self.group()));
        exe.is_ok() && (is_program || is_ours())
    }

    fn processes(&self) -> impl Iterator<Item = i32> + use<> {
        let uid = self.uid;
        owners().filter(move |&(_, owner)| owner == uid).map(|(pid, _)| pid)
    }

    /// Returns the path of the cgroup of a process.
    fn place(&self, pid: i32) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        let ours = |controllers: &str| match self.is_v2 {
            true => controllers.is_empty(),
            false => controllers.split(',').any(|name| name == "pids"),
        };
        text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            ours(controllers).then(|| path.to_owned())
        })
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.end_strays();
        // A killed process occupies its cgroup until it is reaped.
        for _ in 0..100 {
            remove_tree(&self.top);
            if !self.top.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("demo: cannot remove {}", self.top.display());
    }
}

/// Returns the mount point of the v2 hierarchy, else that of the v1 hierarchy with
/// pids; and whether it is v2.
fn mounted() -> Option<(PathBuf, bool)> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let fields = || mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let v2 = fields().find(|field| field[2] == "cgroup2").map(|field| (field[1].into(), true));
    let has_pids = |options: &str| options.split(',').any(|option| option == "pids");
    let v1 = || fields().find(|field| field[2] == "cgroup" && has_pids(field[3]));
    v2.or_else(|| v1().map(|field| (field[1].into(), false)))
}

/// Returns a UID without a name and without a process.
fn unused_uid() -> Option<u32> {
    let taken: Vec<u32> = owners().map(|(_, uid)| uid).collect();
    let is_unknown = |uid: u32| matches!(User::from_uid(Uid::from_raw(uid)), Ok(None));
    UIDS.rev().find(|&uid| !taken.contains(&uid) && is_unknown(uid))
}

/// Returns every process and its owner.
fn owners() -> impl Iterator<Item = (i32, u32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        Some((entry.file_name().to_str()?.parse().ok()?, entry.metadata().ok()?.uid()))
    })
}

/// Reaps all exited processes, including orphans, which are reparented to this process.
/// Returns whether none is left.
fn has_no_children() -> bool {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return false,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return true,
        }
    }
}

/// Removes the cgroups of a demo that was killed.
fn remove_abandoned(mount: &Path) {
    for entry in fs::read_dir(mount).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            remove_tree(&entry.path());
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
