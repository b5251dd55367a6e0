//! What the kernel refused on the way to a placement, and what to do about it.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use super::equip;
use super::mounts::Hierarchies;
use crate::rules::Target;

/// A step on the way to a placement that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The file or directory.
    pub path: PathBuf,
    /// What we wanted to do with it.
    pub step: Step,
    /// Why not.
    pub errno: Errno,
}

/// What we do to files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Make the directory.
    Create,
    /// Give a new group what its table says must be there.
    Set,
    /// Open `cgroup.procs`.
    Open,
    /// Write a process id.
    Write,
}

impl Refusal {
    pub(super) fn new(path: impl Into<PathBuf>, step: Step, error: impl Into<io::Error>) -> Self {
        let errno = error.into().raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        Self { path: path.into(), step, errno }
    }

    /// What the administrator can do, where there is something.
    pub fn advice(&self) -> &'static str {
        match (self.step, self.errno) {
            (Step::Set, errno) => {
                let name = self.path.file_name().and_then(|name| name.to_str());
                equip::advice(name.unwrap_or_default(), errno)
            }
            (Step::Write, Errno::EBUSY) => {
                "the group has controllers enabled for its children, so it may hold no process itself: name a group below it"
            }
            (Step::Write, Errno::EOPNOTSUPP) => {
                "the group is in a threaded or invalid domain: write 'domain' groups only, see cgroup.type"
            }
            (Step::Write, Errno::ENOSPC) => {
                "a cpuset group needs cpuset.cpus and cpuset.mems before it can hold processes"
            }
            (Step::Write, Errno::EINVAL) => {
                "a kernel thread that is bound to its group, or a real-time process in a cpu group without cpu.rt_runtime_us"
            }
            (Step::Write, Errno::EPERM) => {
                "the daemon may not move it: into a cpuset group that takes CAP_SYS_NICE if the process has capabilities that the daemon lacks"
            }
            (_, Errno::EACCES | Errno::EPERM | Errno::EROFS) => {
                "the daemon may not write there: is the cgroup file system mounted read-only, or does the unit lack CAP_DAC_OVERRIDE?"
            }
            (Step::Open, Errno::ENOENT) => {
                "a rule of cgrules.conf makes no group whose path is written out: make it, or add a section \
                 for it to /etc/cgconfig.conf, and it is made"
            }
            (_, Errno::ENOSPC | Errno::EAGAIN) => {
                "cgroup.max.descendants or cgroup.max.depth of a group above is reached"
            }
            _ => "see cgroups(7)",
        }
    }

    /// The section of cgconfig.conf that lets the missing group of `target` be made, if that is what is
    /// missing.
    pub fn section(&self, target: &Target, hierarchies: &Hierarchies) -> Option<String> {
        if (self.step, self.errno) != (Step::Open, Errno::ENOENT) {
            return None;
        }
        let trees = hierarchies.iter().filter(|tree| self.path.starts_with(&tree.mount_point));
        // Where v2 is mounted in the directory of the others, the longer path is meant.
        let tree = trees.max_by_key(|tree| tree.mount_point.as_os_str().len())?;
        let named = target.controllers.iter().find(|name| tree.controllers.contains(name));
        // Every v2 group does what freezer is for.
        let controller = named.or_else(|| tree.controllers.first()).map_or("freezer", |name| name);
        Some(format!("group {} {{ {controller} {{ }} }}", target.destination.as_str()))
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = match self.step {
            Step::Create => "make",
            Step::Set => "set what is required in",
            Step::Open => "open",
            Step::Write => "write to",
        };
        write!(f, "cannot {verb} {}: {} ({:?})", self.path.display(), self.errno.desc(), self.errno)
    }
}
