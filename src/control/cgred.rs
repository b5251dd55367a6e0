//! The original's socket, `/run/cgred.socket`: `cgexec` and `cgclassify` ask by it that processes be
//! left where they are (see [`super::request`] for the protocol).
//!
//! Nobody can keep the loop waiting: nothing here blocks, a call to [`Cgred::serve`] does a bounded
//! amount of work, and a client has five seconds and one of 64 places; beyond that the oldest goes.
//! All descriptors are in an epoll set of their own, which is the one descriptor to poll.
//!
//! Different from the original: a client that is not root can name only processes of its own; a second
//! request for a process replaces the first; the file is removed at the end; a socket that somebody
//! serves is not taken over (exit 78).

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, getsockopt, send, sockopt};

use super::request::{Client, GRANTED, Incoming, Request};
use super::socket::{Listener, Place, ensure_free};
use crate::event::{Nanos, Uid};
use crate::log::limit::Limiter;
use crate::metrics::Metrics;
use crate::sys;

/// Open connections; the original had one.
const MOST: usize = 64;
/// How long a client may take for its eight bytes.
const PATIENCE_NS: u64 = 5_000_000_000;
/// Connections accepted, and clients heard, by one call: about 100 us.
const AT_ONCE: usize = 16;
/// With no descriptor left, no connection is accepted for this long.
const PAUSE_NS: u64 = 1_000_000_000;
/// How long whoever may serve the socket already is waited for, once at the start.
const PROBE: Duration = Duration::from_millis(500);
const SERVED: &str = "another daemon serves it: end that one first";
/// Stands for the listening socket; connections have their serial number.
const LISTENER: u64 = u64::MAX;

/// The server.
pub struct Cgred {
    socket: Listener,
    epoll: Epoll,
    /// Oldest first.
    connections: VecDeque<Connection>,
    serial: u64,
    paused_until: Option<Nanos>,
    metrics: Arc<Metrics>,
    limiter: Limiter,
}

struct Connection {
    stream: UnixStream,
    serial: u64,
    since: Nanos,
    client: Client,
    incoming: Incoming,
}

/// What became of a connection.
enum Heard {
    /// Bytes are missing.
    Part,
    /// All is there.
    Whole(Request),
    /// It is of no use any more.
    End,
}

impl Cgred {
    /// Makes sure that no other daemon serves the socket.
    ///
    /// # Errors
    /// `AddrInUse` when one does.
    pub fn ensure_alone(path: &Path) -> io::Result<()> {
        ensure_free(path, SERVED, greet)
    }

    /// Makes the socket. A file that a former daemon left is replaced.
    ///
    /// # Errors
    /// As [`Listener::open`].
    pub fn open(place: Place, metrics: Arc<Metrics>) -> io::Result<Self> {
        let socket = Listener::open(place, SERVED, greet)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&socket.listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        Ok(Self {
            socket,
            epoll,
            connections: VecDeque::new(),
            serial: 0,
            paused_until: None,
            limiter: Limiter::new(Arc::clone(&metrics)),
            metrics,
        })
    }

    /// When [`Self::expire`] must be called.
    pub fn next_due(&self) -> Option<Nanos> {
        let oldest = self.connections.front().map(|oldest| oldest.since.plus(PATIENCE_NS));
        [oldest, self.paused_until].into_iter().flatten().min()
    }

    /// Serves who is ready; who does not get his turn is reported again. `grant` is asked for each
    /// request, with its client.
    pub fn serve(&mut self, mut grant: impl FnMut(Request, Client) -> bool) {
        let mut events = [EpollEvent::empty(); AT_ONCE];
        // EINTR only: whoever is ready is reported again.
        let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &events[..ready] {
            if event.data() == LISTENER {
                self.accept();
            } else {
                self.hear(event.data(), &mut grant);
            }
        }
    }

    /// Drops clients that took too long, and goes on accepting after a pause.
    pub fn expire(&mut self, now: Nanos) {
        while self.connections.front().is_some_and(|one| now.since(one.since) >= PATIENCE_NS) {
            self.drop_oldest();
        }
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
            self.listen_for(EpollFlags::EPOLLIN);
        }
    }

    fn accept(&mut self) {
        for _ in 0..AT_ONCE {
            let stream = match self.socket.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) => {
                    let errno = error.raw_os_error().map(Errno::from_raw);
                    if !matches!(errno, Some(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED)) {
                        self.pause(&error);
                    }
                    return;
                }
            };
            if self.connections.len() >= MOST {
                self.drop_oldest();
            }
            if let Err(error) = self.admit(stream) {
                self.metrics.sticky_dropped.increment();
                self.complain(&error);
            }
        }
    }

    fn admit(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let peer = getsockopt(&stream, sockopt::PeerCredentials)?;
        let process = u32::try_from(peer.pid()).unwrap_or(0);
        let client = Client { uid: Uid(peer.uid()), process };
        self.serial += 1;
        let (serial, since) = (self.serial, sys::monotonic());
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, serial))?;
        let incoming = Incoming::default();
        self.connections.push_back(Connection { stream, serial, since, client, incoming });
        Ok(())
    }

    fn hear(&mut self, serial: u64, grant: &mut impl FnMut(Request, Client) -> bool) {
        // In order of age, so of serial numbers. It may have been dropped a moment ago.
        let Ok(index) = self.connections.binary_search_by_key(&serial, |one| one.serial) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(index) else { return };
        match connection.hear() {
            Heard::Part => return,
            Heard::Whole(request) => {
                if grant(request, connection.client) {
                    connection.answer();
                }
            }
            Heard::End => self.metrics.sticky_dropped.increment(),
        }
        // Closing takes it out of the epoll set.
        self.connections.remove(index);
    }

    fn drop_oldest(&mut self) {
        if self.connections.pop_front().is_some() {
            self.metrics.sticky_dropped.increment();
        }
    }

    /// A connection waits that cannot be accepted, for lack of descriptors or memory: without a pause
    /// the loop would spin.
    fn pause(&mut self, error: &io::Error) {
        self.complain(error);
        self.paused_until = Some(sys::monotonic().plus(PAUSE_NS));
        self.listen_for(EpollFlags::empty());
    }

    fn listen_for(&mut self, flags: EpollFlags) {
        let modified =
            self.epoll.modify(&self.socket.listener, &mut EpollEvent::new(flags, LISTENER));
        if let Err(errno) = modified {
            self.complain(&errno.into());
        }
    }

    fn complain(&mut self, error: &io::Error) {
        if let Some(left_out) = self.limiter.admit(&error.raw_os_error(), sys::monotonic()) {
            ::log::warn!("{}: {error}{left_out}", self.socket.path().display());
        }
    }
}

impl AsFd for Cgred {
    /// The descriptor to poll.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Connection {
    fn hear(&mut self) -> Heard {
        loop {
            match self.stream.read(self.incoming.missing()) {
                Ok(0) => return Heard::End,
                Ok(count) => {
                    if let Some(request) = self.incoming.filled(count) {
                        return Heard::Whole(request);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Part,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Heard::End,
            }
        }
    }

    /// Fails only when the client has gone, which is its own affair: 18 bytes fit into the buffer of a
    /// new connection.
    fn answer(&self) {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        if let Err(errno) = send(self.stream.as_raw_fd(), GRANTED, flags) {
            ::log::debug!("a client left before it was answered: {}", errno.desc());
        }
    }
}

/// The question is a whole request about ourselves, because releases of the original up to 2.0.2 do not
/// survive a client that says nothing. Whatever it answers, or if it does not, it serves.
fn greet(mut stream: UnixStream) {
    let cancel_own = [std::process::id().to_ne_bytes(), 2u32.to_ne_bytes()].concat();
    let _answer = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_write_timeout(Some(PROBE)))
        .and_then(|()| stream.set_read_timeout(Some(PROBE)))
        .and_then(|()| stream.write_all(&cancel_own))
        .and_then(|()| stream.read(&mut [0; 18]));
}
