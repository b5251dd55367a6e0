//! Where records are written.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ::log::Level;

use super::Entry;
use super::journal::{self, Journal, priority};
use crate::config::daemon_toml::LogTarget;
use crate::sys;

/// What syslog calls us: scripts that read cgrulesengd's lines look for this name.
const SYSLOG_NAME: &std::ffi::CStr = c"CGRE";

/// A place for records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// One that the settings can name; its lines begin with the level.
    Target(LogTarget),
    /// Standard output, lines as they are.
    Stdout,
    /// This file, lines as they are, appended; a new one is readable by everybody but for the umask.
    Lines(PathBuf),
    /// Syslog, as cgrulesengd has it.
    Syslog(Facility),
}

impl Output {
    /// Whether it is standard error, or stands in for it.
    pub fn is_standard_error(&self) -> bool {
        matches!(self, Self::Target(LogTarget::Auto | LogTarget::Stderr))
    }
}

/// A facility of syslog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(u8);

impl Facility {
    /// System daemons.
    pub const DAEMON: Self = Self(3);

    /// `local0` to `local7`; `None` for another number.
    pub const fn local(number: u8) -> Option<Self> {
        if number < 8 { Some(Self(16 + number)) } else { None }
    }

    /// Its number; multiplied by 8 it is that of the C library.
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// An open [`Output`].
pub(super) enum Sink {
    Stderr,
    Journal(Journal),
    File(File),
    Stdout,
    Lines(File),
    Syslog,
}

impl Sink {
    pub(super) fn open(output: &Output) -> io::Result<Self> {
        Ok(match output {
            Output::Target(LogTarget::Auto) if journal::has_standard_error() => {
                Journal::open().map_or(Self::Stderr, Self::Journal)
            }
            Output::Target(LogTarget::Auto | LogTarget::Stderr) => Self::Stderr,
            Output::Target(LogTarget::Journal) => Self::Journal(Journal::open()?),
            Output::Target(LogTarget::File(path)) => Self::File(open_file(path, 0o640)?),
            Output::Stdout => Self::Stdout,
            Output::Lines(path) => Self::Lines(open_file(path, 0o644)?),
            Output::Syslog(facility) => {
                sys::open_syslog(SYSLOG_NAME, facility.number());
                Self::Syslog
            }
        })
    }

    /// Whether it keeps more than the text.
    pub(super) const fn takes_fields(&self) -> bool {
        matches!(self, Self::Journal(_))
    }

    pub(super) fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let Entry { level, text, is_for_files, fields, .. } = entry;
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
                // A message is a line for syslog.
                for line in text.lines().filter(|line| !line.is_empty()) {
                    sys::syslog(priority(*level), &CString::new(line.replace('\0', " "))?);
                }
                Ok(())
            }
        }
    }
}

/// Makes the file of [`Output::Lines`] if there is none.
///
/// # Errors
/// It cannot be opened for appending.
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

fn with_level(Entry { level, text, says_level, .. }: &Entry) -> String {
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
