//! Serves the control socket, on a thread of its own: see [`super::protocol`].
//!
//! Clients cannot keep each other waiting, nor the hot thread: nothing blocks, a client that says or
//! takes nothing for five seconds is sent away, and there are 64 at once. Others wait in the backlog of
//! the socket; while they do, a client may be silent for a tenth of a second only.

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

use super::exchange::{self, ControlSide, Done, Ringer};
use super::overview::Overview;
use super::protocol::{Decision, READERS, Request, Watched};
use super::socket::{Listener, Place};
use crate::event::{Gid, Nanos};
use crate::sys;
use connection::{Connection, Errand, State};

/// Clients at once.
const MOST: usize = 64;
/// Of whom this many may watch: they stay.
const MOST_WATCHING: usize = 16;
/// How long a client may be silent while others wait for its place.
const HASTE_NS: u64 = 100_000_000;
/// How often decisions are passed on to those who watch. The hot thread need not ring for each.
const PUMP_NS: u64 = 20_000_000;
/// With no descriptor left, no connection is accepted for this long.
const PAUSE_NS: u64 = 1_000_000_000;
/// Stand for the listening socket and the bell; connections have their serial number.
const LISTENER: u64 = u64::MAX;
const BELL: u64 = u64::MAX - 1;
const SERVED: &str =
    "another daemon serves it; end that one first, or start this one with --control off";

/// The socket before it is served: whoever connects waits.
#[derive(Debug)]
pub struct Bound {
    listener: Listener,
    readers: Option<Gid>,
}

impl Bound {
    /// Makes the socket `path`. Its directory is made if it is not there.
    ///
    /// # Errors
    /// `AddrInUse` when somebody serves it; else the socket cannot be made.
    pub fn open(path: &Path) -> io::Result<Self> {
        let readers = readers();
        Ok(Self { listener: open(path, readers)?, readers })
    }
}

/// The running server. Dropping it ends the thread and removes the socket.
#[derive(Debug)]
pub struct Server {
    thread: Option<JoinHandle<()>>,
    ringer: Ringer,
    ends: Arc<AtomicBool>,
}

impl Server {
    /// Serves the socket.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(
        Bound { listener, readers }: Bound,
        side: ControlSide,
        overview: Overview,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&listener.listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        epoll.add(side.bell(), EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        let (ringer, ends) = (side.ringer(), Arc::new(AtomicBool::new(false)));
        let service = Service {
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

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Relaxed);
        self.ringer.ring();
        if let Some(thread) = self.thread.take() {
            // A panic was shown by its thread, and there is nothing else to say.
            let _ended = thread.join();
        }
    }
}

/// The group of those who may ask.
fn readers() -> Option<Gid> {
    match Group::from_name(READERS) {
        Ok(group) => group.map(|group| Gid(group.gid.as_raw())),
        Err(errno) => {
            ::log::warn!("the name service cannot say who is in {READERS}: {}", errno.desc());
            None
        }
    }
}

fn open(path: &Path, readers: Option<Gid>) -> io::Result<Listener> {
    if let Some(parent) = path.parent() {
        match fs::create_dir(parent) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                let named = format!("{}: {error}", parent.display());
                return Err(io::Error::new(error.kind(), named));
            }
            // Whatever the umask.
            Ok(()) => fs::set_permissions(parent, PermissionsExt::from_mode(0o755))?,
        }
    }
    let mut place = Place::shared(path.to_owned(), None, readers);
    if readers.is_none() {
        place.mode = Mode::S_IRUSR | Mode::S_IWUSR;
    }
    Listener::open(place, SERVED, drop)
}

/// What the thread has.
struct Service {
    listener: Listener,
    epoll: Epoll,
    side: ControlSide,
    overview: Overview,
    readers: Option<Gid>,
    ends: Arc<AtomicBool>,
    /// By serial number, so oldest first.
    clients: BTreeMap<u64, Connection>,
    serial: u64,
    /// Whether new clients are heard.
    listens: bool,
    paused_until: Option<Nanos>,
}

impl Service {
    fn run(mut self) {
        let mut events = [EpollEvent::empty(); 64];
        while !self.ends.load(Relaxed) {
            let ready = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(ready) => ready,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(errno) => {
                    ::log::error!("the control socket is not served any more: {}", errno.desc());
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
        let clients = self.clients.values().filter_map(Connection::due).min();
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
            // One that cannot be asked who it is has gone.
            if let Ok(connection) = Connection::new(stream, self.readers, sys::monotonic()) {
                self.serial += 1;
                let event = EpollEvent::new(EpollFlags::EPOLLIN, self.serial);
                if self.epoll.add(&connection, event).is_ok() {
                    self.clients.insert(self.serial, connection);
                }
            }
        }
    }

    /// Hears new clients as long as there is room.
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

    /// A client is ready for something.
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

    fn answer(&mut self, serial: u64, request: Request) {
        let is_full = self.watching() >= MOST_WATCHING;
        let Self { clients, side, overview, .. } = self;
        let Some(client) = clients.get_mut(&serial) else { return };
        let now = sys::monotonic();
        if let Some(why) = client.peer.refusal(&request) {
            return client.refuse(why, now);
        }
        let (errand, kind) = match request {
            Request::Rules => return client.tell(&overview.rules(), now),
            Request::Kept => return client.tell(&overview.kept(), now),
            Request::Watch if is_full => {
                return client.refuse(format!("{MOST_WATCHING} clients watch already"), now);
            }
            Request::Watch => {
                client.say(&Watched::Lost { lost: 0 });
                side.set_watched(true);
                return client.turn_to(State::Watching { lost: 0 }, now);
            }
            Request::Status => (exchange::Errand::Takers, Errand::Status),
            Request::About { pids } => (exchange::Errand::About(pids), Errand::About),
            Request::Place { pids } => (exchange::Errand::Place(pids), Errand::Place),
            Request::Reload => (exchange::Errand::Reload, Errand::Reload(overview.generation())),
        };
        client.turn_to(State::Waiting(kind), now);
        if !side.ask(serial, errand) {
            client.refuse("too many clients wait for an answer; try again", now);
        }
    }

    /// Answers those whose errands are done.
    fn take_done(&mut self) {
        // EAGAIN means that nobody rang.
        let _rung = self.side.bell().read();
        while let Some((serial, done)) = self.side.take_done() {
            let Some(client) = self.clients.get_mut(&serial) else { continue };
            let State::Waiting(_) = client.state else { continue };
            match done {
                Done::About(abouts) => abouts.iter().for_each(|about| client.say(about)),
                Done::Reloaded => client.say(&self.overview.reloaded(true)),
                Done::Takers(takers) => client.say(&self.overview.status_with(takers)),
            }
            client.turn_to(State::Leaving, sys::monotonic());
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
            // Closing takes it out of the epoll set.
            self.clients.remove(&serial);
        }
    }

    fn watching(&self) -> usize {
        let watches = |client: &&Connection| matches!(client.state, State::Watching { .. });
        self.clients.values().filter(watches).count()
    }

    /// Passes decisions on to those who watch.
    fn pump(&mut self) {
        let watching: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| matches!(client.state, State::Watching { .. }))
            .map(|(&serial, _)| serial)
            .collect();
        self.side.set_watched(!watching.is_empty());
        if watching.is_empty() {
            // What came before the hot thread saw that nobody watches any more.
            self.side.decisions().for_each(drop);
            return;
        }
        for seen in self.side.decisions() {
            let Ok(mut line) = serde_json::to_vec(&Watched::Decision(Decision::from(seen))) else {
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

    /// Sends away who took too long, and goes on after a pause.
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

    /// An errand that takes too long is answered with what is known without.
    fn give_up(&mut self, serial: u64, now: Nanos) {
        let Some(client) = self.clients.get_mut(&serial) else { return };
        match &client.state {
            State::Waiting(Errand::Status) => client.say(&self.overview.status_stalled()),
            State::Waiting(Errand::Reload(before)) if *before != self.overview.generation() => {
                client.say(&self.overview.reloaded(false));
            }
            State::Waiting(Errand::Reload(_)) => {
                client.refuse("reading the files takes long; it goes on, see the log", now);
            }
            State::Waiting(Errand::About | Errand::Place) => {
                client.refuse("the thread that moves processes does not answer", now);
            }
            State::Asking(_) | State::Watching { .. } | State::Leaving => {
                self.clients.remove(&serial);
                return;
            }
        }
        client.turn_to(State::Leaving, now);
        self.send(serial);
    }
}
