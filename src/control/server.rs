//! Serves the control socket on a separate thread: see [`super::protocol`]. Clients must not delay
//! each other or the hot thread.
//!
//! No call blocks, a client that sends or reads nothing for five seconds is disconnected, and at
//! most 64 are connected. Others wait in the backlog of the socket; while any wait, a client may be
//! silent for only a tenth of a second.

mod connection;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::stat::Mode;
use nix::unistd::Group;

use super::channel::{self, ControlChannel, ControlWaker, EngineReply};
use super::protocol::{ControlRequest, READERS, WatchMessage, WatchedDecision};
use super::socket::{SocketAddress, SocketListener};
use super::status_source::StatusSource;
use crate::event::{Gid, Nanos};
use crate::sys;
use connection::{ClientStream, ConnectionState, PendingReply};

/// The maximum number of connected clients.
const MOST: usize = 64;
/// The maximum number of watching clients among them, because those stay connected.
const MOST_WATCHING: usize = 16;
/// The time that a client may be silent while others wait for its slot.
const HASTE_NS: u64 = 100_000_000;
/// The interval of sending decisions to watching clients, which saves the hot thread the wakeups.
const PUMP_NS: u64 = 20_000_000;
/// The pause in accepting connections when no descriptor is left.
const PAUSE_NS: u64 = 1_000_000_000;
/// The epoll keys of the listening socket and of the wakeup; connections use their serial number.
const LISTENER: u64 = u64::MAX;
const BELL: u64 = u64::MAX - 1;
const SERVED: &str =
    "another daemon serves this socket; stop it first, or start this one with --control off";

/// The bound socket before it is served: clients that connect wait.
#[derive(Debug)]
pub struct BoundServer {
    listener: SocketListener,
    readers: Option<Gid>,
}

impl BoundServer {
    /// Creates the socket at `path`, and its directory if it is missing.
    ///
    /// # Errors
    /// Returns `AddrInUse` if another daemon serves the socket, or why it cannot be created.
    pub fn open(path: &Path) -> io::Result<Self> {
        let readers = readers();
        Ok(Self { listener: open(path, readers)?, readers })
    }
}

/// The running server. Dropping it stops the thread and removes the socket.
#[derive(Debug)]
pub struct ControlServer {
    thread: Option<JoinHandle<()>>,
    ringer: ControlWaker,
    ends: Arc<AtomicBool>,
}

impl ControlServer {
    /// Starts the thread that serves the socket.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be created.
    pub fn start(
        BoundServer { listener, readers }: BoundServer,
        side: ControlChannel,
        overview: StatusSource,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&listener.listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        epoll.add(side.wakeup_fd(), EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        let ringer = side.waker();
        let ends = Arc::new(AtomicBool::new(false));
        let service = ServerState {
            listener,
            epoll,
            side,
            overview,
            readers,
            ends: Arc::clone(&ends),
            clients: BTreeMap::new(),
            serial: 0,
            listens: true,
            paused_until: None,
        };
        let builder = thread::Builder::new().name("control".into()).stack_size(512 * 1024);
        let thread = builder.spawn(move || service.run())?;
        Ok(Self { thread: Some(thread), ringer, ends })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        self.ringer.ring();
        if let Some(thread) = self.thread.take() {
            // The thread has already reported a panic.
            let _ended = thread.join();
        }
    }
}

/// Returns the group with read access.
fn readers() -> Option<Gid> {
    match Group::from_name(READERS) {
        Ok(group) => group.map(|group| Gid(group.gid.as_raw())),
        Err(errno) => {
            ::log::warn!("cannot look up the group {READERS}: {}", errno.desc());
            None
        }
    }
}

fn open(path: &Path, readers: Option<Gid>) -> io::Result<SocketListener> {
    if let Some(parent) = path.parent() {
        match fs::create_dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let named = format!("{}: {error}", parent.display());
                return Err(io::Error::new(error.kind(), named));
            }
            // Independent of the umask.
            Ok(()) => fs::set_permissions(parent, PermissionsExt::from_mode(0o755))?,
        }
    }
    let mut place = SocketAddress::shared(path.to_owned(), None, readers);
    if readers.is_none() {
        place.mode = Mode::S_IRUSR | Mode::S_IWUSR;
    }
    SocketListener::open(place, SERVED, drop)
}

/// The state of the server thread.
struct ServerState {
    listener: SocketListener,
    epoll: Epoll,
    side: ControlChannel,
    overview: StatusSource,
    readers: Option<Gid>,
    ends: Arc<AtomicBool>,
    /// The clients by serial number, so the oldest comes first.
    clients: BTreeMap<u64, ClientStream>,
    serial: u64,
    /// Whether new connections are accepted.
    listens: bool,
    paused_until: Option<Nanos>,
}

impl ServerState {
    fn run(mut self) {
        let mut events = [EpollEvent::empty(); 64];
        while !self.ends.load(Relaxed) {
            let ready = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(errno) => {
                    ::log::error!("the control socket is no longer served: {}", errno.desc());
                    break;
                }
            };
            for event in &events[..ready] {
                match event.data() {
                    LISTENER => self.accept(),
                    BELL => self.take_done(),
                    serial => self.serve(serial, event.events()),
                }
            }
            self.pump();
            self.expire();
            self.set_listening();
        }
        self.side.set_watched(false);
    }

    fn timeout(&self) -> EpollTimeout {
        let now = sys::monotonic();
        let clients = self.clients.values().filter_map(ClientStream::due).min();
        let pump = (self.watching() > 0).then(|| now.plus(PUMP_NS));
        let hasty = (self.clients.len() >= MOST).then(|| now.plus(HASTE_NS));
        let next = [clients, pump, hasty, self.paused_until].into_iter().flatten().min();
        let Some(next) = next else { return EpollTimeout::NONE };
        let milliseconds = next.since(now).div_ceil(1_000_000);
        EpollTimeout::try_from(milliseconds).unwrap_or(EpollTimeout::ZERO)
    }

    fn accept(&mut self) {
        while self.clients.len() < MOST {
            let accepted = self.listener.listener.accept();
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    // Without a pause the thread would spin.
                    ::log::warn!("{}: {error}", self.listener.path().display());
                    self.paused_until = Some(sys::monotonic().plus(PAUSE_NS));
                    return;
                }
            };
            // A client with unreadable credentials has disconnected.
            if let Ok(connection) = ClientStream::new(stream, self.readers, sys::monotonic()) {
                self.serial += 1;
                let event = EpollEvent::new(EpollFlags::EPOLLIN, self.serial);
                if self.epoll.add(&connection, event).is_ok() {
                    self.clients.insert(self.serial, connection);
                }
            }
        }
    }

    /// Accepts new clients only while a slot is free.
    fn set_listening(&mut self) {
        let listens = self.clients.len() < MOST && self.paused_until.is_none();
        if listens != self.listens {
            let flags = if listens { EpollFlags::EPOLLIN } else { EpollFlags::empty() };
            let mut event = EpollEvent::new(flags, LISTENER);
            if self.epoll.modify(&self.listener.listener, &mut event).is_ok() {
                self.listens = listens;
            }
        }
    }

    /// Processes the events of a client.
    fn serve(&mut self, serial: u64, flags: EpollFlags) {
        let Some(client) = self.clients.get_mut(&serial) else { return };
        let hung_up = flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        if hung_up && !flags.contains(EpollFlags::EPOLLIN) {
            self.clients.remove(&serial);
            return;
        }
        match client.hear() {
            Ok(None) => {}
            Ok(Some(Ok(request))) => self.answer(serial, request),
            Ok(Some(Err(why))) => client.refuse(why, sys::monotonic()),
            Err(_) => {
                self.clients.remove(&serial);
                return;
            }
        }
        self.send(serial);
    }

    fn answer(&mut self, serial: u64, request: ControlRequest) {
        let is_full = self.watching() >= MOST_WATCHING;
        let Self { clients, side, overview, .. } = self;
        let Some(client) = clients.get_mut(&serial) else { return };
        let now = sys::monotonic();
        if let Some(why) = client.peer.refusal(&request) {
            return client.refuse(why, now);
        }
        let (command, kind) = match request {
            ControlRequest::Rules => return client.tell(&overview.rules(), now),
            ControlRequest::Kept => return client.tell(&overview.kept(), now),
            ControlRequest::Watch if is_full => {
                return client.refuse(format!("{MOST_WATCHING} clients are already watching"), now);
            }
            ControlRequest::Watch => {
                client.say(&WatchMessage::Lost { lost: 0 });
                side.set_watched(true);
                return client.turn_to(ConnectionState::Watching { lost: 0 }, now);
            }
            ControlRequest::Status => (channel::EngineCommand::Takers, PendingReply::Status),
            ControlRequest::About { pids } => {
                (channel::EngineCommand::About(pids), PendingReply::About)
            }
            ControlRequest::Place { pids } => {
                (channel::EngineCommand::Place(pids), PendingReply::Place)
            }
            ControlRequest::Reload => {
                (channel::EngineCommand::Reload, PendingReply::Reload(overview.generation()))
            }
        };
        client.turn_to(ConnectionState::Waiting(kind), now);
        if !side.ask(serial, command) {
            client.refuse("too many pending requests; try again", now);
        }
    }

    /// Replies to clients when their commands are done.
    fn take_done(&mut self) {
        // EAGAIN means that no wakeup is pending.
        let _rung = self.side.wakeup_fd().read();
        while let Some((serial, done)) = self.side.take_done() {
            let Some(client) = self.clients.get_mut(&serial) else { continue };
            let ConnectionState::Waiting(_) = client.state else { continue };
            match done {
                EngineReply::About(abouts) => abouts.iter().for_each(|about| client.say(about)),
                EngineReply::Reloaded => client.say(&self.overview.reloaded(true)),
                EngineReply::Takers(takers) => client.say(&self.overview.status_with(takers)),
            }
            client.turn_to(ConnectionState::Leaving, sys::monotonic());
            self.send(serial);
        }
    }

    fn send(&mut self, serial: u64) {
        let Some(client) = self.clients.get_mut(&serial) else { return };
        let stays = match client.send(sys::monotonic()) {
            Ok(is_done) => !is_done,
            Err(_) => false,
        };
        let mut event = EpollEvent::new(client.interest(), serial);
        if !stays || self.epoll.modify(&*client, &mut event).is_err() {
            // Closing removes the descriptor from the epoll set.
            self.clients.remove(&serial);
        }
    }

    fn watching(&self) -> usize {
        let watches =
            |client: &&ClientStream| matches!(client.state, ConnectionState::Watching { .. });
        self.clients.values().filter(watches).count()
    }

    /// Sends decisions to the watching clients.
    fn pump(&mut self) {
        let watching: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| matches!(client.state, ConnectionState::Watching { .. }))
            .map(|(&serial, _)| serial)
            .collect();
        self.side.set_watched(!watching.is_empty());
        if watching.is_empty() {
            // These were queued before the hot thread noticed that no client watches.
            self.side.decisions().for_each(drop);
            return;
        }
        for seen in self.side.decisions() {
            let Ok(mut line) =
                serde_json::to_vec(&WatchMessage::Decision(WatchedDecision::from(seen)))
            else {
                continue;
            };
            line.push(b'\n');
            for serial in &watching {
                if let Some(client) = self.clients.get_mut(serial) {
                    client.report(&line);
                }
            }
        }
        let missed = self.side.take_missed();
        for serial in watching {
            if let Some(client) = self.clients.get_mut(&serial) {
                client.miss(missed);
                client.confess();
            }
            self.send(serial);
        }
    }

    /// Disconnects clients that took too long, and resumes accepting after a pause.
    fn expire(&mut self) {
        let now = sys::monotonic();
        if self.paused_until.is_some_and(|until| until <= now) {
            self.paused_until = None;
        }
        let is_full = self.clients.len() >= MOST;
        let late: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| {
                client.due().is_some_and(|due| due <= now)
                    || is_full && client.is_silent(now, HASTE_NS)
            })
            .map(|(&serial, _)| serial)
            .collect();
        for serial in late {
            self.give_up(serial, now);
        }
    }

    /// Replies without the hot thread when a command takes too long.
    fn give_up(&mut self, serial: u64, now: Nanos) {
        let Some(client) = self.clients.get_mut(&serial) else { return };
        match &client.state {
            ConnectionState::Waiting(PendingReply::Status) => {
                client.say(&self.overview.status_stalled());
            }
            ConnectionState::Waiting(PendingReply::Reload(before))
                if *before != self.overview.generation() =>
            {
                client.say(&self.overview.reloaded(false));
            }
            ConnectionState::Waiting(PendingReply::Reload(_)) => {
                client.refuse("the reload is still in progress; see the log", now);
            }
            ConnectionState::Waiting(PendingReply::About | PendingReply::Place) => {
                client.refuse("the thread that moves processes does not respond", now);
            }
            ConnectionState::Asking(_)
            | ConnectionState::Watching { .. }
            | ConnectionState::Leaving => {
                self.clients.remove(&serial);
                return;
            }
        }
        client.turn_to(ConnectionState::Leaving, now);
        self.send(serial);
    }
}
