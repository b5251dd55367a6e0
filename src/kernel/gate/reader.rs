//! The thread that reads executions, and lets those go on that the hot thread does not answer in time. It must not wait
//! for anything but events: neither for a path nor for the hot thread.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::GatedExec;
use super::group::Group;
use super::shared::{Answer, Paths, Shared, wake};
use super::watch::{BEAT, IDLE};
use crate::event::{Nanos, Pid};
use crate::kernel::process::{PATH_MAX, ProcFs};
use crate::sys::fanotify::WaitingExec;
use crate::sys::{self, realtime};

/// Time between two signs of life, while executions may wait.
const BEAT_NS: u64 = 300_000_000;
/// Executions that are read before late ones are looked for.
const AT_ONCE: usize = 64;
/// Late executions that are answered one by one without real-time scheduling. Each answer wakes all that wait: 32 take
/// 10 ms, 200 take 60 ms, and 0.1 and 0.5 ms if the answering thread is not preempted by them (measured).
const ONE_BY_ONE: usize = 32;

/// The thread.
pub(super) struct Reader {
    shared: Arc<Shared>,
    proc: ProcFs,
    /// `/proc/self/fd`.
    descriptors: OwnedFd,
    spare: SpareDescriptors,
    link: Box<[u8]>,
    is_realtime: bool,
    /// Last sign of life, and whether files were gated then.
    beaten: Option<(Nanos, bool)>,
}

impl Reader {
    /// Opens what it needs.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn open(shared: Arc<Shared>) -> io::Result<Self> {
        Ok(Self {
            shared,
            proc: ProcFs::open(Path::new("/proc"))?,
            descriptors: File::open("/proc/self/fd")?.into(),
            spare: SpareDescriptors::default(),
            link: vec![0; PATH_MAX + 1].into(),
            is_realtime: false,
            beaten: None,
        })
    }

    /// Reads until the gate is dropped, then lets all executions go on.
    pub(super) fn run(mut self) {
        while !self.shared.is_stopping.load(Relaxed) {
            let paths = self.shared.paths();
            self.follow_scheduling();
            self.beat(!paths.is_empty());
            let group = self.shared.group();
            self.wait(group.as_deref(), !paths.is_empty());
            if let Some(group) = group {
                if let Err(error) = self.read(&group) {
                    self.open_gate(&format!("executions cannot be read: {error}"));
                }
            }
            self.release_late();
        }
        if let Some(group) = self.shared.take_group() {
            group.close();
        }
    }

    /// Uses the scheduling of the hot thread.
    fn follow_scheduling(&mut self) {
        if self.is_realtime || !self.shared.is_realtime.load(Relaxed) {
            return;
        }
        match realtime::set_realtime() {
            Ok(()) => self.is_realtime = true,
            Err(error) => {
                ::log::debug!("the gate has no real-time scheduling: {error}");
                self.shared.is_realtime.store(false, Relaxed);
            }
        }
    }

    /// Shows the watching process that this thread is running.
    fn beat(&mut self, is_gated: bool) {
        let now = sys::monotonic();
        let is_due = match self.beaten {
            Some((at, true)) if is_gated => now.since(at) >= BEAT_NS,
            Some((_, was_gated)) => was_gated != is_gated,
            None => true,
        };
        if !is_due {
            return;
        }
        match self.shared.beat(if is_gated { BEAT } else { IDLE }) {
            // It cannot fill the pipe: a stopped watching process is no reason to wait.
            Some(Ok(_) | Err(Errno::EAGAIN)) => self.beaten = Some((now, is_gated)),
            Some(Err(error)) => {
                ::log::warn!(
                    "the process that watches the gate has exited ({error}): starting another"
                );
                self.shared.set_heart(None);
                self.shared.order(|orders| orders.watches = true);
                self.beaten = None;
            }
            None => {}
        }
    }

    /// Waits for executions, for other threads and for the next time.
    fn wait(&self, group: Option<&Group>, is_gated: bool) {
        let due = self.shared.with_queue(|queue| queue.waiting.due());
        let beat = is_gated.then(|| self.beaten.map_or(Nanos(0), |(at, _)| at).plus(BEAT_NS));
        // Without a watching process the next sign of life follows the message of its start.
        let beat = beat.filter(|_| self.beaten.is_some());
        let now = sys::monotonic();
        let left = [due, beat].into_iter().flatten().min().map(|next| next.since(now));
        let left =
            left.map(|ns| TimeSpec::new((ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as i64));
        let wait = |fd: Option<BorrowedFd<'_>>| {
            let own = self.shared.to_reader.as_fd();
            let mut fds = [own, fd.unwrap_or(own)].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            // EINTR is an early end.
            let _ready = ppoll(&mut fds, left, None);
        };
        match group {
            Some(group) => group.with_fd(wait),
            None => wait(None),
        }
        // EAGAIN: nobody has written.
        let _written = self.shared.to_reader.read();
    }

    /// Reads executions.
    fn read(&mut self, group: &Arc<Group>) -> io::Result<()> {
        let mut added = 0;
        for _ in 0..AT_ONCE {
            if self.spare.keep(self.shared.to_reader.as_fd()).is_err() {
                // Each has three descriptors.
                self.release_all();
                self.spare.keep(self.shared.to_reader.as_fd())?;
            }
            self.spare.leave();
            let Some(exec) = group.read()? else { break };
            self.shared.metrics.gate_waits.increment();
            if let Err(file) = self.add(group, exec) {
                self.shared.metrics.gate_skipped.increment();
                group.allow(file.as_fd());
                continue;
            }
            added += 1;
            // The first at once, the others together.
            if added == 1 {
                wake(&self.shared.wakeup);
            }
        }
        if added > 1 {
            wake(&self.shared.wakeup);
        }
        Ok(())
    }

    /// Adds an execution for the hot thread.
    ///
    /// # Errors
    /// Its file, if it cannot be decided: the file has another path for the process, as in a chroot or by a hard link,
    /// or the process is not known.
    fn add(
        &mut self,
        group: &Arc<Group>,
        WaitingExec { pid, file, pidfd }: WaitingExec,
    ) -> Result<(), OwnedFd> {
        let since = sys::monotonic();
        let Some(path) = path_of(&file, self.descriptors.as_fd(), &mut self.link) else {
            return Err(file);
        };
        let pid = u32::try_from(pid).ok().and_then(Pid::new);
        let is_marked = self.shared.paths().contains(path);
        let (Some(pid), Some(pidfd), true) = (pid, pidfd, is_marked) else {
            return Err(file);
        };
        // A child of the daemon has copies of its descriptors until the execution, the group among them: if the daemon exited
        // meanwhile, its own execution would keep the group open, and all would wait for ever.
        if is_child(&mut self.proc, pid, &pidfd) {
            return Err(file);
        }
        let second = pidfd.try_clone().ok();
        let Some(handle) = self.proc.adopt(pid, pidfd) else { return Err(file) };
        let path = Box::from(path);
        let user = handle.uid;
        let answer = Answer { group: Arc::clone(group), file, pidfd: second };
        let refused = self.shared.with_queue(|queue| {
            queue.waiting.add(user, since, answer, |ticket| GatedExec {
                pid,
                handle,
                path,
                since,
                ticket,
            })
        });
        if let Some(refused) = refused {
            self.release(&[refused]);
        }
        Ok(())
    }

    /// Lets the executions go on that have waited long enough.
    fn release_late(&mut self) {
        let now = sys::monotonic();
        let (late, is_blocked) = self.shared.with_queue(|queue| {
            let mut is_blocked = false;
            let late: Vec<Answer> = std::iter::from_fn(|| queue.waiting.remove_late(now)).collect();
            for _ in &late {
                is_blocked |= queue.silence.continue_at(now);
            }
            (late, is_blocked)
        });
        self.release(&late);
        if is_blocked {
            self.open_gate("none was answered for a minute");
        }
    }

    /// Lets late executions go on. Those that another thread has answered meanwhile are not among them.
    fn release(&mut self, late: &[Answer]) {
        self.shared.metrics.gate_late.add(late.len() as u64);
        if late.len() <= ONE_BY_ONE || self.is_realtime {
            for answer in late {
                // False for one that was killed.
                let _went_on = answer.give();
            }
            return;
        }
        self.close_group(true);
    }

    /// Lets all executions go on.
    fn release_all(&mut self) {
        let late = self.shared.with_queue(|queue| queue.waiting.remove_all());
        self.release(&late);
    }

    /// Closes the group, so that all executions go on, and then creates another one if it `renews`. Returns `false` if
    /// there is none.
    fn close_group(&self, renews: bool) -> bool {
        let Some(group) = self.shared.take_group() else { return false };
        let shared = Arc::clone(&self.shared);
        // Another thread waits until all have gone on, for 4 to 30 ms: for ever if one is in a frozen v1 cgroup. Until the
        // new group has its marks executions do not wait. With a group that is created before, those would wait again that
        // go on now, because the kernel asks one group after another.
        let close = move || {
            group.close();
            if renews {
                shared.order(|orders| orders.renews = true);
            }
        };
        if let Err(error) = thread::Builder::new().name("gate-close".into()).spawn(close) {
            // The closure was dropped, and with it the last reference but those of executions.
            ::log::error!("cannot start a thread to close the gate: {error}");
        }
        let late = self.shared.with_queue(|queue| queue.waiting.remove_all());
        self.shared.metrics.gate_late.add(late.len() as u64);
        true
    }

    /// Lets all executions go on, and no further ones wait.
    fn open_gate(&self, reason: &str) {
        if !self.close_group(false) {
            return;
        }
        self.shared.set_paths(Paths::default());
        self.shared.metrics.gate_opened.increment();
        ::log::error!(
            "executions of gated files do not wait any more: {reason}; 'cgrulectl reload' lets them wait again"
        );
    }
}

/// Checks whether a process was started by this one.
fn is_child(proc: &mut ProcFs, pid: Pid, pidfd: &OwnedFd) -> bool {
    let parent = match sys::pidfd_info(pidfd.as_fd()) {
        Ok(info) => info.map(|info| info.parent),
        // Before Linux 6.13.
        Err(_) => proc.status(pid).and_then(|status| status.parent).map(Pid::get),
    };
    parent == Some(std::process::id())
}

/// Returns the path of an open file, without links. The kernel adds ` (deleted)` to that of a removed file.
fn path_of<'l>(
    file: &OwnedFd,
    descriptors: BorrowedFd<'_>,
    link: &'l mut [u8],
) -> Option<&'l [u8]> {
    let mut name = [0u8; 16];
    write!(&mut name[..], "{}\0", file.as_raw_fd()).ok()?;
    let name = std::ffi::CStr::from_bytes_until_nul(&name).ok()?;
    sys::read_link(descriptors, name, link).ok()
}

/// Descriptors for the next event. Without them the kernel refuses the execution (EPERM) when its event is read, and
/// another thread may have used all others.
#[derive(Debug, Default)]
struct SpareDescriptors([Option<OwnedFd>; 2]);

impl SpareDescriptors {
    /// Holds the descriptors, as copies of `any`.
    fn keep(&mut self, any: BorrowedFd<'_>) -> io::Result<()> {
        for spare in &mut self.0 {
            if spare.is_none() {
                *spare = Some(any.try_clone_to_owned()?);
            }
        }
        Ok(())
    }

    /// Closes the descriptors, for the event that is read next.
    fn leave(&mut self) {
        self.0 = [None, None];
    }
}
