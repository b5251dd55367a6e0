//! The socket of cgrulesengd, `/run/cgred.socket`: `cgexec` and `cgclassify` request on it that
//! processes are not moved (see [`super::request`] for the protocol). It must not block the loop
//! that serves it.
//!
//! A call of [`CgredServer::serve`] does a bounded amount of work, and a client has five seconds and one
//! of 64 slots; beyond that the oldest client is dropped. All descriptors are in one epoll set, so
//! only its descriptor needs to be polled.
//!
//! Differences from cgrulesengd: a client that is not root can name only its own processes; a
//! second request for a process replaces the first; the socket file is removed at exit; a socket
//! that another daemon serves is not taken over (exit 78).

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

use super::request::{GRANTED, PinClient, PinRequest, PinRequestReader};
use super::socket::{SocketAddress, SocketListener, ensure_free};
use crate::event::{Nanos, Uid};
use crate::sys;
use crate::telemetry::log::limit::LogLimiter;
use crate::telemetry::metrics::Metrics;

/// The maximum number of open connections; cgrulesengd had one.
const MOST: usize = 64;
/// The time in which a client must send its eight bytes.
const PATIENCE_NS: u64 = 5_000_000_000;
/// The maximum number of connections accepted, and of clients read, per call: about 100 us.
const AT_ONCE: usize = 16;
/// The pause in accepting connections when no descriptor is left.
const PAUSE_NS: u64 = 1_000_000_000;
/// The time to wait for a daemon that already serves the socket, once at startup.
const PROBE: Duration = Duration::from_millis(500);
const SERVED: &str = "another daemon serves this socket: stop it first";
/// The epoll key of the listening socket; connections use their serial number.
const LISTENER: u64 = u64::MAX;

/// The server of the socket of cgrulesengd.
pub struct CgredServer {
    socket: SocketListener,
    epoll: Epoll,
    /// The open connections, oldest first.
    connections: VecDeque<CgredConnection>,
    serial: u64,
    paused_until: Option<Nanos>,
    metrics: Arc<Metrics>,
    limiter: LogLimiter,
}

struct CgredConnection {
    stream: UnixStream,
    serial: u64,
    since: Nanos,
    client: PinClient,
    incoming: PinRequestReader,
}

/// The result of reading from a connection.
enum ReadState {
    /// Some bytes are still missing.
    Part,
    /// The request is complete.
    Whole(PinRequest),
    /// The client closed the connection, or reading failed.
    End,
}

impl CgredServer {
    /// Checks that no other daemon serves the socket.
    ///
    /// # Errors
    /// Returns `AddrInUse` if one does.
    pub fn ensure_alone(path: &Path) -> io::Result<()> {
        ensure_free(path, SERVED, greet)
    }

    /// Creates the socket and replaces a file left by a former daemon.
    ///
    /// # Errors
    /// As [`SocketListener::open`].
    pub fn open(place: SocketAddress, metrics: Arc<Metrics>) -> io::Result<Self> {
        let socket = SocketListener::open(place, SERVED, greet)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&socket.listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        Ok(Self {
            socket,
            epoll,
            connections: VecDeque::new(),
            serial: 0,
            paused_until: None,
            limiter: LogLimiter::new(Arc::clone(&metrics)),
            metrics,
        })
    }

    /// Returns the time at which [`Self::expire`] must be called.
    pub fn next_due(&self) -> Option<Nanos> {
        let oldest = self.connections.front().map(|oldest| oldest.since.plus(PATIENCE_NS));
        [oldest, self.paused_until].into_iter().flatten().min()
    }

    /// Serves clients that are ready; a client beyond the limit of one call is reported again.
    /// `grant` is called with each request and its client.
    pub fn serve(&mut self, mut grant: impl FnMut(PinRequest, PinClient) -> bool) {
        let mut events = [EpollEvent::empty(); AT_ONCE];
        // Only EINTR is possible: descriptors that are ready are reported again.
        let ready = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        for event in &events[..ready] {
            if event.data() == LISTENER {
                self.accept();
            } else {
                self.hear(event.data(), &mut grant);
            }
        }
    }

    /// Drops clients that took too long, and resumes accepting after a pause.
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
                self.report_error(&error);
            }
        }
    }

    fn admit(&mut self, stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let peer = getsockopt(&stream, sockopt::PeerCredentials)?;
        let process = u32::try_from(peer.pid()).unwrap_or(0);
        let client = PinClient { uid: Uid(peer.uid()), process };
        self.serial += 1;
        let serial = self.serial;
        let since = sys::monotonic();
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, serial))?;
        let incoming = PinRequestReader::default();
        self.connections.push_back(CgredConnection { stream, serial, since, client, incoming });
        Ok(())
    }

    fn hear(&mut self, serial: u64, grant: &mut impl FnMut(PinRequest, PinClient) -> bool) {
        // Connections are sorted by age and thus by serial number. This one may just have been
        // dropped.
        let Ok(index) = self.connections.binary_search_by_key(&serial, |one| one.serial) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(index) else { return };
        match connection.hear() {
            ReadState::Part => return,
            ReadState::Whole(request) => {
                if grant(request, connection.client) {
                    connection.answer();
                }
            }
            ReadState::End => self.metrics.sticky_dropped.increment(),
        }
        // Closing removes the descriptor from the epoll set.
        self.connections.remove(index);
    }

    fn drop_oldest(&mut self) {
        if self.connections.pop_front().is_some() {
            self.metrics.sticky_dropped.increment();
        }
    }

    /// Stops accepting for a while. The waiting connection cannot be accepted for lack of
    /// descriptors or memory, and without a pause the loop would spin.
    fn pause(&mut self, error: &io::Error) {
        self.report_error(error);
        self.paused_until = Some(sys::monotonic().plus(PAUSE_NS));
        self.listen_for(EpollFlags::empty());
    }

    fn listen_for(&mut self, flags: EpollFlags) {
        let modified =
            self.epoll.modify(&self.socket.listener, &mut EpollEvent::new(flags, LISTENER));
        if let Err(errno) = modified {
            self.report_error(&errno.into());
        }
    }

    fn report_error(&mut self, error: &io::Error) {
        if let Some(left_out) = self.limiter.admit(&error.raw_os_error(), sys::monotonic()) {
            ::log::warn!("{}: {error}{left_out}", self.socket.path().display());
        }
    }
}

impl AsFd for CgredServer {
    /// Returns the epoll descriptor, the only one to poll.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl CgredConnection {
    fn hear(&mut self) -> ReadState {
        loop {
            match self.stream.read(self.incoming.missing()) {
                Ok(0) => return ReadState::End,
                Ok(count) => {
                    if let Some(request) = self.incoming.filled(count) {
                        return ReadState::Whole(request);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return ReadState::Part,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return ReadState::End,
            }
        }
    }

    /// Sends the reply. This fails only if the client has disconnected, which needs no action: 18
    /// bytes fit into the buffer of a new connection.
    fn answer(&self) {
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        if let Err(errno) = send(self.stream.as_raw_fd(), GRANTED, flags) {
            ::log::debug!("client disconnected before the reply: {}", errno.desc());
        }
    }
}

/// Sends a complete request about this process, because releases of cgrulesengd up to 2.0.2 do not
/// survive a client that sends nothing. The socket counts as served with any reply, or none.
fn greet(mut stream: UnixStream) {
    let cancel_own = [std::process::id().to_ne_bytes(), 2u32.to_ne_bytes()].concat();
    let _answer = stream
        .set_nonblocking(false)
        .and_then(|()| stream.set_write_timeout(Some(PROBE)))
        .and_then(|()| stream.set_read_timeout(Some(PROBE)))
        .and_then(|()| stream.write_all(&cancel_own))
        .and_then(|()| stream.read(&mut [0; 18]));
}
