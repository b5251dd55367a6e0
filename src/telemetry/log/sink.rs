//! Outputs of the log and the format of a record in each.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ::log::Level;

use super::LogRecord;
use super::journal::{self, JournalSocket, priority};
use crate::config::daemon_toml::LogTarget;
use crate::sys;

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
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(mode)
        .open(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
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
