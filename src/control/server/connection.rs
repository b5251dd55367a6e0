//! One client of the control socket. Nothing here blocks.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{getsockopt, sockopt};
use serde::Serialize;

use crate::control::protocol::{Incoming, READERS, Refused, Request, Watched};
use crate::event::{Gid, Nanos, Uid};
use crate::sys;

/// Bytes that wait for a client that watches; beyond, lines are left out and counted.
const BACKLOG: usize = 256 * 1024;
/// How long a client may take for its request, and for each part of an answer.
pub(super) const PATIENCE_NS: u64 = 5_000_000_000;
/// How long an errand may take. The client waits a little longer.
const ERRAND_NS: u64 = 100_000_000_000;
/// The same for what is answered without the hot thread when it must.
const SHORT_ERRAND_NS: u64 = 2_000_000_000;

/// Who is at the other end.
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
            // With too many groups to read, none counts.
            credentials.gid() == gid.0
                || sys::peer_groups(stream.as_fd()).unwrap_or_default().contains(&gid.0)
        };
        Ok(Self { uid, is_reader: uid == Uid(0) || readers.is_some_and(is_listed) })
    }

    /// Why it may not ask for this, if it may not.
    pub(super) fn refusal(self, request: &Request) -> Option<String> {
        if request.is_write() && self.uid != Uid(0) {
            return Some("only root may ask for changes".to_owned());
        }
        (!self.is_reader).then(|| format!("only root and members of the group {READERS} may ask"))
    }
}

/// What a client waits for.
#[derive(Debug)]
pub(super) enum State {
    /// Its request is coming in.
    Asking(Incoming),
    /// The hot thread does its errand.
    Waiting(Errand),
    /// It hears of decisions, and is to be told that it lost this many.
    Watching { lost: u64 },
    /// It is sent away when it has taken its answer.
    Leaving,
}

/// What the answer is made of, once the errand is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Errand {
    Status,
    About,
    Place,
    /// The rules in force when it was asked for, by their generation.
    Reload(u64),
}

impl Errand {
    const fn patience(self) -> u64 {
        match self {
            Self::Status | Self::About => SHORT_ERRAND_NS,
            Self::Place | Self::Reload(_) => ERRAND_NS,
        }
    }
}

/// A client.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    pub(super) peer: Peer,
    pub(super) state: State,
    out: VecDeque<u8>,
    /// When it last did what it was to do.
    since: Nanos,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, readers: Option<Gid>, now: Nanos) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let peer = Peer::of(&stream, readers)?;
        let state = State::Asking(Incoming::default());
        Ok(Self { stream, peer, state, out: VecDeque::new(), since: now })
    }

    /// When it must have done the next thing, if it must.
    pub(super) fn due(&self) -> Option<Nanos> {
        match self.state {
            State::Asking(_) | State::Leaving => Some(self.since.plus(PATIENCE_NS)),
            State::Waiting(errand) => Some(self.since.plus(errand.patience())),
            State::Watching { .. } => None,
        }
    }

    /// Whether it has not said anything for this long.
    pub(super) fn is_silent(&self, now: Nanos, for_ns: u64) -> bool {
        matches!(self.state, State::Asking(_)) && now.since(self.since) >= for_ns
    }

    /// What it is to be woken for, besides hanging up.
    pub(super) fn interest(&self) -> EpollFlags {
        let asking = match self.state {
            State::Asking(_) => EpollFlags::EPOLLIN,
            State::Waiting(_) | State::Watching { .. } | State::Leaving => EpollFlags::empty(),
        };
        let sending = if self.out.is_empty() { EpollFlags::empty() } else { EpollFlags::EPOLLOUT };
        asking | sending
    }

    /// Reads what has come of its request. `None` while it is not whole.
    ///
    /// # Errors
    /// It has hung up.
    pub(super) fn hear(&mut self) -> io::Result<Option<Result<Request, String>>> {
        let State::Asking(incoming) = &mut self.state else { return Ok(None) };
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

    /// Puts what comes next into another state.
    pub(super) fn turn_to(&mut self, state: State, now: Nanos) {
        (self.state, self.since) = (state, now);
    }

    /// Adds a line to its answer.
    pub(super) fn say(&mut self, answer: &impl Serialize) {
        // Our own types are written without fail: no map has keys that are no text.
        if let Ok(line) = serde_json::to_vec(answer) {
            self.out.extend(line);
            self.out.push_back(b'\n');
        }
    }

    /// Its only answer.
    pub(super) fn tell(&mut self, answer: &impl Serialize, now: Nanos) {
        self.say(answer);
        self.turn_to(State::Leaving, now);
    }

    /// The same when there is none.
    pub(super) fn refuse(&mut self, why: impl Into<String>, now: Nanos) {
        self.tell(&Refused { error: why.into() }, now);
    }

    /// A line about a decision, or one more that is lost.
    pub(super) fn report(&mut self, line: &[u8]) {
        self.confess();
        let room = BACKLOG.saturating_sub(self.out.len());
        let State::Watching { lost } = &mut self.state else { return };
        if *lost > 0 || room < line.len() {
            *lost += 1;
        } else {
            self.out.extend(line);
        }
    }

    /// Lines that are lost to everybody who watches.
    pub(super) fn miss(&mut self, count: u64) {
        if let State::Watching { lost } = &mut self.state {
            *lost += count;
        }
    }

    /// Says how many lines are lost, once the client has caught up with half of what waits.
    pub(super) fn confess(&mut self) {
        let State::Watching { lost: lost @ 1.. } = self.state else { return };
        if self.out.len() <= BACKLOG / 2 {
            self.state = State::Watching { lost: 0 };
            self.say(&Watched::Lost { lost });
        }
    }

    /// Sends what it takes. Whether it is to be sent away.
    ///
    /// # Errors
    /// It has hung up.
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
        Ok(matches!(self.state, State::Leaving))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watching() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::new(ours, None, Nanos(0)).unwrap();
        connection.turn_to(State::Watching { lost: 0 }, Nanos(0));
        (connection, theirs)
    }

    fn lost(connection: &Connection) -> u64 {
        match connection.state {
            State::Watching { lost } => lost,
            State::Asking(_) | State::Waiting(_) | State::Leaving => panic!(),
        }
    }

    #[test]
    fn who_does_not_read_loses_lines_and_is_told_how_many() {
        let (mut connection, mut theirs) = watching();
        let line = [vec![b'x'; 1023], vec![b'\n']].concat();
        let send = |connection: &mut Connection| connection.send(Nanos(0)).unwrap();
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
        let place = Request::Place { pids: vec![1] };
        assert!(root.refusal(&place).is_none() && root.refusal(&Request::Status).is_none());
        assert!(reader.refusal(&place).is_some() && reader.refusal(&Request::Watch).is_none());
        assert!(
            other.refusal(&Request::Reload).is_some() && other.refusal(&Request::Rules).is_some()
        );
    }
}
