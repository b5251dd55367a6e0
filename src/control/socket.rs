//! A listening Unix socket at a path: complete before it appears, never in place of one that somebody
//! serves, removed at the end.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};

use crate::event::{Gid, Uid};

const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);

/// Where a socket is, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// Its owner, if not root.
    pub owner: Option<Uid>,
    /// Its group, whose members may connect; if not root's.
    pub group: Option<Gid>,
    /// Its permissions.
    pub mode: Mode,
}

impl Place {
    /// For root and the group alone: mode 0660.
    pub fn shared(path: PathBuf, owner: Option<Uid>, group: Option<Gid>) -> Self {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IWGRP;
        Self { path, owner, group, mode }
    }
}

/// A socket that we made. The file goes with it.
#[derive(Debug)]
pub struct Listener {
    /// To accept from; does not block.
    pub listener: UnixListener,
    place: Place,
    /// Device and inode of the file that we made.
    identity: (u64, u64),
}

/// Speaks with whoever serves a socket, which is what some servers need to survive it.
pub type Greeting = fn(UnixStream);

impl Listener {
    /// Makes the socket. A file that a former daemon left is replaced.
    ///
    /// # Errors
    /// `AddrInUse` when somebody serves the socket (then `taken` is the message), or the path is that of
    /// another kind of file; else as socket(2), bind(2), chown(2), rename(2), with the path.
    pub fn open(place: Place, taken: &str, greeting: Greeting) -> io::Result<Self> {
        let named = |error: io::Error| named(&place.path, &error);
        let probe = || probe(&place.path, taken, greeting);
        probe().map_err(named)?;
        let listener = make(&place, probe).map_err(named)?;
        let file = fs::symlink_metadata(&place.path).map_err(named)?;
        Ok(Self { listener, identity: (file.dev(), file.ino()), place })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.place.path
    }
}

impl Drop for Listener {
    /// Removes the file, unless another was put into its place.
    fn drop(&mut self) {
        let file = fs::symlink_metadata(&self.place.path);
        if file.is_ok_and(|file| (file.dev(), file.ino()) == self.identity) {
            if let Err(error) = fs::remove_file(&self.place.path) {
                ::log::warn!("cannot remove {}: {error}", self.place.path.display());
            }
        }
    }
}

/// Makes sure that nobody serves the path, for who wants to know before it is time for [`Listener::open`].
///
/// # Errors
/// As there.
pub(super) fn ensure_free(path: &Path, taken: &str, greeting: Greeting) -> io::Result<()> {
    probe(path, taken, greeting).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn probe(path: &Path, taken: &str, greeting: Greeting) -> io::Result<()> {
    let in_use = |why: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, why.to_owned()));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            return in_use("there is a file that is no socket");
        }
        Ok(_) => {}
    }
    let fd = socket(AddressFamily::Unix, SockType::Stream, FLAGS, None)?;
    match connect(fd.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => return Ok(()),
        // Too many clients wait for it.
        Err(Errno::EAGAIN) => return in_use(taken),
        other => other?,
    }
    greeting(UnixStream::from(fd));
    in_use(taken)
}

/// The listening socket, complete before it appears at its path.
fn make(place: &Place, probe: impl Fn() -> io::Result<()>) -> io::Result<UnixListener> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, FLAGS, None)?;
    // The file gets the mode of the descriptor: never, for no moment, is it open to everybody.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let draft = draft(&place.path);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    bind(fd.as_raw_fd(), &UnixAddr::new(&draft)?)?;
    let made = finish(place, &draft, &fd, probe);
    if made.is_err() {
        // The first error is the one to report.
        let _removed = fs::remove_file(&draft);
    }
    made.map(|()| UnixListener::from(fd))
}

fn finish(
    place: &Place,
    draft: &Path,
    fd: &impl AsFd,
    probe: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    let (owner, group) = (place.owner.map(|uid| uid.0), place.group.map(|gid| gid.0));
    lchown(draft, owner, group)?;
    fchmodat(AT_FDCWD, draft, place.mode, FchmodatFlags::FollowSymlink)?;
    listen(fd, Backlog::MAXCONN)?;
    // Of two daemons that start at once, one finds the path taken by a socket that is served already.
    if fs::hard_link(draft, &place.path).is_ok() {
        return fs::remove_file(draft);
    }
    probe()?;
    fs::rename(draft, &place.path)
}

/// A name beside the path, which no other daemon uses.
fn draft(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    PathBuf::from(name)
}
