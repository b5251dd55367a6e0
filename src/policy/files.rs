//! Watches of rule files and of the user database, by inotify. It reads no file.
//!
//! The kernel limits inotify instances and watches per user, and other programs of root can use them
//! up. The daemon then runs without, and tries again each minute.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use crate::event::Nanos;
use crate::policy::worker::ReloadReason;

/// Time without changes before rules are read: packages write several files.
const QUIET_NS: u64 = 100_000_000;
/// Maximum delay for a directory that keeps changing.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Time until watches that failed are set again.
const RETRY_NS: u64 = 60_000_000_000;

/// Files and directories of cgrulesengd.
const LEGACY_FILES: [&str; 2] = ["cgrules.conf", "cgconfig.conf"];
const LEGACY_DIRECTORIES: [&str; 2] = ["cgrules.d", "cgconfig.d"];

/// Files of the user database.
const NAME_FILES: [&str; 5] = ["passwd", "group", "nsswitch.conf", "subuid", "login.defs"];

/// Watched files, with the change that waits to be reported.
#[derive(Debug)]
pub struct FileWatcher {
    /// `None` while no instance is free.
    inotify: Option<Inotify>,
    /// Contains the inotify instance, so that the descriptor to poll never changes.
    epoll: Epoll,
    directories: Vec<PathBuf>,
    etc: PathBuf,
    has_legacy: bool,
    /// Watches of cgrulesengd's directories, in which every file name counts.
    legacy: Vec<WatchDescriptor>,
    /// Rule directories that existed when the watches were set.
    existing: Vec<PathBuf>,
    change: Option<FileChange>,
    /// Watches that could not be set, with the reason.
    failed: Vec<WatchFailure>,
    /// Failures that were logged.
    reported: Vec<WatchFailure>,
    /// Time of the next attempt to set them.
    retry: Option<Nanos>,
}

/// Watch that could not be set. `None` as the path means that no inotify instance is free.
#[derive(Clone, Debug, PartialEq, Eq)]
struct WatchFailure {
    path: Option<PathBuf>,
    errno: Errno,
}

impl fmt::Display for WatchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = self.errno.desc();
        match &self.path {
            None => write!(f, "changed rule files are not noticed: inotify: {why}")?,
            Some(path) => write!(f, "changes in {} are not noticed: {why}", path.display())?,
        }
        let limit = if self.errno == Errno::EMFILE {
            "raise fs.inotify.max_user_instances with sysctl(8)"
        } else if self.errno == Errno::ENOSPC {
            "raise fs.inotify.max_user_watches with sysctl(8)"
        } else {
            "free memory or descriptors"
        };
        write!(f, "; run 'cgrulectl reload' after a change, or {limit}")
    }
}

#[derive(Clone, Copy, Debug)]
struct FileChange {
    /// `None` while the only change is a created directory above a rule directory, such as the one
    /// for the daemon's own socket.
    reason: Option<ReloadReason>,
    first: Nanos,
    last: Nanos,
}

impl FileChange {
    fn due(self) -> Nanos {
        self.last.plus(QUIET_NS).min(self.first.plus(PATIENCE_NS))
    }
}

impl FileWatcher {
    /// Watches the rule directories, missing ones by their nearest existing ancestor; the user
    /// database in `etc`; and there, with `has_legacy`, the files of cgrulesengd.
    ///
    /// # Errors
    /// No descriptor is left. Without an inotify instance nothing is watched; see [`Self::report`].
    pub fn watch(directories: &[PathBuf], etc: &Path, has_legacy: bool) -> io::Result<Self> {
        let mut files = Self {
            inotify: None,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            directories: directories.to_vec(),
            etc: etc.to_owned(),
            has_legacy,
            legacy: Vec::new(),
            existing: Vec::new(),
            change: None,
            failed: Vec::new(),
            reported: Vec::new(),
            retry: None,
        };
        files.renew();
        Ok(files)
    }

    /// Logs each watch that could not be set, once. The first call is left to the caller, because
    /// files are watched before there is a log.
    pub fn report(&mut self, now: Nanos) {
        for failure in self.failed.iter().filter(|failure| !self.reported.contains(failure)) {
            ::log::warn!("{failure}");
        }
        self.reported.clone_from(&self.failed);
        self.retry = (!self.failed.is_empty()).then(|| now.plus(RETRY_NS));
    }

    fn open(&mut self) -> Result<(), Errno> {
        if self.inotify.is_none() {
            let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
            self.epoll.add(&inotify, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
            self.inotify = Some(inotify);
        }
        Ok(())
    }

    /// Sets the watches for the present directories. Repeated watches have no effect.
    fn renew(&mut self) {
        self.failed.clear();
        if let Err(errno) = self.open() {
            self.failed.push(WatchFailure { path: None, errno });
        }
        let directories = self.directories.iter();
        self.existing = directories.filter(|directory| directory.is_dir()).cloned().collect();
        let entries = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        for directory in self.directories.iter().chain([&self.etc]).cloned().collect::<Vec<_>>() {
            let existing = directory.ancestors().find(|ancestor| ancestor.is_dir());
            if let Some(existing) = existing {
                let _watch = self.add(existing, entries);
            }
        }
        if self.has_legacy {
            let paths = LEGACY_DIRECTORIES.map(|name| self.etc.join(name));
            let paths = paths.iter().filter(|path| path.is_dir());
            self.legacy = paths.filter_map(|path| self.add(path, entries)).collect();
        }
        // Watched directly as well: a file that is mounted over /etc/passwd has another parent.
        for name in NAME_FILES {
            let path = self.etc.join(name);
            if path.exists() {
                let _watch = self.add(&path, AddWatchFlags::IN_CLOSE_WRITE);
            }
        }
    }

    fn add(&mut self, path: &Path, flags: AddWatchFlags) -> Option<WatchDescriptor> {
        match self.inotify.as_ref()?.add_watch(path, flags) {
            Ok(watch) => Some(watch),
            Err(errno) => {
                self.failed.push(WatchFailure { path: Some(path.to_owned()), errno });
                None
            }
        }
    }

    /// Returns the descriptor to poll.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }

    /// Reads the pending changes without blocking.
    pub fn read(&mut self, now: Nanos) {
        loop {
            let Some(inotify) = &self.inotify else { return };
            match inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        let is_legacy = self.legacy.contains(&event.wd);
                        let is_made = event.mask.contains(AddWatchFlags::IN_CREATE)
                            && event.mask.contains(AddWatchFlags::IN_ISDIR);
                        let name = event.name.as_deref().map(Path::new);
                        self.note(name, is_legacy, is_made, now);
                    }
                }
                Err(Errno::EAGAIN) => return,
                Err(errno) => {
                    ::log::warn!(
                        "cannot read changes of rule files: inotify: {}; reading all files",
                        errno.desc()
                    );
                    // A new instance, because the unread changes would be reported again at once.
                    self.inotify = None;
                    self.note(None, false, false, now);
                    return;
                }
            }
        }
    }

    fn note(&mut self, name: Option<&Path>, is_legacy: bool, is_made: bool, now: Nanos) {
        let reason = match name {
            Some(_) if is_legacy => Some(ReloadReason::Rules),
            // A watched file itself, or an overflow: names are looked up in either case.
            None => Some(ReloadReason::Names),
            Some(name) if is_one_of(name, &NAME_FILES) => Some(ReloadReason::Names),
            Some(name) if self.concerns_rules(name) => Some(ReloadReason::Rules),
            Some(name) if self.is_on_the_way(name) => (!is_made).then_some(ReloadReason::Rules),
            Some(_) => return,
        };
        let change = self.change.get_or_insert(FileChange { reason, first: now, last: now });
        change.last = now;
        if reason == Some(ReloadReason::Rules) || change.reason.is_none() {
            change.reason = reason;
        }
    }

    /// Checks whether a name is a rule file, or a file or directory of cgrulesengd: `etc` contains
    /// much else.
    fn concerns_rules(&self, name: &Path) -> bool {
        let is_legacy = is_one_of(name, &LEGACY_FILES) || is_one_of(name, &LEGACY_DIRECTORIES);
        name.extension().is_some_and(|extension| extension == "toml")
            || self.has_legacy && is_legacy
    }

    /// Checks whether a name is part of the path of a rule directory.
    fn is_on_the_way(&self, name: &Path) -> bool {
        let mut parts = self.directories.iter().flat_map(|directory| directory.components());
        parts.any(|part| part.as_os_str() == name)
    }

    /// Returns the action that is due at `now`, once for each burst of changes.
    pub fn take_due(&mut self, now: Nanos) -> Option<ReloadReason> {
        if self.retry.is_some_and(|at| at <= now) {
            return self.retry(now);
        }
        let change = self.change.filter(|change| change.due() <= now)?;
        self.change = None;
        let before = std::mem::take(&mut self.existing);
        self.renew();
        self.report(now);
        change.reason.or_else(|| (self.existing != before).then_some(ReloadReason::Rules))
    }

    /// Sets the watches again after a failure. Files may have changed while they were not watched.
    fn retry(&mut self, now: Nanos) -> Option<ReloadReason> {
        let before = self.failed.len();
        self.renew();
        self.report(now);
        (self.failed.len() < before).then_some(ReloadReason::Names)
    }

    /// Returns the time at which [`Self::take_due`] has an action.
    pub fn next_due(&self) -> Option<Nanos> {
        let change = self.change.map(FileChange::due);
        change.into_iter().chain(self.retry).min()
    }
}

fn is_one_of(name: &Path, known: &[&str]) -> bool {
    known.iter().any(|known| name == Path::new(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_change_and_a_directory_may_come_later() {
        let root = tempfile::tempdir().unwrap();
        let rules = root.path().join("rules.d");
        let mut files =
            FileWatcher::watch(std::slice::from_ref(&rules), root.path(), false).unwrap();
        std::fs::create_dir(&rules).unwrap();
        files.read(Nanos(1));
        assert_eq!(files.take_due(Nanos(1)), None);
        assert_eq!(files.take_due(Nanos(1 + QUIET_NS)), Some(ReloadReason::Rules));
        std::fs::write(rules.join("10-a.toml"), "").unwrap();
        std::fs::write(rules.join("README"), "").unwrap();
        files.read(Nanos(2));
        std::fs::write(rules.join("11-b.toml"), "").unwrap();
        files.read(Nanos(QUIET_NS));
        assert_eq!(files.take_due(Nanos(3 + QUIET_NS)), None);
        assert_eq!(files.take_due(Nanos(2 * QUIET_NS)), Some(ReloadReason::Rules));
        assert_eq!(files.next_due(), None);
    }

    #[test]
    fn a_directory_on_the_way_is_no_change_until_there_are_rules() {
        let root = tempfile::tempdir().unwrap();
        let rules = root.path().join("cgruled/rules.d");
        let mut files =
            FileWatcher::watch(std::slice::from_ref(&rules), root.path(), false).unwrap();
        std::fs::create_dir(root.path().join("cgruled")).unwrap();
        files.read(Nanos(1));
        assert_eq!(files.take_due(Nanos(1 + QUIET_NS)), None);
        assert_eq!(files.next_due(), None);
        std::fs::create_dir(&rules).unwrap();
        files.read(Nanos(1));
        assert_eq!(files.take_due(Nanos(1 + QUIET_NS)), Some(ReloadReason::Rules));
        // All at once, before the watch on the directory in between is set.
        std::fs::remove_dir_all(root.path().join("cgruled")).unwrap();
        files.read(Nanos(1));
        assert_eq!(files.take_due(Nanos(1 + QUIET_NS)), Some(ReloadReason::Rules));
        std::fs::create_dir_all(&rules).unwrap();
        files.read(Nanos(1));
        assert_eq!(files.take_due(Nanos(1 + QUIET_NS)), Some(ReloadReason::Rules));
    }

    #[test]
    fn watches_that_fail_are_set_again() {
        let root = tempfile::tempdir().unwrap();
        let rules = root.path().join("rules.d");
        std::fs::create_dir(&rules).unwrap();
        let directories = std::slice::from_ref(&rules);
        let mut files = FileWatcher::watch(directories, root.path(), false).unwrap();
        assert_eq!(files.next_due(), None);
        // As after EMFILE.
        files.inotify = None;
        files.failed.push(WatchFailure { path: None, errno: Errno::EMFILE });
        files.report(Nanos(1));
        std::fs::write(rules.join("10-a.toml"), "").unwrap();
        files.read(Nanos(1));
        assert_eq!(files.take_due(Nanos(RETRY_NS)), None);
        assert_eq!(files.next_due(), Some(Nanos(1 + RETRY_NS)));
        assert_eq!(files.take_due(Nanos(1 + RETRY_NS)), Some(ReloadReason::Names));
        assert_eq!(files.next_due(), None);
        std::fs::write(rules.join("10-a.toml"), "").unwrap();
        files.read(Nanos(1));
        assert!(files.next_due().is_some());
    }

    #[test]
    fn a_limit_is_reported_with_its_name() {
        let instances = WatchFailure { path: None, errno: Errno::EMFILE }.to_string();
        assert!(instances.contains("fs.inotify.max_user_instances"), "{instances}");
        let path = Some(PathBuf::from("/etc"));
        let watches = WatchFailure { path, errno: Errno::ENOSPC }.to_string();
        assert!(
            watches.contains("/etc are not") && watches.contains("max_user_watches"),
            "{watches}"
        );
    }

    #[test]
    fn the_user_database_is_watched() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("passwd"), "").unwrap();
        let mut files = FileWatcher::watch(&[], root.path(), true).unwrap();
        std::fs::write(root.path().join("hostname"), "x").unwrap();
        files.read(Nanos(1));
        assert_eq!(files.next_due(), None);
        std::fs::write(root.path().join("passwd"), "x").unwrap();
        files.read(Nanos(1));
        assert_eq!(files.take_due(Nanos(QUIET_NS * 2)), Some(ReloadReason::Names));
    }

    #[test]
    fn legacy_files_of_any_name_are_watched() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("cgrules.d")).unwrap();
        let mut files = FileWatcher::watch(&[], root.path(), true).unwrap();
        for name in ["cgrules.conf", "cgrules.d/web"] {
            std::fs::write(root.path().join(name), "").unwrap();
            files.read(Nanos(1));
            assert_eq!(files.take_due(Nanos(QUIET_NS * 2)), Some(ReloadReason::Rules), "{name}");
        }
    }
}
