//! The kernel's switch for expedited RCU grace periods, set for the duration of single moves. Must never stay set,
//! also after a crash.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::O_NOFOLLOW;

/// While it is 1, all grace periods of the kernel are expedited.
pub(super) const EXPEDITED: &str = "/sys/kernel/rcu_expedited";
/// While it is 1, no grace period is expedited.
const NORMAL: &str = "/sys/kernel/rcu_normal";
/// CPUs that expedited grace periods would interrupt although they were reserved for one program.
const RESERVED_CPUS: &str = "/sys/devices/system/cpu/nohz_full";

/// The files of the switch, and the file that records that it is set. Used by one thread only: with two, the last to
/// unset it would have to wait for the other.
#[derive(Debug)]
pub struct GracePeriodSwitch {
    switch: File,
    /// "1" while the switch is set by us: the next daemon restores it after a crash.
    record: File,
}

/// Paths of the kernel's files; of other files in tests.
#[derive(Clone, Debug)]
pub struct SwitchPaths {
    /// The switch.
    pub expedited: PathBuf,
    /// The switch that takes precedence.
    pub normal: PathBuf,
    /// The list of reserved CPUs.
    pub reserved_cpus: PathBuf,
    /// The record of our own setting.
    pub record: PathBuf,
}

impl SwitchPaths {
    /// Returns the paths of the kernel, and a record in this directory.
    pub fn with_record_in(directory: &Path) -> Self {
        Self {
            expedited: EXPEDITED.into(),
            normal: NORMAL.into(),
            reserved_cpus: RESERVED_CPUS.into(),
            record: directory.join("rcu_expedited"),
        }
    }

    /// Unsets the switch if an earlier daemon recorded that it had set it. Returns whether it had.
    ///
    /// # Errors
    /// The switch is recorded as set, and it cannot be unset.
    pub fn restore(&self) -> io::Result<bool> {
        let is_recorded = fs::read(&self.record).is_ok_and(|record| record.starts_with(b"1"));
        if is_recorded {
            fs::write(&self.expedited, "0")?;
            fs::write(&self.record, "0")?;
        }
        Ok(is_recorded)
    }

    /// Returns the reason for which grace periods must not or cannot be expedited.
    fn obstacle(&self) -> Option<String> {
        let is_normal = fs::read(&self.normal).is_ok_and(|text| text.starts_with(b"1"));
        if is_normal {
            return Some(format!("{} is 1", self.normal.display()));
        }
        let reserved = fs::read_to_string(&self.reserved_cpus).unwrap_or_default();
        let reserved = reserved.trim();
        let has_reserved = !matches!(reserved, "" | "(null)");
        has_reserved.then(|| format!("CPUs {reserved} are reserved (nohz_full)"))
    }
}

impl GracePeriodSwitch {
    /// Opens the switch and its record.
    ///
    /// # Errors
    /// Grace periods cannot be expedited on this host, or should not be; the error says why.
    pub fn open(paths: &SwitchPaths) -> io::Result<Self> {
        if let Some(reason) = paths.obstacle() {
            return Err(io::Error::other(reason));
        }
        let mut options = OpenOptions::new();
        let switch = open(options.read(true).write(true), &paths.expedited)?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(O_NOFOLLOW);
        let record = open(&options, &paths.record)?;
        Ok(Self { switch, record })
    }

    /// Sets the switch until the returned value is dropped. `None` if it is set already, or cannot be set: then
    /// the move waits.
    pub fn expedite(&self) -> Option<ExpeditedGracePeriods<'_>> {
        let mut value = [0; 1];
        let is_unset = self.switch.read_at(&mut value, 0).is_ok() && value == *b"0";
        // Without a record a crash would leave the switch set.
        if !is_unset || self.record.write_at(b"1", 0).is_err() {
            return None;
        }
        let guard = ExpeditedGracePeriods(self);
        self.switch.write_at(b"1", 0).ok().map(|_| guard)
    }
}

/// Opens a file with the path in the error.
fn open(options: &OpenOptions, path: &Path) -> io::Result<File> {
    options.open(path).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot open {}: {error}", path.display()))
    })
}

/// Expedited grace periods, until it is dropped.
#[derive(Debug)]
pub struct ExpeditedGracePeriods<'s>(&'s GracePeriodSwitch);

impl Drop for ExpeditedGracePeriods<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.switch.write_at(b"0", 0) {
            ::log::error!("cannot write 0 to {EXPEDITED}: {error}");
            return;
        }
        // A record that stays "1" costs the next daemon one write.
        let _written = self.0.record.write_at(b"0", 0);
    }
}

#[cfg(test)]
#[path = "grace_periods_tests.rs"]
mod tests;
