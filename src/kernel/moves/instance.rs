//! Tracefs instance that belongs to one daemon. A lock (flock(2)) on its directory shows that the
//! daemon is running; an instance without a lock was left by a daemon that was killed.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, flock, fstat, mkdirat, open, openat, statat, statfs,
    unlinkat,
};
use rustix::io::Errno;

use super::MoveTraceError;

/// `TRACEFS_MAGIC` of linux/magic.h.
const TRACEFS_MAGIC: u64 = 0x7472_6163;
/// Maximum number of instances on one machine: daemons that run at the same time, mostly tests.
const MAX_INSTANCES: usize = 8;
/// Number of attempts to lock an instance that another daemon removes at the same time.
const ATTEMPTS: usize = 3;

/// Maximum number of bytes read of a text file; the format of the event has 777.
const MAX_TEXT: usize = 16384;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Checks whether tracefs is mounted at `path`.
pub(super) fn is_tracefs(path: &Path) -> Result<bool, Errno> {
    // The type of the magic number differs between architectures; the number is positive.
    statfs(path).map(|status| status.f_type as u64 == TRACEFS_MAGIC)
}

/// Locked instance, removed on drop.
pub(super) struct Instance {
    parent: OwnedFd,
    /// Descriptor that holds the lock.
    directory: OwnedFd,
    name: String,
    path: PathBuf,
}

/// Result of an attempt to lock an instance.
enum LockAttempt {
    Locked(OwnedFd),
    /// Another daemon holds the lock.
    Busy,
    /// It does not exist, or was removed meanwhile.
    Gone,
}

impl Instance {
    /// Creates the first instance name that no running daemon uses, or takes over a leftover one,
    /// and removes all other leftover ones.
    ///
    /// # Errors
    /// The reason why no instance is available.
    pub(super) fn acquire(tracing: &Path) -> Result<Self, MoveTraceError> {
        match is_tracefs(tracing) {
            Ok(true) => {}
            Ok(false) | Err(Errno::NOENT | Errno::NOTDIR) => {
                return Err(MoveTraceError::NotMounted(tracing.to_owned()));
            }
            Err(errno) => return Err(MoveTraceError::from_io(tracing.to_owned(), errno.into())),
        }
        let path = tracing.join("instances");
        let parent = match open(&path, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Err(MoveTraceError::NoInstances(path)),
            other => other.map_err(|errno| MoveTraceError::from_io(path.clone(), errno.into()))?,
        };
        for name in names() {
            let path = path.join(&name);
            match create(&parent, &name) {
                Ok(LockAttempt::Locked(directory)) => {
                    remove_leftovers(&parent, &name);
                    return Ok(Self { parent, directory, name, path });
                }
                Ok(LockAttempt::Busy | LockAttempt::Gone) => {}
                Err(errno) => return Err(MoveTraceError::from_io(path, errno.into())),
            }
        }
        Err(MoveTraceError::Busy(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Classifies an error on a file of the instance.
    pub(super) fn error(&self, file: &str, error: io::Error) -> MoveTraceError {
        let path = self.path.join(file);
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        if is_missing && file.starts_with("events/") {
            return MoveTraceError::NoEvent(path);
        }
        MoveTraceError::from_io(path, error)
    }

    /// Writes a file of the instance.
    pub(super) fn write(&self, file: &str, text: &str) -> Result<(), MoveTraceError> {
        self.write_file(file, text).map_err(|error| self.error(file, error))
    }

    /// Writes a file of the instance and returns the error of the system call.
    pub(super) fn write_file(&self, file: &str, text: &str) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&self.directory, file, flags, Mode::empty())?;
        File::from(file).write_all(text.as_bytes())
    }

    /// Reads a text file of the instance.
    pub(super) fn read(&self, file: &str) -> Result<String, MoveTraceError> {
        let mut opened = self.open_to_read(file)?;
        // One read of `events/header_page` must return all of it: the next returns nothing, even
        // when the first was short (Linux 6.18). `read_to_string` begins with 32 bytes.
        let mut text = vec![0; MAX_TEXT];
        let mut length = 0;
        loop {
            match opened.read(&mut text[length..]) {
                Ok(0) => break,
                Ok(read) => length += read,
                Err(error) => return Err(self.error(file, error)),
            }
        }
        Ok(String::from_utf8_lossy(&text[..length]).into_owned())
    }

    /// Opens a file of the instance for reads that never block.
    pub(super) fn open_to_read(&self, file: &str) -> Result<File, MoveTraceError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = openat(&self.directory, file, flags, Mode::empty());
        opened.map(File::from).map_err(|errno| self.error(file, errno.into()))
    }

    /// Returns the names of the directories below `per_cpu`.
    pub(super) fn cpus(&self) -> Result<Vec<String>, MoveTraceError> {
        self.list_cpus().map_err(|error| self.error("per_cpu", error))
    }

    fn list_cpus(&self) -> io::Result<Vec<String>> {
        let opened = openat(&self.directory, "per_cpu", DIRECTORY, Mode::empty())?;
        let mut names = Vec::new();
        for entry in Dir::from_fd(opened)? {
            names.extend(cpu_name(entry?.file_name()));
        }
        Ok(names)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // An instance that cannot be removed, because a file of it is open elsewhere, costs nothing
        // with the event disabled.
        let disabled = self.write_file(super::ENABLE, "0");
        let removed = unlinkat(&self.parent, &self.name, AtFlags::REMOVEDIR);
        if let Err(error) = disabled.and(removed.map_err(io::Error::from)) {
            let path = self.path.display();
            ::log::warn!("cannot remove the tracefs instance {path}: {error}; run 'rmdir {path}'");
        }
    }
}

/// Returns the instance names that a daemon may use.
fn names() -> impl Iterator<Item = String> {
    let further = (2..=MAX_INSTANCES).map(|number| format!("cgruled-{number}"));
    std::iter::once("cgruled".to_owned()).chain(further)
}

fn cpu_name(name: &CStr) -> Option<String> {
    let name = name.to_str().ok()?;
    let _number: u32 = name.strip_prefix("cpu")?.parse().ok()?;
    Some(name.to_owned())
}

/// Creates an instance, if it does not exist, and locks it.
fn create(parent: &OwnedFd, name: &str) -> Result<LockAttempt, Errno> {
    for _ in 0..ATTEMPTS {
        match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno),
        }
        match lock(parent, name)? {
            LockAttempt::Gone => {}
            attempt @ (LockAttempt::Locked(_) | LockAttempt::Busy) => return Ok(attempt),
        }
    }
    Ok(LockAttempt::Gone)
}

/// Locks an existing instance, without waiting.
fn lock(parent: &OwnedFd, name: &str) -> Result<LockAttempt, Errno> {
    let directory = match openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(LockAttempt::Gone),
        other => other?,
    };
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(LockAttempt::Busy),
        other => other?,
    }
    // Between open and lock its owner may have removed it, and another may have created it again.
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) if named.st_ino == fstat(&directory)?.st_ino => {
            Ok(LockAttempt::Locked(directory))
        }
        Ok(_) | Err(Errno::NOENT) => Ok(LockAttempt::Gone),
        Err(errno) => Err(errno),
    }
}

/// Removes instances left by daemons that were killed: their events cost every move 0.4 us, and
/// their buffers 64 KiB for each CPU.
fn remove_leftovers(parent: &OwnedFd, own: &str) {
    for name in names().filter(|name| name != own) {
        // The lock is held until it is removed.
        if let Ok(LockAttempt::Locked(_directory)) = lock(parent, &name) {
            if let Err(errno) = unlinkat(parent, &name, AtFlags::REMOVEDIR) {
                ::log::debug!("cannot remove the leftover tracefs instance {name}: {errno}");
            }
        }
    }
}
