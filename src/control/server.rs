//! Serves the control socket: see [`super::protocol`]. Clients must not delay each other or the hot
//! thread.
//!
//! One thread accepts connections, and each connection has a thread of its own, which may wait for
//! its client. A limit for each user, and a reserve for root, prevent that members of the group
//! occupy all connections.

mod connection;

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use nix::sys::stat::Mode;

use super::channel::ControlChannel;
use super::protocol::READERS;
use super::socket::{SocketAddress, SocketListener};
use super::status_source::StatusSource;
use crate::event::{Gid, Uid};
use crate::sys::accounts;
use connection::{Connection, Peer};

/// The maximum number of connections.
const MOST: usize = 24;
/// The number of connections among them that only root can use.
const ROOT_RESERVE: usize = 4;
/// The maximum number of connections of a user other than root.
const MOST_OF_USER: usize = 4;
/// The stack of a thread. A request of 128 nested arrays, the limit of the parser, uses most.
const STACK: usize = 256 * 1024;
/// The pause in accepting connections when no descriptor or thread is left.
const PAUSE: Duration = Duration::from_secs(1);
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

/// The running server. Dropping it removes the socket; threads that wait for a client or the hot
/// thread end with the process.
#[derive(Debug)]
pub struct ControlServer {
    thread: Option<JoinHandle<()>>,
    acceptor: Arc<Acceptor>,
}

impl ControlServer {
    /// Starts the thread that accepts connections.
    ///
    /// # Errors
    /// Returns an error if the thread cannot be created.
    pub fn start(
        BoundServer { listener, readers }: BoundServer,
        channel: ControlChannel,
        overview: StatusSource,
    ) -> io::Result<Self> {
        listener.listener.set_nonblocking(false)?;
        let acceptor = Arc::new(Acceptor {
            listener,
            readers,
            service: Arc::new(ControlService {
                channel,
                overview,
                connected: Mutex::default(),
                planning: Mutex::default(),
            }),
            stops: AtomicBool::new(false),
        });
        let builder = thread::Builder::new().name("control".into()).stack_size(STACK);
        let own = Arc::clone(&acceptor);
        Ok(Self { thread: Some(builder.spawn(move || own.run())?), acceptor })
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.acceptor.stops.store(true, Relaxed);
        // accept() then fails; shutdown() of a listening socket cannot.
        let _shut = shutdown(self.acceptor.listener.listener.as_raw_fd(), Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread has already reported a panic.
            let _ended = thread.join();
        }
    }
}

/// Returns the group with read access.
fn readers() -> Option<Gid> {
    match accounts::group_by_name(READERS) {
        Ok(group) => group.map(|group| Gid(group.gid)),
        Err(error) => {
            ::log::warn!("cannot look up the group {READERS}: {error}");
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

/// The state of the thread that accepts connections.
#[derive(Debug)]
struct Acceptor {
    listener: SocketListener,
    readers: Option<Gid>,
    service: Arc<ControlService>,
    stops: AtomicBool,
}

/// The data shared by the threads of connections.
#[derive(Debug)]
struct ControlService {
    channel: ControlChannel,
    overview: StatusSource,
    /// The user of each connection.
    connected: Mutex<Vec<Uid>>,
    /// Held while a plan is computed.
    planning: Mutex<()>,
}

impl Acceptor {
    fn run(&self) {
        while !self.stops.load(Relaxed) {
            let accepted = self.listener.listener.accept();
            let error = match accepted.and_then(|(stream, _)| self.admit(stream)) {
                Ok(()) => continue,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => error,
            };
            if !self.stops.load(Relaxed) {
                // Without a pause the thread would spin.
                ::log::warn!("{}: {error}", self.listener.path().display());
                thread::park_timeout(PAUSE);
            }
        }
    }

    /// Starts the thread of a connection, or refuses the connection.
    fn admit(&self, stream: UnixStream) -> io::Result<()> {
        // A client with unreadable credentials has disconnected.
        let Ok(peer) = Peer::of(&stream, self.readers) else { return Ok(()) };
        let connection = Connection::new(stream, peer)?;
        let slot =
            match ConnectionSlot::take(&self.service, self.service.overview.account_of(peer.uid)) {
                Ok(slot) => slot,
                Err(why) => {
                    self.service.overview.metrics.control_refused.increment();
                    // The client may have disconnected.
                    let _sent = connection.turn_away(why);
                    return Ok(());
                }
            };
        let builder = thread::Builder::new().name("control-client".into()).stack_size(STACK);
        let spawned = builder.spawn(move || {
            connection.serve(&slot.0);
            // Before the connection is closed: then the client may connect again.
            drop(slot);
        });
        spawned.map(drop).inspect_err(|_| self.service.overview.metrics.control_refused.increment())
    }
}

/// A place among the connections, and the user that has it.
struct ConnectionSlot(Arc<ControlService>, Uid);

impl ConnectionSlot {
    /// Returns the reason as text if no place is free.
    fn take(service: &Arc<ControlService>, uid: Uid) -> Result<Self, String> {
        let mut connected = service.connected();
        let most = if uid == Uid(0) { MOST } else { MOST - ROOT_RESERVE };
        if connected.len() >= most {
            return Err(format!("{most} clients are connected, the limit; try again later"));
        }
        let of_user = connected.iter().filter(|&&other| other == uid).count();
        if uid != Uid(0) && of_user >= MOST_OF_USER {
            let uid = uid.0;
            return Err(format!(
                "{of_user} clients of UID {uid} are connected, the limit for a user; try again later"
            ));
        }
        connected.push(uid);
        drop(connected);
        Ok(Self(Arc::clone(service), uid))
    }
}

impl Drop for ConnectionSlot {
    fn drop(&mut self) {
        let mut connected = self.0.connected();
        if let Some(index) = connected.iter().position(|&uid| uid == self.1) {
            connected.swap_remove(index);
        }
    }
}

impl ControlService {
    fn connected(&self) -> MutexGuard<'_, Vec<Uid>> {
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::path::PathBuf;
    use std::time::Instant;

    use super::*;
    use crate::config::daemon_toml::ExternalMoves;
    use crate::control::channel::tests::pair;

    fn overview() -> StatusSource {
        let moves = (ExternalMoves::Off, false);
        StatusSource::new(Arc::default(), Default::default(), Arc::default(), false, moves)
    }

    #[test]
    fn a_user_has_few_connections_and_root_a_reserve() {
        let (_hot, channel) = pair();
        let (overview, connected, planning) = (overview(), Mutex::default(), Mutex::default());
        let service = Arc::new(ControlService { channel, overview, connected, planning });
        fn take(service: &Arc<ControlService>, uid: u32) -> Result<ConnectionSlot, String> {
            ConnectionSlot::take(service, Uid(uid)).map_err(|why| why.to_string())
        }
        let mut slots: Vec<ConnectionSlot> =
            (0..4).map(|_| take(&service, 1000).unwrap()).collect();
        let refused = take(&service, 1000).err().unwrap();
        assert!(refused.starts_with("4 clients of UID 1000 are connected"), "{refused}");
        slots.extend((1..17).map(|uid| take(&service, uid).unwrap()));
        let refused = take(&service, 17).err().unwrap();
        assert!(refused.starts_with("20 clients are connected"), "{refused}");
        slots.extend((0..4).map(|_| take(&service, 0).unwrap()));
        let refused = take(&service, 0).err().unwrap();
        assert!(refused.starts_with("24 clients are connected"), "{refused}");
        slots.truncate(4);
        assert!(take(&service, 1000).is_err());
        slots.remove(0);
        slots.push(take(&service, 1000).unwrap());
        assert!(take(&service, 1000).is_err());
        drop(slots);
        assert_eq!(*service.connected(), []);
    }

    /// Returns a server below `directory` that no engine answers, and its path.
    fn served(directory: &tempfile::TempDir) -> (ControlServer, PathBuf, impl Sized + use<>) {
        let path = directory.path().join("control.sock");
        let bound = BoundServer { listener: open(&path, None).unwrap(), readers: None };
        let (hot, channel) = pair();
        (ControlServer::start(bound, channel, overview()).unwrap(), path, hot)
    }

    #[test]
    fn connections_beyond_the_limit_get_the_reason_and_are_counted() {
        let directory = tempfile::tempdir().unwrap();
        let (server, path, _hot) = served(&directory);
        let limit = if nix::unistd::getuid().is_root() { MOST } else { MOST_OF_USER };
        let mut silent: Vec<UnixStream> =
            (0..limit).map(|_| UnixStream::connect(&path).unwrap()).collect();
        for _ in 0..3 {
            let mut text = String::new();
            UnixStream::connect(&path).unwrap().read_to_string(&mut text).unwrap();
            assert!(
                text.starts_with("{\"error\":\"") && text.ends_with("again later\"}\n"),
                "{text}"
            );
        }
        assert_eq!(server.acceptor.service.overview.metrics.control_refused.get(), 3);
        silent.pop();
        // Its thread has to notice that it was closed.
        while server.acceptor.service.connected().len() == limit {
            thread::yield_now();
        }
        let mut nested = UnixStream::connect(&path).unwrap();
        // The most that the stack has to hold.
        let request = format!("{{\"request\":\"place\",\"pids\":{}\n", "[".repeat(60_000));
        nested.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        nested.read_to_string(&mut text).unwrap();
        assert!(text.contains("recursion limit"), "{text}");
        let began = Instant::now();
        drop(server);
        let took = began.elapsed();
        assert!(!path.exists() && took < Duration::from_secs(2), "{took:?}");
    }
}
