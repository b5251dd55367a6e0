//! Opens cgroups and creates missing ones.

use std::fs;
use std::io;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};

use super::{ATTEMPTS, CgroupError, CgroupOperation, CgroupTree, CreatePolicy, ProcsFd};
use crate::cgroup::apply::{self, PathStep};
use crate::cgroup::config::PathConfig;
use crate::cgroup::make::CPUSET;
use crate::cgroup::mounts::{Hierarchy, HierarchySet, Version};
use crate::cgroup::reaper::ReaperTask;

impl CgroupTree {
    pub(super) fn open(
        &self,
        span: HierarchySet,
        path: &str,
        action: &CreatePolicy,
    ) -> Result<Vec<ProcsFd>, CgroupError> {
        span.indexes().map(|index| self.open_leaf(index, path, action)).collect()
    }

    pub(super) fn open_leaf(
        &self,
        hierarchy: usize,
        path: &str,
        action: &CreatePolicy,
    ) -> Result<ProcsFd, CgroupError> {
        let mut opened = self.open_leaf_once(hierarchy, path, action);
        for _ in 0..ATTEMPTS {
            let is_removed = opened.as_ref().is_err_and(|refusal| {
                refusal.step != CgroupOperation::Set
                    && matches!(refusal.errno, Errno::ENOENT | Errno::ENODEV)
            });
            if !action.creates_in(hierarchy) || !is_removed {
                break;
            }
            opened = self.open_leaf_once(hierarchy, path, action);
        }
        opened
    }

    fn open_leaf_once(
        &self,
        hierarchy: usize,
        path: &str,
        action: &CreatePolicy,
    ) -> Result<ProcsFd, CgroupError> {
        let directory = self.directory(hierarchy, path);
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_PATH;
        let dir = match open(&directory, flags, Mode::empty()) {
            Err(Errno::ENOENT) if action.creates_in(hierarchy) => {
                let mut made = Vec::new();
                let created = self.create(hierarchy, path, action.config.as_ref(), &mut made);
                self.report(made);
                created?;
                open(&directory, flags, Mode::empty())
            }
            Ok(dir) => {
                if action.creates_in(hierarchy) {
                    self.fill_cpusets(hierarchy, path);
                }
                self.renew(hierarchy, path, action.config.as_ref())?;
                Ok(dir)
            }
            other => other,
        }
        .map_err(|errno| CgroupError::new(&directory, CgroupOperation::Open, errno))?;
        let inode = fstat(&dir)
            .map_err(|errno| CgroupError::new(&directory, CgroupOperation::Open, errno))?
            .st_ino;
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let procs = openat(&dir, "cgroup.procs", flags, Mode::empty()).map_err(|errno| {
            CgroupError::new(directory.join("cgroup.procs"), CgroupOperation::Open, errno)
        })?;
        Ok(ProcsFd { hierarchy, procs, inode })
    }

    /// Creates the missing directories of a path, owned by root and readable by all, and configures
    /// them. Existing ones are treated as in [`Self::renew`].
    pub(super) fn create(
        &self,
        hierarchy: usize,
        path: &str,
        config: Option<&Arc<PathConfig>>,
        made: &mut Vec<ReaperTask>,
    ) -> Result<(), CgroupError> {
        let tree = &self.hierarchies[hierarchy];
        let is_later = self.reaper.is_some() && !config.is_some_and(|what| what.is_required());
        let mut is_left = false;
        for stage in apply::path_steps(hierarchy, tree, path, config.map(Arc::as_ref)) {
            stage.enable(&self.done);
            let is_new = match fs::create_dir(&stage.directory) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
                Err(error) => {
                    return Err(CgroupError::new(stage.directory, CgroupOperation::Create, error));
                }
            };
            let is_cpuset = has_v1_cpuset(tree);
            if is_cpuset {
                // The kernel refuses CPUs that a sibling has for itself alone, also if others are written then.
                let inherits = |file: &&str| !(is_new && stage.writes(file));
                self.inherit_cpuset(hierarchy, &stage, &mut CPUSET.into_iter().filter(inherits));
            }
            if let (true, Some(text)) = (is_new, stage.text()) {
                let directory = stage.directory.clone();
                made.push(ReaperTask::Made { hierarchy, directory, text });
            }
            match !is_new && is_later {
                true => is_left |= stage.leave(&self.done),
                false => stage.give(is_new, &self.done)?,
            }
            if is_cpuset && is_new {
                // A refused setting must not keep processes out of the cgroup.
                self.inherit_cpuset(hierarchy, &stage, &mut CPUSET.into_iter());
            }
        }
        if let (true, Some(config)) = (is_left, config.map(Arc::clone)) {
            made.push(ReaperTask::Renew { hierarchy, path: path.into(), config });
        }
        Ok(())
    }

    /// Fills the empty cpusets of an existing path.
    fn fill_cpusets(&self, hierarchy: usize, path: &str) {
        let tree = &self.hierarchies[hierarchy];
        if has_v1_cpuset(tree) {
            for stage in apply::path_steps(hierarchy, tree, path, None) {
                self.inherit_cpuset(hierarchy, &stage, &mut CPUSET.into_iter());
            }
        }
    }

    /// Copies the values of these files from the parent to an empty v1 cpuset.
    fn inherit_cpuset(
        &self,
        hierarchy: usize,
        stage: &PathStep<'_>,
        files: &mut dyn Iterator<Item = &'static str>,
    ) {
        // An empty cpuset refuses processes, and so does every descendant. Parents are filled
        // first. If this fails, the placement of the first process is refused with advice.
        for file in files {
            let path = stage.directory.join(file);
            if fs::read(&path).is_ok_and(|text| !text.trim_ascii().is_empty()) {
                continue;
            }
            let text = fs::read(stage.parent.join(file));
            let Err(error) = text.and_then(|text| fs::write(&path, text)) else { continue };
            let errno = Errno::from_raw(error.raw_os_error().unwrap_or_default());
            if self.done.is_new(hierarchy, file, errno) {
                ::log::warn!("cannot set {}: {error}", path.display());
            }
        }
    }

    fn report(&self, made: Vec<ReaperTask>) {
        if let Some(reaper) = &self.reaper {
            made.into_iter().for_each(|command| reaper.send(command));
            // After the owner tags, which tell whether an unchanged value was written earlier.
            let written = self.done.take_written();
            if !written.is_empty() {
                reaper.send(ReaperTask::Wrote(written));
            }
        }
    }

    /// Configures the existing directories of a path after a reload.
    fn renew(
        &self,
        hierarchy: usize,
        path: &str,
        config: Option<&Arc<PathConfig>>,
    ) -> Result<(), CgroupError> {
        let Some(config) = config.filter(|what| what.applies_to_existing()) else {
            return Ok(());
        };
        match &self.reaper {
            // Some writes block while the kernel reclaims memory, so only required settings are
            // written here.
            Some(reaper) if !config.is_required() => {
                let config = Arc::clone(config);
                reaper.send(ReaperTask::Renew { hierarchy, path: path.into(), config });
                Ok(())
            }
            Some(_) | None => {
                let tree = &self.hierarchies[hierarchy];
                let renewed = apply::renew(hierarchy, tree, path, config, &self.done);
                self.report(Vec::new());
                renewed
            }
        }
    }
}

fn has_v1_cpuset(tree: &Hierarchy) -> bool {
    tree.version == Version::V1 && tree.controllers.iter().any(|name| name == "cpuset")
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
