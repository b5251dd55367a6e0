//! The thread that keeps the kernel's lock of moves warm by no-op writes: our own PID into our own cgroup.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::cgroup::mounts::Hierarchies;
use crate::event::Nanos;
use crate::kernel::process::path_in;
use crate::sys;

/// The interval of the no-op writes. A grace period takes at least 3 ms: the kernel looks for its end after three
/// ticks of 1 ms, or one of 4 ms.
const BEAT: Duration = Duration::from_millis(3);
/// The no-op writes stop this long after the last move.
const QUIET_NS: u64 = 3_000_000_000;
/// Time after a write for which the lock is warm in any case.
const WARM_NS: u64 = 1_000_000;
/// Time after a write for which a no-op write can still find the lock warm.
const LATE_NS: u64 = 6_000_000;

/// What the thread does when it comes too late to keep the lock warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LateWrite {
    /// It waits for the grace period, so that later moves do not.
    Waits,
    /// It stops until the next move, which would wait behind it; that move expedites the grace period.
    Stops,
}

/// The thread of no-op writes. The hot thread cannot do this itself, because the first write does wait.
#[derive(Debug)]
pub struct Warmer {
    shared: Arc<WarmerState>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct WarmerState {
    last_move: AtomicU64,
    last_beat: AtomicU64,
    is_beating: AtomicBool,
    must_end: AtomicBool,
}

impl Warmer {
    /// Starts the thread.
    pub(super) fn start(hierarchies: &Hierarchies, late: LateWrite) -> io::Result<Self> {
        let path = own_group(hierarchies)?;
        let mut own = OpenOptions::new().write(true).open(path)?;
        let shared = Arc::new(WarmerState::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("warm".into())
            .stack_size(64 * 1024)
            .spawn(move || theirs.run(&mut own, late))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Checks whether a move at `now` can wait for a grace period.
    pub(super) fn is_cold(&self, now: Nanos) -> bool {
        self.shared.since_last_write(now) > WARM_NS
    }

    pub(super) fn moved(&self, now: Nanos) {
        self.shared.last_move.store(now.0, Ordering::Release);
        if !self.shared.is_beating.swap(true, Ordering::AcqRel) {
            if let Some(thread) = &self.thread {
                thread.thread().unpark();
            }
        }
    }
}

impl WarmerState {
    fn run(&self, own: &mut impl Write, late: LateWrite) {
        while !self.must_end.load(Ordering::Acquire) {
            let last = Nanos(self.last_move.load(Ordering::Acquire));
            let now = sys::monotonic();
            let is_late = late == LateWrite::Stops && self.since_last_write(now) > LATE_NS;
            if last.0 != 0 && !is_late && now.since(last) < QUIET_NS {
                // "0" means the writing process. A failure costs speed only.
                if own.write_all(b"0").is_err() {
                    return;
                }
                self.last_beat.store(sys::monotonic().0, Ordering::Release);
                thread::sleep(BEAT);
            } else {
                self.is_beating.store(false, Ordering::Release);
                // A move between reading the clock and this store changes `last_move`, so compare
                // again before parking.
                if self.last_move.load(Ordering::Acquire) == last.0 {
                    thread::park();
                }
            }
        }
    }

    fn since_last_write(&self, now: Nanos) -> u64 {
        let last_move = self.last_move.load(Ordering::Acquire);
        now.since(Nanos(last_move.max(self.last_beat.load(Ordering::Acquire))))
    }
}

impl Drop for Warmer {
    fn drop(&mut self) {
        self.shared.must_end.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            if thread.join().is_err() {
                ::log::error!(
                    "thread \"warm\" (fast_moves) panicked; moves are slow until a restart"
                );
            }
        }
    }
}

/// Returns `cgroup.procs` of our own cgroup, in v2 or else in the first hierarchy.
fn own_group(hierarchies: &Hierarchies) -> io::Result<PathBuf> {
    let text = fs::read("/proc/self/cgroup")?;
    let tree = hierarchies
        .unified()
        .or_else(|| hierarchies.first())
        .ok_or_else(|| io::Error::other("no cgroup hierarchy is mounted"))?;
    let path = path_in(&text, tree.listed.as_bytes())
        .and_then(|path| std::str::from_utf8(path).ok())
        .and_then(|path| path.strip_prefix(tree.top.trim_end_matches('/')))
        .unwrap_or("");
    Ok(tree.mount_point.join(path.trim_start_matches('/')).join("cgroup.procs"))
}
