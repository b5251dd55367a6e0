//! The connection of one client of the control socket. Nothing in it may block.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{getsockopt, sockopt};
use serde::Serialize;

use crate::control::protocol::{
    ControlRequest, READERS, RequestError, RequestReader, WatchMessage,
};
use crate::event::{Gid, Nanos, Uid};
use crate::sys;

/// The maximum number of bytes queued for a watching client; further lines are dropped and counted.
const BACKLOG: usize = 256 * 1024;
/// The time in which a client must send its request, and read each part of a reply.
pub(super) const PATIENCE_NS: u64 = 5_000_000_000;
/// The time limit of a command. The client waits a little longer.
const ERRAND_NS: u64 = 100_000_000_000;
/// The time limit of a command that can be answered without the hot thread.
const SHORT_ERRAND_NS: u64 = 2_000_000_000;

/// The credentials of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    uid: Uid,
    is_reader: bool,
}

impl Peer {
    fn of(stream: &UnixStream, readers: Option<Gid>) -> io::Result<Self> {
        let credentials = getsockopt(stream, sockopt::PeerCredentials)?;
        let uid = Uid(credentials.uid());
        let is_listed = |gid: Gid| {
            // If there are too many groups to read, none counts.
            credentials.gid() == gid.0
                || sys::peer_groups(stream.as_fd()).unwrap_or_default().contains(&gid.0)
        };
        Ok(Self { uid, is_reader: uid == Uid(0) || readers.is_some_and(is_listed) })
    }

    /// Returns the reason for which the request is not permitted, if it is not.
    pub(super) fn refusal(self, request: &ControlRequest) -> Option<String> {
        if request.is_write() && self.uid != Uid(0) {
            return Some("only root may request changes".to_owned());
        }
        (!self.is_reader).then(|| format!("only root and members of group {READERS} have access"))
    }
}

/// The state of a connection.
#[derive(Debug)]
pub(super) enum ConnectionState {
    /// The request is being received.
    Asking(RequestReader),
    /// A command for the hot thread is pending.
    Waiting(PendingReply),
    /// The client receives decisions. `lost` lines have not been reported to it yet.
    Watching { lost: u64 },
    /// The connection is closed once the reply is sent.
    Leaving,
}

/// The kind of reply to send when the command is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PendingReply {
    Status,
    About,
    Place,
    /// A reload, with the generation of the rules active at the time of the request.
    Reload(u64),
}

impl PendingReply {
    const fn patience(self) -> u64 {
        match self {
            Self::Status | Self::About => SHORT_ERRAND_NS,
            Self::Place | Self::Reload(_) => ERRAND_NS,
        }
    }
}

/// A connected client with its output buffer.
#[derive(Debug)]
pub(super) struct ClientStream {
    stream: UnixStream,
    pub(super) peer: Peer,
    pub(super) state: ConnectionState,
    out: VecDeque<u8>,
    /// The time of the last progress.
    since: Nanos,
}

impl ClientStream {
    pub(super) fn new(stream: UnixStream, readers: Option<Gid>, now: Nanos) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let peer = Peer::of(&stream, readers)?;
        let state = ConnectionState::Asking(RequestReader::default());
        Ok(Self { stream, peer, state, out: VecDeque::new(), since: now })
    }

    /// Returns the time at which the client is disconnected without further progress, if any.
    pub(super) fn due(&self) -> Option<Nanos> {
        match self.state {
            ConnectionState::Asking(_) | ConnectionState::Leaving => {
                Some(self.since.plus(PATIENCE_NS))
            }
            ConnectionState::Waiting(command) => Some(self.since.plus(command.patience())),
            ConnectionState::Watching { .. } => None,
        }
    }

    /// Checks whether the client has sent no complete request for this long.
    pub(super) fn is_silent(&self, now: Nanos, for_ns: u64) -> bool {
        matches!(self.state, ConnectionState::Asking(_)) && now.since(self.since) >= for_ns
    }

    /// Returns the events to wait for, besides a hangup.
    pub(super) fn interest(&self) -> EpollFlags {
        let asking = match self.state {
            ConnectionState::Asking(_) => EpollFlags::EPOLLIN,
            ConnectionState::Waiting(_)
            | ConnectionState::Watching { .. }
            | ConnectionState::Leaving => EpollFlags::empty(),
        };
        let sending = if self.out.is_empty() { EpollFlags::empty() } else { EpollFlags::EPOLLOUT };
        asking | sending
    }

    /// Reads the available part of the request. Returns `None` while it is incomplete.
    ///
    /// # Errors
    /// Returns an error if the client has disconnected.
    pub(super) fn hear(&mut self) -> io::Result<Option<Result<ControlRequest, String>>> {
        let ConnectionState::Asking(incoming) = &mut self.state else { return Ok(None) };
        let mut part = [0; 4096];
        loop {
            match self.stream.read(&mut part) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    let request = incoming.push(&part[..count]);
                    if request.is_some() {
                        return Ok(request);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Changes the state and restarts its time limit.
    pub(super) fn turn_to(&mut self, state: ConnectionState, now: Nanos) {
        (self.state, self.since) = (state, now);
    }

    /// Appends a line to the reply.
    pub(super) fn say(&mut self, answer: &impl Serialize) {
        // Serialization of these types cannot fail: no map has keys other than strings.
        if let Ok(line) = serde_json::to_vec(answer) {
            self.out.extend(line);
            self.out.push_back(b'\n');
        }
    }

    /// Sends a single line as the reply and closes the connection.
    pub(super) fn tell(&mut self, answer: &impl Serialize, now: Nanos) {
        self.say(answer);
        self.turn_to(ConnectionState::Leaving, now);
    }

    /// Sends an error as the reply and closes the connection.
    pub(super) fn refuse(&mut self, why: impl Into<String>, now: Nanos) {
        self.tell(&RequestError { error: why.into() }, now);
    }

    /// Appends a line about a decision, or counts it as lost.
    pub(super) fn report(&mut self, line: &[u8]) {
        self.confess();
        let room = BACKLOG.saturating_sub(self.out.len());
        let ConnectionState::Watching { lost } = &mut self.state else { return };
        if *lost > 0 || room < line.len() {
            *lost += 1;
        } else {
            self.out.extend(line);
        }
    }

    /// Counts lines that all watching clients have lost.
    pub(super) fn miss(&mut self, count: u64) {
        if let ConnectionState::Watching { lost } = &mut self.state {
            *lost += count;
        }
    }

    /// Reports the number of lost lines, once at most half of the buffer is in use.
    pub(super) fn confess(&mut self) {
        let ConnectionState::Watching { lost: lost @ 1.. } = self.state else { return };
        if self.out.len() <= BACKLOG / 2 {
            self.state = ConnectionState::Watching { lost: 0 };
            self.say(&WatchMessage::Lost { lost });
        }
    }

    /// Sends as much as the client accepts. Returns `true` if the connection is to be closed.
    ///
    /// # Errors
    /// Returns an error if the client has disconnected.
    pub(super) fn send(&mut self, now: Nanos) -> io::Result<bool> {
        while !self.out.is_empty() {
            let (part, _) = self.out.as_slices();
            match self.stream.write(part) {
                Ok(count) => {
                    self.out.drain(..count);
                    self.since = now;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(matches!(self.state, ConnectionState::Leaving))
    }
}

impl AsFd for ClientStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watching() -> (ClientStream, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut connection = ClientStream::new(ours, None, Nanos(0)).unwrap();
        connection.turn_to(ConnectionState::Watching { lost: 0 }, Nanos(0));
        (connection, theirs)
    }

    fn lost(connection: &ClientStream) -> u64 {
        match connection.state {
            ConnectionState::Watching { lost } => lost,
            ConnectionState::Asking(_) | ConnectionState::Waiting(_) | ConnectionState::Leaving => {
                panic!()
            }
        }
    }

    #[test]
    fn who_does_not_read_loses_lines_and_is_told_how_many() {
        let (mut connection, mut theirs) = watching();
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        let send = |connection: &mut ClientStream| connection.send(Nanos(0)).unwrap();
        for _ in 0..2000 {
            connection.report(&line);
            send(&mut connection);
        }
        let missing = lost(&connection);
        assert!(missing > 1000 && connection.out.len() <= BACKLOG, "{missing}");
        let mut text = Vec::new();
        theirs.set_nonblocking(true).unwrap();
        loop {
            let _would_block = theirs.read_to_end(&mut text);
            connection.confess();
            send(&mut connection);
            if lost(&connection) == 0 && connection.out.is_empty() {
                break;
            }
        }
        let _would_block = theirs.read_to_end(&mut text);
        let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
        let told = format!("{{\"lost\":{missing}}}");
        assert!(lines.contains(&told.as_bytes()));
        let whole = lines.iter().filter(|line| line.len() == 1023).count();
        assert_eq!(whole as u64 + missing, 2000);
    }

    #[test]
    fn writes_are_for_root_and_reads_for_readers() {
        let [root, reader, other] = [(0, true), (7, true), (7, false)]
            .map(|(uid, is_reader)| Peer { uid: Uid(uid), is_reader });
        let place = ControlRequest::Place { pids: vec![1] };
        assert!(root.refusal(&place).is_none() && root.refusal(&ControlRequest::Status).is_none());
        assert!(
            reader.refusal(&place).is_some() && reader.refusal(&ControlRequest::Watch).is_none()
        );
        assert!(
            other.refusal(&ControlRequest::Reload).is_some()
                && other.refusal(&ControlRequest::Rules).is_some()
        );
    }
}
