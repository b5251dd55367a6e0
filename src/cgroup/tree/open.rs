//! Opening groups, and making those that are missing.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};

use super::{ATTEMPTS, Leaf, Refusal, Step, Tree, Wish};
use crate::cgroup::equip;
use crate::cgroup::keeper::Errand;
use crate::cgroup::mounts::{Span, Version};
use crate::cgroup::provision::Provision;

impl Tree {
    pub(super) fn open(&self, span: Span, path: &str, wish: &Wish) -> Result<Vec<Leaf>, Refusal> {
        span.indexes().map(|index| self.open_leaf(index, path, wish)).collect()
    }

    pub(super) fn open_leaf(
        &self,
        hierarchy: usize,
        path: &str,
        wish: &Wish,
    ) -> Result<Leaf, Refusal> {
        let mut opened = self.open_leaf_once(hierarchy, path, wish);
        for _ in 0..ATTEMPTS {
            let is_removed = |refusal: &Refusal| {
                refusal.step != Step::Set && matches!(refusal.errno, Errno::ENOENT | Errno::ENODEV)
            };
            if !wish.creates_in(hierarchy) || !opened.as_ref().is_err_and(is_removed) {
                break;
            }
            opened = self.open_leaf_once(hierarchy, path, wish);
        }
        opened
    }

    fn open_leaf_once(&self, hierarchy: usize, path: &str, wish: &Wish) -> Result<Leaf, Refusal> {
        let directory = self.directory(hierarchy, path);
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_PATH;
        let dir = match open(&directory, flags, Mode::empty()) {
            Err(Errno::ENOENT) if wish.creates_in(hierarchy) => {
                let mut made = Vec::new();
                let created = self.create(hierarchy, path, wish.provision.as_deref(), &mut made);
                self.report(made);
                created?;
                open(&directory, flags, Mode::empty())
            }
            Ok(dir) => {
                self.renew(hierarchy, path, wish.provision.as_ref())?;
                Ok(dir)
            }
            other => other,
        }
        .map_err(|errno| Refusal::new(&directory, Step::Open, errno))?;
        let inode =
            fstat(&dir).map_err(|errno| Refusal::new(&directory, Step::Open, errno))?.st_ino;
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let procs = openat(&dir, "cgroup.procs", flags, Mode::empty())
            .map_err(|errno| Refusal::new(directory.join("cgroup.procs"), Step::Open, errno))?;
        Ok(Leaf { hierarchy, procs, inode })
    }

    /// Makes the missing directories of a path, root's and readable by all, and gives them what they
    /// are to get.
    pub(super) fn create(
        &self,
        hierarchy: usize,
        path: &str,
        provision: Option<&Provision>,
        made: &mut Vec<Errand>,
    ) -> Result<(), Refusal> {
        let tree = &self.hierarchies[hierarchy];
        for stage in equip::stages(hierarchy, tree, path, provision) {
            stage.enable(&self.done);
            let is_new = match fs::create_dir(&stage.directory) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => return Err(Refusal::new(stage.directory, Step::Create, error)),
            };
            if is_new && tree.controllers.iter().any(|name| name == "cpuset") {
                inherit_cpuset(tree.version, &stage.parent, &stage.directory);
            }
            if let (true, Some(text)) = (is_new, stage.text()) {
                let directory = stage.directory.clone();
                made.push(Errand::Made { hierarchy, directory, text });
            }
            stage.give(is_new, &self.done)?;
        }
        Ok(())
    }

    fn report(&self, made: Vec<Errand>) {
        if let Some(keeper) = &self.keeper {
            made.into_iter().for_each(|errand| keeper.send(errand));
        }
    }

    /// Gives the directories of a path that exists what they are to have after a reload. Some writes
    /// wait for the kernel to take memory back, so only what processes must not enter without is
    /// written here.
    fn renew(
        &self,
        hierarchy: usize,
        path: &str,
        provision: Option<&Arc<Provision>>,
    ) -> Result<(), Refusal> {
        let Some(provision) = provision.filter(|what| what.is_for_old()) else { return Ok(()) };
        match &self.keeper {
            Some(keeper) if !provision.is_required() => {
                let provision = Arc::clone(provision);
                keeper.send(Errand::Renew { hierarchy, path: path.into(), provision });
                Ok(())
            }
            Some(_) | None => {
                let tree = &self.hierarchies[hierarchy];
                equip::renew(hierarchy, tree, path, provision, &self.done)
            }
        }
    }
}

/// A new v1 cpuset group is empty and refuses processes: give it what its parent has. Failure shows as
/// the refusal of the first process, with advice.
fn inherit_cpuset(version: Version, parent: &Path, directory: &Path) {
    if version == Version::V2 {
        return;
    }
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let copied =
            fs::read(parent.join(file)).and_then(|text| fs::write(directory.join(file), text));
        if let Err(error) = copied {
            ::log::warn!("cannot set {}: {error}", directory.join(file).display());
        }
    }
}
