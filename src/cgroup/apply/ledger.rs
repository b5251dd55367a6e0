//! A ledger of the configuration applied and the diagnostics logged since the last reload, so that
//! neither is repeated for every cgroup.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::cgroup::mounts::{Hierarchies, Version};
use crate::cgroup::settings::SettingSlot;

/// The configuration applied and the diagnostics logged since the last reload.
#[derive(Debug, Default)]
pub(in crate::cgroup) struct ApplyLedger {
    /// The causes that were logged. A refusal that concerns the cgroups of a thousand users is one
    /// line.
    causes: RefCell<HashSet<RefusalCause>>,
    /// The fully configured cgroups. The parent of a thousand users' cgroups is written once.
    given: RefCell<HashSet<PathBuf>>,
    /// The deferred diagnostics while a reload configures all cgroups: a retry may succeed.
    held: RefCell<Option<Vec<DeferredWarning>>>,
    /// The delegated root on the v2 hierarchy, if cgruled manages only a part of systemd's tree.
    ground: Option<PathBuf>,
    /// The settings written, until they are taken; `None` if nothing takes them.
    written: RefCell<Option<Vec<WrittenSetting>>>,
}

/// A setting of a table that a cgroup now has.
#[derive(Debug)]
pub(in crate::cgroup) struct WrittenSetting {
    /// The directory of the cgroup.
    pub(in crate::cgroup) directory: PathBuf,
    /// The path of the table, with its specifiers.
    pub(in crate::cgroup) text: String,
    /// The part of a file that was written.
    pub(in crate::cgroup) slot: SettingSlot,
    /// True if it had the value before.
    pub(in crate::cgroup) was_set: bool,
}

/// The hierarchy, the refused setting and the errno.
type RefusalCause = (usize, Box<str>, i32);

/// A diagnostic that is logged only if a retry fails too.
#[derive(Debug)]
struct DeferredWarning {
    directory: PathBuf,
    cause: RefusalCause,
    line: String,
}

impl ApplyLedger {
    /// Creates an empty ledger for a host where only the subtree below `ground` on v2 is managed.
    pub(in crate::cgroup) fn below(hierarchies: &Hierarchies, ground: &str) -> Self {
        let unified = hierarchies.iter().find(|tree| tree.version == Version::V2);
        let ground = unified.map(|tree| tree.mount_point.join(ground.trim_matches('/')));
        Self { ground, ..Self::default() }
    }

    /// Checks whether controllers may be enabled for `directory` in its parent. The ancestors of
    /// the delegated root belong to systemd.
    pub(super) fn may_enable(&self, directory: &Path) -> bool {
        self.ground.as_ref().is_none_or(|ground| !ground.starts_with(directory))
    }

    /// Forgets everything, so that all cgroups are configured again and diagnostics are logged
    /// again.
    pub(in crate::cgroup) fn forget(&self) {
        self.causes.borrow_mut().clear();
        self.given.borrow_mut().clear();
    }

    pub(super) fn is_given(&self, directory: &Path) -> bool {
        self.given.borrow().contains(directory)
    }

    /// Records that `directory` is fully configured. Returns whether that is new.
    pub(super) fn give(&self, directory: &Path) -> bool {
        self.given.borrow_mut().insert(directory.to_owned())
    }

    pub(in crate::cgroup) fn is_new(&self, hierarchy: usize, what: &str, errno: Errno) -> bool {
        self.causes.borrow_mut().insert((hierarchy, what.into(), errno as i32))
    }

    /// Reports that the kernel refused something for `directory`: logs it once for each cause, or
    /// defers it while diagnostics are deferred.
    pub(in crate::cgroup) fn refused(
        &self,
        directory: &Path,
        (hierarchy, what, errno): (usize, &str, Errno),
        line: impl FnOnce() -> String,
    ) {
        if let Some(held) = self.held.borrow_mut().as_mut() {
            let cause = (hierarchy, what.into(), errno as i32);
            held.push(DeferredWarning { directory: directory.to_owned(), cause, line: line() });
        } else if self.is_new(hierarchy, what, errno) {
            ::log::warn!("{}", line());
        }
    }

    /// Collects written settings from now on, for [`Self::take_written`].
    pub(in crate::cgroup) fn collect_written(&self) {
        self.written.borrow_mut().get_or_insert_default();
    }

    /// Records a setting that was written.
    pub(super) fn wrote(&self, setting: impl FnOnce() -> WrittenSetting) {
        if let Some(written) = self.written.borrow_mut().as_mut() {
            written.push(setting());
        }
    }

    /// Returns the settings written since the last call.
    pub(in crate::cgroup) fn take_written(&self) -> Vec<WrittenSetting> {
        self.written.borrow_mut().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Starts to defer diagnostics until `release`.
    pub(in crate::cgroup) fn hold(&self) {
        *self.held.borrow_mut() = Some(Vec::new());
    }

    /// Returns the number of deferred diagnostics.
    pub(in crate::cgroup) fn held(&self) -> usize {
        self.held.borrow().as_ref().map_or(0, Vec::len)
    }

    /// Drops the deferred diagnostics and marks their cgroups as not configured, so that they are
    /// tried again.
    pub(in crate::cgroup) fn retry(&self) {
        let held = self.held.borrow_mut().replace(Vec::new());
        for refusal in held.unwrap_or_default() {
            self.given.borrow_mut().remove(&refusal.directory);
        }
    }

    /// Logs the deferred diagnostics and stops deferring.
    pub(in crate::cgroup) fn release(&self) {
        let held = self.held.borrow_mut().take();
        for DeferredWarning { cause, line, .. } in held.unwrap_or_default() {
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
        let done = ApplyLedger::default();
        assert!(done.is_new(0, "a", Errno::ENOENT) && done.is_new(1, "a", Errno::ENOENT));
        assert!(!done.is_new(0, "a", Errno::ENOENT) && done.is_new(0, "a", Errno::EBUSY));
        done.forget();
        assert!(done.is_new(0, "a", Errno::ENOENT));
    }

    #[test]
    fn what_is_held_back_is_given_again() {
        let done = ApplyLedger::default();
        fn refuse(done: &ApplyLedger, what: &str) {
            done.refused(Path::new("/a"), (0, what, Errno::EBUSY), String::new);
        }
        done.hold();
        done.give(Path::new("/a"));
        refuse(&done, "x");
        refuse(&done, "x");
        assert_eq!((done.held(), done.is_given(Path::new("/a"))), (2, true));
        done.retry();
        assert_eq!((done.held(), done.is_given(Path::new("/a"))), (0, false));
        refuse(&done, "y");
        done.release();
        assert_eq!(done.held(), 0);
        assert!(done.is_new(0, "x", Errno::EBUSY) && !done.is_new(0, "y", Errno::EBUSY));
    }
}
