//! The client side of the control socket. It must report a hanging daemon instead of waiting for
//! ever.

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

use super::protocol::{
    ControlRequest, ExplainContext, MOST_PIDS, ProcessReport, READERS, RequestError, line,
};
use crate::config::escape::{Escaped, EscapedBytes};

/// The time after which a daemon that reads or sends nothing counts as hanging: it answers short
/// requests within two seconds, even if the thread that moves processes does not respond.
const PATIENCE_S: u32 = 5;
/// The maximum duration of a change while the daemon answers other requests: all rules are loaded
/// and all processes evaluated.
const LONG_PATIENCE: Duration = Duration::from_secs(120);
/// The maximum length of a line of a reply: 10,000 rules are 3 MB.
const LONGEST_ANSWER: u64 = 64 << 20;

/// A failed request although the socket exists.
#[derive(Debug)]
pub enum ClientError {
    /// The connection failed.
    Io(PathBuf, io::Error),
    /// The daemon refused the request, with its reason.
    Refused(String),
    /// The reply is not valid.
    Nonsense(PathBuf, String),
    /// The daemon closed the connection before the reply was complete.
    HungUp(PathBuf),
    /// The daemon does not respond in time.
    Silent(PathBuf),
}

/// Escapes a path for output.
fn shown(path: &Path) -> EscapedBytes<'_> {
    EscapedBytes(path.as_os_str().as_encoded_bytes())
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, error) if error.kind() == ErrorKind::PermissionDenied => write!(
                f,
                "{}: permission denied: run as root or as a member of the group {READERS}",
                shown(path)
            ),
            Self::Io(path, error) => write!(f, "{}: {error}", shown(path)),
            Self::HungUp(path) => {
                write!(f, "{}: connection closed before the reply was complete", shown(path))
            }
            Self::Silent(path) => write!(
                f,
                "{}: the daemon does not respond: it is stopped or hangs; see its log",
                shown(path)
            ),
            Self::Refused(why) => write!(f, "the daemon refused the request: {}", Escaped(why)),
            Self::Nonsense(path, why) => {
                write!(f, "{}: invalid reply from the daemon: {}", shown(path), Escaped(why))
            }
        }
    }
}

impl std::error::Error for ClientError {}

impl ClientError {
    /// Classifies an error of the connection.
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

/// A request that was sent and its incoming reply.
#[derive(Debug)]
pub struct ClientConnection {
    path: PathBuf,
    stream: BufReader<UnixStream>,
    pace: ReplyTimeout,
}

/// The timing of a reply.
#[derive(Clone, Copy, Debug)]
enum ReplyTimeout {
    /// The reply arrives immediately.
    Short,
    /// The reply arrives before this time.
    Long(Instant),
    /// The reply begins immediately and never ends.
    Endless,
}

/// Sends a request to the daemon at `path`. Returns `None` if no daemon serves it.
///
/// # Errors
/// Returns an error if the socket exists but the request cannot be sent.
pub fn ask(path: &Path, request: &ControlRequest) -> Result<Option<ClientConnection>, ClientError> {
    let sent = send(path, request).map_err(|error| ClientError::of(path, error))?;
    let Some(stream) = sent else { return Ok(None) };
    let pace = match request {
        ControlRequest::Watch => ReplyTimeout::Endless,
        ControlRequest::Reload | ControlRequest::Place { .. } | ControlRequest::Plan { .. } => {
            ReplyTimeout::Long(Instant::now() + LONG_PATIENCE)
        }
        ControlRequest::Status
        | ControlRequest::Rules
        | ControlRequest::Kept
        | ControlRequest::About { .. }
        | ControlRequest::Explain { .. }
        | ControlRequest::History { .. } => ReplyTimeout::Short,
    };
    Ok(Some(ClientConnection { path: path.to_owned(), stream: BufReader::new(stream), pace }))
}

fn send(path: &Path, request: &ControlRequest) -> io::Result<Option<UnixStream>> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::seconds(PATIENCE_S.into()))?;
    match connect(fd.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTDIR) => return Ok(None),
        other => other?,
    }
    let mut stream = UnixStream::from(fd);
    stream.set_read_timeout(Some(Duration::from_secs(PATIENCE_S.into())))?;
    match stream.write_all(&line(request)) {
        // The daemon may have sent a reason before it closed the connection.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        other => other?,
    }
    Ok(Some(stream))
}

impl ClientConnection {
    /// Returns the next line of the reply, `None` after the last.
    ///
    /// # Errors
    /// Returns an error if the daemon refused, exited or does not respond, or if the connection
    /// failed.
    pub fn next_line<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ClientError> {
        let mut line = Vec::new();
        self.read(&mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if !line.ends_with(b"\n") && u64::try_from(line.len()).is_ok_and(|len| len < LONGEST_ANSWER)
        {
            return Err(ClientError::HungUp(self.path.clone()));
        }
        if matches!(self.pace, ReplyTimeout::Endless) {
            // The request was accepted; the next line may take any time.
            let endless = self.stream.get_ref().set_read_timeout(None);
            endless.map_err(|error| ClientError::of(&self.path, error))?;
        }
        if let Ok(RequestError { error }) = serde_json::from_slice(&line) {
            return Err(ClientError::Refused(error));
        }
        serde_json::from_slice(&line)
            .map(Some)
            .map_err(|error| ClientError::Nonsense(self.path.clone(), error.to_string()))
    }

    /// Reads a line. Waits for a long reply as long as the daemon answers status requests.
    fn read(&mut self, line: &mut Vec<u8>) -> Result<(), ClientError> {
        loop {
            let read = self.stream.by_ref().take(LONGEST_ANSWER).read_until(b'\n', line);
            let error = match read {
                Ok(_) => return Ok(()),
                Err(error) => ClientError::of(&self.path, error),
            };
            let (ClientError::Silent(path), ReplyTimeout::Long(end)) = (&error, self.pace) else {
                return Err(error);
            };
            if Instant::now() >= end {
                return Err(error);
            }
            let asked = ask(path, &ControlRequest::Status)?;
            let asked = asked.ok_or_else(|| ClientError::HungUp(path.clone()))?;
            match asked.only::<IgnoredAny>() {
                // Too many clients: the daemon responds.
                Ok(_) | Err(ClientError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Returns the only line of the reply.
    ///
    /// # Errors
    /// As [`Self::next_line`], and if there is no line.
    pub fn only<T: DeserializeOwned>(mut self) -> Result<T, ClientError> {
        self.line()
    }

    /// Returns the next line, which must be there.
    fn line<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        self.next_line()?.ok_or_else(|| ClientError::HungUp(self.path.clone()))
    }

    /// Appends the remaining lines, of which there must be at least `count`.
    fn append_reports(
        &mut self,
        count: usize,
        reports: &mut Vec<ProcessReport>,
    ) -> Result<(), ClientError> {
        let before = reports.len();
        while let Some(report) = self.next_line()? {
            reports.push(report);
        }
        let is_complete = reports.len() - before >= count;
        is_complete.then_some(()).ok_or_else(|| ClientError::HungUp(self.path.clone()))
    }
}

/// Returns the history that the daemon at `socket` keeps of these processes, in their order.
/// Returns `None` if no daemon serves it.
///
/// # Errors
/// As [`ask`] and [`ClientConnection::next_line`].
pub fn about(socket: &Path, pids: &[u32]) -> Result<Option<Vec<ProcessReport>>, ClientError> {
    each(socket, pids, |pids| ControlRequest::About { pids })
}

/// Returns what the daemon at `socket` knows about its rules and these processes, in their order;
/// without reports if it is stalled. `None` if no daemon serves it.
///
/// # Errors
/// As [`about`].
pub fn explain(
    socket: &Path,
    pids: &[u32],
) -> Result<Option<(ExplainContext, Vec<ProcessReport>)>, ClientError> {
    let mut answer: Option<(ExplainContext, Vec<ProcessReport>)> = None;
    for some in pids.chunks(MOST_PIDS) {
        let request = ControlRequest::Explain { pids: some.to_vec() };
        let Some(mut conversation) = ask(socket, &request)? else { return Ok(None) };
        let context = conversation.line()?;
        let (context, reports) = answer.get_or_insert((context, Vec::new()));
        conversation.append_reports(if context.stalled { 0 } else { some.len() }, reports)?;
    }
    Ok(answer)
}

/// Requests that the daemon at `socket` re-evaluates these processes, and returns the results.
/// Returns `None` if no daemon serves it.
///
/// # Errors
/// As [`about`].
pub fn place(socket: &Path, pids: &[u32]) -> Result<Option<Vec<ProcessReport>>, ClientError> {
    each(socket, pids, |pids| ControlRequest::Place { pids })
}

fn each(
    socket: &Path,
    pids: &[u32],
    request: fn(Vec<u32>) -> ControlRequest,
) -> Result<Option<Vec<ProcessReport>>, ClientError> {
    let mut answers = Vec::new();
    for some in pids.chunks(MOST_PIDS) {
        let Some(mut conversation) = ask(socket, &request(some.to_vec()))? else {
            return Ok(None);
        };
        conversation.append_reports(some.len(), &mut answers)?;
    }
    Ok(Some(answers))
}
