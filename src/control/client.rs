//! The client's side of the control socket.

use std::fmt;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::protocol::{About, MOST_PIDS, READERS, Refused, Request};
use crate::config::escape::{Escaped, EscapedBytes};

/// A daemon that takes or says nothing for this long is not well: it answers what is short within two
/// seconds, even when the thread that moves processes does not.
const PATIENCE_S: u32 = 5;
/// How long a change may take while the daemon answers others: all rules are read, all processes looked
/// at.
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
    /// The daemon hung up before all was said.
    HungUp(PathBuf),
    /// The daemon says nothing.
    Silent(PathBuf),
}

/// A path on a line of ours.
fn shown(path: &Path) -> EscapedBytes<'_> {
    EscapedBytes(path.as_os_str().as_encoded_bytes())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) if error.kind() == ErrorKind::PermissionDenied => write!(
                f,
                "{}: permission denied: root may ask the daemon, and members of the group {READERS}",
                shown(path)
            ),
            Self::Io(path, error) => write!(f, "{}: {error}", shown(path)),
            Self::HungUp(path) => {
                write!(f, "{}: the daemon ended, or hung up, while it was asked", shown(path))
            }
            Self::Silent(path) => write!(
                f,
                "{}: the daemon does not answer: it is stopped, or hangs; its log may say why",
                shown(path)
            ),
            Self::Refused(why) => write!(f, "the daemon refused: {}", Escaped(why)),
            Self::Nonsense(path, why) => {
                write!(f, "{}: no answer of a daemon: {}", shown(path), Escaped(why))
            }
        }
    }
}

impl std::error::Error for Error {}

impl Error {
    /// What an error of the connection means.
    fn of(path: &Path, error: io::Error) -> Self {
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
            Self::Silent(path.to_owned())
        } else if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) {
            Self::HungUp(path.to_owned())
        } else {
            Self::Io(path.to_owned(), error)
        }
    }
}

/// A request on its way.
#[derive(Debug)]
pub struct Conversation {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    pace: Pace,
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug)]
enum Pace {
    /// It comes at once.
    Short,
    /// It comes until then.
    Long(Instant),
    /// It begins at once and never ends.
    Endless,
}

/// Asks the daemon at `path`. `None` when no daemon is there.
///
/// # Errors
/// There is a socket, but it cannot be asked.
pub fn ask(path: &Path, request: &Request) -> Result<Option<Conversation>, Error> {
    let failed = |error: io::Error| Error::of(path, error);
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|errno| failed(errno.into()))?;
    let patience = TimeVal::seconds(PATIENCE_S.into());
    setsockopt(&fd, sockopt::SendTimeout, &patience).map_err(|errno| failed(errno.into()))?;
    let address = UnixAddr::new(path).map_err(|errno| failed(errno.into()))?;
    match connect(fd.as_raw_fd(), &address) {
        Err(Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTDIR) => return Ok(None),
        other => other.map_err(|errno| failed(errno.into()))?,
    }
    let mut stream = UnixStream::from(fd);
    stream.set_read_timeout(Some(Duration::from_secs(PATIENCE_S.into()))).map_err(failed)?;
    let mut line = serde_json::to_vec(request).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // It may have said why before it closed.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other.map_err(failed)?,
    }
    let pace = match request {
        Request::Watch => Pace::Endless,
        Request::Reload | Request::Place { .. } => Pace::Long(Instant::now() + LONG_PATIENCE),
        Request::Status | Request::Rules | Request::Kept | Request::About { .. } => Pace::Short,
    };
    Ok(Some(Conversation { path: path.to_owned(), stream: BufReader::new(stream), pace }))
}

impl Conversation {
    /// The next line of the answer. `None` after the last.
    ///
    /// # Errors
    /// The daemon refused, ended or is silent, or the connection failed.
    pub fn next_line<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let mut line = Vec::new();
        self.read(&mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if !line.ends_with(b"\n") && u64::try_from(line.len()).is_ok_and(|len| len < LONGEST_ANSWER)
        {
            return Err(Error::HungUp(self.path.clone()));
        }
        if matches!(self.pace, Pace::Endless) {
            // It listens. What comes next may take as long as it likes.
            let endless = self.stream.get_ref().set_read_timeout(None);
            endless.map_err(|error| Error::of(&self.path, error))?;
        }
        if let Ok(Refused { error }) = serde_json::from_slice(&line) {
            return Err(Error::Refused(error));
        }
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|error| Error::Nonsense(self.path.clone(), error.to_string()))
    }

    /// Reads a line. What takes long is waited for as long as the daemon answers others.
    fn read(&mut self, line: &mut Vec<u8>) -> Result<(), Error> {
        loop {
            let read = self.stream.by_ref().take(LONGEST_ANSWER).read_until(b'\n', line);
            let error = match read {
                Ok(_) => return Ok(()),
                Err(error) => Error::of(&self.path, error),
            };
            let (Error::Silent(path), Pace::Long(end)) = (&error, self.pace) else {
                return Err(error);
            };
            if Instant::now() >= end {
                return Err(error);
            }
            let asked = ask(path, &Request::Status)?;
            asked.ok_or_else(|| Error::HungUp(path.clone()))?.only::<IgnoredAny>()?;
        }
    }

    /// The only line of the answer.
    ///
    /// # Errors
    /// As [`Self::next_line`], or there is none.
    pub fn only<T: DeserializeOwned>(mut self) -> Result<T, Error> {
        let hung_up = Error::HungUp(self.path.clone());
        self.next_line()?.ok_or(hung_up)
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
        let before = answers.len();
        while let Some(about) = conversation.next_line()? {
            answers.push(about);
        }
        if answers.len() - before < some.len() {
            return Err(Error::HungUp(socket.to_owned()));
        }
    }
    Ok(Some(answers))
}
