//! Groups that exist, looked after away from the hot thread: they are given what changed tables say, and
//! those of ours that stay empty for as long as their table says are removed. What units of systemd are
//! to have is passed on.
//!
//! A removal loses no process. The kernel lets nobody remove a group that holds one, and a write into a
//! removed group says so: then [`super::tree`] makes it again. What is ours is marked (see `mark`), so
//! that a restart does not forget it, and nothing else is ever removed.
//!
//! On v2 the kernel says when a group becomes empty. On v1 it says so to one program for the whole
//! hierarchy, which is not ours to be: there the groups with such a table, and no others, are looked at
//! four times in their time, at least every 30 seconds.

mod mark;
mod vacancy;
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

use super::equip::{self, Done};
use super::mounts::Hierarchies;
use super::provision::{Kit, Provision, Provisions};
use super::units::{Systemd, Units, UserName};
use crate::event::Nanos;
use crate::metrics::Metrics;
use crate::sys;
use mark::Marks;
use vacancy::Vacancies;

/// What is to be done.
#[derive(Debug)]
pub enum Errand {
    /// Other rules are in force: every group that exists gets what their tables say.
    Adopt {
        /// What groups are given.
        provisions: Arc<Provisions>,
        /// Where they begin in each hierarchy.
        root: Box<str>,
    },
    /// A group was made.
    Made {
        /// Its hierarchy.
        hierarchy: usize,
        /// Where it is.
        directory: PathBuf,
        /// The text of the destination that it was made for.
        text: String,
    },
    /// A group that exists was opened: it gets what it is to have.
    Renew {
        /// Its hierarchy.
        hierarchy: usize,
        /// Its path from the top.
        path: Box<str>,
        /// What it gets.
        provision: Arc<Provision>,
    },
    /// Nobody is left who could ask.
    End,
}

/// The side of the thread that must not wait.
#[derive(Debug)]
pub struct Keeper {
    errands: Sender<Errand>,
    bell: Arc<EventFd>,
}

impl Keeper {
    /// Starts the thread. With `ground` only what is below it on v2 is ours. `name_of` may wait for the name
    /// service.
    ///
    /// # Errors
    /// No thread or eventfd can be had.
    pub fn start(
        hierarchies: Arc<Hierarchies>,
        ground: Option<&str>,
        metrics: Arc<Metrics>,
        name_of: UserName,
    ) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (sender, errands) = unbounded();
        let units = Units::new(Systemd::of(&hierarchies), Arc::clone(&metrics), name_of);
        let done = ground.map(|ground| Done::below(&hierarchies, ground)).unwrap_or_default();
        let keeping = Keeping {
            hierarchies,
            metrics,
            errands,
            bell: Arc::clone(&bell),
            tables: Arc::default(),
            done,
            marks: Marks::default(),
            vacancies: Vacancies::open(),
            units,
        };
        thread::Builder::new().name("groups".into()).spawn(move || keeping.serve())?;
        Ok(Self { errands: sender, bell })
    }

    /// Asks for something. Does not wait.
    pub fn send(&self, errand: Errand) {
        let is_sent = self.errands.send(errand).is_ok() && self.bell.write(1).is_ok();
        if !is_sent {
            ::log::error!("the thread that looks after groups has ended");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.send(Errand::End);
    }
}

/// The side that may wait.
struct Keeping {
    hierarchies: Arc<Hierarchies>,
    metrics: Arc<Metrics>,
    errands: Receiver<Errand>,
    bell: Arc<EventFd>,
    /// What the rules in force give.
    tables: Arc<Provisions>,
    /// What groups were given since.
    done: Done,
    marks: Marks,
    vacancies: Vacancies,
    units: Units,
}

impl Keeping {
    fn serve(mut self) {
        while self.run_errands() {
            for directory in self.vacancies.take_expired(sys::monotonic()) {
                self.remove(&directory);
            }
            self.wait();
        }
    }

    /// Does what was asked for. Whether to go on.
    fn run_errands(&mut self) -> bool {
        // Read first: an errand that comes later rings again. EAGAIN means that nobody rang.
        let _rung = self.bell.read();
        loop {
            match self.errands.try_recv() {
                Ok(Errand::Adopt { provisions, root }) => self.adopt(provisions, &root),
                Ok(Errand::Made { hierarchy, directory, text }) => {
                    self.made(hierarchy, &directory, text);
                }
                Ok(Errand::Renew { hierarchy, path, provision }) => {
                    self.renew(hierarchy, &path, &provision);
                }
                Ok(Errand::End) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    /// Sleeps until there is something to do.
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

    fn adopt(&mut self, tables: Arc<Provisions>, root: &str) {
        self.done.forget();
        self.units.adopt(&tables);
        self.done.hold();
        let (mut timed, mut refused) = (Vec::new(), Vec::new());
        for (text, kit) in tables.tables() {
            let provision = Arc::new(tables.of_path(text));
            for (hierarchy, tree) in self.hierarchies.clone().iter().enumerate() {
                let writes = kit.writes.iter().any(|write| write.hierarchy == hierarchy);
                if !writes && kit.remove_after.is_none() {
                    continue;
                }
                let top = &tree.mount_point;
                for path in walk::paths(top, root, text, &self.marks) {
                    let directory = walk::join(top, &path);
                    let is_ours = !text.contains('%') || mark::is_sure(&directory);
                    if is_ours && !self.renew(hierarchy, &path, &provision) {
                        refused.push((hierarchy, path.clone(), Arc::clone(&provision)));
                    }
                    timed.extend(Self::timed(kit, hierarchy, directory, text));
                }
            }
        }
        self.retry(refused);
        self.tables = tables;
        timed.retain(|(_, directory, _, text)| self.marks.of(directory).as_ref() == Some(text));
        let times = timed.into_iter().map(|(hierarchy, directory, after, _)| {
            (self.hierarchies[hierarchy].version, directory, after)
        });
        self.vacancies.replace(times, sys::monotonic());
    }

    /// A group with a time after which it is removed.
    fn timed(
        kit: &Kit,
        hierarchy: usize,
        directory: PathBuf,
        text: &str,
    ) -> Option<(usize, PathBuf, Duration, String)> {
        Some((hierarchy, directory, kit.remove_after?, text.to_owned()))
    }

    fn made(&mut self, hierarchy: usize, directory: &Path, text: String) {
        self.metrics.made_groups.increment();
        let after = self.tables.table(&text).and_then(|kit| kit.remove_after);
        self.marks.put(directory, text);
        if let Some(after) = after {
            let version = self.hierarchies[hierarchy].version;
            self.vacancies.watch(version, directory, after, sys::monotonic());
        }
    }

    /// Gives it to those again that were refused something, as long as fewer are: a limit of a group may
    /// have to wait for those in it, and theirs for it. What is refused still is said.
    fn retry(&self, mut refused: Vec<(usize, String, Arc<Provision>)>) {
        let mut before = usize::MAX;
        while !refused.is_empty() && self.done.held() < before {
            before = self.done.held();
            self.done.retry();
            refused.retain(|(hierarchy, path, what)| !self.renew(*hierarchy, path, what));
        }
        self.done.release();
    }

    /// Whether nothing was refused.
    fn renew(&self, hierarchy: usize, path: &str, provision: &Provision) -> bool {
        let before = self.done.held();
        let tree = &self.hierarchies[hierarchy];
        let Err(refusal) = equip::renew(hierarchy, tree, path, provision, &self.done) else {
            return self.done.held() == before;
        };
        let directory = refusal.path.parent().unwrap_or(&refusal.path);
        let what = refusal.path.to_string_lossy();
        self.done.refused(directory, (hierarchy, &what, refusal.errno), || {
            format!("{refusal}: {}", refusal.advice())
        });
        false
    }

    /// Removes a group that was empty for its time.
    fn remove(&mut self, directory: &Path) {
        match self.clear(directory) {
            Ok(()) => {
                ::log::debug!("removed {}, which was empty", directory.display());
                self.vacancies.forget(directory);
            }
            Err(Errno::ENOENT) => self.vacancies.forget(directory),
            // Somebody came in, or somebody else's group is in it.
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

    /// Removes a directory and the groups of ours in it that have no time of their own.
    fn clear(&mut self, directory: &Path) -> Result<(), Errno> {
        if self.marks.of(directory).is_none() {
            return if directory.is_dir() { Err(Errno::EBUSY) } else { Err(Errno::ENOENT) };
        }
        for child in walk::groups_in(directory) {
            if self.vacancies.has(&child) {
                return Err(Errno::EBUSY);
            }
            self.clear(&child)?;
        }
        let removed = fs::remove_dir(directory);
        removed.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
        self.marks.forget(directory);
        self.metrics.removed_groups.increment();
        Ok(())
    }
}

/// Nanoseconds of a time.
fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// The earlier of two moments that need not be.
fn earlier(a: Option<Nanos>, b: Option<Nanos>) -> Option<Nanos> {
    a.into_iter().chain(b).min()
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
