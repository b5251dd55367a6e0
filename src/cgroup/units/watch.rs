//! Watches which user slices exist: the cgroups `user.slice/user-UID.slice` in the hierarchy of
//! systemd, with inotify for new ones.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::cgroup::config::user_of_slice;
use crate::event::Uid;

/// The parent of all user slices.
const USER_SLICE: &str = "user.slice";
/// The events of a new cgroup.
const NEW: AddWatchFlags = AddWatchFlags::IN_CREATE.union(AddWatchFlags::IN_ONLYDIR);

/// An inotify watch of the user slices.
#[derive(Debug)]
pub(super) struct SliceWatch {
    inotify: Inotify,
    tree: PathBuf,
    /// The watch of `user.slice` while it exists.
    slices: Option<WatchDescriptor>,
    /// The watch of the hierarchy root otherwise, where others create cgroups too.
    parent: Option<WatchDescriptor>,
}

impl SliceWatch {
    /// Watches the hierarchy that is mounted at `tree`.
    ///
    /// # Errors
    /// inotify is not available, or the hierarchy cannot be watched.
    pub(super) fn open(tree: &Path) -> Result<Self, Errno> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let mut watch = Self { inotify, tree: tree.to_owned(), slices: None, parent: None };
        watch.renew()?;
        Ok(watch)
    }

    /// Returns the descriptor to poll.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }

    /// Reads changes and returns the users of the existing slices.
    ///
    /// # Errors
    /// inotify(7) failed.
    pub(super) fn present(&mut self) -> Result<BTreeSet<Uid>, Errno> {
        // The events need not identify the slice: the directory is read below.
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(errno),
            };
            for event in events {
                let is_lost = event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW);
                let is_over = event.mask.contains(AddWatchFlags::IN_IGNORED);
                if is_lost || is_over && self.slices == Some(event.wd) {
                    self.slices = None;
                }
            }
        }
        self.renew()?;
        let entries = fs::read_dir(self.tree.join(USER_SLICE)).into_iter().flatten().flatten();
        Ok(entries.filter_map(|entry| user_of_slice(entry.file_name().to_str()?)).collect())
    }

    /// Watches `user.slice`, or the hierarchy root until it exists.
    fn renew(&mut self) -> Result<(), Errno> {
        if self.slices.is_none() && !self.watch_slices()? {
            self.parent = Some(self.inotify.add_watch(&self.tree, NEW)?);
            // It may have been created before the watch was added.
            self.watch_slices()?;
        }
        if self.slices.is_some() {
            if let Some(parent) = self.parent.take() {
                // Fails if the kernel removed the watch together with the directory.
                let _removed = self.inotify.rm_watch(parent);
            }
        }
        Ok(())
    }

    /// Checks whether `user.slice` exists and is watched.
    fn watch_slices(&mut self) -> Result<bool, Errno> {
        match self.inotify.add_watch(&self.tree.join(USER_SLICE), NEW) {
            Ok(watch) => self.slices = Some(watch),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno),
        }
        Ok(self.slices.is_some())
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    /// Returns the existing slices once no event is pending. The end of a watch is an event too.
    fn settled(watch: &mut SliceWatch) -> BTreeSet<Uid> {
        loop {
            let present = watch.present().unwrap();
            if !is_ready(watch) {
                return present;
            }
        }
    }

    fn is_ready(watch: &SliceWatch) -> bool {
        let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn slices_are_seen_when_they_appear_also_after_user_slice() {
        let tree = tempfile::tempdir().unwrap();
        let mut watch = SliceWatch::open(tree.path()).unwrap();
        let slices = tree.path().join(USER_SLICE);
        for _ in 0..2 {
            assert_eq!(settled(&mut watch), BTreeSet::new());
            fs::create_dir(&slices).unwrap();
            assert!(is_ready(&watch));
            assert_eq!(settled(&mut watch), BTreeSet::new());
            fs::create_dir(tree.path().join("docker")).unwrap();
            assert!(!is_ready(&watch), "a foreign cgroup at the root causes no wake-up");
            fs::remove_dir(tree.path().join("docker")).unwrap();
            fs::create_dir(slices.join("user-1000.slice")).unwrap();
            assert!(is_ready(&watch));
            assert_eq!(settled(&mut watch), BTreeSet::from([Uid(1000)]));
            fs::remove_dir_all(&slices).unwrap();
        }
    }

    #[test]
    fn only_slices_of_users_count() {
        let tree = tempfile::tempdir().unwrap();
        for name in [
            "user-1.slice",
            "user-01.slice",
            "user-x.slice",
            "user-.slice",
            "user-4294967295.slice",
            "a",
        ] {
            fs::create_dir_all(tree.path().join(USER_SLICE).join(name)).unwrap();
        }
        let mut watch = SliceWatch::open(tree.path()).unwrap();
        assert_eq!(watch.present().unwrap(), BTreeSet::from([Uid(1)]));
    }
}
