//! Modes that reduce a move from milliseconds to microseconds on kernels where the move waits for
//! an RCU grace period.
//!
//! A move takes the write side of the kernel's `cgroup_threadgroup_rwsem`. When that lock was not
//! write-locked for about one RCU grace period, the writer first waits for a grace period. Each
//! mode avoids this wait: `Warm` by writing often enough (a no-op: our own PID into our own
//! cgroup), `Expedited` by shortening grace periods, `FavorDynMods` by the mount option of the
//! kernel.
//!
//! Median of an isolated move on a stock Linux 6.18 with two CPUs (moves 100 ms apart, 2026-11-24):
//! off 6.4 to 7.0 ms, warm 0.14 ms, expedited 0.26 ms. Warm costs 5 ms of CPU per second until
//! three seconds after the last move and affects nothing else on the machine, which is why it is
//! the default; expedited grace periods interrupt all CPUs, and `favordynmods` stays set until the
//! next boot.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::mounts::Hierarchies;
use crate::config::daemon_toml::FastMoves;
use crate::event::Nanos;
use crate::kernel::process::path_in;
use crate::sys;

/// The interval of the no-op writes. A grace period ends within one to four ticks of an idle
/// kernel.
const BEAT: Duration = Duration::from_millis(4);
/// The no-op writes stop this long after the last move.
const QUIET_NS: u64 = 3_000_000_000;

const EXPEDITED: &str = "/sys/kernel/rcu_expedited";

/// An active mode, reverted on drop where the kernel allows it.
#[derive(Debug)]
pub enum FastMovesGuard {
    /// No mode: each isolated move waits for a grace period.
    Off,
    /// A thread that keeps the lock warm while processes are moved.
    Warm(Warmer),
    /// Expedited grace periods, with the previous content of the switch.
    Expedited(String),
    /// The mount option `favordynmods`, which is not reverted.
    FavorDynMods,
}

impl FastMovesGuard {
    /// Activates a mode.
    ///
    /// # Errors
    /// A file could not be written or the hierarchy could not be remounted.
    pub fn engage(mode: FastMoves, hierarchies: &Hierarchies) -> io::Result<Self> {
        match mode {
            FastMoves::Off => Ok(Self::Off),
            FastMoves::Warm => Warmer::start(hierarchies).map(Self::Warm),
            FastMoves::Expedited => {
                let before = fs::read_to_string(EXPEDITED)?;
                fs::write(EXPEDITED, "1")?;
                Ok(Self::Expedited(before))
            }
            FastMoves::Favordynmods => {
                let Some(unified) = hierarchies.unified() else {
                    return Err(io::Error::other("favordynmods needs a mounted v2 hierarchy"));
                };
                let mount_point = CString::new(unified.mount_point.as_os_str().as_bytes())?;
                sys::remount_favordynmods(&mount_point)?;
                Ok(Self::FavorDynMods)
            }
        }
    }

    /// Records a move at `now`, which keeps the lock warm until three seconds later.
    pub fn moved(&self, now: Nanos) {
        if let Self::Warm(warmer) = self {
            warmer.moved(now);
        }
    }
}

impl Drop for FastMovesGuard {
    fn drop(&mut self) {
        if let Self::Expedited(before) = self {
            if let Err(error) = fs::write(EXPEDITED, before.as_bytes()) {
                ::log::warn!("cannot restore {EXPEDITED}: {error}");
            }
        }
    }
}

/// The thread of `Warm`. The hot thread cannot do this itself, because the first write does wait.
#[derive(Debug)]
pub struct Warmer {
    shared: Arc<WarmerState>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct WarmerState {
    last_move: AtomicU64,
    is_beating: AtomicBool,
    must_end: AtomicBool,
}

impl Warmer {
    fn start(hierarchies: &Hierarchies) -> io::Result<Self> {
        let path = own_group(hierarchies)?;
        let mut own = OpenOptions::new().write(true).open(path)?;
        let shared = Arc::new(WarmerState::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("warm".into())
            .stack_size(64 * 1024)
            .spawn(move || theirs.run(&mut own))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    fn moved(&self, now: Nanos) {
        self.shared.last_move.store(now.0, Ordering::Release);
        if !self.shared.is_beating.swap(true, Ordering::AcqRel) {
            if let Some(thread) = &self.thread {
                thread.thread().unpark();
            }
        }
    }
}

impl WarmerState {
    fn run(&self, own: &mut impl Write) {
        while !self.must_end.load(Ordering::Acquire) {
            let last = Nanos(self.last_move.load(Ordering::Acquire));
            if last.0 != 0 && sys::monotonic().since(last) < QUIET_NS {
                // "0" means the writing process. A failure costs speed only.
                if own.write_all(b"0").is_err() {
                    return;
                }
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
