//! Opens cgroups once, so that a placement is a single write(2). It must not wait for the
//! configuration of an existing cgroup; that is left to the maintenance thread.
//!
//! The cgroup version matters only when a cgroup is opened; afterwards a cgroup is a list of
//! `cgroup.procs` descriptors. All of them are close-on-exec: the kernel checks a write against the
//! credentials of the process that opened the file.

mod open;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

use super::apply::ApplyLedger;
use super::config::{GroupConfigs, PathConfig};
pub use super::error::{CgroupError, CgroupOperation};
use super::mounts::{self, Hierarchies, HierarchySet, Version};
use super::reaper::{Reaper, ReaperTask};
use crate::event::Pid;

/// The maximum number of open cgroup descriptors. When it is reached all are closed and opened
/// again on demand (2.5 us each). A host with more users active at once is slower, not wrong.
const MOST_OPEN: usize = 16_384;
/// Descriptors below RLIMIT_NOFILE that are reserved for everything else: sockets, clients of the
/// control socket, a pidfd, files of `/proc`.
const RESERVE: u64 = 64;
/// Cgroup descriptors that are kept open however low the limit is.
const FEWEST_OPEN: usize = 16;

/// The number of attempts to create a cgroup that is removed while it is opened. In practice one
/// suffices; a user who removes it every time wins in the end.
const ATTEMPTS: usize = 16;

/// The index of an opened cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupId(pub usize);

#[derive(Debug)]
struct OpenGroup {
    /// The path from the root of each hierarchy, with a leading slash.
    path: Box<str>,
    /// The policy for creating it again.
    action: CreatePolicy,
    leaves: Vec<ProcsFd>,
}

/// The policy for cgroups that do not exist.
#[derive(Clone, Debug, Default)]
pub struct CreatePolicy {
    /// True if they are created.
    pub creates: bool,
    /// The configuration for the path.
    pub config: Option<Arc<PathConfig>>,
}

impl CreatePolicy {
    fn creates_in(&self, hierarchy: usize) -> bool {
        let described = self.config.as_deref().is_some_and(|what| what.creates.has(hierarchy));
        self.creates || described
    }
}

#[derive(Debug)]
struct ProcsFd {
    hierarchy: usize,
    procs: OwnedFd,
    inode: u64,
}

/// The current cgroups of a process, as far as they were read.
#[derive(Clone, Copy, Debug, Default)]
pub struct CurrentCgroup<'t> {
    /// The inode of its v2 cgroup.
    pub unified: Option<u64>,
    /// The text of `/proc/PID/cgroup`.
    pub text: Option<&'t [u8]>,
}

/// The result of a placement.
#[derive(Debug, PartialEq, Eq)]
pub enum AttachResult {
    /// The process was in the cgroup already; nothing was written.
    InPlace,
    /// The process was moved in at least one hierarchy.
    Moved,
    /// The process has exited meanwhile (ESRCH).
    Gone,
    /// The kernel refused the move in at least one hierarchy.
    Refused(CgroupError),
}

/// Finds the hierarchies of this host.
///
/// # Errors
/// `/proc/self/mountinfo` or `/proc/self/cgroup` cannot be read.
pub fn discover() -> io::Result<Hierarchies> {
    let mountinfo = fs::read("/proc/self/mountinfo")?;
    let own = fs::read("/proc/self/cgroup")?;
    let mut found =
        mounts::hierarchies(&String::from_utf8_lossy(&mountinfo), &String::from_utf8_lossy(&own));
    if let Some(unified) = found.unified_mut() {
        let file = unified.mount_point.join("cgroup.controllers");
        let text = fs::read_to_string(file).unwrap_or_default();
        unified.controllers = text.split_whitespace().map(str::to_owned).collect();
    }
    let blkio = found.iter().find(|tree| tree.controllers.iter().any(|name| name == "blkio"));
    found.has_blkio_weight =
        blkio.is_some_and(|tree| tree.mount_point.join("blkio.weight").exists());
    Ok(found)
}

/// The mounted hierarchies and the cgroups that are open in them.
#[derive(Debug)]
pub struct CgroupTree {
    hierarchies: Arc<Hierarchies>,
    by_path: HashMap<(HierarchySet, Box<str>), GroupId, FixedState>,
    groups: Vec<OpenGroup>,
    /// The number of descriptors in `groups`.
    open: usize,
    /// The maximum of `open`.
    most_open: usize,
    /// The configuration applied since the last reload.
    done: ApplyLedger,
    /// The maintenance thread. Without one, existing cgroups are configured by the caller.
    reaper: Option<Reaper>,
}

impl CgroupTree {
    /// Creates a tree without open cgroups for these hierarchies.
    pub fn new(hierarchies: Arc<Hierarchies>) -> Self {
        Self {
            hierarchies,
            by_path: HashMap::default(),
            groups: Vec::new(),
            open: 0,
            most_open: most_open(getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)),
            done: ApplyLedger::default(),
            reaper: None,
        }
    }

    /// Restricts the configuration of v2 to the delegated root `ground` and its descendants; its
    /// ancestors belong to systemd. With `makes` the root is created now if it does not exist.
    pub fn stay_below(&mut self, ground: &str, makes: bool) {
        self.done = ApplyLedger::below(&self.hierarchies, ground);
        let unified = self.hierarchies.iter().position(|tree| tree.version == Version::V2);
        // Opening a cgroup below it creates it too: systemd removes an empty delegated cgroup.
        let Some(index) = unified.filter(|_| makes) else { return };
        let directory = self.directory(index, ground);
        if let Err(refusal) = self.create(index, ground, None, &mut Vec::new()) {
            ::log::warn!("{refusal}: {}", refusal.advice());
        } else if fs::read(directory.join("cgroup.controllers")).is_ok_and(|text| text.len() < 2) {
            ::log::warn!(
                "{} has no controllers, so cgroups below it cannot have limits: start the unit with \
                 Delegate=yes, see 'systemctl status {}'",
                directory.display(),
                directory.file_name().unwrap_or_default().to_string_lossy()
            );
        }
    }

    /// Returns the tree with `reaper` as maintenance thread for existing cgroups.
    #[must_use]
    pub fn kept_by(self, reaper: Reaper) -> Self {
        self.done.collect_written();
        Self { reaper: Some(reaper), ..self }
    }

    /// Adopts the configuration of changed rules with the managed root `root`. All cgroups are
    /// opened again.
    pub fn adopt(&mut self, configs: &Arc<GroupConfigs>, root: &str) {
        self.forget();
        if let Some(reaper) = &self.reaper {
            reaper.send(ReaperTask::Adopt { configs: Arc::clone(configs), root: root.into() });
        }
    }

    /// Returns the hierarchies of this host, in the order of the mount table.
    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// Returns the cgroup of this path, opening it if necessary and, with `creates`, creating it.
    /// `config` is called only if it has to be opened.
    ///
    /// # Errors
    /// The kernel refused a step.
    pub fn group(
        &mut self,
        span: HierarchySet,
        path: &str,
        creates: bool,
        config: impl FnOnce() -> Option<Arc<PathConfig>>,
    ) -> Result<GroupId, CgroupError> {
        if let Some(id) = self.known(span, path) {
            self.groups[id.0].action.creates |= creates;
            return Ok(id);
        }
        let action = CreatePolicy { creates, config: config() };
        if self.open + span.indexes().count() > self.most_open {
            self.close();
        }
        let leaves = match self.open(span, path, &action) {
            // Close all other cgroups and try once more.
            Err(refusal) if is_out_of_descriptors(refusal.errno) && self.open > 0 => {
                self.close();
                self.open(span, path, &action)?
            }
            opened => opened?,
        };
        self.open += leaves.len();
        let id = GroupId(self.groups.len());
        self.groups.push(OpenGroup { path: path.into(), action, leaves });
        self.by_path.insert((span, path.into()), id);
        Ok(id)
    }

    /// Returns the cgroup of this path if it is open.
    pub fn known(&self, span: HierarchySet, path: &str) -> Option<GroupId> {
        self.by_path.get(&PathKey { span, path }).copied()
    }

    /// Checks whether the process is in the cgroup, in each of its hierarchies.
    pub fn holds(&self, id: GroupId, now: CurrentCgroup<'_>) -> bool {
        self.groups
            .get(id.0)
            .is_some_and(|group| group.leaves.iter().all(|leaf| self.is_in(group, leaf, now)))
    }

    fn is_in(&self, group: &OpenGroup, leaf: &ProcsFd, now: CurrentCgroup<'_>) -> bool {
        let hierarchy = &self.hierarchies[leaf.hierarchy];
        if let (Version::V2, Some(inode)) = (hierarchy.version, now.unified) {
            return inode == leaf.inode;
        }
        now.text.is_some_and(|text| hierarchy.holds(&group.path, text))
    }

    /// Moves a process into the cgroup in those hierarchies where it is not yet. Creates the cgroup
    /// again if it was removed. A refusal in one hierarchy does not prevent the move in the others.
    pub fn attach(&mut self, id: GroupId, pid: Pid, now: CurrentCgroup<'_>) -> AttachResult {
        let Some(group) = self.groups.get(id.0) else { return AttachResult::InPlace };
        let mut outcome = AttachResult::InPlace;
        for index in 0..group.leaves.len() {
            let Some(group) = self.groups.get(id.0) else { break };
            if self.is_in(group, &group.leaves[index], now) {
                continue;
            }
            match self.write(id, index, pid) {
                Ok(()) if outcome == AttachResult::InPlace => outcome = AttachResult::Moved,
                Ok(()) => {}
                Err(refusal) if refusal.errno == Errno::ESRCH => return AttachResult::Gone,
                Err(refusal) => outcome = AttachResult::Refused(refusal),
            }
        }
        outcome
    }

    fn write(&mut self, id: GroupId, index: usize, pid: Pid) -> Result<(), CgroupError> {
        let mut written = self.write_once(id, index, pid);
        for _ in 0..ATTEMPTS {
            if written != Err(Errno::ENODEV) {
                break;
            }
            self.reopen(id, index)?;
            written = self.write_once(id, index, pid);
        }
        written.map_err(|errno| self.refusal(id, index, errno))
    }

    fn write_once(&self, id: GroupId, index: usize, pid: Pid) -> Result<(), Errno> {
        let leaf = &self.groups[id.0].leaves[index];
        let mut text = [0u8; 12];
        let mut rest = &mut text[..];
        write!(rest, "{pid}").map_err(|_| Errno::EINVAL)?;
        let length = 12 - rest.len();
        nix::unistd::write(&leaf.procs, &text[..length]).map(drop)
    }

    /// Opens a cgroup again after ENODEV. An open descriptor never refers to a directory that was
    /// recreated under the same name.
    fn reopen(&mut self, id: GroupId, index: usize) -> Result<(), CgroupError> {
        let group = &self.groups[id.0];
        let hierarchy = group.leaves[index].hierarchy;
        let path = group.path.clone();
        let leaf = match self.open_leaf(hierarchy, &path, &group.action) {
            Err(refusal) if is_out_of_descriptors(refusal.errno) => {
                self.close_others(id);
                self.open_leaf(hierarchy, &path, &self.groups[id.0].action)?
            }
            opened => opened?,
        };
        self.groups[id.0].leaves[index] = leaf;
        Ok(())
    }

    fn refusal(&self, id: GroupId, index: usize, errno: Errno) -> CgroupError {
        let group = &self.groups[id.0];
        let directory = self.directory(group.leaves[index].hierarchy, &group.path);
        CgroupError { path: directory.join("cgroup.procs"), step: CgroupOperation::Write, errno }
    }

    fn directory(&self, hierarchy: usize, path: &str) -> PathBuf {
        self.hierarchies[hierarchy].mount_point.join(path.trim_start_matches('/'))
    }

    /// Moves a process out of the cgroup, in those hierarchies where it is in it, to the cgroups in
    /// `locate`. Both `now` and `locate` are texts of `/proc/PID/cgroup`.
    ///
    /// # Errors
    /// The kernel refused the move.
    pub fn move_back(
        &self,
        id: GroupId,
        pid: Pid,
        now: &[u8],
        home: &[u8],
    ) -> Result<(), CgroupError> {
        let Some(group) = self.groups.get(id.0) else { return Ok(()) };
        let is_here = CurrentCgroup { unified: None, text: Some(now) };
        let is_home = CurrentCgroup { unified: None, text: Some(home) };
        for leaf in &group.leaves {
            if !self.is_in(group, leaf, is_here) || self.is_in(group, leaf, is_home) {
                continue;
            }
            let hierarchy = &self.hierarchies[leaf.hierarchy];
            let Some(path) = hierarchy.place(home) else { continue };
            let path = path.strip_prefix(b"/").unwrap_or(path);
            let file = hierarchy.mount_point.join(OsStr::from_bytes(path)).join("cgroup.procs");
            match fs::OpenOptions::new().write(true).open(&file) {
                Ok(procs) => match nix::unistd::write(&procs, pid.to_string().as_bytes()) {
                    Ok(_) | Err(Errno::ESRCH) => {}
                    Err(errno) => {
                        return Err(CgroupError {
                            path: file,
                            step: CgroupOperation::Write,
                            errno,
                        });
                    }
                },
                Err(error) => return Err(CgroupError::new(file, CgroupOperation::Open, error)),
            }
        }
        Ok(())
    }

    /// Closes all cgroups and forgets which configuration was applied.
    pub fn forget(&mut self) {
        self.close();
        self.done.forget();
    }

    /// Closes all cgroups; they are opened again when needed.
    pub fn close(&mut self) {
        self.by_path.clear();
        self.groups.clear();
        self.open = 0;
    }

    /// Closes all cgroups except this one. Its id stays valid.
    fn close_others(&mut self, id: GroupId) {
        self.by_path.retain(|_, known| *known == id);
        let others = self.groups.iter_mut().enumerate().filter(|(index, _)| *index != id.0);
        others.for_each(|(_, group)| group.leaves = Vec::new());
        self.open = self.groups[id.0].leaves.len();
    }
}

/// Returns the maximum number of cgroup descriptors for this RLIMIT_NOFILE.
fn most_open(limit: u64) -> usize {
    let left = usize::try_from(limit.saturating_sub(RESERVE)).unwrap_or(usize::MAX);
    left.clamp(FEWEST_OPEN, MOST_OPEN)
}

/// Checks whether the process or the host has run out of file descriptors.
pub fn is_out_of_descriptors(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE)
}

/// A borrowed key of `by_path`.
#[derive(Hash)]
struct PathKey<'p> {
    span: HierarchySet,
    path: &'p str,
}

impl hashbrown::Equivalent<(HierarchySet, Box<str>)> for PathKey<'_> {
    fn equivalent(&self, key: &(HierarchySet, Box<str>)) -> bool {
        self.span == key.0 && self.path == &*key.1
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::mounts::Hierarchy;
    use super::*;

    fn pid(raw: u32) -> Pid {
        Pid::new(raw).unwrap()
    }

    fn hierarchy(root: &Path, version: Version, listed: &str) -> Hierarchy {
        let controllers = listed.split(',').filter(|name| !name.is_empty());
        Hierarchy::for_test(
            version,
            root.to_owned(),
            listed,
            controllers.map(str::to_owned).collect(),
        )
    }

    /// Creates directories that imitate a v1 and a v2 hierarchy, each with the cgroup /a/b.
    fn fake() -> (tempfile::TempDir, CgroupTree) {
        let root = tempfile::tempdir().unwrap();
        let (v1, v2) = (root.path().join("pids"), root.path().join("unified"));
        for tree in [&v1, &v2] {
            fs::create_dir_all(tree.join("a/b")).unwrap();
            fs::write(tree.join("a/b/cgroup.procs"), "").unwrap();
        }
        let trees = vec![hierarchy(&v1, Version::V1, "pids"), hierarchy(&v2, Version::V2, "")];
        (root, CgroupTree::new(Arc::new(Hierarchies::new(trees))))
    }

    #[test]
    fn a_process_is_written_once_into_each_hierarchy_where_it_is_not() {
        let (root, mut tree) = fake();
        let id = tree.group(HierarchySet::of(&[0, 1]), "/a/b", true, || None).unwrap();
        assert!(!tree.hierarchies().has_only_v2(HierarchySet::of(&[0, 1])));
        let text = b"8:pids:/a/b\n0::/\n";
        let now = CurrentCgroup { unified: Some(1), text: Some(text) };
        assert!(!tree.holds(id, now));
        assert_eq!(tree.attach(id, pid(77), now), AttachResult::Moved);
        for (file, processes) in [("unified/a/b/cgroup.procs", "77"), ("pids/a/b/cgroup.procs", "")]
        {
            assert_eq!(fs::read_to_string(root.path().join(file)).unwrap(), processes, "{file}");
        }
        let there = CurrentCgroup { unified: None, text: Some(b"8:pids:/a/b\n0::/a/b\n") };
        assert!(tree.holds(id, there));
        assert_eq!(tree.attach(id, pid(78), there), AttachResult::InPlace);
    }

    #[test]
    fn a_group_is_opened_once() {
        let (_root, mut tree) = fake();
        let first = tree.group(HierarchySet::of(&[1]), "/a/b", true, || None).unwrap();
        assert_eq!(tree.group(HierarchySet::of(&[1]), "/a/b", true, || None).unwrap(), first);
        assert_ne!(tree.group(HierarchySet::of(&[0]), "/a/b", true, || None).unwrap(), first);
        assert_eq!(&*tree.groups[first.0].path, "/a/b");
    }

    #[test]
    fn groups_leave_descriptors_to_everything_else() {
        assert_eq!([0, 70, 256, 4096, u64::MAX].map(most_open), [16, 16, 192, 4032, MOST_OPEN]);
    }

    #[test]
    fn the_cache_is_bounded_by_descriptors() {
        let (root, mut tree) = fake();
        tree.most_open = 16;
        for name in 0..40 {
            for hierarchy in ["pids", "unified"] {
                let group = root.path().join(hierarchy).join(name.to_string());
                fs::create_dir(&group).unwrap();
                fs::write(group.join("cgroup.procs"), "").unwrap();
            }
            tree.group(HierarchySet::of(&[0, 1]), &format!("/{name}"), false, || None).unwrap();
            let held: usize = tree.groups.iter().map(|group| group.leaves.len()).sum();
            assert!(held == tree.open && held <= 16, "{held} of {}", tree.open);
        }
    }

    /// Runs itself in a child process, because the limit applies to the whole process.
    #[test]
    fn a_group_is_opened_and_opened_again_where_no_descriptor_is_left() {
        const ALONE: &str = "CGRULED_TEST_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let name = "cgroup::tree::tests::a_group_is_opened_and_opened_again_where_no_descriptor_is_left";
            let mut own = std::process::Command::new(std::env::current_exe().unwrap());
            let output = own.args(["--exact", name]).env(ALONE, "1").output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains("1 passed"), "{text}");
            return;
        }
        let (root, mut tree) = fake();
        tree.most_open = usize::MAX;
        let paths: Vec<String> = (0..100).map(|name| format!("/{name}")).collect();
        for path in &paths {
            let group = root.path().join("unified").join(&path[1..]);
            fs::create_dir(&group).unwrap();
            fs::write(group.join("cgroup.procs"), "").unwrap();
        }
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        nix::sys::resource::setrlimit(Resource::RLIMIT_NOFILE, 50, hard).unwrap();
        let mut closed = 0;
        for path in &paths {
            let before = tree.groups.len();
            let id = tree.group(HierarchySet::of(&[1]), path, false, || None).unwrap();
            closed += usize::from(tree.groups.len() < before);
            assert_eq!(tree.attach(id, pid(7), CurrentCgroup::default()), AttachResult::Moved);
        }
        assert!(closed >= 2, "{closed}");
        // Fill the descriptor table, so that the next cgroup must be opened anew, as after a
        // removal.
        let mut proc = crate::kernel::process::ProcFs::open(Path::new("/proc")).unwrap();
        let mut full = Vec::new();
        full.extend(std::iter::from_fn(|| fs::File::open("/dev/null").ok()));
        let own = proc.open_process(pid(std::process::id())).unwrap();
        assert!(own.pidfd().is_none() && own.uid.0 == nix::unistd::geteuid().as_raw());
        let id = GroupId(tree.groups.len() - 1);
        tree.reopen(id, 0).unwrap();
        assert_eq!(tree.attach(id, pid(8), CurrentCgroup::default()), AttachResult::Moved);
        assert_eq!(tree.known(HierarchySet::of(&[1]), &paths[99]), Some(id));
        assert_eq!((tree.by_path.len(), tree.open), (1, 1));
        drop(full);
    }

    #[test]
    fn a_tree_that_makes_no_cgroup_files_is_refused_by_name() {
        let (root, mut tree) = fake();
        let refusal = tree.group(HierarchySet::of(&[1]), "/x/y", false, || None).unwrap_err();
        assert_eq!((refusal.step, refusal.errno), (CgroupOperation::Open, Errno::ENOENT));
        assert!(!root.path().join("unified/x").exists());
        let refusal = tree.group(HierarchySet::of(&[1]), "/x/y", true, || None).unwrap_err();
        assert_eq!(refusal.path, root.path().join("unified/x/y/cgroup.procs"));
        assert_eq!((refusal.step, refusal.errno), (CgroupOperation::Open, Errno::ENOENT));
        assert!(root.path().join("unified/x/y").is_dir());
    }
}
