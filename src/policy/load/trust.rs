//! Checks owner and mode of files and directories before they configure a daemon that runs as root;
//! it must not check a path that could refer to another file a moment later, so all checks use the
//! opened descriptor.
//!
//! A symbolic link is followed when its target passes the same checks, and so does each directory and
//! link on the way to it, with one exception: a sticky directory may be writable, because other users
//! cannot rename or remove a file of root in it.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode};

use crate::config::diagnostic::{Diagnostic, TextPosition};
use crate::event::Uid;
use crate::sys::checked_path::{is_link, open_checked};

/// The maximum file size in bytes, some 10,000 rules.
pub(super) const MAX_SIZE: u64 = 1 << 20;
const GROUP_WRITE: u32 = 0o020;
const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// The reason why a file is not read, with a fix.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TrustError {
    /// One line, with the file as its subject.
    pub(super) message: String,
    /// One line with the suggested fix.
    pub(super) help: Option<String>,
    pub(super) kind: TrustErrorKind,
}

/// The kinds of refusal that callers distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrustErrorKind {
    /// The file does not exist, or is a dangling link.
    Missing,
    /// The file is a directory, a FIFO, a socket or a device; or it is not the expected directory.
    Special,
    Other,
}

impl TrustError {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, kind: TrustErrorKind::Other }
    }

    fn with_help(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..Self::new(message) }
    }

    /// Creates the refusal of a file that does not exist.
    pub(super) fn missing() -> Self {
        Self::open(Errno::ENOENT)
    }

    pub(super) fn too_large(limit: u64) -> Self {
        Self::with_help(format!("is larger than {} MiB", limit >> 20), "split the file")
    }

    fn special() -> Self {
        Self { kind: TrustErrorKind::Special, ..Self::new("is not a regular file") }
    }

    fn open(error: Errno) -> Self {
        Self { kind: TrustErrorKind::of(error), ..Self::cannot("opened", error) }
    }

    fn cannot(what: &str, error: impl Into<io::Error>) -> Self {
        Self::new(format!("cannot be {what}: {}", error.into()))
    }
}

impl TrustErrorKind {
    fn of(error: Errno) -> Self {
        if error == Errno::ENOENT { Self::Missing } else { Self::Other }
    }
}

/// The content of a file that passed the checks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum TrustedContent {
    /// The bytes of the file.
    Bytes(Vec<u8>),
    /// The file is empty or a link to `/dev/null`, and masks files of the same name in later
    /// directories.
    Mask,
}

/// A directory that passed the checks.
#[derive(Debug)]
pub(super) struct TrustedDirectory {
    path: PathBuf,
    descriptor: OwnedFd,
    owner: Uid,
}

impl TrustedDirectory {
    /// Opens the directory. Returns `None` if it does not exist.
    ///
    /// # Errors
    /// Returns a refusal if it is not a directory, not owned by `owner`, or writable by others.
    pub(super) fn open(path: &Path, owner: Uid) -> Result<Option<Self>, TrustError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let descriptor = match nix::fcntl::open(path, flags, Mode::empty()) {
            Ok(descriptor) => descriptor,
            Err(Errno::ENOENT) => return Ok(None),
            Err(Errno::ENOTDIR) => {
                return Err(TrustError {
                    kind: TrustErrorKind::Special,
                    ..TrustError::new("is not a directory")
                });
            }
            Err(error) => return Err(TrustError::cannot("opened", error)),
        };
        let directory = File::from(descriptor);
        let metadata = directory.metadata().map_err(|error| TrustError::cannot("read", error))?;
        check(metadata.uid(), metadata.mode(), owner)?;
        Ok(Some(Self { path: path.to_owned(), descriptor: directory.into(), owner }))
    }

    /// Returns the names in the directory, sorted by bytes.
    ///
    /// # Errors
    /// Returns a refusal if the directory cannot be read.
    pub(super) fn names(&self) -> Result<Vec<OsString>, TrustError> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut directory = Dir::openat(&self.descriptor, ".", flags, Mode::empty())
            .map_err(|error| TrustError::cannot("read", error))?;
        let mut names = Vec::new();
        for entry in directory.iter() {
            let entry = entry.map_err(|error| TrustError::cannot("read", error))?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => names.push(OsStr::from_bytes(name).to_owned()),
            }
        }
        names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        Ok(names)
    }

    /// Reads a file in the directory.
    ///
    /// # Errors
    /// Returns a refusal if it is not a regular file, not owned by the owner, writable by others,
    /// or larger than 1 MiB.
    pub(super) fn read(&self, name: &OsStr) -> Result<TrustedContent, TrustError> {
        self.read_up_to(name, MAX_SIZE)
    }

    /// Reads a file of at most `limit` bytes.
    ///
    /// # Errors
    /// Returns a refusal as [`Self::read`] does.
    pub(super) fn read_up_to(
        &self,
        name: &OsStr,
        limit: u64,
    ) -> Result<TrustedContent, TrustError> {
        // O_NONBLOCK: opening a FIFO would wait for its writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        match openat(&self.descriptor, name, flags | OFlag::O_NOFOLLOW, Mode::empty()) {
            Ok(file) => self.content(&File::from(file), limit),
            Err(Errno::ELOOP) => {
                let target = readlinkat(&self.descriptor, name)
                    .map_err(|error| TrustError::cannot("read", error))?;
                if target == "/dev/null" {
                    return Ok(TrustedContent::Mask);
                }
                let file = open_checked(
                    &self.descriptor,
                    Path::new(name),
                    (flags, Mode::empty()),
                    |path, stat| self.check_way(path, stat),
                );
                self.content(&File::from(file?), limit)
            }
            // The file is a socket.
            Err(Errno::ENXIO) => Err(TrustError::special()),
            Err(error) => Err(TrustError::open(error)),
        }
    }

    fn content(&self, file: &File, limit: u64) -> Result<TrustedContent, TrustError> {
        let metadata = file.metadata().map_err(|error| TrustError::cannot("read", error))?;
        if !metadata.is_file() {
            return Err(TrustError::special());
        }
        check(metadata.uid(), metadata.mode(), self.owner)?;
        let mut bytes = Vec::new();
        // The size may have changed since, so the bytes read are counted.
        file.take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| TrustError::cannot("read", error))?;
        match bytes.len() as u64 {
            0 => Ok(TrustedContent::Mask),
            size if size <= limit => Ok(TrustedContent::Bytes(bytes)),
            _ => Err(TrustError::too_large(limit)),
        }
    }

    /// Checks a directory or symbolic link on the way to the target of a link. In a sticky directory
    /// other users cannot rename or remove what belongs to root.
    fn check_way(&self, path: &Path, stat: &FileStat) -> Result<(), TrustError> {
        let is_own = [0, self.owner.0].contains(&stat.st_uid);
        if is_own && (is_link(stat) || stat.st_mode & STICKY != 0) {
            return Ok(());
        }
        check(stat.st_uid, stat.st_mode, if is_own { Uid(stat.st_uid) } else { self.owner })
            .map_err(|refusal| TrustError {
                message: format!(
                    "is a symbolic link by way of {}, which {}",
                    self.path.join(path).display(),
                    refusal.message
                ),
                help: Some("replace the link by a copy of the file".to_owned()),
                kind: TrustErrorKind::Other,
            })
    }
}

impl From<Errno> for TrustError {
    fn from(error: Errno) -> Self {
        Self { kind: TrustErrorKind::of(error), ..Self::cannot("followed", error) }
    }
}

/// Removes the text of lines from diagnostics about a symbolic link to a file that not all users can
/// read: more users can read the log.
pub(super) fn conceal(diagnostics: &mut [Diagnostic]) {
    let mut files: HashMap<Arc<Path>, bool> = HashMap::new();
    for Diagnostic { file, place, .. } in diagnostics {
        let Some(place) = place else { continue };
        if *files.entry(Arc::clone(file)).or_insert_with(|| is_secret_link(file)) {
            *place = TextPosition { column: 0, source: String::new(), ..place.clone() };
        }
    }
}

fn is_secret_link(path: &Path) -> bool {
    let is_link = fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink());
    is_link && fs::metadata(path).is_ok_and(|target| target.mode() & OTHERS_READ == 0)
}

/// Refuses a file that users other than `owner` could have written.
fn check(user: u32, mode: u32, owner: Uid) -> Result<(), TrustError> {
    if user != owner.0 {
        let wanted = if owner.0 == 0 { "root".to_owned() } else { owner.to_string() };
        let message = format!("is owned by user {user}, not by {wanted}");
        return Err(TrustError::with_help(
            message,
            format!("review it, then run 'chown {wanted} PATH'"),
        ));
    }
    let writers = match mode & (GROUP_WRITE | OTHERS_WRITE) {
        0 => return Ok(()),
        GROUP_WRITE => "its group",
        _ => "all users",
    };
    Err(TrustError::with_help(
        format!("is writable by {writers}"),
        "review it, then run 'chmod go-w PATH'",
    ))
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn me() -> Uid {
        Uid(nix::unistd::geteuid().as_raw())
    }

    fn read(path: &Path, owner: Uid) -> Result<TrustedContent, TrustError> {
        // The directory is owned by the test's user; only the file is checked against `owner`.
        let mut directory = TrustedDirectory::open(path, me())?.unwrap();
        directory.owner = owner;
        directory.read(OsStr::new("a.toml"))
    }

    fn directory(content: &[u8], mode: u32) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.toml");
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        directory
    }

    #[test]
    fn another_owner_is_refused() {
        let directory = directory(b"x", 0o644);
        assert_eq!(read(directory.path(), me()), Ok(TrustedContent::Bytes(b"x".to_vec())));
        let stranger = Uid(me().0 + 1);
        let refusal = read(directory.path(), stranger).unwrap_err();
        assert!(refusal.message.starts_with("is owned by user"), "{refusal:?}");
        let refusal = TrustedDirectory::open(directory.path(), stranger).unwrap_err();
        assert!(refusal.message.starts_with("is owned by user"), "{refusal:?}");
    }

    #[test]
    fn the_largest_file_is_a_mebibyte() {
        let size = usize::try_from(MAX_SIZE).unwrap();
        let right = directory(&vec![b'x'; size], 0o600);
        assert!(
            matches!(read(right.path(), me()), Ok(TrustedContent::Bytes(bytes)) if bytes.len() == size)
        );
        let large = directory(&vec![b'x'; size + 1], 0o600);
        assert_eq!(read(large.path(), me()).unwrap_err().message, "is larger than 1 MiB");
    }

    #[test]
    fn writers_are_named() {
        let group = directory(b"x", 0o620);
        assert_eq!(read(group.path(), me()).unwrap_err().message, "is writable by its group");
        let others = directory(b"x", 0o602);
        assert_eq!(read(others.path(), me()).unwrap_err().message, "is writable by all users");
    }

    #[test]
    fn every_directory_on_the_way_of_a_link_is_checked() {
        let place = tempfile::tempdir().unwrap();
        let place = place.path();
        for directory in ["rules.d", "others", "others/sub"] {
            fs::create_dir(place.join(directory)).unwrap();
        }
        fs::write(place.join("others/sub/y.toml"), "x").unwrap();
        std::os::unix::fs::symlink("../others/sub/y.toml", place.join("rules.d/a.toml")).unwrap();
        assert_eq!(read(&place.join("rules.d"), me()), Ok(TrustedContent::Bytes(b"x".to_vec())));
        // The target and its directory pass, but another user can replace the directory.
        fs::set_permissions(place.join("others"), Permissions::from_mode(0o777)).unwrap();
        let refusal = read(&place.join("rules.d"), me()).unwrap_err();
        assert!(refusal.message.ends_with("others, which is writable by all users"), "{refusal:?}");
        fs::set_permissions(place.join("others"), Permissions::from_mode(0o1777)).unwrap();
        assert!(read(&place.join("rules.d"), me()).is_ok(), "sticky");
    }

    #[test]
    fn the_log_shows_no_line_of_a_secret_file() {
        let place = tempfile::tempdir().unwrap();
        let [secret, link] = ["secret", "a.toml"].map(|name| place.path().join(name));
        fs::write(&secret, "root:$y$x").unwrap();
        std::os::unix::fs::symlink("secret", &link).unwrap();
        for (mode, is_shown) in [(0o644, true), (0o640, false)] {
            fs::set_permissions(&secret, Permissions::from_mode(mode)).unwrap();
            let file = Arc::from(link.as_path());
            let parsed = crate::config::rules_toml::parse(&file, "version = 1\n$y$x");
            let mut diagnostics = parsed.diagnostics;
            conceal(&mut diagnostics);
            let text = diagnostics[0].to_string();
            assert_eq!(text.contains("$y$x"), is_shown, "{text}");
            assert!(text.contains("a.toml:2"), "{text}");
        }
    }

    #[test]
    fn a_missing_directory_is_none() {
        assert!(TrustedDirectory::open(Path::new("/nonexistent"), me()).unwrap().is_none());
    }
}
