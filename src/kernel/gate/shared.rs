//! What the threads of the gate share.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::GatedExec;
use super::group::Group;
use super::waiting::{Silence, Waiting};
use crate::kernel::process::has_exited;
use crate::sys;
use crate::telemetry::metrics::Metrics;

/// Paths of the marked files, without links.
pub(super) type Paths = HashSet<Box<[u8]>>;

/// What answers an execution.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) group: Arc<Group>,
    pub(super) file: OwnedFd,
    /// The process, if a descriptor was left.
    pub(super) pidfd: Option<OwnedFd>,
}

impl Answer {
    /// Lets the execution go on. `false` if its process was killed, or it does not wait any more.
    pub(super) fn give(&self) -> bool {
        // The kernel accepts the answer for a killed process.
        let is_killed = self.pidfd.as_ref().is_some_and(|pidfd| has_exited(pidfd.as_fd()));
        self.group.allow(self.file.as_fd()) && !is_killed
    }
}

/// Executions that wait, and what the hot thread does about them.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) waiting: Waiting<GatedExec, Answer>,
    pub(super) silence: Silence,
}

/// Orders for the thread that marks files. A later one of a kind replaces the earlier.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// Replaces the files.
    pub(super) files: Option<Vec<Box<[u8]>>>,
    /// Looks at the paths again.
    pub(super) rechecks: bool,
    /// Creates a group in place of one that was closed.
    pub(super) renews: bool,
    /// Starts a watching process in place of one that has exited.
    pub(super) watches: bool,
}

/// State that the threads of the gate and the hot thread share. Each lock is held for an instant.
#[derive(Debug)]
pub(super) struct Shared {
    queue: Mutex<Queue>,
    /// Number of executions that were not taken, so that the hot thread takes no lock while there is none.
    untaken: AtomicUsize,
    /// Present group. `None` while the gate is open.
    group: Mutex<Option<Arc<Group>>>,
    paths: Mutex<Arc<Paths>>,
    orders: Mutex<Orders>,
    /// Pipe to the watching process.
    heart: Mutex<Option<OwnedFd>>,
    /// Set if the hot thread has real-time scheduling.
    pub(super) is_realtime: AtomicBool,
    pub(super) is_stopping: AtomicBool,
    /// Wakes the hot thread.
    pub(super) wakeup: Arc<EventFd>,
    /// Wakes the thread that reads executions.
    pub(super) to_reader: EventFd,
    /// Wakes the thread that marks files.
    pub(super) to_marker: EventFd,
    pub(super) metrics: Arc<Metrics>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes the thread that polls an eventfd.
pub(super) fn wake(event: &EventFd) {
    // Fails only if the counter is full, and then the thread is about to wake.
    let _written = event.write(1);
}

impl Shared {
    pub(super) fn new(
        group: Group,
        wakeup: Arc<EventFd>,
        metrics: Arc<Metrics>,
    ) -> nix::Result<Self> {
        let event =
            || EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK);
        Ok(Self {
            queue: Mutex::default(),
            untaken: AtomicUsize::new(0),
            group: Mutex::new(Some(Arc::new(group))),
            paths: Mutex::default(),
            orders: Mutex::default(),
            heart: Mutex::default(),
            is_realtime: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            wakeup,
            to_reader: event()?,
            to_marker: event()?,
            metrics,
        })
    }

    /// Changes the executions that wait.
    pub(super) fn with_queue<T>(&self, change: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = lock(&self.queue);
        let result = change(&mut queue);
        self.untaken.store(queue.waiting.untaken(), Release);
        result
    }

    /// Takes the next execution.
    pub(super) fn next(&self) -> Option<GatedExec> {
        if self.untaken.load(Acquire) == 0 {
            return None;
        }
        let exec = self.with_queue(|queue| queue.waiting.next())?;
        // The scheduling of the calling thread, 0.1 us: the reader needs the same, as it serves the same executions.
        if !self.is_realtime.load(Relaxed) && sys::scheduling_policy(0).is_ok_and(sys::is_real_time)
        {
            self.is_realtime.store(true, Relaxed);
        }
        Some(exec)
    }

    /// Answers an execution that was taken.
    pub(super) fn answer(&self, ticket: u64) -> bool {
        let (answer, is_last) = self.with_queue(|queue| {
            let answer = queue.waiting.remove(ticket);
            if answer.is_some() {
                queue.silence.end();
            }
            (answer, queue.waiting.untaken() == 0)
        });
        // The hot thread takes a few at a time, and then waits for events.
        if !is_last {
            wake(&self.wakeup);
        }
        answer.is_some_and(|answer| answer.give())
    }

    pub(super) fn group(&self) -> Option<Arc<Group>> {
        lock(&self.group).clone()
    }

    pub(super) fn set_group(&self, group: Option<Arc<Group>>) {
        *lock(&self.group) = group;
        wake(&self.to_reader);
    }

    /// Removes the present group.
    pub(super) fn take_group(&self) -> Option<Arc<Group>> {
        lock(&self.group).take()
    }

    pub(super) fn paths(&self) -> Arc<Paths> {
        Arc::clone(&lock(&self.paths))
    }

    pub(super) fn set_paths(&self, paths: Paths) {
        *lock(&self.paths) = Arc::new(paths);
        wake(&self.to_reader);
    }

    /// Gives orders to the thread that marks files.
    pub(super) fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut lock(&self.orders));
        wake(&self.to_marker);
    }

    pub(super) fn take_orders(&self) -> Orders {
        std::mem::take(&mut lock(&self.orders))
    }

    pub(super) fn set_heart(&self, heart: Option<OwnedFd>) {
        *lock(&self.heart) = heart;
        wake(&self.to_reader);
    }

    /// Writes a byte to the watching process. `None` if there is no such process.
    pub(super) fn beat(&self, byte: u8) -> Option<nix::Result<usize>> {
        let heart = lock(&self.heart);
        heart.as_ref().map(|heart| nix::unistd::write(heart, &[byte]))
    }
}
