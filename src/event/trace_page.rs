//! Parser of kernel trace ring buffer pages into [`ExternalMove`]s. Pure and total: any input gives
//! records or a [`MalformedPage`], never a panic.
//!
//! A page is a time stamp, the length of its data with two flags (`commit`), and events. Each event
//! begins with 32 bits: 5 for its type or length, 27 for the nanoseconds since the event before it
//! (`events/header_event` of tracefs; `struct ring_buffer_event` of `linux/ring_buffer.h`).

use super::Nanos;
use super::trace_format::{BirthLayout, TraceLayout};

/// `RINGBUF_TYPE_PADDING`: a discarded event, or the unused end of a page.
const PADDING: u32 = 29;
/// `RINGBUF_TYPE_TIME_EXTEND`: more bits for the time difference, 134 ms and longer.
const TIME_EXTEND: u32 = 30;
/// `RINGBUF_TYPE_TIME_STAMP`: an absolute time.
const TIME_STAMP: u32 = 31;
/// Bits of the time difference in an event header.
const DELTA_BITS: u32 = 27;
/// The bits that an absolute time does not carry; the time before it has them.
const HIGH_TIME_BITS: u64 = 0xf8 << 56;

/// `RB_MISSED_EVENTS` of `commit`: records were lost before this page.
const LOST: u32 = 1 << 31;
/// `RB_MISSED_STORED`: their number follows the data.
const LOST_STORED: u32 = 1 << 30;

/// One move of a process or thread to a cgroup, as `cgroup:cgroup_attach_task` reports it. Moves to the
/// cgroup where the process already is are reported as well, failed ones are not. Or the birth of a process
/// in another cgroup than that of its creator (`CLONE_INTO_CGROUP`), as `task:task_newtask` reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalMove<'a> {
    /// Time of the move: `CLOCK_MONOTONIC` if that is the trace clock.
    pub at: Nanos,
    /// The thread ID of the mover or creator, in the initial PID namespace.
    pub mover: u32,
    /// ID of the moved process or, by `cgroup.threads` or `tasks`, thread.
    pub pid: u32,
    /// Set if it was created in that cgroup, not moved. The fields below are empty then.
    pub is_birth: bool,
    /// Hierarchy ID, as the first field in `/proc/PID/cgroup`: 0 is cgroup v2.
    pub hierarchy: u32,
    /// ID of the destination: the inode number of its directory.
    pub cgroup: u64,
    /// Path of the destination from the root of its hierarchy.
    pub path: &'a [u8],
    /// Name (`comm`) of the moved process.
    pub comm: &'a [u8],
}

/// Error: the page is shorter than its lengths, or a number is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedPage;

/// Number of records lost between the previous page and this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LostBefore {
    /// No record was lost before the page.
    None,
    /// At least one record; the page had no room for the number.
    Unknown,
    /// Number of lost records as stored in the page.
    Exactly(u64),
}

/// Page as `trace_pipe_raw` returns it.
#[derive(Clone, Copy, Debug)]
pub struct TracePage<'a> {
    layout: &'a TraceLayout,
    began: Nanos,
    data: &'a [u8],
    lost: LostBefore,
}

impl<'a> TracePage<'a> {
    /// Parses the header of a page.
    ///
    /// # Errors
    /// `bytes` has less data than the header specifies.
    pub fn parse(layout: &'a TraceLayout, bytes: &'a [u8]) -> Result<Self, MalformedPage> {
        let page = &layout.page;
        let began = Nanos(u64_at(bytes, page.timestamp)?);
        // On 64 bits the flag in bit 31 is sign-extended into the upper half: only the lower
        // counts.
        let commit = word_at(bytes, page.commit, page.word)? as u32;
        let length = (commit & !(LOST | LOST_STORED)) as usize;
        let behind = bytes.get(page.data..).ok_or(MalformedPage)?;
        let data = behind.get(..length).ok_or(MalformedPage)?;
        let lost = match (commit & LOST, commit & LOST_STORED) {
            (0, _) => LostBefore::None,
            (_, 0) => LostBefore::Unknown,
            (_, _) => LostBefore::Exactly(word_at(behind, length, page.word)?),
        };
        Ok(Self { layout, began, data, lost })
    }

    /// Returns the number of records lost before this page.
    pub fn lost(&self) -> LostBefore {
        self.lost
    }

    /// Iterates over the moves of the page. Other records are skipped; nothing follows an error.
    pub fn moves(&self) -> PageMoves<'a> {
        PageMoves { layout: self.layout, at: self.began, rest: self.data }
    }
}

/// Iterator over the moves of one page.
#[derive(Clone, Debug)]
pub struct PageMoves<'a> {
    layout: &'a TraceLayout,
    /// Time of the event before `rest`.
    at: Nanos,
    rest: &'a [u8],
}

impl<'a> Iterator for PageMoves<'a> {
    type Item = Result<ExternalMove<'a>, MalformedPage>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            match self.event() {
                Ok(None) => {}
                Ok(Some(found)) => return Some(Ok(found)),
                Err(error) => {
                    self.rest = &[];
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

impl<'a> PageMoves<'a> {
    /// Reads one event and removes at least 4 bytes from `rest`.
    fn event(&mut self) -> Result<Option<ExternalMove<'a>>, MalformedPage> {
        let (kind, delta) = event_header(u32_at(self.rest, 0)?);
        match kind {
            PADDING if delta == 0 => {
                self.rest = &[];
                Ok(None)
            }
            PADDING => {
                let length = u32_at(self.rest, 4)? as usize;
                // Discarding an event without a difference sets it to 1.
                self.at = self.at.plus(if delta == 1 { 0 } else { delta });
                self.take(length.checked_add(4).ok_or(MalformedPage)?)?;
                Ok(None)
            }
            TIME_EXTEND => {
                self.at = self.at.plus(u64::from(u32_at(self.rest, 4)?) << DELTA_BITS | delta);
                self.take(8)?;
                Ok(None)
            }
            TIME_STAMP => {
                let stamp = u64::from(u32_at(self.rest, 4)?) << DELTA_BITS | delta;
                self.at = absolute(stamp, self.at);
                self.take(8)?;
                Ok(None)
            }
            // The length did not fit into the header; it includes its own 4 bytes.
            0 => {
                let length = u32_at(self.rest, 4)? as usize;
                self.record(8, length.checked_add(4).ok_or(MalformedPage)?, delta)
            }
            words => self.record(4, 4 + 4 * words as usize, delta),
        }
    }

    /// Removes an event of `length` bytes, with its record at `start`.
    fn record(
        &mut self,
        start: usize,
        length: usize,
        delta: u64,
    ) -> Result<Option<ExternalMove<'a>>, MalformedPage> {
        self.at = self.at.plus(delta);
        let record = self.take(length)?.get(start..).ok_or(MalformedPage)?;
        let layout = &self.layout.record;
        let id = u16_at(record, layout.common_type)?;
        if let Some(birth) = self.layout.birth.filter(|birth| birth.id == id) {
            return self.birth(record, birth).map(Some);
        }
        if id != layout.id {
            return Ok(None);
        }
        Ok(Some(ExternalMove {
            at: self.at,
            mover: id_at(record, layout.common_pid)?,
            pid: id_at(record, layout.pid)?,
            is_birth: false,
            hierarchy: id_at(record, layout.dst_root)?,
            cgroup: u64_at(record, layout.dst_id)?,
            path: text_at(record, layout.dst_path)?,
            comm: text_at(record, layout.comm)?,
        }))
    }

    fn birth(&self, record: &[u8], layout: BirthLayout) -> Result<ExternalMove<'a>, MalformedPage> {
        Ok(ExternalMove {
            at: self.at,
            mover: id_at(record, layout.common_pid)?,
            pid: id_at(record, layout.pid)?,
            is_birth: true,
            hierarchy: 0,
            cgroup: 0,
            path: b"",
            comm: b"",
        })
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], MalformedPage> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(MalformedPage)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Splits an event header into type and time difference: bit fields, in the order of the machine.
fn event_header(word: u32) -> (u32, u64) {
    if cfg!(target_endian = "big") {
        (word >> DELTA_BITS, (word & ((1 << DELTA_BITS) - 1)).into())
    } else {
        (word & 0x1f, (word >> 5).into())
    }
}

/// Completes an absolute time of 59 bits with the high bits of the time before it.
fn absolute(stamp: u64, before: Nanos) -> Nanos {
    let high = before.0 & HIGH_TIME_BITS;
    let completed = stamp & !HIGH_TIME_BITS | high;
    // The lower bits wrapped between the two. Without high bits the kernel does not check this.
    let wrapped = high != 0 && completed < before.0;
    Nanos(if wrapped { completed.saturating_add(1 << 59) } else { completed })
}

fn array_at<const N: usize>(bytes: &[u8], offset: usize) -> Result<[u8; N], MalformedPage> {
    let rest = bytes.get(offset..).ok_or(MalformedPage)?;
    rest.first_chunk().copied().ok_or(MalformedPage)
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16, MalformedPage> {
    array_at(bytes, offset).map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32, MalformedPage> {
    array_at(bytes, offset).map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], offset: usize) -> Result<u64, MalformedPage> {
    array_at(bytes, offset).map(u64::from_ne_bytes)
}

/// Reads an `unsigned long` of the kernel.
fn word_at(bytes: &[u8], offset: usize, size: usize) -> Result<u64, MalformedPage> {
    if size == 4 { u32_at(bytes, offset).map(u64::from) } else { u64_at(bytes, offset) }
}

/// Reads an `int` that is never negative.
fn id_at(bytes: &[u8], offset: usize) -> Result<u32, MalformedPage> {
    u32_at(bytes, offset).and_then(|id| if id >> 31 == 0 { Ok(id) } else { Err(MalformedPage) })
}

/// Reads a NUL-terminated string; a word contains its offset (lower half) and size.
fn text_at(record: &[u8], offset: usize) -> Result<&[u8], MalformedPage> {
    let place = u32_at(record, offset)?;
    let start = (place & 0xffff) as usize;
    let size = (place >> 16) as usize;
    let text = record.get(start..start + size).ok_or(MalformedPage)?;
    Ok(text.split(|&byte| byte == 0).next().unwrap_or_default())
}

#[cfg(test)]
#[path = "trace_page_tests.rs"]
mod tests;
