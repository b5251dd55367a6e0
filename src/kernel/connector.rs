//! The proc connector: two sockets with masks and filters, and exact counts of lost events.
//!
//! The event socket carries exec, UID and GID events and is polled. The fork socket carries process
//! forks and is *never* polled: the cost of a listener is the wake-up (a sleeping reader of forks
//! reduces the fork rate by 25-30 %, measured), and no thread sleeps on the fork socket.
//!
//! Each socket requests only its own events (mask, Linux 6.6) and also has a classic BPF filter: it
//! does the same on older kernels and drops thread forks, which the mask cannot.

mod error;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::event::wire::{self, Message, Subscription};
use crate::event::{Event, EventKind};
use crate::sys::{self, Instruction, Mailbox};
pub use error::ConnectorError;

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

/// Number of datagrams that the self-test reads from a socket before it checks its deadline again.
const TEST_READ: usize = 4096;

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
    /// Opens, filters, binds and subscribes, and waits for the kernel's acknowledgement.
    ///
    /// # Errors
    /// The reason why the connector is unusable.
    pub fn open(kind: SocketKind, receive_buffer: usize) -> Result<Self, ConnectorError> {
        let fd = sys::connector_socket().map_err(ConnectorError::NoConnector)?;
        sys::set_receive_buffer(fd.as_fd(), receive_buffer)
            .map_err(|error| ConnectorError::Io("receive buffer", error))?;
        // Before the bind, so that no unwanted event is ever queued.
        sys::attach_filter(fd.as_fd(), &filter(kind))
            .map_err(|error| ConnectorError::Io("socket filter", error))?;
        sys::bind_netlink(fd.as_fd(), wire::CN_IDX_PROC).map_err(refused_by_namespace)?;
        let mut socket = Self { fd, mailbox: Mailbox::default(), dropped: 0, kind, refused: 0 };
        socket.subscribe()?;
        Ok(socket)
    }

    /// Subscribes without a mask first, then with it.
    fn subscribe(&mut self) -> Result<(), ConnectorError> {
        // A plain LISTEN is acknowledged; a masked one is not, because the mask drops the
        // acknowledgement too.
        let number = std::process::id();
        for _ in 0..TESTS {
            if self.listen(number)? {
                return self.send(Subscription::Masked(self.kind.mask()), number);
            }
            // During a flood the acknowledgement may be among the dropped events.
            if self.lost().map_err(|error| ConnectorError::Io("getsockopt", error))? == 0 {
                break;
            }
        }
        Err(ConnectorError::Ignored)
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

/// Events of test processes received so far. They may be of different test processes.
#[derive(Debug, Default)]
struct SelfTestResult {
    forked: bool,
    executed: bool,
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
    /// Socket for exec, UID and GID events; to be polled.
    pub events: Socket,
    /// Socket for process forks; never polled.
    pub forks: Socket,
}

impl Connector {
    /// Subscribes both sockets and verifies with a test process that events arrive.
    ///
    /// # Errors
    /// The reason why the connector is unusable.
    pub fn open(receive_buffer: usize) -> Result<Self, ConnectorError> {
        let mut connector = Self {
            receive_buffer,
            events: Socket::open(SocketKind::Events, receive_buffer)?,
            forks: Socket::open(SocketKind::Forks, receive_buffer)?,
        };
        connector.self_test()?;
        Ok(connector)
    }

    /// Replaces both sockets: subscribing the same ones again does not help where a kernel has lost
    /// count of its listeners.
    ///
    /// # Errors
    /// The reason why the connector has become unusable.
    pub fn renew(&mut self) -> Result<(), ConnectorError> {
        *self = Self::open(self.receive_buffer)?;
        Ok(())
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
        Ok(u64::from(self.events.lost()?) + u64::from(self.forks.lost()?))
    }

    /// Runs a short-lived process and expects its fork on the fork socket and its exec on the event
    /// socket within a second.
    fn self_test(&mut self) -> Result<(), ConnectorError> {
        // Events of other processes read meanwhile may be dropped: the first scan comes later.
        let mut proven = SelfTestResult::default();
        for _ in 1..TESTS {
            let result = self.test_once(&mut proven);
            // During a flood the events of the test process may be among the dropped ones.
            if !matches!(result, Err(ConnectorError::Silent))
                || self.lost().map_err(|error| ConnectorError::Io("getsockopt", error))? == 0
            {
                return result;
            }
        }
        self.test_once(&mut proven)
    }

    fn test_once(&mut self, proven: &mut SelfTestResult) -> Result<(), ConnectorError> {
        let pid = run_test_process().map_err(|error| ConnectorError::Io("test process", error))?;
        let deadline = Instant::now() + Duration::from_secs(1);
        let SelfTestResult { forked, executed } = proven;
        while !(*forked && *executed) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ConnectorError::Silent);
            }
            let missing = if *executed { &self.forks } else { &self.events };
            missing.wait(left);
            let mut hear = |event: Event| match event.what {
                EventKind::Fork { child, .. } => *forked |= child.get() == pid,
                EventKind::Exec(process) => *executed |= process.get() == pid,
                EventKind::Uid(_) | EventKind::Gid(_) => {}
            };
            for socket in [&mut self.forks, &mut self.events] {
                let drained = socket.drain(TEST_READ, &mut hear);
                let _drained = drained.map_err(|e| ConnectorError::Io("recvmmsg", e))?;
            }
        }
        Ok(())
    }
}

/// Runs the own executable with `--version` and waits for it. Returns its PID.
///
/// # Errors
/// It cannot be started.
pub fn run_test_process() -> io::Result<u32> {
    use std::process::{Command, Stdio};
    let mut child = Command::new("/proc/self/exe")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = child.id();
    child.wait()?;
    Ok(pid)
}

/// Returns a filter that accepts acknowledgements and the events of `kind`. BPF loads words in
/// network byte order, so the constants are converted.
fn filter(kind: SocketKind) -> Vec<Instruction> {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const JUMP_IF_EQUAL_X: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_X) as u16;
    const MOVE_A_TO_X: u16 = (libc::BPF_MISC | libc::BPF_TAX) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const ACCEPT: Instruction = (RETURN, 0, 0, u32::MAX);
    const REFUSE: Instruction = (RETURN, 0, 0, 0);
    let word = u32::to_be;
    match kind {
        SocketKind::Events => vec![
            (LOAD_WORD, 0, 0, wire::OFFSET_WHAT),
            (JUMP_IF_EQUAL, 4, 0, word(wire::EXEC)),
            (JUMP_IF_EQUAL, 3, 0, word(wire::UID)),
            (JUMP_IF_EQUAL, 2, 0, word(wire::GID)),
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
