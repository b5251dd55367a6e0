//! Outputs of the log and the format of a record in each.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ::log::Level;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{FileStat, Mode};
use nix::unistd::geteuid;

use super::LogRecord;
use super::journal::{self, JournalSocket, priority};
use crate::config::daemon_toml::LogTarget;
use crate::sys;
use crate::sys::checked_path::{is_link, open_checked};

/// Identifier in syslog, the one of cgrulesengd, which scripts that read its lines search for.
const SYSLOG_NAME: &std::ffi::CStr = c"CGRE";

/// Configured destination of log records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Destination from the settings. Lines begin with the level.
    Target(LogTarget),
    /// Standard output, with unmodified lines.
    Stdout,
    /// File to which unmodified lines are appended. A new one is readable by all users, subject to
    /// the umask.
    Lines(PathBuf),
    /// Syslog with this facility, in the format of cgrulesengd.
    Syslog(Facility),
}

impl LogOutput {
    /// Checks whether this is standard error, or the journal in place of it.
    pub fn is_standard_error(&self) -> bool {
        matches!(self, Self::Target(LogTarget::Auto | LogTarget::Stderr))
    }
}

/// Facility code of syslog messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// The facility for system daemons, `LOG_DAEMON`.
    pub const DAEMON: Self = Self(3);

    /// Returns the facility `local0` to `local7`, or `None` for a greater number.
    pub const fn local(number: u8) -> Option<Self> {
        if number < 8 { Some(Self(16 + number)) } else { None }
    }

    /// Returns the facility code; multiplied by 8 it is the value of the C library.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// Open destination of an [`LogOutput`].
pub(super) enum LogSink {
    Stderr,
    Journal(JournalSocket),
    File(File),
    Stdout,
    Lines(File),
    Syslog,
}

impl LogSink {
    pub(super) fn open(output: &LogOutput) -> io::Result<Self> {
        Ok(match output {
            LogOutput::Target(LogTarget::Auto) if journal::has_standard_error() => {
                JournalSocket::open().map_or(Self::Stderr, Self::Journal)
            }
            LogOutput::Target(LogTarget::Auto) if journal::is_missing() => {
                Self::Journal(JournalSocket::open_early()?)
            }
            LogOutput::Target(LogTarget::Auto | LogTarget::Stderr) => Self::Stderr,
            LogOutput::Target(LogTarget::Journal) => Self::Journal(JournalSocket::open()?),
            LogOutput::Target(LogTarget::File(path)) => Self::File(open_file(path, 0o640)?),
            LogOutput::Stdout => Self::Stdout,
            LogOutput::Lines(path) => Self::Lines(open_file(path, 0o644)?),
            LogOutput::Syslog(facility) => {
                sys::open_syslog(SYSLOG_NAME, facility.number());
                Self::Syslog
            }
        })
    }

    /// Checks whether this sink stores the fields of a record.
    pub(super) const fn takes_fields(&self) -> bool {
        matches!(self, Self::Journal(_))
    }

    pub(super) fn write(&mut self, entry: &LogRecord) -> io::Result<()> {
        let LogRecord { level, text, is_for_files, fields, .. } = entry;
        match self {
            Self::Stderr => io::stderr().lock().write_all(with_level(entry).as_bytes()),
            Self::File(file) => file.write_all(with_level(entry).as_bytes()),
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(format!("{text}\n").as_bytes())?;
                stdout.flush()
            }
            Self::Lines(file) => file.write_all(format!("{text}\n").as_bytes()),
            Self::Journal(_) | Self::Syslog if *is_for_files => Ok(()),
            Self::Journal(journal) => journal.send(*level, text, fields),
            Self::Syslog => {
                // A syslog message is one line.
                for line in text.lines().filter(|line| !line.is_empty()) {
                    sys::syslog(priority(*level), &CString::new(line.replace('\0', " "))?);
                }
                Ok(())
            }
        }
    }
}

/// Creates the file of [`LogOutput::Lines`] if it does not exist.
///
/// # Errors
/// The file cannot be opened for appending.
pub fn try_file(path: &Path) -> io::Result<()> {
    open_file(path, 0o644).map(drop)
}

fn open_file(path: &Path, mode: u32) -> io::Result<File> {
    // A FIFO without a reader must not block the start. One with a reader loses lines when it is full.
    let flags =
        OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
    let mode = Mode::from_bits_truncate(mode);
    let opened = open_checked(AT_FDCWD, path, (flags, mode), check_link);
    let error = match opened.map_err(io::Error::from) {
        Ok(file) => return Ok(File::from(file)),
        Err(error) if error.raw_os_error() == Some(Errno::ENXIO as i32) => {
            io::Error::new(io::ErrorKind::InvalidInput, "no process reads this FIFO")
        }
        Err(error) => error,
    };
    Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Refuses a symbolic link that another user created, for example in `/tmp`: the daemon would append
/// to any file that this user names.
fn check_link(_: &Path, stat: &FileStat) -> Result<(), Errno> {
    let is_own = [0, geteuid().as_raw()].contains(&stat.st_uid);
    if is_link(stat) && !is_own { Err(Errno::EACCES) } else { Ok(()) }
}

fn with_level(LogRecord { level, text, says_level, .. }: &LogRecord) -> String {
    if *says_level { format!("{text}\n") } else { format!("{}: {text}\n", word(*level)) }
}

const fn word(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{lchown, symlink};

    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_fifo_does_not_block_the_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let error = open_file(&path, 0o600).unwrap_err();
        assert!(error.to_string().ends_with("log: no process reads this FIFO"), "{error}");
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let _reader = nix::fcntl::open(&path, flags, Mode::empty()).unwrap();
        let mut fifo = open_file(&path, 0o600).unwrap();
        fifo.write_all(b"x").unwrap();
        // A full one loses lines, and blocks neither them nor the end.
        let full = fifo.write_all(&vec![b'x'; 1 << 20]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_link_is_followed_if_root_created_it() {
        if !geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let [link, target] = ["link", "target"].map(|name| directory.path().join(name));
        symlink("target", &link).unwrap();
        open_file(&link, 0o600).unwrap().write_all(b"x").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"x");
        lchown(&link, Some(61_000), None).unwrap();
        let error = open_file(&link, 0o600).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }
}
