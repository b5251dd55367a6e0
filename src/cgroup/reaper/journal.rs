//! A file with the settings that cgruled wrote to cgroups, so that a later run can revert them. It
//! is in /run: after a boot neither the cgroups nor the file exist.
//!
//! Each line is a JSON object with all settings of one cgroup and replaces earlier lines about it.
//! A line is appended by one write(2) for each new cgroup; replacing the whole file each time would
//! cost more with each cgroup that exists. A line that a crash cut off is ignored.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::sys::atomic_file;

/// The maximum size in bytes: 65,536 cgroups of 1 KiB.
const MAX_SIZE: u64 = 64 << 20;
/// The number of outdated lines from which the file is written anew, if it also has more of them
/// than others.
const OUTDATED: usize = 1024;

/// The settings that cgruled wrote to one cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CgroupRecord {
    pub(super) directory: PathBuf,
    /// Distinguishes it from a later cgroup of the same name.
    pub(super) inode: u64,
    /// The path of the table, with its specifiers.
    pub(super) table: String,
    pub(super) settings: Vec<RecordedSetting>,
}

/// A part of a kernel file, with the value that it had after the write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecordedSetting {
    pub(super) file: Box<str>,
    /// The first word of its line, empty for the whole file.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub(super) line: Box<str>,
    pub(super) value: Box<str>,
}

impl CgroupRecord {
    /// Checks whether all its files are in its directory.
    fn is_valid(&self) -> bool {
        self.directory.is_absolute()
            && !self.directory.components().any(|part| part.as_os_str() == "..")
            && !self.settings.iter().any(|setting| setting.file.contains('/'))
    }
}

/// The open file.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    lines: usize,
    /// Another daemon must not write to the file at the same time.
    _lock: Flock<File>,
}

impl Journal {
    /// Opens the file. Returns it with the lines in it.
    ///
    /// # Errors
    /// The file cannot be read, belongs to another user, or is in use by another daemon.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<CgroupRecord>)> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        let lock = locked(&path.with_extension("lock"))?;
        let bytes = atomic_file::read_own(path, MAX_SIZE)?.unwrap_or_default();
        let records = parse(&bytes);
        let file = appended(path)?;
        let journal = Self { path: path.to_owned(), file, lines: records.len(), _lock: lock };
        Ok((journal, records))
    }

    /// Appends a line.
    ///
    /// # Errors
    /// As write(2).
    pub(super) fn append(&mut self, record: &CgroupRecord) -> io::Result<()> {
        self.file.write_all(&line(record))?;
        self.lines += 1;
        Ok(())
    }

    /// Checks whether most lines are outdated, if `current` is the number of those that are not.
    pub(super) const fn is_outdated(&self, current: usize) -> bool {
        self.lines > 2 * current + OUTDATED
    }

    /// Replaces the file atomically by these lines.
    ///
    /// # Errors
    /// The file or its directory cannot be written.
    pub(super) fn replace<'r>(
        &mut self,
        records: impl Iterator<Item = &'r CgroupRecord>,
    ) -> io::Result<()> {
        let mut lines = 0;
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend(line(record));
            lines += 1;
        }
        atomic_file::replace(&self.path, 0o600, &bytes)?;
        self.file = appended(&self.path)?;
        self.lines = lines;
        Ok(())
    }
}

fn locked(path: &Path) -> io::Result<Flock<File>> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600).custom_flags(libc::O_NOFOLLOW);
    let file = options.open(path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
        match errno == Errno::EAGAIN {
            true => io::Error::other("in use by another daemon"),
            false => errno.into(),
        }
    })
}

fn appended(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW).open(path)
}

fn line(record: &CgroupRecord) -> Vec<u8> {
    // A path that is not UTF-8 cannot be in JSON; cgruled creates none.
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Parses the lines, without those that are invalid.
fn parse(bytes: &[u8]) -> Vec<CgroupRecord> {
    let lines = bytes.split(|&byte| byte == b'\n');
    let records = lines.filter_map(|line| serde_json::from_slice::<CgroupRecord>(line).ok());
    records.filter(CgroupRecord::is_valid).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(directory: &str, value: &str) -> CgroupRecord {
        let setting =
            RecordedSetting { file: "io.max".into(), line: "8:0".into(), value: value.into() };
        CgroupRecord {
            directory: directory.into(),
            inode: 7,
            table: "people/%u".to_owned(),
            settings: vec![setting],
        }
    }

    #[test]
    fn lines_survive_a_restart_and_a_crash() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/settings.journal");
        let (mut journal, records) = Journal::open(&path).unwrap();
        assert_eq!(records, []);
        journal.append(&record("/a", "rbps=1")).unwrap();
        journal.append(&record("/b", "rbps=1")).unwrap();
        let error = Journal::open(&path).unwrap_err();
        assert_eq!(error.to_string(), "in use by another daemon");
        drop(journal);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        let (mut journal, records) = Journal::open(&path).unwrap();
        assert_eq!(records, [record("/a", "rbps=1")]);
        journal.replace([record("/c", "rbps=2")].iter()).unwrap();
        journal.append(&record("/d", "rbps=3")).unwrap();
        drop(journal);
        let (_, records) = Journal::open(&path).unwrap();
        assert_eq!(records, [record("/c", "rbps=2"), record("/d", "rbps=3")]);
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settings.journal");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        assert!(Journal::open(&path).is_err());
    }

    #[test]
    fn paths_that_lead_elsewhere_are_ignored() {
        let mut elsewhere = record("/a", "1");
        elsewhere.settings[0].file = "../b/io.max".into();
        for wrong in [elsewhere, record("/a/../b", "1"), record("a", "1")] {
            assert_eq!(parse(&line(&wrong)), []);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _records = parse(&bytes);
        }
    }
}
