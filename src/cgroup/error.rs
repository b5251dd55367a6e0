//! Errors of the kernel while a process is placed, with advice for the administrator.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use super::advice::advice;
use super::mounts::{Hierarchies, Hierarchy};
use crate::rules::Target;
use crate::sys;

/// A step of a placement that failed with an errno.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupError {
    /// The file or directory concerned.
    pub path: PathBuf,
    /// The operation that failed on it.
    pub step: CgroupOperation,
    /// The error number of the kernel.
    pub errno: Errno,
}

/// The operations of a placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CgroupOperation {
    /// The creation of the directory.
    Create,
    /// The write of a required setting.
    Set,
    /// The opening of `cgroup.procs`.
    Open,
    /// The write of a PID.
    Write,
}

impl CgroupError {
    pub(super) fn new(
        path: impl Into<PathBuf>,
        step: CgroupOperation,
        error: impl Into<io::Error>,
    ) -> Self {
        Self { path: path.into(), step, errno: sys::errno(&error.into()) }
    }

    /// Returns the advice for the administrator.
    pub fn advice(&self) -> &'static str {
        match (self.step, self.errno) {
            (CgroupOperation::Set, errno) => {
                let name = self.path.file_name().and_then(|name| name.to_str());
                advice(name.unwrap_or_default(), errno)
            }
            (CgroupOperation::Write, Errno::EBUSY) => {
                "the cgroup has controllers enabled for its children, so it cannot contain processes: use a cgroup below it"
            }
            (CgroupOperation::Write, Errno::EOPNOTSUPP) => {
                "the cgroup is threaded or in an invalid domain: use a cgroup with 'domain' in cgroup.type"
            }
            (CgroupOperation::Write, Errno::ENOSPC) => {
                "a cpuset cgroup accepts processes only after cpuset.cpus and cpuset.mems are set"
            }
            (CgroupOperation::Write, Errno::EINVAL) => {
                "a kernel thread may be bound to its cgroup, and a real-time process needs cpu.rt_runtime_us in the destination"
            }
            (CgroupOperation::Write, Errno::EPERM) => {
                "no permission to move it: a move into a cpuset cgroup needs CAP_SYS_NICE if the process has capabilities that the daemon lacks"
            }
            (_, Errno::EACCES | Errno::EPERM | Errno::EROFS) => {
                "no write access: the cgroup file system may be mounted read-only, or the unit may lack CAP_DAC_OVERRIDE"
            }
            (CgroupOperation::Open, Errno::ENOENT) => {
                "literal paths in cgrules.conf are not created: create the cgroup, or add a group section to \
                 /etc/cgconfig.conf"
            }
            (_, Errno::ENOSPC | Errno::EAGAIN) => {
                "cgroup.max.descendants or cgroup.max.depth of an ancestor is reached: raise the limit or remove cgroups"
            }
            _ => "see cgroups(7)",
        }
    }

    /// Returns the `group` section of cgconfig.conf that allows the missing cgroup of `target` to
    /// be created, or `None` if the failure has another cause.
    pub fn section(&self, target: &Target, hierarchies: &Hierarchies) -> Option<String> {
        if (self.step, self.errno) != (CgroupOperation::Open, Errno::ENOENT) {
            return None;
        }
        let trees = hierarchies.iter().filter(|tree| self.path.starts_with(&tree.mount_point));
        // v2 can be mounted inside the directory of the v1 hierarchies: take the longest mount
        // point.
        let tree = trees.max_by_key(|tree| tree.mount_point.as_os_str().len())?;
        Some(Self::section_of(target, &[tree]))
    }

    /// Returns the `group` section of cgconfig.conf that allows the cgroup of `target` to be created
    /// in these hierarchies.
    pub fn section_of(target: &Target, trees: &[&Hierarchy]) -> String {
        let controller = |tree: &&&Hierarchy| -> String {
            let named = target.controllers.iter().find(|name| tree.controllers.contains(name));
            // Every v2 cgroup can freeze, without a controller.
            let name = named.or_else(|| tree.controllers.first());
            format!("{} {{ }}", name.map_or("freezer", |name| name))
        };
        let controllers: Vec<String> = trees.iter().map(|tree| controller(&tree)).collect();
        format!(
            "group {} {{ {} }}",
            target.destination.as_str().trim_matches('/'),
            controllers.join(" ")
        )
    }
}

impl std::fmt::Display for CgroupError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = match self.step {
            CgroupOperation::Create => "create",
            CgroupOperation::Set => "write the required setting",
            CgroupOperation::Open => "open",
            CgroupOperation::Write => "write to",
        };
        write!(f, "cannot {verb} {}: {} ({:?})", self.path.display(), self.errno.desc(), self.errno)
    }
}
