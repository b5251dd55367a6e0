//! Trace of external moves: the records of `cgroup:cgroup_attach_task` in a private tracefs
//! instance. It does not interpret moves, and a move never wakes the daemon: the buffers are
//! drained when the engine needs them.
//!
//! The proc connector reports no moves, and upstream rejected such an event. A private instance
//! needs no capability, only write permission in tracefs, and its `stats` count lost records
//! exactly.

mod error;
mod instance;

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::event::Nanos;
use crate::event::trace_format::TraceLayout;
use crate::event::trace_page::{ExternalMove, MalformedPage, TracePage};

pub use error::MoveTraceError;
use instance::{Instance, is_tracefs};

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
    /// ID of the hierarchy, as the first field of a line of `/proc/PID/cgroup`.
    pub hierarchy: u32,
}

/// Source of traced moves, replaceable in tests.
pub trait MoveSource: fmt::Debug + Send {
    /// Excludes the moves of these threads.
    ///
    /// # Errors
    /// As write(2).
    fn ignore(&mut self, threads: &[u32]) -> io::Result<()>;

    /// Reads the moves traced since the last call, and returns the number of lost ones.
    ///
    /// # Errors
    /// As read(2).
    fn read(&mut self, take: &mut dyn FnMut(TracedMove)) -> io::Result<u64>;
}

impl MoveSource for MoveTrace {
    fn ignore(&mut self, threads: &[u32]) -> io::Result<()> {
        self.ignore_threads(threads)
    }

    fn read(&mut self, take: &mut dyn FnMut(TracedMove)) -> io::Result<u64> {
        let drained = self.drain(
            |_| false,
            |&ExternalMove { at, mover, pid, hierarchy, .. }| {
                take(TracedMove { at, mover, pid, hierarchy });
            },
        )?;
        Ok(drained.lost)
    }
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
    /// Exact number of records lost since the previous drain, which can include moves by ignored
    /// threads that the kernel's filter does not exclude. A malformed page counts as one.
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
        Ok(trace)
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
        for cpu in &mut self.cpus {
            let mut reads = 0;
            while reads < bound {
                let length = cpu.read(&mut self.page)?;
                if length == 0 {
                    break;
                }
                reads += 1;
                let page = &self.page[..length];
                let handed = hand_on(&self.layout, page, &ignored, &mut heed, &mut drained.records);
                drained.lost += u64::from(handed.is_err());
            }
            // A buffer from which nothing can be read has lost nothing since the last read.
            if reads > 0 {
                drained.lost += cpu.lost_since()?;
            }
        }
        Ok(drained)
    }
}

/// Passes the moves of one page to `heed` and counts them.
fn hand_on(
    layout: &TraceLayout,
    page: &[u8],
    ignored: &impl Fn(u32) -> bool,
    heed: &mut impl FnMut(&ExternalMove<'_>),
    records: &mut u64,
) -> Result<(), MalformedPage> {
    for found in TracePage::parse(layout, page)?.moves() {
        let found = found?;
        if !ignored(found.mover) {
            *records += 1;
            heed(&found);
        }
    }
    Ok(())
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
            };
            cpu.lost_since().map_err(|error| instance.error("per_cpu", error))?;
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

    /// Returns the number of records lost since the last call.
    fn lost_since(&mut self) -> io::Result<u64> {
        // 150 bytes on Linux 6.18.
        let mut text = [0; 1024];
        let length = self.stats.read_at(&mut text, 0)?;
        let total = lost_in(&text[..length])
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "stats without 'overrun'"))?;
        let before = std::mem::replace(&mut self.lost, total);
        // The counters restart at 0 when an administrator empties the buffer.
        Ok(total.checked_sub(before).unwrap_or(total.max(1)))
    }
}

/// Adds up the records that `stats` counts as lost: overwritten, refused because the buffer was
/// full (without the option `overwrite`), and refused while the buffer wrapped.
fn lost_in(stats: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(stats).ok()?;
    let others = ["commit overrun: ", "dropped events: "];
    let others: u64 = others.into_iter().filter_map(|name| counter(text, name)).sum();
    Some(counter(text, "overrun: ")? + others)
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
        assert_eq!(lost_in(STATS.as_bytes()), Some(932));
        assert_eq!(lost_in(b"entries: 5\ncommit overrun: 1\n"), None);
        assert_eq!(lost_in(&[0xff, 0xfe]), None);
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
