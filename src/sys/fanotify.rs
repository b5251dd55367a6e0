//! Permission events of fanotify(7), which let executions wait.
//!
//! An execution that is read waits until it is answered or its group is closed. If the process has no descriptor left for
//! the file of an event, the kernel refuses the execution: the caller must keep two descriptors free for each read.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{check, check_size};

/// Length of `struct fanotify_event_metadata`.
const METADATA: usize = 24;
/// Length of `struct fanotify_event_info_pidfd`.
const PIDFD_RECORD: usize = 8;
/// Room for one event with a pidfd, and not for two: a read takes one event.
const ONE_EVENT: usize = 2 * (METADATA + PIDFD_RECORD) - 8;

/// An event as the kernel describes it. The descriptors are numbers: [`parse`] owns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecRecord {
    /// Process that executes the file, 0 if it has no PID in the namespace of the reader.
    pub pid: i32,
    /// Descriptor of the file, if the event has one.
    pub file: Option<i32>,
    /// Pidfd of the process, if it lives and a descriptor was left.
    pub pidfd: Option<i32>,
    /// True for an execution that waits for an answer.
    pub waits: bool,
}

/// Reason why the bytes of an event are invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventError {
    /// The bytes end within an event or a record.
    Truncated,
    /// A length is smaller than what it includes.
    Length,
    /// The kernel uses another version of the structure.
    Version(u8),
}

/// Parses the first event of a buffer. Returns it with the bytes after it; `None` for an empty buffer.
///
/// # Errors
/// The reason why the bytes are invalid. Nothing after them can be parsed.
pub fn parse(bytes: &[u8]) -> Result<Option<(ExecRecord, &[u8])>, EventError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let length = number(bytes, 0)? as usize;
    let version = *bytes.get(4).ok_or(EventError::Truncated)?;
    if version != libc::FANOTIFY_METADATA_VERSION {
        return Err(EventError::Version(version));
    }
    let metadata = usize::from(short(bytes, 6)?);
    let mask = bytes.get(8..16).and_then(|word| word.try_into().ok());
    let mask = mask.map(u64::from_ne_bytes).ok_or(EventError::Truncated)?;
    let file = signed(bytes, 16)?;
    let pid = signed(bytes, 20)?;
    if metadata < METADATA || length < metadata {
        return Err(EventError::Length);
    }
    let event = bytes.get(..length).ok_or(EventError::Truncated)?;
    let record = ExecRecord {
        pid,
        file: (file >= 0).then_some(file),
        pidfd: pidfd(&event[metadata..])?,
        waits: mask & libc::FAN_OPEN_EXEC_PERM != 0,
    };
    Ok(Some((record, &bytes[length..])))
}

/// Returns the pidfd in the records of an event.
fn pidfd(mut records: &[u8]) -> Result<Option<i32>, EventError> {
    let mut found = None;
    while !records.is_empty() {
        let length = usize::from(short(records, 2)?);
        if length < 4 {
            return Err(EventError::Length);
        }
        let record = records.get(..length).ok_or(EventError::Truncated)?;
        if record[0] == libc::FAN_EVENT_INFO_TYPE_PIDFD {
            // Negative: FAN_NOPIDFD, the process has exited, or FAN_EPIDFD, it could not be opened.
            found = Some(signed(record, 4)?).filter(|&fd| fd >= 0);
        }
        records = &records[length..];
    }
    Ok(found)
}

fn number(bytes: &[u8], at: usize) -> Result<u32, EventError> {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map(u32::from_ne_bytes).ok_or(EventError::Truncated)
}

fn signed(bytes: &[u8], at: usize) -> Result<i32, EventError> {
    let word = bytes.get(at..at + 4).and_then(|word| word.try_into().ok());
    word.map(i32::from_ne_bytes).ok_or(EventError::Truncated)
}

fn short(bytes: &[u8], at: usize) -> Result<u16, EventError> {
    let word = bytes.get(at..at + 2).and_then(|word| word.try_into().ok());
    word.map(u16::from_ne_bytes).ok_or(EventError::Truncated)
}

/// An execution that waits.
#[derive(Debug)]
pub struct WaitingExec {
    /// Process that executes the file, 0 if it has no PID in the namespace of the reader.
    pub pid: i32,
    /// The file, with which the execution is answered.
    pub file: OwnedFd,
    /// The process, if it lives and a descriptor was left.
    pub pidfd: Option<OwnedFd>,
}

/// Group of files of which executions wait. When it is closed, in all processes, they go on.
#[derive(Debug)]
pub struct ExecGroup(OwnedFd);

impl AsFd for ExecGroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Creates a fanotify group that reports executions with a pidfd of the process and lets them wait (Linux 5.15). The
/// descriptor does not block, and neither its queue nor its number of marks is limited.
///
/// # Errors
/// As fanotify_init(2): `EPERM` without `CAP_SYS_ADMIN`, `ENOSYS` without `CONFIG_FANOTIFY`, `EINVAL` on an older
/// kernel.
pub fn init() -> io::Result<ExecGroup> {
    const FLAGS: libc::c_uint = libc::FAN_CLASS_CONTENT
        | libc::FAN_CLOEXEC
        | libc::FAN_NONBLOCK
        | libc::FAN_UNLIMITED_QUEUE
        | libc::FAN_UNLIMITED_MARKS
        | libc::FAN_REPORT_PIDFD;
    // The descriptors of the reported files.
    const FILES: libc::c_int = libc::O_RDONLY | libc::O_LARGEFILE | libc::O_CLOEXEC;
    // SAFETY: the call takes two integers.
    let fd = check(unsafe { libc::fanotify_init(FLAGS, FILES as libc::c_uint) })?;
    // SAFETY: the kernel created this descriptor, and it has no other owner.
    Ok(ExecGroup(unsafe { OwnedFd::from_raw_fd(fd) }))
}

impl ExecGroup {
    /// Lets executions of an open file wait, also if they do already. `file` may be open with `O_PATH`.
    ///
    /// # Errors
    /// As fanotify_mark(2), and `ENOENT` without `/proc`.
    pub fn mark(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        // The call does not accept a descriptor with O_PATH (EBADF), and a path could lead to another file by now.
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        self.change_marks(libc::FAN_MARK_ADD, &path)
    }

    /// Removes all marks. Executions that wait do so until they are answered.
    ///
    /// # Errors
    /// As fanotify_mark(2).
    pub fn unmark_all(&self) -> io::Result<()> {
        self.change_marks(libc::FAN_MARK_FLUSH, c"/")
    }

    fn change_marks(&self, change: libc::c_uint, path: &std::ffi::CStr) -> io::Result<()> {
        let events = if change == libc::FAN_MARK_FLUSH { 0 } else { libc::FAN_OPEN_EXEC_PERM };
        // SAFETY: the path ends with NUL and lives through the call; the rest are integers.
        let result = unsafe {
            libc::fanotify_mark(self.0.as_raw_fd(), change, events, libc::AT_FDCWD, path.as_ptr())
        };
        check(result).map(drop)
    }

    /// Reads the next execution. `None` if there is none.
    ///
    /// # Errors
    /// As read(2): after `EMFILE` the kernel has refused the execution. `InvalidData` for an event that cannot be parsed,
    /// after which the group must be closed, because its executions cannot be answered.
    pub fn read(&self) -> io::Result<Option<WaitingExec>> {
        loop {
            let mut bytes = [0u8; ONE_EVENT];
            // SAFETY: the pointer and length describe `bytes`, which the kernel fills.
            let read =
                unsafe { libc::read(self.0.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
            let length = match check_size(read) {
                Ok(0) => return Ok(None),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let parsed = parse(&bytes[..length]);
            let Ok(Some((record, rest))) = parsed else { return Err(invalid()) };
            // SAFETY: the kernel opened these descriptors for this read, and they have no other owner.
            let [file, pidfd] = [record.file, record.pidfd]
                .map(|fd| fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            if !rest.is_empty() {
                return Err(invalid());
            }
            match file {
                Some(file) if record.waits => {
                    return Ok(Some(WaitingExec { pid: record.pid, file, pidfd }));
                }
                // FAN_Q_OVERFLOW has no file. No other event was requested.
                Some(_) | None => {}
            }
        }
    }

    /// Lets an execution go on. The kernel also accepts the answer if the process was killed meanwhile.
    ///
    /// # Errors
    /// As write(2): `ENOENT` if the execution does not wait any more.
    pub fn allow(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let response = libc::fanotify_response { fd: file.as_raw_fd(), response: libc::FAN_ALLOW };
        // SAFETY: the pointer and length describe `response`, which the kernel only reads.
        let written = unsafe {
            libc::write(
                self.0.as_raw_fd(),
                (&raw const response).cast(),
                size_of::<libc::fanotify_response>(),
            )
        };
        check_size(written).map(drop)
    }
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel reported an invalid fanotify event")
}

/// Checks whether the kernel has permission events for executions (`CONFIG_FANOTIFY_ACCESS_PERMISSIONS`, Linux 5.0).
/// Needs no privileges and marks no file.
///
/// # Errors
/// As fanotify_mark(2): `EINVAL` without these events, `ENOSYS` without `CONFIG_FANOTIFY`, `EPERM` by a filter of
/// system calls.
pub fn has_exec_permission() -> io::Result<()> {
    let (mark, event) = (libc::FAN_MARK_ADD, libc::FAN_OPEN_EXEC_PERM);
    // The kernel checks the events before the descriptors, so without a group the call changes nothing.
    // SAFETY: the path is a string with a terminator, and both descriptors are invalid.
    let result = unsafe { libc::fanotify_mark(-1, mark, event, -1, c"/".as_ptr()) };
    match check(result) {
        Err(error) if error.raw_os_error() != Some(libc::EBADF) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An event as Linux 6.18 reports it.
    fn event(mask: u64, (file, pid): (i32, i32), pidfd: Option<i32>) -> Vec<u8> {
        let records = if pidfd.is_some() { PIDFD_RECORD } else { 0 };
        let mut bytes = u32::try_from(METADATA + records).unwrap().to_ne_bytes().to_vec();
        bytes.extend([3, 0]);
        bytes.extend(u16::try_from(METADATA).unwrap().to_ne_bytes());
        bytes.extend(mask.to_ne_bytes());
        bytes.extend(file.to_ne_bytes());
        bytes.extend(pid.to_ne_bytes());
        if let Some(pidfd) = pidfd {
            bytes.extend([libc::FAN_EVENT_INFO_TYPE_PIDFD, 0]);
            bytes.extend(u16::try_from(PIDFD_RECORD).unwrap().to_ne_bytes());
            bytes.extend(pidfd.to_ne_bytes());
        }
        bytes
    }

    const EXEC: u64 = libc::FAN_OPEN_EXEC_PERM;

    #[test]
    fn an_execution_has_a_file_and_a_process() {
        let bytes = event(EXEC, (7, 4711), Some(8));
        let expected = ExecRecord { pid: 4711, file: Some(7), pidfd: Some(8), waits: true };
        assert_eq!(parse(&bytes), Ok(Some((expected, &[][..]))));
        let without = ExecRecord { pidfd: None, ..expected };
        for pidfd in [None, Some(libc::FAN_NOPIDFD), Some(libc::FAN_EPIDFD)] {
            let bytes = event(EXEC, (7, 4711), pidfd);
            assert_eq!(parse(&bytes), Ok(Some((without, &[][..]))), "{pidfd:?}");
        }
        assert_eq!(parse(&[]), Ok(None));
    }

    #[test]
    fn an_overflow_of_the_queue_is_no_execution() {
        let bytes = event(libc::FAN_Q_OVERFLOW, (libc::FAN_NOFD, 0), Some(libc::FAN_NOPIDFD));
        let (record, _) = parse(&bytes).unwrap().unwrap();
        assert_eq!(record, ExecRecord { pid: 0, file: None, pidfd: None, waits: false });
    }

    #[test]
    fn records_of_other_types_are_skipped() {
        let mut bytes = event(EXEC, (7, 1), Some(8));
        bytes.extend([99, 0]);
        bytes.extend(12u16.to_ne_bytes());
        bytes.extend([0xff; 8]);
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let (record, rest) = parse(&bytes).unwrap().unwrap();
        assert_eq!((record.pidfd, rest), (Some(8), &[][..]));
        bytes[METADATA + PIDFD_RECORD + 2] = 3;
        bytes[METADATA + PIDFD_RECORD + 3] = 3;
        assert_eq!(parse(&bytes), Err(EventError::Truncated));
        bytes[METADATA + 2..METADATA + 4].copy_from_slice(&0u16.to_ne_bytes());
        assert_eq!(parse(&bytes), Err(EventError::Length));
    }

    #[test]
    fn invalid_lengths_and_versions_are_refused() {
        let bytes = event(EXEC, (7, 1), Some(8));
        for length in 1..bytes.len() {
            assert_eq!(parse(&bytes[..length]), Err(EventError::Truncated), "{length}");
        }
        let mut short = bytes.clone();
        short[..4].copy_from_slice(&23u32.to_ne_bytes());
        assert_eq!(parse(&short), Err(EventError::Length));
        let mut long = bytes.clone();
        long[6..8].copy_from_slice(&64u16.to_ne_bytes());
        assert_eq!(parse(&long), Err(EventError::Length));
        let mut other = bytes;
        other[4] = 4;
        assert_eq!(parse(&other), Err(EventError::Version(4)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_to_the_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut rest = &bytes[..];
            while let Ok(Some((record, next))) = parse(rest) {
                prop_assert!(next.len() + METADATA <= rest.len());
                prop_assert!(record.file.is_none_or(|fd| fd >= 0));
                rest = next;
            }
        }

        #[test]
        fn each_valid_event_is_found(
            events in prop::collection::vec((any::<u64>(), -3..9, 0..9, prop::option::of(-3..9)), 0..9),
        ) {
            let bytes: Vec<u8> = events
                .iter()
                .flat_map(|&(mask, file, pid, pidfd)| event(mask, (file, pid), pidfd))
                .collect();
            let mut rest = &bytes[..];
            for (mask, file, pid, pidfd) in events {
                let (record, next) = parse(rest).unwrap().unwrap();
                let expected = ExecRecord {
                    pid,
                    file: Some(file).filter(|&fd| fd >= 0),
                    pidfd: pidfd.filter(|&fd| fd >= 0),
                    waits: mask & EXEC != 0,
                };
                prop_assert_eq!(record, expected);
                rest = next;
            }
            prop_assert!(rest.is_empty());
        }
    }
}
