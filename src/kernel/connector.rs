//! The proc connector: two sockets with masks and filters, and exact counts of lost events.
//!
//! The event socket carries exec, UID and GID events and is polled. The fork socket carries process
//! forks and is *never* polled: the cost of a listener is the wake-up (a sleeping reader of forks
//! reduces the fork rate by 25-30 %, measured), and no thread sleeps on the fork socket.
//!
//! Each socket requests only its own events (mask, Linux 6.6) and also has a classic BPF filter: it
//! does the same on older kernels and drops thread forks, which the mask cannot.

mod error;
mod self_test;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::event::Event;
use crate::event::wire::{self, Message, Subscription};
use crate::sys::{self, Instruction, Mailbox};
pub use error::ConnectorError;
pub use self_test::run_test_process;

/// Type of the events that a socket subscribes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketKind {
    /// Exec, UID and GID events.
    Events,
    /// Forks of processes, without forks of threads.
    Forks,
}

impl SocketKind {
    const fn mask(self) -> u32 {
        match self {
            Self::Events => wire::EXEC | wire::UID | wire::GID,
            Self::Forks => wire::FORK,
        }
    }
}

/// Result of reading a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Drained {
    /// Number of datagrams that were read.
    pub read: usize,
    /// Set if the socket was emptied.
    pub is_empty: bool,
}

/// Maximum number of subscriptions, and then of test processes, one a second, while the kernel
/// drops events.
const TESTS: usize = 30;

/// Subscribed socket for one type of events.
pub struct Socket {
    fd: OwnedFd,
    mailbox: Mailbox,
    dropped: u32,
    kind: SocketKind,
    /// Number of rejected datagrams: not from the kernel, truncated, or malformed.
    pub refused: u64,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Opens, filters, binds and subscribes, and waits for the kernel's acknowledgement. A socket for events receives
    /// execs only: with a flood of credential changes its test could fail 30 times, a second each.
    ///
    /// # Errors
    /// The reason why the connector is unusable.
    pub fn open(kind: SocketKind, receive_buffer: usize) -> Result<Self, ConnectorError> {
        let fd = sys::connector_socket().map_err(ConnectorError::NoConnector)?;
        sys::set_receive_buffer(fd.as_fd(), receive_buffer)
            .map_err(|error| ConnectorError::Io("receive buffer", error))?;
        // Before the bind, so that no unwanted event is ever queued.
        sys::attach_filter(fd.as_fd(), &filter(kind, Accepted::Execs))
            .map_err(|error| ConnectorError::Io("socket filter", error))?;
        sys::bind_netlink(fd.as_fd(), wire::CN_IDX_PROC).map_err(refused_by_namespace)?;
        let mut socket = Self { fd, mailbox: Mailbox::default(), dropped: 0, kind, refused: 0 };
        socket.subscribe()?;
        Ok(socket)
    }

    /// Accepts or drops GID events from now on.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn accept_gid(&self, accepts: bool) -> io::Result<()> {
        // Not the mask: before Linux 6.6 each subscription raises the kernel's count of listeners. Building
        // an event that a filter drops costs nothing measurable.
        let accepted = if accepts { Accepted::Gids } else { Accepted::Uids };
        sys::attach_filter(self.fd.as_fd(), &filter(self.kind, accepted))
    }

    /// Subscribes without a mask first, then with it.
    fn subscribe(&mut self) -> Result<(), ConnectorError> {
        // A plain LISTEN is acknowledged; a masked one is not, because the mask drops the
        // acknowledgement too.
        let number = std::process::id();
        for _ in 0..TESTS {
            if self.listen(number)? || sys::is_termination_pending() {
                return self.send(Subscription::Masked(self.kind.mask()), number);
            }
            // During a flood the acknowledgement may be among the dropped events.
            if self.lost().map_err(|error| ConnectorError::Io("getsockopt", error))? == 0 {
                return Err(ConnectorError::Ignored);
            }
        }
        Err(ConnectorError::Flooded)
    }

    /// Subscribes to everything. Returns whether that was acknowledged within a second.
    fn listen(&mut self, number: u32) -> Result<bool, ConnectorError> {
        self.send(Subscription::Listen, number)?;
        let deadline = Instant::now() + Duration::from_secs(1);
        while !self.acknowledged(number)? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.wait(left);
        }
        Ok(true)
    }

    fn send(&self, subscription: Subscription, number: u32) -> Result<(), ConnectorError> {
        sys::send_netlink(self.fd.as_fd(), &subscription.encode(number))
            .map_err(refused_by_namespace)
    }

    fn acknowledged(&mut self, number: u32) -> Result<bool, ConnectorError> {
        let mut answer = None;
        self.mailbox
            .receive(self.fd.as_fd(), Mailbox::CAPACITY, |datagram| {
                for message in wire::messages(datagram.bytes).flatten() {
                    if let Message::Ack { ack, error } = message {
                        if datagram.trusted && ack == number.wrapping_add(1) {
                            answer = Some(error);
                        }
                    }
                }
            })
            .map_err(|error| ConnectorError::Io("recvmmsg", error))?;
        match answer {
            None => Ok(false),
            Some(0) => Ok(true),
            Some(errno) => Err(ConnectorError::Refused(errno)),
        }
    }

    /// Waits until the socket is readable. Used only during startup, never in the main loop.
    fn wait(&self, at_most: Duration) {
        let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        let mut fds = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
        // An interrupted wait only causes another check: the caller has the deadline.
        let _interrupted = poll(&mut fds, timeout);
    }

    /// Reads up to `bound` datagrams and passes their events to `take`.
    ///
    /// # Errors
    /// As recvmmsg(2).
    pub fn drain(&mut self, bound: usize, mut take: impl FnMut(Event)) -> io::Result<Drained> {
        let refused = &mut self.refused;
        let mut read = 0;
        // Preparing for many costs more than reading one, and usually there is one.
        let mut most = Mailbox::FEW;
        while read < bound {
            let count = self.mailbox.receive(self.fd.as_fd(), most, |datagram| {
                if !datagram.trusted {
                    *refused += 1;
                    return;
                }
                for message in wire::messages(datagram.bytes) {
                    match message {
                        Ok(Message::Event(event)) => take(event),
                        Ok(Message::Ack { .. } | Message::Other) => {}
                        Err(_) => *refused += 1,
                    }
                }
            })?;
            read += count;
            if count < most {
                return Ok(Drained { read, is_empty: true });
            }
            most = Mailbox::CAPACITY;
        }
        Ok(Drained { read, is_empty: false })
    }

    /// Returns an upper bound of the number of queued datagrams.
    ///
    /// # Errors
    /// As getsockopt(2).
    pub fn backlog(&self) -> io::Result<usize> {
        // 832 bytes each on x86-64 (measured). A kernel with smaller ones only makes the drain
        // longer.
        const LEAST_BYTES: usize = 512;
        Ok(sys::queued_bytes(self.fd.as_fd())? as usize / LEAST_BYTES + 1)
    }

    /// Returns the exact number of datagrams that this socket lost since the last call.
    ///
    /// # Errors
    /// As getsockopt(2).
    pub fn lost(&mut self) -> io::Result<u32> {
        let dropped = sys::dropped(self.fd.as_fd())?;
        Ok(dropped.wrapping_sub(std::mem::replace(&mut self.dropped, dropped)))
    }
}

impl Drop for Socket {
    /// Ends the subscription: otherwise the kernel's listener count stays too high until the next
    /// boot.
    fn drop(&mut self) {
        let bytes = Subscription::Ignore.encode(std::process::id());
        if let Err(error) = sys::send_netlink(self.fd.as_fd(), &bytes) {
            ::log::debug!("cannot cancel the subscription to process events: {error}");
        }
    }
}

fn refused_by_namespace(error: io::Error) -> ConnectorError {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED) => ConnectorError::NetworkNamespace,
        _ => ConnectorError::Io("netlink socket", error),
    }
}

/// Numbers of events that were not received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Number of events that the kernel dropped.
    pub lost: u64,
    /// Number of rejected datagrams: not from the kernel, truncated, or malformed.
    pub refused: u64,
}

/// The two sockets of the proc connector.
pub struct Connector {
    receive_buffer: usize,
    accepts_gid: bool,
    /// Socket for exec, UID and GID events; to be polled.
    pub events: Socket,
    /// Socket for process forks; never polled.
    pub forks: Socket,
    /// Number of lost events that was not reported yet.
    lost: u64,
}

impl Connector {
    /// Subscribes both sockets and verifies with a test process that events arrive.
    ///
    /// # Errors
    /// The reason why the connector is unusable.
    pub fn open(receive_buffer: usize) -> Result<Self, ConnectorError> {
        let mut connector = Self {
            receive_buffer,
            accepts_gid: true,
            events: Socket::open(SocketKind::Events, receive_buffer)?,
            forks: Socket::open(SocketKind::Forks, receive_buffer)?,
            lost: 0,
        };
        connector.self_test()?;
        let accepted = connector.events.accept_gid(true);
        accepted.map_err(|error| ConnectorError::Io("socket filter", error))?;
        Ok(connector)
    }

    /// Changes the number of bytes that the kernel may queue on each socket.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub fn set_receive_buffer(&mut self, bytes: usize) -> io::Result<()> {
        self.receive_buffer = bytes;
        for socket in [&self.events, &self.forks] {
            sys::set_receive_buffer(socket.fd.as_fd(), bytes)?;
        }
        Ok(())
    }

    /// Replaces both sockets: subscribing the same ones again does not help where a kernel has lost
    /// count of its listeners.
    ///
    /// # Errors
    /// The reason why the connector has become unusable.
    pub fn renew(&mut self) -> Result<(), ConnectorError> {
        let accepts_gid = self.accepts_gid;
        *self = Self::open(self.receive_buffer)?;
        self.accept_gid(accepts_gid);
        Ok(())
    }

    /// Receives GID events from now on, or not any more.
    pub fn accept_gid(&mut self, accepts: bool) {
        if accepts == self.accepts_gid {
            return;
        }
        match self.events.accept_gid(accepts) {
            Ok(()) => self.accepts_gid = accepts,
            // Without the filter, needless events are received.
            Err(error) if !accepts => ::log::warn!("cannot filter GID events: {error}"),
            Err(error) => ::log::error!(
                "cannot receive GID events, so a changed group takes effect with the next event only: {error}"
            ),
        }
    }

    /// Returns the exact numbers of events that were not received since the last call.
    ///
    /// # Errors
    /// As getsockopt(2).
    pub fn take_losses(&mut self) -> io::Result<Losses> {
        let lost = self.lost()?;
        let Self { events, forks, .. } = self;
        let refused = std::mem::take(&mut events.refused) + std::mem::take(&mut forks.refused);
        Ok(Losses { lost, refused })
    }

    fn lost(&mut self) -> io::Result<u64> {
        // Added one by one: if the second call fails, the result of the first is still reported.
        self.lost += u64::from(self.events.lost()?);
        self.lost += u64::from(self.forks.lost()?);
        Ok(std::mem::take(&mut self.lost))
    }
}

/// Events that a socket for events accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Accepted {
    /// Execs, for the test of the socket.
    Execs,
    /// Execs and changes of user IDs.
    Uids,
    /// These and changes of group IDs.
    Gids,
}

/// Returns a filter that accepts acknowledgements and the events of `kind`, of credential changes only those
/// `accepted`. BPF loads words in network byte order, so the constants are converted.
fn filter(kind: SocketKind, accepted: Accepted) -> Vec<Instruction> {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const JUMP_IF_EQUAL_X: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_X) as u16;
    const MOVE_A_TO_X: u16 = (libc::BPF_MISC | libc::BPF_TAX) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const ACCEPT: Instruction = (RETURN, 0, 0, u32::MAX);
    const REFUSE: Instruction = (RETURN, 0, 0, 0);
    let word = u32::to_be;
    let from =
        |least: Accepted, event: u32| if accepted >= least { word(event) } else { wire::ACK };
    match kind {
        SocketKind::Events => vec![
            (LOAD_WORD, 0, 0, wire::OFFSET_WHAT),
            (JUMP_IF_EQUAL, 4, 0, word(wire::EXEC)),
            (JUMP_IF_EQUAL, 3, 0, from(Accepted::Uids, wire::UID)),
            (JUMP_IF_EQUAL, 2, 0, from(Accepted::Gids, wire::GID)),
            (JUMP_IF_EQUAL, 1, 0, wire::ACK),
            REFUSE,
            ACCEPT,
        ],
        SocketKind::Forks => vec![
            (LOAD_WORD, 0, 0, wire::OFFSET_WHAT),
            (JUMP_IF_EQUAL, 5, 0, wire::ACK),
            (JUMP_IF_EQUAL, 0, 5, word(wire::FORK)),
            (LOAD_WORD, 0, 0, wire::OFFSET_CHILD_PID),
            (MOVE_A_TO_X, 0, 0, 0),
            (LOAD_WORD, 0, 0, wire::OFFSET_CHILD_TGID),
            (JUMP_IF_EQUAL_X, 0, 1, 0),
            ACCEPT,
            REFUSE,
        ],
    }
}

#[cfg(test)]
#[path = "connector_tests.rs"]
mod tests;
