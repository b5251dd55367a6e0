//! Trace of external moves: the records of `cgroup:cgroup_attach_task` in a private tracefs
//! instance. It does not interpret moves, and a move never wakes the daemon: the buffers are
//! drained when the engine needs them.
//!
//! The proc connector reports no moves, and upstream refused such an event. A private instance needs no
//! capability, only the permission to write in tracefs, and its `stats` count lost records exactly.
//!
//! A process that is born in another cgroup than that of its creator (`CLONE_INTO_CGROUP`, Linux 5.7) was
//! never moved, so `task:task_newtask` is recorded too. The kernel's filter drops all births without that
//! flag: 12 pairs of 4,000 forks took 0.98 times as long with the event as without, which is noise.

mod error;
mod instance;
mod own;

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::event::Nanos;
use crate::event::trace_format::TraceLayout;
use crate::event::trace_page::{ExternalMove, TracePage};

pub use error::MoveTraceError;
use instance::{Instance, is_tracefs};
pub use own::OwnMoves;

/// Usual mount points of tracefs; debugfs mounts the second one on access.
const DIRECTORIES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Size of the buffer of each CPU: 870 moves between cgroups with short paths (measured).
const BUFFER_KIB: usize = 64;

/// Maximum number of threads in the kernel's filter. The kernel accepts less than a page of text
/// (4,096 bytes), and one thread needs up to 25.
const MAX_FILTERED: usize = 128;

const ENABLE: &str = "events/cgroup/cgroup_attach_task/enable";
const FILTER: &str = "events/cgroup/cgroup_attach_task/filter";
const FORMAT: &str = "events/cgroup/cgroup_attach_task/format";
const BIRTH_ENABLE: &str = "events/task/task_newtask/enable";
const BIRTH_FILTER: &str = "events/task/task_newtask/filter";
const BIRTH_FORMAT: &str = "events/task/task_newtask/format";
/// `CLONE_INTO_CGROUP` of linux/sched.h.
const INTO_CGROUP: &str = "clone_flags & 0x200000000";
const HEADER_PAGE: &str = "events/header_page";

/// Returns the directory where tracefs is mounted.
///
/// # Errors
/// It is mounted at none of the usual places.
pub fn tracing_directory() -> Result<PathBuf, MoveTraceError> {
    let found = DIRECTORIES.iter().map(Path::new).find(|path| is_tracefs(path).unwrap_or(false));
    found.map(Path::to_owned).ok_or_else(|| MoveTraceError::NotMounted(DIRECTORIES[0].into()))
}

/// Traced move, without the details that only logs need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TracedMove {
    /// Time stamp that the kernel gave the move.
    pub at: Nanos,
    /// Thread that wrote the PID.
    pub mover: u32,
    /// Process or thread that was moved.
    pub pid: u32,
    /// Set if it was created in another cgroup than that of its creator, not moved.
    pub is_birth: bool,
    /// ID of the hierarchy, as the first field of a line of `/proc/PID/cgroup`.
    pub hierarchy: u32,
}

impl fmt::Debug for MoveTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("MoveTrace").field(&self.path()).finish()
    }
}

/// Numbers returned by [`MoveTrace::drain`] for one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct DrainedMoves {
    /// Number of moves passed to the caller.
    pub records: u64,
    /// Records that were lost since the drain before, exactly; among them can be moves by ignored
    /// threads that the kernel's filter does not exclude. A malformed page counts as one. Records that a read
    /// skipped are found by the second drain that empties the buffer.
    pub lost: u64,
}

/// Tracefs instance that records moves between cgroups. Dropping it removes the instance, which
/// waits for RCU grace periods (30 to 70 ms on Linux 6.18).
pub struct MoveTrace {
    // Before `instance`: the kernel removes no instance with open files.
    cpus: Vec<CpuBuffer>,
    layout: TraceLayout,
    page: Box<[u8]>,
    instance: Instance,
}

/// Trace buffer of one CPU.
struct CpuBuffer {
    /// File `trace_pipe_raw`: each read consumes one page.
    pages: File,
    stats: File,
    /// Number of records lost when `stats` was last read.
    lost: u64,
    skipped: SkippedRecords,
}

/// Records that a read skipped, which the kernel neither returns nor counts as lost.
///
/// A read that has consumed the page of the reader checks first whether that has more data and then
/// whether the writer is still on it (`rb_get_reader_page()` of `kernel/trace/ring_buffer.c`). What
/// a writer on another CPU adds to the page between the two checks, going on to the next page, is
/// discarded with the page: at most one page of records. They stay in `entries` of `stats` for
/// ever, so an empty buffer with entries tells their number: 5 of 7.2 million moves on Linux 6.18,
/// read without a pause on a virtual machine with two CPUs.
#[derive(Debug, Default)]
struct SkippedRecords {
    /// Those that were counted.
    counted: u64,
    /// Entries of the empty buffer, as they were when it was last found with more than `counted`.
    suspected: Option<u64>,
}

impl SkippedRecords {
    /// Takes the entries of an empty buffer, and returns how many more records were skipped. An
    /// event is an entry shortly before it can be read, so only what is found twice counts.
    fn observe(&mut self, entries: u64) -> u64 {
        // Less than before if an administrator emptied the buffer.
        self.counted = self.counted.min(entries);
        let before = self.suspected.replace(entries).unwrap_or(0);
        let new = before.min(entries).saturating_sub(self.counted);
        self.counted += new;
        if self.counted == entries {
            self.suspected = None;
        }
        new
    }
}

impl MoveTrace {
    /// Creates or takes over an instance below `tracing` and enables the event. Takes 30 to 50 ms
    /// on Linux 6.18, most of it RCU grace periods.
    ///
    /// # Errors
    /// The reason why external moves cannot be traced.
    pub fn open(tracing: &Path) -> Result<Self, MoveTraceError> {
        let instance = Instance::acquire(tracing)?;
        // A daemon that was killed left the event enabled, and records in the buffers.
        instance.write(ENABLE, "0")?;
        instance.write(FILTER, "0")?;
        // The event may be missing.
        let _result = instance.write(BIRTH_ENABLE, "0");
        // Writing the clock also empties the buffers.
        instance.write("trace_clock", "mono")?;
        instance.write("buffer_size_kb", &BUFFER_KIB.to_string())?;
        instance.write("tracing_on", "1")?;
        let layout = TraceLayout::parse(&instance.read(HEADER_PAGE)?, &instance.read(FORMAT)?)
            .map_err(MoveTraceError::Format)?;
        let page = vec![0; layout.page_size()].into_boxed_slice();
        let mut trace = Self { cpus: CpuBuffer::open_all(&instance)?, layout, page, instance };
        let discarded = trace.drain(|_| true, |_| ());
        let _discarded = discarded.map_err(|error| trace.instance.error("per_cpu", error))?;
        trace.instance.write(ENABLE, "1")?;
        if let Err(error) = trace.enable_births() {
            ::log::debug!("births in other cgroups are not traced: {error}");
        }
        Ok(trace)
    }

    /// Lets the kernel record births in other cgroups too.
    fn enable_births(&mut self) -> Result<(), MoveTraceError> {
        let format = self.instance.read(BIRTH_FORMAT)?;
        self.layout = self.layout.with_births(&format).map_err(MoveTraceError::Format)?;
        self.instance.write(BIRTH_FILTER, INTO_CGROUP)?;
        self.instance.write(BIRTH_ENABLE, "1")
    }

    /// Returns the directory of the instance.
    pub fn path(&self) -> &Path {
        self.instance.path()
    }

    /// Excludes moves by the threads `tids` in the kernel; of more than 128 the first 128. The
    /// filter is replaced without a gap.
    ///
    /// # Errors
    /// As write(2).
    pub fn ignore_threads(&mut self, tids: &[u32]) -> io::Result<()> {
        self.instance.write_file(FILTER, &filter(tids))
    }

    /// Reads the moves traced since the last call, and returns the number of lost ones.
    ///
    /// # Errors
    /// As [`Self::drain`].
    pub fn read(&mut self, mut take: impl FnMut(TracedMove)) -> io::Result<u64> {
        let drained = self.drain(
            |_| false,
            |&ExternalMove { at, mover, pid, is_birth, hierarchy, .. }| {
                take(TracedMove { at, mover, pid, is_birth, hierarchy });
            },
        )?;
        Ok(drained.lost)
    }

    /// Reads the buffers and passes each move to `heed` unless its mover is `ignored`. Never
    /// blocks, and allocates nothing.
    ///
    /// The moves of one CPU are in order of time, those of different CPUs are not:
    /// [`ExternalMove::at`] (`CLOCK_MONOTONIC`) gives the order. A buffer is read at most as often
    /// as it has pages, so a flood of moves cannot keep the caller.
    ///
    /// # Errors
    /// As read(2). Other buffers may not have been read then.
    pub fn drain(
        &mut self,
        ignored: impl Fn(u32) -> bool,
        mut heed: impl FnMut(&ExternalMove<'_>),
    ) -> io::Result<DrainedMoves> {
        let mut drained = DrainedMoves::default();
        // The kernel rounds the size up to pages and has one more for the reader.
        let bound = BUFFER_KIB * 1024 / self.layout.data_size() + 2;
        let Self { cpus, layout, page, .. } = self;
        for cpu in cpus {
            let mut reads = 0;
            let is_empty = loop {
                if reads == bound {
                    break false;
                }
                let length = cpu.read(page)?;
                if length == 0 {
                    break true;
                }
                reads += 1;
                hand_on(layout, &page[..length], &ignored, &mut heed, &mut drained);
            };
            // A buffer from which nothing can be read has lost nothing since the last read.
            if reads == 0 && cpu.skipped.suspected.is_none() {
                continue;
            }
            let stats = cpu.read_stats()?;
            drained.lost += cpu.lost_since(stats);
            if !is_empty {
                continue;
            }
            // Only the entries of a buffer that is empty before and after are those of skipped records.
            let length = cpu.read(page)?;
            if length == 0 {
                drained.lost += cpu.skipped.observe(stats.entries);
            } else {
                hand_on(layout, &page[..length], &ignored, &mut heed, &mut drained);
                let stats = cpu.read_stats()?;
                drained.lost += cpu.lost_since(stats);
            }
        }
        Ok(drained)
    }
}

/// Passes the moves of one page to `heed` and counts them. A malformed page counts as a loss.
fn hand_on(
    layout: &TraceLayout,
    page: &[u8],
    ignored: &impl Fn(u32) -> bool,
    heed: &mut impl FnMut(&ExternalMove<'_>),
    drained: &mut DrainedMoves,
) {
    let handed = TracePage::parse(layout, page).and_then(|page| {
        page.moves().try_for_each(|found| {
            let found = found?;
            if !ignored(found.mover) {
                drained.records += 1;
                heed(&found);
            }
            Ok(())
        })
    });
    drained.lost += u64::from(handed.is_err());
}

impl CpuBuffer {
    /// Opens the buffers of all CPUs that have a directory: on Linux 6.18 all possible ones. The
    /// buffer of an offline CPU is empty, and is filled when the CPU comes online.
    fn open_all(instance: &Instance) -> Result<Vec<Self>, MoveTraceError> {
        let mut cpus = Vec::new();
        for name in instance.cpus()? {
            let mut cpu = Self {
                pages: instance.open_to_read(&format!("per_cpu/{name}/trace_pipe_raw"))?,
                stats: instance.open_to_read(&format!("per_cpu/{name}/stats"))?,
                lost: 0,
                skipped: SkippedRecords::default(),
            };
            let stats = cpu.read_stats().map_err(|error| instance.error("per_cpu", error))?;
            cpu.lost = stats.lost;
            cpus.push(cpu);
        }
        Ok(cpus)
    }

    /// Reads a page. Returns 0 when the buffer is empty.
    fn read(&mut self, page: &mut [u8]) -> io::Result<usize> {
        match self.pages.read(page) {
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(0)
            }
            result => result,
        }
    }

    fn read_stats(&mut self) -> io::Result<Stats> {
        // 150 bytes on Linux 6.18.
        let mut text = [0; 1024];
        let length = self.stats.read_at(&mut text, 0)?;
        Stats::parse(&text[..length])
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "stats without 'overrun'"))
    }

    /// Returns the records that were lost since the last call.
    fn lost_since(&mut self, stats: Stats) -> u64 {
        let before = std::mem::replace(&mut self.lost, stats.lost);
        // The counters restart at 0 when an administrator empties the buffer.
        stats.lost.checked_sub(before).unwrap_or(stats.lost.max(1))
    }
}

/// Counters of a buffer in `stats`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stats {
    /// Records that were lost: overwritten, refused because the buffer was full (without the option
    /// `overwrite`), and refused while the buffer wrapped.
    lost: u64,
    /// Records that were neither lost nor read.
    entries: u64,
}

impl Stats {
    fn parse(stats: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(stats).ok()?;
        let others = ["commit overrun: ", "dropped events: "];
        let others: u64 = others.into_iter().filter_map(|name| counter(text, name)).sum();
        let lost = counter(text, "overrun: ")? + others;
        // The difference of three counters that are not read at once: it can be below 0 for an instant.
        let entries = counter(text, "entries: ").unwrap_or(0);
        let entries = if entries > u64::from(u32::MAX) { 0 } else { entries };
        Some(Self { lost, entries })
    }
}

fn counter(stats: &str, name: &str) -> Option<u64> {
    stats.lines().find_map(|line| line.strip_prefix(name)?.parse().ok())
}

/// Returns a kernel filter expression that excludes moves by `tids`.
fn filter(tids: &[u32]) -> String {
    let mut text = String::new();
    for tid in tids.iter().take(MAX_FILTERED) {
        let separator = if text.is_empty() { "" } else { " && " };
        // Writing to a String cannot fail.
        let _written = write!(text, "{separator}common_pid != {tid}");
    }
    // "0" removes the filter.
    if text.is_empty() { "0".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATS: &str = "entries: 5\noverrun: 900\ncommit overrun: 2\nbytes: 332\noldest event ts: \
        22053.472089\nnow ts: 22053.781740\ndropped events: 30\nread events: 0\n";

    #[test]
    fn all_kinds_of_loss_are_added() {
        assert_eq!(Stats::parse(STATS.as_bytes()), Some(Stats { lost: 932, entries: 5 }));
        assert_eq!(Stats::parse(b"entries: 5\ncommit overrun: 1\n"), None);
        assert_eq!(Stats::parse(&[0xff, 0xfe]), None);
        let negative = Stats::parse(b"entries: 18446744073709551615\noverrun: 1\n");
        assert_eq!(negative, Some(Stats { lost: 1, entries: 0 }));
    }

    #[test]
    fn records_that_a_read_skipped_are_counted_when_they_are_found_twice() {
        let mut skipped = SkippedRecords::default();
        for (entries, lost, is_suspected) in [
            (0, 0, false),
            // An event that could not be read yet.
            (1, 0, true),
            (0, 0, false),
            (36, 0, true),
            (37, 36, true),
            (36, 0, false),
            (40, 0, true),
            (40, 4, false),
            // Somebody emptied the buffer.
            (0, 0, false),
            (3, 0, true),
            (3, 3, false),
        ] {
            assert_eq!(skipped.observe(entries), lost, "{skipped:?}");
            assert_eq!(skipped.suspected.is_some(), is_suspected, "{skipped:?}");
        }
    }

    #[test]
    fn the_filter_has_the_form_of_the_kernel_and_its_length() {
        assert_eq!(filter(&[]), "0");
        assert_eq!(filter(&[7, 8]), "common_pid != 7 && common_pid != 8");
        // The highest thread ID of Linux.
        assert!(filter(&[4_194_304; 1000]).len() < 4096);
    }

    #[test]
    fn a_directory_that_is_not_tracefs_is_refused_with_the_command_to_mount_it() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path().to_owned(), directory.path().join("missing")] {
            let error = MoveTrace::open(&path).map(drop).unwrap_err();
            let message = error.to_string();
            assert!(matches!(error, MoveTraceError::NotMounted(_)), "{message}");
            assert!(message.contains("mount -t tracefs tracefs"), "{message}");
        }
    }
}
