//! The thread that marks the gated files, and marks those again that are replaced. It alone opens paths, because that can
//! wait for a disk.
//!
//! A mark belongs to an inode. So a file that is replaced, as by the upgrade of a package, is marked anew when a directory
//! on the way to it changes. Each check marks all files again: the number of an inode does not show that the file was
//! replaced, because a file system uses it again, and a mark that exists takes 3 us.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno;
use nix::fcntl::{OFlag, readlink};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, SFlag, fstat};

use super::directories::Directories;
use super::group::Group;
use super::shared::{Orders, Paths, Shared};
use super::watch;
use crate::sys::checked_path::open_checked;

/// Groups that are marked for one order: another thread can close each of them.
const ATTEMPTS: usize = 3;

/// The thread.
pub(super) struct Marker {
    shared: Arc<Shared>,
    /// Program of the watching process.
    program: PathBuf,
    /// Thread that gives the signs of life.
    reader: u32,
    watching: Option<Child>,
    files: Vec<Box<[u8]>>,
    directories: Directories,
    /// Files that could not be marked, to report each once.
    reported: HashSet<Box<[u8]>>,
}

impl Marker {
    pub(super) fn new(
        shared: Arc<Shared>,
        program: PathBuf,
        reader: u32,
        directories: Directories,
    ) -> Self {
        Self {
            shared,
            program,
            reader,
            watching: None,
            files: Vec::new(),
            directories,
            reported: HashSet::new(),
        }
    }

    /// Marks files until the gate is dropped.
    pub(super) fn run(mut self) {
        while !self.shared.is_stopping.load(Relaxed) {
            {
                let waker = self.shared.to_marker.as_fd();
                let mut fds =
                    [waker, self.directories.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
                // EINTR is an early end.
                let _ready = poll(&mut fds, PollTimeout::NONE);
            }
            // EAGAIN: nobody has written.
            let _written = self.shared.to_marker.read();
            let has_changed = self.directories.read_changes();
            let orders = self.shared.take_orders();
            self.obey(orders, has_changed);
        }
        self.shared.set_heart(None);
        self.end_watching();
    }

    fn obey(&mut self, orders: Orders, has_changed: bool) {
        if orders.watches {
            self.end_watching();
            self.watch();
        }
        if let Some(files) = orders.files {
            let has_removed = self.files.iter().any(|file| !files.contains(file));
            self.files = files;
            self.reported.clear();
            self.close_gate(has_removed);
        } else if orders.renews {
            self.close_gate(false);
        } else if orders.rechecks || has_changed {
            if let Some(group) = self.shared.group() {
                self.mark_all(&group);
            }
        }
    }

    /// Lets executions of the files wait, also if the gate is open. With `has_removed` no others do from now on.
    fn close_gate(&mut self, has_removed: bool) {
        if !self.files.is_empty() && self.watching.is_none() && !self.watch() {
            return;
        }
        for _ in 0..ATTEMPTS {
            let Some(group) = self.group() else { return };
            if has_removed {
                // The inode that a removed path had cannot be found any more, if the path has another one by now.
                if let Err(error) = group.unmark_all() {
                    ::log::error!(
                        "fanotify_mark: {error}: executions of files that are not gated any more wait"
                    );
                }
            }
            self.mark_all(&group);
            if !group.is_closed() {
                return;
            }
        }
    }

    /// Returns the present group, or creates one.
    fn group(&self) -> Option<Arc<Group>> {
        if let Some(group) = self.shared.group() {
            return Some(group);
        }
        match Group::create() {
            Ok(group) => {
                let group = Arc::new(group);
                self.shared.set_group(Some(Arc::clone(&group)));
                Some(group)
            }
            Err(error) => {
                ::log::error!("fanotify_init: {error}: executions of gated files do not wait");
                None
            }
        }
    }

    fn mark_all(&mut self, group: &Group) {
        let mut opened = Vec::new();
        let mut paths = Paths::new();
        self.directories.begin(&self.files);
        for file in &self.files {
            match open_file(Path::new(OsStr::from_bytes(file)), &mut self.directories) {
                Ok((path, open)) => {
                    paths.insert(path);
                    opened.push((file, open));
                }
                Err(Errno::ENOENT | Errno::ENOTDIR) => self.directories.expect_any(),
                Err(error) => {
                    self.directories.expect_any();
                    report(&mut self.reported, file, error.desc());
                }
            }
        }
        self.directories.end();
        // Before the first event of a new mark.
        self.shared.set_paths(paths);
        for (file, open) in opened {
            if let Err(error) = group.mark(open.as_fd()) {
                report(&mut self.reported, file, &error.to_string());
            }
        }
        if group.is_closed() {
            self.shared.set_paths(Paths::new());
        }
    }

    /// Starts the watching process. Returns `false` if that failed: executions must not wait without it.
    fn watch(&mut self) -> bool {
        match watch::start(&self.program, self.reader) {
            Ok((child, heart)) => {
                self.watching = Some(child);
                self.shared.set_heart(Some(heart));
                true
            }
            Err(error) => {
                ::log::error!(
                    "executions of gated files do not wait: {} cannot be started to watch the daemon: {error}; run 'cgrulectl reload' to try again",
                    self.program.display()
                );
                if let Some(group) = self.shared.group() {
                    if let Err(error) = group.unmark_all() {
                        ::log::error!("fanotify_mark: {error}: restart cgruled");
                    }
                }
                self.shared.set_paths(Paths::new());
                false
            }
        }
    }

    fn end_watching(&mut self) {
        if let Some(mut child) = self.watching.take() {
            // It has exited, or it ends when the pipe is closed.
            let _killed = child.kill();
            let _reaped = child.wait();
        }
    }
}

fn report(reported: &mut HashSet<Box<[u8]>>, file: &[u8], reason: &str) {
    if reported.insert(file.into()) {
        ::log::error!("executions of {} do not wait: {reason}", String::from_utf8_lossy(file));
    }
}

/// Opens a file, and watches the directories on the way. Returns it with its path without links.
fn open_file(path: &Path, directories: &mut Directories) -> nix::Result<(Box<[u8]>, OwnedFd)> {
    let root = nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    // Neither reads the file nor waits for another process.
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    let file = open_checked(root, path, (flags, Mode::empty()), |way, stat| {
        directories.add(way, stat);
        Ok::<(), Errno>(())
    })?;
    let format = SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT;
    if format != SFlag::S_IFREG {
        return Err(if format == SFlag::S_IFLNK { Errno::ELOOP } else { Errno::EACCES });
    }
    let path = readlink(&*format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)))?;
    Ok((path.into_vec().into(), file))
}
