//! The client's side of the control socket.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::de::DeserializeOwned;

use super::protocol::{About, MOST_PIDS, READERS, Refused, Request};
use crate::config::escape::Escaped;

/// A daemon that does not even take the connection, or the request, for this long is not well.
const PATIENCE_S: i64 = 10;
/// How long a change may take: all rules are read, all processes looked at.
const LONG_PATIENCE: Duration = Duration::from_secs(120);
/// The longest line of an answer: 10,000 rules are 3 MB.
const LONGEST_ANSWER: u64 = 64 << 20;

/// Why there is no answer although there is a socket.
#[derive(Debug)]
pub enum Error {
    /// The connection failed.
    Io(PathBuf, io::Error),
    /// The daemon refused, in its words.
    Refused(String),
    /// What came is no answer.
    Nonsense(PathBuf, String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) if error.kind() == ErrorKind::PermissionDenied => write!(
                f,
                "{}: permission denied: root may ask the daemon, and members of the group {READERS}",
                path.display()
            ),
            Self::Io(path, error) if error.kind() == ErrorKind::WouldBlock => {
                write!(f, "{}: the daemon does not answer", path.display())
            }
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Refused(why) => write!(f, "the daemon refused: {}", Escaped(why)),
            Self::Nonsense(path, why) => {
                write!(f, "{}: no answer of a daemon: {}", path.display(), Escaped(why))
            }
        }
    }
}

impl std::error::Error for Error {}

/// A request on its way.
#[derive(Debug)]
pub struct Conversation {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

/// Asks the daemon at `path`. `None` when no daemon is there.
///
/// # Errors
/// There is a socket, but it cannot be asked.
pub fn ask(path: &Path, request: &Request) -> Result<Option<Conversation>, Error> {
    let failed = |error: io::Error| Error::Io(path.to_owned(), error);
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| failed(errno.into()))?;
    let patience = TimeVal::seconds(PATIENCE_S);
    setsockopt(&fd, sockopt::SendTimeout, &patience).map_err(|errno| failed(errno.into()))?;
    let address = UnixAddr::new(path).map_err(|errno| failed(errno.into()))?;
    match connect(fd.as_raw_fd(), &address) {
        Err(Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTDIR) => return Ok(None),
        other => other.map_err(|errno| failed(errno.into()))?,
    }
    let mut stream = UnixStream::from(fd);
    let patience = match request {
        Request::Watch => None,
        Request::Reload | Request::Place { .. } => Some(LONG_PATIENCE),
        Request::Status | Request::Rules | Request::Kept | Request::About { .. } => {
            Some(Duration::from_secs(PATIENCE_S.unsigned_abs()))
        }
    };
    stream.set_read_timeout(patience).map_err(failed)?;
    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // It may have said why before it closed.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other.map_err(failed)?,
    }
    Ok(Some(Conversation { path: path.to_owned(), stream: BufReader::new(stream) }))
}

impl Conversation {
    /// The next line of the answer. `None` after the last.
    ///
    /// # Errors
    /// The daemon refused, or the connection failed.
    pub fn next_line<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let mut line = Vec::new();
        let read = self.stream.by_ref().take(LONGEST_ANSWER).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(Error::Io(self.path.clone(), error)),
        }
        if let Ok(Refused { error }) = serde_json::from_slice(&line) {
            return Err(Error::Refused(error));
        }
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|error| Error::Nonsense(self.path.clone(), error.to_string()))
    }

    /// The only line of the answer.
    ///
    /// # Errors
    /// As [`Self::next_line`], or there is none.
    pub fn only<T: DeserializeOwned>(mut self) -> Result<T, Error> {
        let nothing = || Error::Nonsense(self.path.clone(), "it hung up".to_owned());
        let nothing = nothing();
        self.next_line()?.ok_or(nothing)
    }
}

/// What the daemon at `socket` remembers of these processes, in their order. `None` when no daemon is
/// there.
///
/// # Errors
/// As [`ask`] and [`Conversation::next_line`].
pub fn about(socket: &Path, pids: &[u32]) -> Result<Option<Vec<About>>, Error> {
    each(socket, pids, |pids| Request::About { pids })
}

/// Has the daemon at `socket` look at these processes, and tells what came of it. `None` when no daemon
/// is there.
///
/// # Errors
/// As [`about`].
pub fn place(socket: &Path, pids: &[u32]) -> Result<Option<Vec<About>>, Error> {
    each(socket, pids, |pids| Request::Place { pids })
}

fn each(
    socket: &Path,
    pids: &[u32],
    request: fn(Vec<u32>) -> Request,
) -> Result<Option<Vec<About>>, Error> {
    let mut answers = Vec::new();
    for some in pids.chunks(MOST_PIDS) {
        let Some(mut conversation) = ask(socket, &request(some.to_vec()))? else {
            return Ok(None);
        };
        while let Some(about) = conversation.next_line()? {
            answers.push(about);
        }
    }
    Ok(Some(answers))
}
