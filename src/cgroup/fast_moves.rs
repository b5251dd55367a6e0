//! Modes that reduce a move from milliseconds to microseconds on kernels where the move waits for
//! an RCU grace period.
//!
//! A move takes the write side of the kernel's `cgroup_threadgroup_rwsem`. When that lock was not
//! write-locked for about one RCU grace period, the writer first waits for a grace period. The lock is
//! warm while it is written often enough, which a thread of its own does from a move until three seconds after the last,
//! for 7 ms of CPU per second. A grace period is short while the kernel expedites grace periods, which
//! interrupts all CPUs: `Auto` does this for the first move after a pause alone
//! (`grace_periods.rs`), `Expedited` as long as the daemon runs. `FavorDynMods` is the mount option of the
//! kernel, which stays set until the next boot.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use grace_periods::{EXPEDITED, ExpeditedGracePeriods, GracePeriodSwitch, SwitchPaths};
use warmer::{LateWrite, Warmer};

use super::mounts::Hierarchies;
use crate::config::daemon_toml::FastMoves;
use crate::event::Nanos;
use crate::sys;

mod grace_periods;
mod warmer;

/// Directory of the record that the kernel's switch is set. ExecStopPost= of the unit reads it there.
const RECORD_DIRECTORY: &str = sys::RUNTIME_DIRECTORY;
/// Lists the mount option on kernels on which a move waits.
const FEATURES: &str = "/sys/kernel/cgroup/features";

/// An active mode, reverted on drop where the kernel allows it.
#[derive(Debug)]
pub enum FastMovesGuard {
    /// No mode: each isolated move waits for a grace period, where the kernel waits at all.
    Off,
    /// A thread that keeps the lock warm while processes are moved.
    Warm(Warmer),
    /// The same, with a short grace period for the first move.
    Auto(Warmer, GracePeriodSwitch),
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
            FastMoves::Auto => Self::auto(hierarchies),
            FastMoves::Warm => Warmer::start(hierarchies, LateWrite::Waits).map(Self::Warm),
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

    /// Activates a mode, or none if that fails, with a warning.
    pub fn engage_if_possible(mode: FastMoves, hierarchies: &Hierarchies) -> Self {
        Self::engage(mode, hierarchies).unwrap_or_else(|error| {
            ::log::warn!("cannot enable fast_moves: {error}");
            Self::Off
        })
    }

    fn auto(hierarchies: &Hierarchies) -> io::Result<Self> {
        if !can_wait(hierarchies) {
            return Ok(Self::Off);
        }
        let paths = SwitchPaths::with_record_in(Path::new(RECORD_DIRECTORY));
        match fs::create_dir_all(RECORD_DIRECTORY).and_then(|()| GracePeriodSwitch::open(&paths)) {
            Ok(switch) => {
                let warmer = Warmer::start(hierarchies, LateWrite::Stops)?;
                Ok(Self::Auto(warmer, switch))
            }
            Err(reason) => {
                ::log::info!(
                    "fast_moves: the first move after a pause waits for milliseconds: {reason}"
                );
                Warmer::start(hierarchies, LateWrite::Waits).map(Self::Warm)
            }
        }
    }

    /// Prepares a move at `now`, which is fast until the returned value is dropped.
    pub fn prepare(&self, now: Nanos) -> Option<ExpeditedGracePeriods<'_>> {
        match self {
            Self::Auto(warmer, switch) if warmer.is_cold(now) => switch.expedite(),
            Self::Off
            | Self::Warm(_)
            | Self::Auto(..)
            | Self::Expedited(_)
            | Self::FavorDynMods => None,
        }
    }

    /// Records that a login may follow at `now`: the thread makes the lock warm early where the first move would
    /// wait.
    pub fn expect_move(&self, now: Nanos) {
        if let Self::Warm(warmer) = self {
            warmer.moved(now);
        }
    }

    /// Records a move at `now`, which keeps the lock warm until three seconds later.
    pub fn moved(&self, now: Nanos) {
        if let Self::Warm(warmer) | Self::Auto(warmer, _) = self {
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

/// Unsets the kernel's switch if a daemon ended while it was set for a move, and logs that.
pub fn restore_grace_periods() {
    match SwitchPaths::with_record_in(Path::new(RECORD_DIRECTORY)).restore() {
        Ok(true) => {
            ::log::warn!("the last daemon ended during a move: {EXPEDITED} set to 0 again");
        }
        Ok(false) => {}
        Err(error) => ::log::error!("cannot write 0 to {EXPEDITED}: {error}"),
    }
}

/// Checks whether a move can wait for a grace period: not on kernels that do not know the mount option (before
/// Linux 6.0), nor where it is set.
pub fn can_wait(hierarchies: &Hierarchies) -> bool {
    let features = fs::read_to_string(FEATURES).unwrap_or_default();
    features.lines().any(|feature| feature == "favordynmods")
        && !hierarchies.iter().any(|tree| tree.favordynmods)
}
