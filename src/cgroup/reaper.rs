//! A maintenance thread for existing cgroups, so that the hot thread never waits for them. It
//! applies changed configuration after a reload, removes cgroups that stayed empty for their
//! `remove_when_empty` time, and forwards the configuration of systemd units. It must never remove
//! a cgroup that cgruled did not create.
//!
//! A removal loses no process: rmdir fails with EBUSY for a cgroup that contains one, and a write
//! to a removed cgroup fails with ENODEV, after which [`super::tree`] creates it again. Cgroups
//! created by cgruled carry an owner tag (see `mark`) that survives a restart of the daemon.
//!
//! On v2 the kernel reports when a cgroup becomes empty. On v1 it notifies a single release agent
//! for the whole hierarchy, which belongs to others. There the cgroups with a removal time, and no
//! others, are polled four times within that time, at least every 30 seconds.

mod applied;
mod empty;
mod journal;
mod owner_tag;
mod revert;
mod unused;
mod walk;

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, unbounded};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::apply::{self, ApplyLedger, WrittenSetting};
use super::config::{GroupConfigs, PathConfig, ResolvedSpec};
use super::mounts::Hierarchies;
use super::units::{Systemd, Units, UserName};
use crate::event::Nanos;
use crate::sys;
use crate::telemetry::metrics::Metrics;
use applied::AppliedSettings;
use empty::EmptyTracker;
pub(super) use owner_tag::{OwnerTags, is_trusted};
use revert::Claims;
pub(super) use walk::groups_in;

/// A task for the maintenance thread.
#[derive(Debug)]
pub(super) enum ReaperTask {
    /// The rules changed: configure every existing cgroup again.
    Adopt {
        /// The configuration of all cgroups and units.
        configs: Arc<GroupConfigs>,
        /// The managed root in each hierarchy.
        root: Box<str>,
    },
    /// A cgroup was created and needs an owner tag.
    Made {
        /// The index of its hierarchy.
        hierarchy: usize,
        /// The path of its directory.
        directory: PathBuf,
        /// The destination text for its owner tag.
        text: String,
    },
    /// An existing cgroup was opened and has to be configured.
    Renew {
        /// The index of its hierarchy.
        hierarchy: usize,
        /// The path from the root of the hierarchy.
        path: Box<str>,
        /// The configuration along the path.
        config: Arc<PathConfig>,
    },
    /// Settings of tables were written to cgroups.
    Wrote(Vec<WrittenSetting>),
    /// The daemon stops: end the thread.
    End,
}

/// A handle to the maintenance thread for the hot thread, which never blocks.
#[derive(Debug)]
pub struct Reaper {
    commands: Sender<ReaperTask>,
    bell: Arc<EventFd>,
}

impl Reaper {
    /// Starts the thread. With `ground`, only the subtree below it on v2 is managed. `name_of` may
    /// block on the name service. `journal` is the file for the settings that were written.
    ///
    /// # Errors
    /// The thread or its eventfd could not be created.
    pub fn start(
        hierarchies: Arc<Hierarchies>,
        ground: Option<&str>,
        metrics: Arc<Metrics>,
        name_of: UserName,
        journal: Option<PathBuf>,
    ) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (sender, commands) = unbounded();
        let units = Units::new(Systemd::of(&hierarchies), Arc::clone(&metrics), name_of);
        let done =
            ground.map(|ground| ApplyLedger::below(&hierarchies, ground)).unwrap_or_default();
        done.collect_written();
        let mut keeping = ReaperThread {
            hierarchies,
            metrics,
            commands,
            bell: Arc::clone(&bell),
            tables: Arc::default(),
            done,
            marks: OwnerTags::default(),
            vacancies: EmptyTracker::open(),
            units,
            applied: AppliedSettings::default(),
        };
        thread::Builder::new().name("groups".into()).spawn(move || {
            keeping.applied = AppliedSettings::open(journal.as_deref());
            keeping.serve();
        })?;
        Ok(Self { commands: sender, bell })
    }

    /// Sends a task without waiting for it.
    pub(super) fn send(&self, command: ReaperTask) {
        let is_sent = self.commands.send(command).is_ok() && self.bell.write(1).is_ok();
        if !is_sent {
            ::log::error!(
                "thread \"groups\" has ended: restart the daemon to configure and remove cgroups"
            );
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.send(ReaperTask::End);
    }
}

/// The state of the maintenance thread, which may block.
struct ReaperThread {
    hierarchies: Arc<Hierarchies>,
    metrics: Arc<Metrics>,
    commands: Receiver<ReaperTask>,
    bell: Arc<EventFd>,
    /// The configuration of the active rules.
    tables: Arc<GroupConfigs>,
    /// The configuration applied since the last reload.
    done: ApplyLedger,
    marks: OwnerTags,
    vacancies: EmptyTracker,
    units: Units,
    /// The settings that were written to existing cgroups.
    applied: AppliedSettings,
}

/// An existing cgroup with a table.
struct ConfiguredGroup<'t> {
    hierarchy: usize,
    path: String,
    directory: PathBuf,
    text: &'t str,
    resolved: &'t ResolvedSpec,
    config: Arc<PathConfig>,
}

impl ConfiguredGroup<'_> {
    /// Checks whether the table certainly applies: a user can have changed the owner tag.
    fn is_certain(&self) -> bool {
        !self.text.contains('%') || is_trusted(&self.directory)
    }
}

impl ReaperThread {
    fn serve(mut self) {
        while self.run_errands() {
            for directory in self.vacancies.take_expired(sys::monotonic()) {
                self.remove(&directory);
            }
            self.wait();
        }
    }

    /// Performs the pending tasks. Returns false when the thread has to stop.
    fn run_errands(&mut self) -> bool {
        // Read before the channel, so that a later task sets the eventfd again. EAGAIN means no
        // wake-up.
        let _rung = self.bell.read();
        loop {
            match self.commands.try_recv() {
                Ok(ReaperTask::Adopt { configs, root }) => self.adopt(&configs, &root),
                Ok(ReaperTask::Made { hierarchy, directory, text }) => {
                    self.made(hierarchy, &directory, text);
                }
                Ok(ReaperTask::Renew { hierarchy, path, config }) => {
                    self.renew(hierarchy, &path, &config);
                    self.record_written();
                }
                Ok(ReaperTask::Wrote(written)) => self.record(written),
                Ok(ReaperTask::End) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// Sleeps until a task, a change of a cgroup or a deadline.
    fn wait(&self) {
        let now = sys::monotonic();
        let (inotify, due) = self.vacancies.next(now);
        let mut fds = vec![PollFd::new(self.bell.as_fd(), PollFlags::POLLIN)];
        fds.extend(inotify.map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let timeout = due.map_or(PollTimeout::NONE, |due| {
            let milliseconds = due.since(now).div_ceil(1_000_000);
            i32::try_from(milliseconds).unwrap_or(i32::MAX).try_into().unwrap_or(PollTimeout::MAX)
        });
        if let Err(errno) = poll(&mut fds, timeout) {
            if errno != Errno::EINTR {
                ::log::error!("poll: {}", errno.desc());
                thread::sleep(Duration::from_secs(1));
            }
        }
    }

    fn adopt(&mut self, tables: &Arc<GroupConfigs>, root: &str) {
        self.done.forget();
        self.units.adopt(tables);
        let groups = self.configured(tables, root);
        let mut claims = Claims::new();
        for group in &groups {
            claims.entry(group.directory.clone()).or_default().push(group.resolved);
        }
        // Before the new settings are written: the kernel refuses a weight beside `cpu.idle`.
        self.revert_stale(tables, root, &claims);
        self.done.hold();
        let mut refused = Vec::new();
        for ConfiguredGroup { hierarchy, path, config, .. } in
            groups.iter().filter(|group| group.is_certain())
        {
            if !self.renew(*hierarchy, path, config) {
                refused.push((*hierarchy, path.clone(), Arc::clone(config)));
            }
        }
        self.retry(refused);
        self.record_written();
        let mut timed: Vec<_> = groups
            .into_iter()
            .filter_map(|ConfiguredGroup { hierarchy, directory, text, resolved, .. }| {
                Self::timed(resolved, hierarchy, directory, text)
            })
            .collect();
        self.tables = Arc::clone(tables);
        timed.retain(|(_, directory, _, text)| self.marks.of(directory).as_ref() == Some(text));
        let times = timed.into_iter().map(|(hierarchy, directory, after, _)| {
            (self.hierarchies[hierarchy].version, directory, after)
        });
        let times = times.chain(unused::find(&self.hierarchies, tables, root, &self.marks));
        self.vacancies.replace(times, sys::monotonic());
    }

    /// Returns the existing cgroups to which a table applies.
    fn configured<'t>(&self, tables: &'t GroupConfigs, root: &str) -> Vec<ConfiguredGroup<'t>> {
        let mut groups = Vec::new();
        for (text, resolved) in tables.tables() {
            let config = Arc::new(tables.of_path(text));
            for (hierarchy, tree) in self.hierarchies.iter().enumerate() {
                let writes = resolved.writes.iter().any(|write| write.hierarchy == hierarchy);
                if !writes && resolved.remove_after.is_none() {
                    continue;
                }
                let top = &tree.mount_point;
                groups.extend(walk::paths(top, root, text, &self.marks).into_iter().map(|path| {
                    let directory = walk::join(top, &path);
                    let config = Arc::clone(&config);
                    ConfiguredGroup { hierarchy, path, directory, text, resolved, config }
                }));
            }
        }
        groups
    }

    /// Records the settings that this thread has written.
    fn record_written(&mut self) {
        let written = self.done.take_written();
        self.record(written);
    }

    fn record(&mut self, written: Vec<WrittenSetting>) {
        let marks = &self.marks;
        self.applied.record(written, |directory| marks.of(directory).is_some());
    }

    /// Returns an entry for a cgroup if its table has a removal time.
    fn timed(
        resolved: &ResolvedSpec,
        hierarchy: usize,
        directory: PathBuf,
        text: &str,
    ) -> Option<(usize, PathBuf, Duration, String)> {
        Some((hierarchy, directory, resolved.remove_after?, text.to_owned()))
    }

    fn made(&mut self, hierarchy: usize, directory: &Path, text: String) {
        self.metrics.groups_created.increment();
        let after = self.tables.table(&text).and_then(|resolved| resolved.remove_after);
        self.marks.put(directory, text);
        if let Some(after) = after {
            let version = self.hierarchies[hierarchy].version;
            self.vacancies.watch(version, directory, after, sys::monotonic());
        }
    }

    /// Configures cgroups again as long as each round has fewer refusals than the one before, then
    /// logs the rest.
    fn retry(&self, mut refused: Vec<(usize, String, Arc<PathConfig>)>) {
        // The limit of a cgroup may depend on its children and theirs on it, so one pass may not be
        // enough.
        let mut before = usize::MAX;
        while !refused.is_empty() && self.done.held() < before {
            before = self.done.held();
            self.done.retry();
            refused.retain(|(hierarchy, path, what)| !self.renew(*hierarchy, path, what));
        }
        self.done.release();
    }

    /// Configures an existing path. Returns whether the kernel accepted everything.
    fn renew(&self, hierarchy: usize, path: &str, config: &PathConfig) -> bool {
        let before = self.done.held();
        let tree = &self.hierarchies[hierarchy];
        let Err(refusal) = apply::renew(hierarchy, tree, path, config, &self.done) else {
            return self.done.held() == before;
        };
        let directory = refusal.path.parent().unwrap_or(&refusal.path);
        let what = refusal.path.to_string_lossy();
        self.done.refused(directory, (hierarchy, &what, refusal.errno), || {
            format!("{refusal}: {}", refusal.advice())
        });
        false
    }

    /// Removes a cgroup that was empty for its removal time.
    fn remove(&mut self, directory: &Path) {
        match self.clear(directory) {
            Ok(()) => {
                ::log::debug!("removed empty cgroup {}", directory.display());
                self.vacancies.forget(directory);
            }
            Err(Errno::ENOENT) => self.vacancies.forget(directory),
            // A process or a foreign child cgroup is in it.
            Err(Errno::EBUSY | Errno::ENOTEMPTY) => {
                self.vacancies.again(directory, sys::monotonic());
            }
            Err(errno) => {
                self.vacancies.again(directory, sys::monotonic());
                if self.done.is_new(0, "remove", errno) {
                    ::log::warn!("cannot remove {}: {}", directory.display(), errno.desc());
                }
            }
        }
    }

    /// Removes a directory and those child cgroups of cgruled that have no removal time of their
    /// own.
    fn clear(&mut self, directory: &Path) -> Result<(), Errno> {
        if self.marks.of(directory).is_none() {
            return if directory.is_dir() { Err(Errno::EBUSY) } else { Err(Errno::ENOENT) };
        }
        for child in groups_in(directory) {
            if self.vacancies.has(&child) {
                return Err(Errno::EBUSY);
            }
            self.clear(&child)?;
        }
        fs::remove_dir(directory).map_err(|error| sys::errno(&error))?;
        self.marks.forget(directory);
        self.applied.forget(directory);
        self.metrics.groups_removed.increment();
        Ok(())
    }
}

/// Converts a duration to nanoseconds, saturating at the maximum.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the earlier of two optional times.
fn earlier(a: Option<Nanos>, b: Option<Nanos>) -> Option<Nanos> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
#[path = "reaper_tests.rs"]
mod tests;
