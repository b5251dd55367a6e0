//! What was done since rules were read, and what was refused.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::cgroup::mounts::{Hierarchies, Version};

/// What was done since rules were read.
#[derive(Debug, Default)]
pub(in crate::cgroup) struct Done {
    /// The causes that were said: one refusal for a thousand users' groups is one line.
    causes: RefCell<HashSet<Cause>>,
    /// The groups that have all their tables say: one above a thousand users' groups is written once.
    given: RefCell<HashSet<PathBuf>>,
    /// What was refused while all groups are given what changed, where it may be taken the next time.
    held: RefCell<Option<Vec<Held>>>,
    /// Where our part of systemd's tree begins, if only a part of it is ours.
    ground: Option<PathBuf>,
}

/// A hierarchy, what was refused in it, and why.
type Cause = (usize, Box<str>, i32);

/// A refusal that is not said yet.
#[derive(Debug)]
struct Held {
    directory: PathBuf,
    cause: Cause,
    line: String,
}

impl Done {
    /// Nothing was done, and only what is below `ground` on v2 is ours.
    pub(in crate::cgroup) fn below(hierarchies: &Hierarchies, ground: &str) -> Self {
        let unified = hierarchies.iter().find(|tree| tree.version == Version::V2);
        let ground = unified.map(|tree| tree.mount_point.join(ground.trim_matches('/')));
        Self { ground, ..Self::default() }
    }

    /// Whether controllers may be enabled for `directory` in the group above it: not on the way to the
    /// ground, which is systemd's.
    pub(super) fn may_enable(&self, directory: &Path) -> bool {
        self.ground.as_ref().is_none_or(|ground| !ground.starts_with(directory))
    }

    /// From now on everything is said and given again.
    pub(in crate::cgroup) fn forget(&self) {
        self.causes.borrow_mut().clear();
        self.given.borrow_mut().clear();
    }

    pub(super) fn is_given(&self, directory: &Path) -> bool {
        self.given.borrow().contains(directory)
    }

    /// From now on `directory` has all its tables say. Whether that is new.
    pub(super) fn give(&self, directory: &Path) -> bool {
        self.given.borrow_mut().insert(directory.to_owned())
    }

    pub(in crate::cgroup) fn is_new(&self, hierarchy: usize, what: &str, errno: Errno) -> bool {
        self.causes.borrow_mut().insert((hierarchy, what.into(), errno as i32))
    }

    /// Says that `directory` was refused something: once for each cause, and later while it is held back.
    pub(in crate::cgroup) fn refused(
        &self,
        directory: &Path,
        (hierarchy, what, errno): (usize, &str, Errno),
        line: impl FnOnce() -> String,
    ) {
        if let Some(held) = self.held.borrow_mut().as_mut() {
            let cause = (hierarchy, what.into(), errno as i32);
            held.push(Held { directory: directory.to_owned(), cause, line: line() });
        } else if self.is_new(hierarchy, what, errno) {
            ::log::warn!("{}", line());
        }
    }

    /// From now on refusals are held back.
    pub(in crate::cgroup) fn hold(&self) {
        *self.held.borrow_mut() = Some(Vec::new());
    }

    /// How many are held back.
    pub(in crate::cgroup) fn held(&self) -> usize {
        self.held.borrow().as_ref().map_or(0, Vec::len)
    }

    /// Forgets those that are held back: their groups may be given all again.
    pub(in crate::cgroup) fn retry(&self) {
        let held = self.held.borrow_mut().replace(Vec::new());
        for refusal in held.unwrap_or_default() {
            self.given.borrow_mut().remove(&refusal.directory);
        }
    }

    /// Says those that are held back, and from now on each at once.
    pub(in crate::cgroup) fn release(&self) {
        let held = self.held.borrow_mut().take();
        for Held { cause, line, .. } in held.unwrap_or_default() {
            if self.causes.borrow_mut().insert(cause) {
                ::log::warn!("{line}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_cause_is_said_once() {
        let done = Done::default();
        assert!(done.is_new(0, "a", Errno::ENOENT) && done.is_new(1, "a", Errno::ENOENT));
        assert!(!done.is_new(0, "a", Errno::ENOENT) && done.is_new(0, "a", Errno::EBUSY));
        done.forget();
        assert!(done.is_new(0, "a", Errno::ENOENT));
    }

    #[test]
    fn what_is_held_back_is_given_again() {
        let done = Done::default();
        let refuse = |what| done.refused(Path::new("/a"), (0, what, Errno::EBUSY), String::new);
        done.hold();
        done.give(Path::new("/a"));
        refuse("x");
        refuse("x");
        assert_eq!((done.held(), done.is_given(Path::new("/a"))), (2, true));
        done.retry();
        assert_eq!((done.held(), done.is_given(Path::new("/a"))), (0, false));
        refuse("y");
        done.release();
        assert_eq!(done.held(), 0);
        assert!(done.is_new(0, "x", Errno::EBUSY) && !done.is_new(0, "y", Errno::EBUSY));
    }
}
