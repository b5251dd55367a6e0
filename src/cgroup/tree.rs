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

use super::equip::Done;
use super::keeper::{Errand, Keeper};
use super::mounts::{self, Hierarchies, Span, Version};
use super::provision::{Provision, Provisions};
pub use super::refusal::{Refusal, Step};
use crate::event::Pid;
use crate::process::path_in;

/// Groups held open at most. At the bound all are dropped and opened again when needed (2.5 us each);
/// a host with more users active at once than this is slower, not wrong.
const OPEN_GROUPS: usize = 4096;

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
    /// What groups were given since rules were read.
    done: Done,
    /// Who looks after groups that exist; without one it is done here.
    keeper: Option<Keeper>,
}

impl Tree {
    /// A tree over these hierarchies.
    pub fn new(hierarchies: Arc<Hierarchies>) -> Self {
        let (by_path, groups) = (HashMap::default(), Vec::new());
        Self { hierarchies, by_path, groups, done: Done::default(), keeper: None }
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
    /// given is asked for only when it is opened now.
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
        if self.groups.len() >= OPEN_GROUPS {
            self.forget();
        }
        let leaves = self.open(span, path, &wish)?;
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
        let Some(text) = now.text else { return false };
        let top = hierarchy.top.trim_end_matches('/').as_bytes();
        path_in(text, hierarchy.listed.as_bytes())
            .and_then(|path| path.strip_prefix(top))
            .is_some_and(|path| {
                path == group.path.as_bytes() || path.is_empty() && &*group.path == "/"
            })
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
        let leaf = self.open_leaf(hierarchy, &path, &group.wish)?;
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
            let top = hierarchy.top.trim_end_matches('/').as_bytes();
            let listed = path_in(home, hierarchy.listed.as_bytes());
            let Some(path) = listed.and_then(|path| path.strip_prefix(top)) else { continue };
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

    /// Drops every descriptor; groups are opened again when needed.
    pub fn forget(&mut self) {
        self.by_path.clear();
        self.groups.clear();
        self.done.forget();
    }
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
