//! Tracks for how long cgroups have been empty; it removes none itself.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::walk::{self, inode};
use super::{earlier, nanoseconds};
use crate::cgroup::mounts::Version;
use crate::event::Nanos;

/// The shortest interval between two reads of inotify events. A cgroup with many short processes
/// causes up to a hundred events per second, and its emptiness matters only after the removal time.
const GATHER_NS: u64 = 100_000_000;
/// The shortest interval between two attempts to remove a cgroup.
const AGAIN_NS: u64 = 100_000_000;
/// The shortest and the longest polling interval of a cgroup without a watch.
const LOOKS_NS: (u64, u64) = (10_000_000, 30_000_000_000);

/// The cgroups with a removal time, and since when each is empty.
#[derive(Debug)]
pub(super) struct EmptyTracker {
    /// Without inotify all cgroups are polled. The default limit is 128 instances per user, and
    /// root has many.
    inotify: Option<Inotify>,
    groups: HashMap<PathBuf, TrackedGroup>,
    by_watch: HashMap<WatchDescriptor, PathBuf>,
    /// The next check of each cgroup, by time.
    due: BTreeSet<(Nanos, PathBuf)>,
    /// Events are not read before this time.
    gathers: Nanos,
}

#[derive(Debug)]
struct TrackedGroup {
    version: Version,
    after: u64,
    /// Distinguishes it from a later cgroup of the same name.
    inode: u64,
    /// The watch of its `cgroup.events`. A cgroup without one is polled.
    watch: Option<WatchDescriptor>,
    empty_since: Option<Nanos>,
    due: Option<Nanos>,
}

impl EmptyTracker {
    pub(super) fn open() -> Self {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        let inotify = inotify
            .inspect_err(|errno| {
                ::log::warn!("inotify: {}; empty cgroups are detected by polling", errno.desc());
            })
            .ok();
        let groups = HashMap::new();
        let by_watch = HashMap::new();
        Self { inotify, groups, by_watch, due: BTreeSet::new(), gathers: Nanos::default() }
    }

    pub(super) fn has(&self, directory: &Path) -> bool {
        self.groups.contains_key(directory)
    }

    /// Replaces the tracked cgroups. A known cgroup keeps its `empty_since`.
    pub(super) fn replace(
        &mut self,
        groups: impl Iterator<Item = (Version, PathBuf, Duration)>,
        now: Nanos,
    ) {
        let groups: HashMap<PathBuf, (Version, Duration)> =
            groups.map(|(version, directory, after)| (directory, (version, after))).collect();
        let old: Vec<PathBuf> =
            self.groups.keys().filter(|path| !groups.contains_key(*path)).cloned().collect();
        old.iter().for_each(|directory| self.forget(directory));
        for (directory, (version, after)) in groups {
            match self.groups.get_mut(&directory) {
                Some(known) if Some(known.inode) == inode(&directory) => {
                    known.after = nanoseconds(after);
                    self.check(&directory, false, now);
                }
                Some(_) | None => self.watch(version, &directory, after, now),
            }
        }
    }

    /// Starts to track a cgroup, replacing an earlier one of the same name.
    pub(super) fn watch(
        &mut self,
        version: Version,
        directory: &Path,
        after: Duration,
        now: Nanos,
    ) {
        self.forget(directory);
        let Some(inode) = inode(directory) else { return };
        let events = directory.join("cgroup.events");
        let watch = match version {
            Version::V2 => self
                .inotify
                .as_ref()
                .and_then(|inotify| inotify.add_watch(&events, AddWatchFlags::IN_MODIFY).ok()),
            Version::V1 => None,
        };
        self.by_watch.extend(watch.map(|watch| (watch, directory.to_owned())));
        let after = nanoseconds(after);
        let empty_since = None;
        let due = None;
        let group = TrackedGroup { version, after, inode, watch, empty_since, due };
        self.groups.insert(directory.to_owned(), group);
        self.check(directory, false, now);
    }

    pub(super) fn forget(&mut self, directory: &Path) {
        let Some(group) = self.groups.remove(directory) else { return };
        if let (Some(watch), Some(inotify)) = (group.watch, &self.inotify) {
            self.by_watch.remove(&watch);
            // Fails if the kernel removed the watch together with the cgroup.
            let _removed = inotify.rm_watch(watch);
        }
        if let Some(due) = group.due {
            self.due.remove(&(due, directory.to_owned()));
        }
        // The parent may have waited only for this child: check it immediately.
        if let Some(parent) = directory.parent().filter(|parent| self.has(parent)) {
            self.schedule(parent, Some(Nanos::default()));
        }
    }

    /// Schedules the next attempt after a failed removal.
    pub(super) fn again(&mut self, directory: &Path, now: Nanos) {
        self.check(directory, false, now);
        let Some(group) = self.groups.get(directory) else { return };
        // Still empty, so a child cgroup blocks the removal.
        if group.empty_since.is_some() {
            let due = now.plus(group.after.max(AGAIN_NS));
            self.schedule(directory, Some(due));
        }
    }

    /// Reads changes and returns the cgroups with an expired removal time.
    pub(super) fn take_expired(&mut self, now: Nanos) -> Vec<PathBuf> {
        self.read_changes(now);
        let mut expired = Vec::new();
        while let Some((due, directory)) = self.due.first().cloned() {
            if due > now {
                break;
            }
            self.schedule(&directory, None);
            self.check(&directory, false, now);
            let group = self.groups.get(&directory);
            let is_over = group.is_some_and(|group| {
                group.empty_since.is_some_and(|since| now.since(since) >= group.after)
            });
            if is_over {
                self.schedule(&directory, None);
                expired.push(directory);
            }
        }
        expired
    }

    /// Returns the descriptor to poll, if any, and the next deadline.
    pub(super) fn next(&self, now: Nanos) -> (Option<BorrowedFd<'_>>, Option<Nanos>) {
        let due = self.due.first().map(|&(due, _)| due);
        if self.by_watch.is_empty() {
            return (None, due);
        }
        match self.gathers > now {
            true => (None, earlier(due, Some(self.gathers))),
            false => (self.inotify.as_ref().map(AsFd::as_fd), due),
        }
    }

    fn read_changes(&mut self, now: Nanos) {
        let mut changed = BTreeSet::new();
        let inotify = self.inotify.as_ref();
        while let Some(Ok(events)) = inotify.map(Inotify::read_events) {
            for event in events {
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    changed.extend(self.groups.keys().cloned());
                }
                changed.extend(self.by_watch.get(&event.wd).cloned());
            }
        }
        let times = changed.iter().filter_map(|directory| Some(self.groups.get(directory)?.after));
        if let Some(shortest) = times.min() {
            self.gathers = now.plus(GATHER_NS.min(shortest / 4));
        }
        changed.iter().for_each(|directory| self.check(directory, true, now));
    }

    /// Checks whether a cgroup is empty. After a change it has not been empty all the time.
    fn check(&mut self, directory: &Path, has_changed: bool, now: Nanos) {
        let Some(group) = self.groups.get_mut(directory) else { return };
        let is_same = inode(directory) == Some(group.inode);
        let Some(is_empty) = is_same.then(|| is_empty(directory, group.version)).flatten() else {
            self.forget(directory);
            return;
        };
        let looks = (group.after / 4).clamp(LOOKS_NS.0, LOOKS_NS.1);
        let is_polled = group.watch.is_none();
        let due = if is_empty {
            let since = group.empty_since.filter(|_| !has_changed).unwrap_or(now);
            group.empty_since = Some(since);
            let end = since.plus(group.after);
            Some(if is_polled { end.min(now.plus(looks)) } else { end })
        } else {
            group.empty_since = None;
            is_polled.then(|| now.plus(looks))
        };
        self.schedule(directory, due);
    }

    fn schedule(&mut self, directory: &Path, due: Option<Nanos>) {
        let Some(group) = self.groups.get_mut(directory) else { return };
        if let Some(old) = std::mem::replace(&mut group.due, due) {
            self.due.remove(&(old, directory.to_owned()));
        }
        self.due.extend(due.map(|due| (due, directory.to_owned())));
    }
}

/// Checks whether a cgroup and its descendants contain no process, or `None` if it was removed.
fn is_empty(directory: &Path, version: Version) -> Option<bool> {
    match version {
        Version::V2 => {
            let text = fs::read_to_string(directory.join("cgroup.events")).ok()?;
            Some(text.lines().any(|line| line == "populated 0"))
        }
        Version::V1 => {
            let processes = fs::read(directory.join("cgroup.procs")).ok()?;
            if !processes.is_empty() {
                return Some(false);
            }
            let mut below = walk::groups_in(directory).into_iter();
            Some(below.all(|group| is_empty(&group, version).unwrap_or(true)))
        }
    }
}
