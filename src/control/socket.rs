//! A listening Unix socket at a path. It must be complete before it appears there, and must never
//! replace one that is being served.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, lchown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen,
    socket, sockopt,
};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};

use crate::config::escape::EscapedBytes;
use crate::event::{Gid, Uid};

const FLAGS: SockFlag = SockFlag::SOCK_CLOEXEC.union(SockFlag::SOCK_NONBLOCK);

/// The path, owner and mode of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAddress {
    /// The path of the socket file.
    pub path: PathBuf,
    /// The owner, if not root.
    pub owner: Option<Uid>,
    /// The group with members that may connect, if not root's.
    pub group: Option<Gid>,
    /// The permission bits of the file.
    pub mode: Mode,
}

impl SocketAddress {
    /// Creates a place with mode 0660: access for the owner and the group only.
    pub fn shared(path: PathBuf, owner: Option<Uid>, group: Option<Gid>) -> Self {
        let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IWGRP;
        Self { path, owner, group, mode }
    }
}

/// A socket created by this process. Dropping it removes the file.
#[derive(Debug)]
pub struct SocketListener {
    /// The listening socket, in non-blocking mode.
    pub listener: UnixListener,
    place: SocketAddress,
    /// The device and inode of the created file.
    identity: (u64, u64),
}

/// A function that talks to the daemon serving a socket, because some servers do not survive a
/// silent client.
pub type Greeting = fn(UnixStream);

impl SocketListener {
    /// Creates the socket and replaces a file left by a former daemon.
    ///
    /// # Errors
    /// Returns `AddrInUse` if another daemon serves the socket (with `taken` as the message) or if
    /// the path is that of another kind of file; otherwise the error of socket(2), bind(2),
    /// chown(2) or rename(2), with the path.
    pub fn open(place: SocketAddress, taken: &str, greeting: Greeting) -> io::Result<Self> {
        let listener = make(&place, || probe(&place.path, taken, greeting))
            .map_err(|error| named(&place.path, &error))?;
        let file = fs::symlink_metadata(&place.path).map_err(|error| named(&place.path, &error))?;
        Ok(Self { listener, identity: (file.dev(), file.ino()), place })
    }

    /// Returns the path of the socket file.
    pub fn path(&self) -> &Path {
        &self.place.path
    }
}

impl Drop for SocketListener {
    /// Removes the file, unless another one has replaced it.
    fn drop(&mut self) {
        let file = fs::symlink_metadata(&self.place.path);
        if file.is_ok_and(|file| (file.dev(), file.ino()) == self.identity) {
            if let Err(error) = fs::remove_file(&self.place.path) {
                ::log::warn!("cannot remove {}: {error}", self.place.path.display());
            }
        }
    }
}

/// Checks that no daemon serves the path, before [`SocketListener::open`] is called.
///
/// # Errors
/// As [`SocketListener::open`].
pub(super) fn ensure_free(path: &Path, taken: &str, greeting: Greeting) -> io::Result<()> {
    probe(path, taken, greeting).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn probe(path: &Path, taken: &str, greeting: Greeting) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(file) if !file.file_type().is_socket() => {
            return in_use("the file exists and is not a socket");
        }
        Ok(_) => {}
    }
    let fd = socket(AddressFamily::Unix, SockType::Stream, FLAGS, None)?;
    match connect(fd.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => return Ok(()),
        // The backlog of the server is full.
        Err(Errno::EAGAIN) => return in_use(taken),
        other => other?,
    }
    let server = server_of(&fd);
    greeting(UnixStream::from(fd));
    in_use(&format!("{taken}{server}"))
}

/// Returns ` (served by cgrulesengd, PID 712; ...)` for a connected socket. Empty if the server is in
/// another PID namespace.
fn server_of(fd: &impl AsFd) -> String {
    let credentials = getsockopt(fd, sockopt::PeerCredentials);
    let Some(pid) = credentials.ok().map(|server| server.pid()).filter(|&pid| pid > 0) else {
        return String::new();
    };
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = EscapedBytes(name.trim_ascii_end());
    format!(" (served by {name}, PID {pid}; 'systemctl status {pid}' shows its service)")
}

fn in_use(why: &str) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::AddrInUse, why.to_owned()))
}

/// Creates the listening socket under a temporary name and moves it to its path when complete.
fn make(place: &SocketAddress, probe: impl Fn() -> io::Result<()>) -> io::Result<UnixListener> {
    probe()?;
    let fd = socket(AddressFamily::Unix, SockType::Stream, FLAGS, None)?;
    // The file inherits the mode of the descriptor, so it is never accessible to all users.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let draft = draft(&place.path);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    bind(fd.as_raw_fd(), &UnixAddr::new(&draft)?)?;
    let made = finish(place, &draft, &fd, probe);
    if made.is_err() {
        // Only the first error is reported.
        let _removed = fs::remove_file(&draft);
    }
    made.map(|()| UnixListener::from(fd))
}

fn finish(
    place: &SocketAddress,
    draft: &Path,
    fd: &impl AsFd,
    probe: impl Fn() -> io::Result<()>,
) -> io::Result<()> {
    let owner = place.owner.map(|uid| uid.0);
    let group = place.group.map(|gid| gid.0);
    lchown(draft, owner, group)?;
    fchmodat(AT_FDCWD, draft, place.mode, FchmodatFlags::FollowSymlink)?;
    listen(fd, Backlog::MAXCONN)?;
    // If two daemons start at once, the second finds the path taken by a socket that is already
    // served.
    if fs::hard_link(draft, &place.path).is_ok() {
        return fs::remove_file(draft);
    }
    probe()?;
    fs::rename(draft, &place.path)
}

/// Returns a name next to the path that no other daemon uses.
fn draft(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    PathBuf::from(name)
}
