//! Directories on the way to the gated files, which inotify(7) reports changes of.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::stat::FileStat;

use crate::sys::checked_path::is_link;

/// Watched directories. They belong to root, so no user can cause events.
pub(super) struct Directories {
    inotify: Inotify,
    /// Those of the last check and of the present one.
    watched: HashMap<WatchDescriptor, bool>,
    /// Names on the way to the files. Other names in a directory, as of the files of a package, do not matter.
    names: HashSet<OsString>,
    /// Set while a file is missing: the name that is missing can be one in the target of a link.
    expects_any: bool,
}

impl AsFd for Directories {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

impl Directories {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// As inotify_init1(2).
    pub(super) fn new() -> nix::Result<Self> {
        Ok(Self {
            inotify: Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?,
            watched: HashMap::new(),
            names: HashSet::new(),
            expects_any: false,
        })
    }

    /// Begins a check of these files. Directories that are not added until its end are not watched any more.
    pub(super) fn begin(&mut self, files: &[Box<[u8]>]) {
        self.watched.values_mut().for_each(|is_used| *is_used = false);
        let parts = files.iter().flat_map(|file| Path::new(OsStr::from_bytes(file)).iter());
        self.names = parts.map(OsStr::to_owned).collect();
        self.expects_any = false;
    }

    /// Watches a directory on the way to a file, before what is in it is opened.
    pub(super) fn add(&mut self, path: &Path, stat: &FileStat) {
        self.names.extend(path.file_name().map(OsStr::to_owned));
        if is_link(stat) {
            return;
        }
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_DONT_FOLLOW;
        match self.inotify.add_watch(path, changes) {
            Ok(watch) => {
                self.watched.insert(watch, true);
            }
            // It was replaced meanwhile, which its parent reports.
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(error) => ::log::warn!(
                "{} is not watched: {error}; after a replacement of a gated file one execution does not wait",
                path.display()
            ),
        }
    }

    /// Takes any change as one that matters, until the next check.
    pub(super) fn expect_any(&mut self) {
        self.expects_any = true;
    }

    /// Ends a check.
    pub(super) fn end(&mut self) {
        let inotify = &self.inotify;
        self.watched.retain(|&watch, is_used| {
            if !*is_used {
                // EINVAL: the directory was removed.
                let _removed = inotify.rm_watch(watch);
            }
            *is_used
        });
    }

    /// Reads the changes, and returns whether one of them can matter.
    pub(super) fn read_changes(&mut self) -> bool {
        let mut matters = false;
        // EAGAIN: there is none.
        while let Ok(events) = self.inotify.read_events() {
            for event in events {
                // Of the end of a watch the kernel sends IN_IGNORED, also after `rm_watch`.
                let is_ended = event.mask.contains(AddWatchFlags::IN_IGNORED);
                matters |= match &event.name {
                    // Of the directory itself, or an overflow of the queue.
                    None => !is_ended,
                    Some(name) => self.expects_any || self.names.contains(name),
                };
            }
        }
        matters
    }
}
