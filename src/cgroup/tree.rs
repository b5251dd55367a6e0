//! Groups as open descriptors: find or make them once, then a placement is one write.
//!
//! v1 and v2 are told apart when a group is opened; after that a group is a list of `cgroup.procs`
//! descriptors. They are close-on-exec without exception: the kernel lets whoever writes to one act
//! with the rights of whoever opened it.

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

use super::equip::Done;
use super::keeper::{Errand, Keeper};
use super::mounts::{self, Hierarchies, Span, Version};
use super::provision::{Provision, Provisions};
pub use super::refusal::{Refusal, Step};
use crate::event::Pid;

/// Descriptors of groups held open at most. At the bound all are closed and opened again when needed (2.5 us
/// each); a host with more users active at once than this is slower, not wrong.
const MOST_OPEN: usize = 16_384;
/// Descriptors below the limit of open files that are left to everything else: sockets, clients of the control
/// socket, a pidfd, what is read of `/proc`.
const RESERVE: u64 = 64;
/// Descriptors of groups that are held open whatever the limit is.
const FEWEST_OPEN: usize = 16;

/// How often a group is made again that is removed on the way to it. Once is what happens; somebody who
/// removes it each time wins in the end.
const ATTEMPTS: usize = 16;

/// A group that was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupId(usize);

#[derive(Debug)]
struct Group {
    /// Path from the top of each hierarchy, with a leading slash.
    path: Box<str>,
    /// What becomes of it when it is missing.
    wish: Wish,
    leaves: Vec<Leaf>,
}

/// What becomes of groups that are missing.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Whether they are made.
    pub creates: bool,
    /// What they are given.
    pub provision: Option<Arc<Provision>>,
}

impl Wish {
    fn creates_in(&self, hierarchy: usize) -> bool {
        let described = self.provision.as_deref().is_some_and(|what| what.creates.has(hierarchy));
        self.creates || described
    }
}

#[derive(Debug)]
struct Leaf {
    hierarchy: usize,
    procs: OwnedFd,
    inode: u64,
}

/// Where a process is now, as far as it was read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whereabouts<'t> {
    /// Inode of its v2 group.
    pub unified: Option<u64>,
    /// Text of `/proc/PID/cgroup`.
    pub text: Option<&'t [u8]>,
}

/// What became of a placement.
#[derive(Debug, PartialEq, Eq)]
pub enum Attached {
    /// It was there already; nothing was written.
    InPlace,
    /// It was moved.
    Moved,
    /// There is no such process any more.
    Gone,
    /// The kernel refused, in at least one hierarchy.
    Refused(Refusal),
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

/// The mounted hierarchies and the groups that are open in them.
#[derive(Debug)]
pub struct Tree {
    hierarchies: Arc<Hierarchies>,
    by_path: HashMap<(Span, Box<str>), GroupId, FixedState>,
    groups: Vec<Group>,
    /// Descriptors in `groups`.
    open: usize,
    /// The bound of `open`.
    most_open: usize,
    /// What groups were given since rules were read.
    done: Done,
    /// Who looks after groups that exist; without one it is done here.
    keeper: Option<Keeper>,
}

impl Tree {
    /// A tree over these hierarchies.
    pub fn new(hierarchies: Arc<Hierarchies>) -> Self {
        Self {
            hierarchies,
            by_path: HashMap::default(),
            groups: Vec::new(),
            open: 0,
            most_open: most_open(getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)),
            done: Done::default(),
            keeper: None,
        }
    }

    /// Groups below `ground` are ours, what is above it is systemd's: controllers are enabled in the
    /// ground and below alone. With `makes` it is made now if it is missing, as it is whenever a
    /// group in it is: systemd removes it when it is empty.
    pub fn stay_below(&mut self, ground: &str, makes: bool) {
        self.done = Done::below(&self.hierarchies, ground);
        let unified = self.hierarchies.iter().position(|tree| tree.version == Version::V2);
        let Some(index) = unified.filter(|_| makes) else { return };
        let directory = self.directory(index, ground);
        if let Err(refusal) = self.create(index, ground, None, &mut Vec::new()) {
            ::log::warn!("{refusal}: {}", refusal.advice());
        } else if fs::read(directory.join("cgroup.controllers")).is_ok_and(|text| text.len() < 2) {
            ::log::warn!(
                "{} has no controllers, so groups in it cannot be given limits: is the unit started, \
                 and has it Delegate=yes? See systemctl status {}",
                directory.display(),
                directory.file_name().unwrap_or_default().to_string_lossy()
            );
        }
    }

    /// The same, and `keeper` looks after the groups that exist.
    #[must_use]
    pub fn kept_by(self, keeper: Keeper) -> Self {
        Self { keeper: Some(keeper), ..self }
    }

    /// Other rules are in force, which give groups below `root` this: all are opened again.
    pub fn adopt(&mut self, provisions: &Arc<Provisions>, root: &str) {
        self.forget();
        if let Some(keeper) = &self.keeper {
            keeper.send(Errand::Adopt { provisions: Arc::clone(provisions), root: root.into() });
        }
    }

    /// The hierarchies of this host, in the order of the mount table.
    pub fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    /// The group of this path, opened before or now; made if it is missing and `creates`. What it is
    /// given is asked for only when it is opened now. Where no descriptor is left all other groups are closed
    /// and it is tried once more.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn group(
        &mut self,
        span: Span,
        path: &str,
        creates: bool,
        provision: impl FnOnce() -> Option<Arc<Provision>>,
    ) -> Result<GroupId, Refusal> {
        if let Some(id) = self.known(span, path) {
            self.groups[id.0].wish.creates |= creates;
            return Ok(id);
        }
        let wish = Wish { creates, provision: provision() };
        if self.open + span.indexes().count() > self.most_open {
            self.close();
        }
        let leaves = match self.open(span, path, &wish) {
            Err(refusal) if is_out_of_descriptors(refusal.errno) && self.open > 0 => {
                self.close();
                self.open(span, path, &wish)?
            }
            opened => opened?,
        };
        self.open += leaves.len();
        let id = GroupId(self.groups.len());
        self.groups.push(Group { path: path.into(), wish, leaves });
        self.by_path.insert((span, path.into()), id);
        Ok(id)
    }

    /// The group of this path if it is open already.
    pub fn known(&self, span: Span, path: &str) -> Option<GroupId> {
        self.by_path.get(&Key { span, path }).copied()
    }

    /// The path of an open group, from the top of each hierarchy.
    pub fn path(&self, id: GroupId) -> &str {
        self.groups.get(id.0).map_or("", |group| &group.path)
    }

    /// Whether the place of a process in these hierarchies can be told without `/proc/PID/cgroup`,
    /// given that its v2 group is known.
    pub fn is_unified(&self, span: Span) -> bool {
        span.indexes().all(|index| self.hierarchies[index].version == Version::V2)
    }

    /// Whether the process is in the group, in every hierarchy of it.
    pub fn holds(&self, id: GroupId, now: Whereabouts<'_>) -> bool {
        self.groups
            .get(id.0)
            .is_some_and(|group| group.leaves.iter().all(|leaf| self.is_in(group, leaf, now)))
    }

    fn is_in(&self, group: &Group, leaf: &Leaf, now: Whereabouts<'_>) -> bool {
        let hierarchy = &self.hierarchies[leaf.hierarchy];
        if let (Version::V2, Some(inode)) = (hierarchy.version, now.unified) {
            return inode == leaf.inode;
        }
        now.text.is_some_and(|text| hierarchy.holds(&group.path, text))
    }

    /// Whether a process with this text of `/proc/PID/cgroup` is in a subgroup of `path` in a hierarchy.
    pub fn is_below(&self, hierarchy: usize, path: &str, text: &[u8]) -> bool {
        let place = self.hierarchies.get(hierarchy).and_then(|tree| tree.place(text));
        place
            .and_then(|place| place.strip_prefix(path.as_bytes()))
            .is_some_and(|rest| rest.len() > 1 && rest.starts_with(b"/"))
    }

    /// Moves a process into the group in those hierarchies where it is not. A group that was removed
    /// meanwhile is made again. A hierarchy that refuses does not keep the others from taking it.
    pub fn attach(&mut self, id: GroupId, pid: Pid, now: Whereabouts<'_>) -> Attached {
        let Some(group) = self.groups.get(id.0) else { return Attached::InPlace };
        let mut outcome = Attached::InPlace;
        for index in 0..group.leaves.len() {
            let Some(group) = self.groups.get(id.0) else { break };
            if self.is_in(group, &group.leaves[index], now) {
                continue;
            }
            match self.write(id, index, pid) {
                Ok(()) if outcome == Attached::InPlace => outcome = Attached::Moved,
                Ok(()) => {}
                Err(refusal) if refusal.errno == Errno::ESRCH => return Attached::Gone,
                Err(refusal) => outcome = Attached::Refused(refusal),
            }
        }
        outcome
    }

    fn write(&mut self, id: GroupId, index: usize, pid: Pid) -> Result<(), Refusal> {
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

    /// A removed directory never comes back under an open descriptor, even when its name does.
    fn reopen(&mut self, id: GroupId, index: usize) -> Result<(), Refusal> {
        let group = &self.groups[id.0];
        let (hierarchy, path) = (group.leaves[index].hierarchy, group.path.clone());
        let leaf = match self.open_leaf(hierarchy, &path, &group.wish) {
            Err(refusal) if is_out_of_descriptors(refusal.errno) => {
                self.close_others(id);
                self.open_leaf(hierarchy, &path, &self.groups[id.0].wish)?
            }
            opened => opened?,
        };
        self.groups[id.0].leaves[index] = leaf;
        Ok(())
    }

    fn refusal(&self, id: GroupId, index: usize, errno: Errno) -> Refusal {
        let group = &self.groups[id.0];
        let directory = self.directory(group.leaves[index].hierarchy, &group.path);
        Refusal { path: directory.join("cgroup.procs"), step: Step::Write, errno }
    }

    fn directory(&self, hierarchy: usize, path: &str) -> PathBuf {
        self.hierarchies[hierarchy].mount_point.join(path.trim_start_matches('/'))
    }

    /// Moves a process out of the group, in those hierarchies where it is in it, to where `home` says, a
    /// text of `/proc/PID/cgroup` as `now` is that of the process.
    ///
    /// # Errors
    /// What the kernel refused.
    pub fn move_back(&self, id: GroupId, pid: Pid, now: &[u8], home: &[u8]) -> Result<(), Refusal> {
        let Some(group) = self.groups.get(id.0) else { return Ok(()) };
        let is_here = Whereabouts { unified: None, text: Some(now) };
        let is_home = Whereabouts { unified: None, text: Some(home) };
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
                    Err(errno) => return Err(Refusal { path: file, step: Step::Write, errno }),
                },
                Err(error) => return Err(Refusal::new(file, Step::Open, error)),
            }
        }
        Ok(())
    }

    /// Closes every group, and what was given to groups is given again.
    pub fn forget(&mut self) {
        self.close();
        self.done.forget();
    }

    /// Closes every group; groups are opened again when needed.
    pub fn close(&mut self) {
        self.by_path.clear();
        self.groups.clear();
        self.open = 0;
    }

    /// Closes every group but this one, whose id stays valid.
    fn close_others(&mut self, id: GroupId) {
        self.by_path.retain(|_, known| *known == id);
        let others = self.groups.iter_mut().enumerate().filter(|(index, _)| *index != id.0);
        others.for_each(|(_, group)| group.leaves = Vec::new());
        self.open = self.groups[id.0].leaves.len();
    }
}

/// The bound of open descriptors under this limit of open files.
fn most_open(limit: u64) -> usize {
    let left = usize::try_from(limit.saturating_sub(RESERVE)).unwrap_or(usize::MAX);
    left.clamp(FEWEST_OPEN, MOST_OPEN)
}

/// Whether this process, or the host, has no descriptor left.
pub fn is_out_of_descriptors(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE)
}

/// A key of `by_path` without owning the path.
#[derive(Hash)]
struct Key<'p> {
    span: Span,
    path: &'p str,
}

impl hashbrown::Equivalent<(Span, Box<str>)> for Key<'_> {
    fn equivalent(&self, key: &(Span, Box<str>)) -> bool {
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
        Hierarchy {
            version,
            mount_point: root.to_owned(),
            top: "/".into(),
            listed: listed.into(),
            controllers: controllers.map(str::to_owned).collect(),
            favordynmods: false,
        }
    }

    /// Directories that stand for a v1 and a v2 tree, each with group /a/b.
    fn fake() -> (tempfile::TempDir, Tree) {
        let root = tempfile::tempdir().unwrap();
        let (v1, v2) = (root.path().join("pids"), root.path().join("unified"));
        for tree in [&v1, &v2] {
            fs::create_dir_all(tree.join("a/b")).unwrap();
            fs::write(tree.join("a/b/cgroup.procs"), "").unwrap();
        }
        let trees = vec![hierarchy(&v1, Version::V1, "pids"), hierarchy(&v2, Version::V2, "")];
        (root, Tree::new(Arc::new(Hierarchies::new(trees))))
    }

    #[test]
    fn a_process_is_written_once_into_each_hierarchy_where_it_is_not() {
        let (root, mut tree) = fake();
        let id = tree.group(Span::of(&[0, 1]), "/a/b", true, || None).unwrap();
        assert!(!tree.is_unified(Span::of(&[0, 1])));
        let text = b"8:pids:/a/b\n0::/\n";
        let now = Whereabouts { unified: Some(1), text: Some(text) };
        assert!(!tree.holds(id, now));
        assert_eq!(tree.attach(id, pid(77), now), Attached::Moved);
        let read = |tree: &str| fs::read_to_string(root.path().join(tree)).unwrap();
        assert_eq!(read("unified/a/b/cgroup.procs"), "77");
        assert_eq!(read("pids/a/b/cgroup.procs"), "");
        let there = Whereabouts { unified: None, text: Some(b"8:pids:/a/b\n0::/a/b\n") };
        assert!(tree.holds(id, there));
        assert_eq!(tree.attach(id, pid(78), there), Attached::InPlace);
    }

    #[test]
    fn a_group_is_opened_once() {
        let (_root, mut tree) = fake();
        let first = tree.group(Span::of(&[1]), "/a/b", true, || None).unwrap();
        assert_eq!(tree.group(Span::of(&[1]), "/a/b", true, || None).unwrap(), first);
        assert_ne!(tree.group(Span::of(&[0]), "/a/b", true, || None).unwrap(), first);
        assert_eq!(tree.path(first), "/a/b");
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
            tree.group(Span::of(&[0, 1]), &format!("/{name}"), false, || None).unwrap();
            let held: usize = tree.groups.iter().map(|group| group.leaves.len()).sum();
            assert!(held == tree.open && held <= 16, "{held} of {}", tree.open);
        }
    }

    /// Runs in a process of its own: the limit is that of the whole process.
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
            let id = tree.group(Span::of(&[1]), path, false, || None).unwrap();
            closed += usize::from(tree.groups.len() < before);
            assert_eq!(tree.attach(id, pid(7), Whereabouts::default()), Attached::Moved);
        }
        assert!(closed >= 2, "{closed}");
        // Until the table is full: the next group must be opened anew, as one that was removed meanwhile.
        let mut proc = crate::process::Proc::open(Path::new("/proc")).unwrap();
        let mut full = Vec::new();
        full.extend(std::iter::from_fn(|| fs::File::open("/dev/null").ok()));
        let own = proc.grip(pid(std::process::id())).unwrap();
        assert!(own.handle.is_none() && own.uid.0 == nix::unistd::geteuid().as_raw());
        let id = GroupId(tree.groups.len() - 1);
        tree.reopen(id, 0).unwrap();
        assert_eq!(tree.attach(id, pid(8), Whereabouts::default()), Attached::Moved);
        assert_eq!(tree.known(Span::of(&[1]), &paths[99]), Some(id));
        assert_eq!((tree.by_path.len(), tree.open), (1, 1));
        drop(full);
    }

    #[test]
    fn a_tree_that_makes_no_cgroup_files_is_refused_by_name() {
        let (root, mut tree) = fake();
        let refusal = tree.group(Span::of(&[1]), "/x/y", false, || None).unwrap_err();
        assert_eq!((refusal.step, refusal.errno), (Step::Open, Errno::ENOENT));
        assert!(!root.path().join("unified/x").exists());
        let refusal = tree.group(Span::of(&[1]), "/x/y", true, || None).unwrap_err();
        assert_eq!(refusal.path, root.path().join("unified/x/y/cgroup.procs"));
        assert_eq!((refusal.step, refusal.errno), (Step::Open, Errno::ENOENT));
        assert!(root.path().join("unified/x/y").is_dir());
    }
}
