//! The connection of one client of the control socket, served on a thread of its own. It must end
//! in bounded time, whatever the client does.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{PoisonError, TryLockError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use serde::Serialize;

use super::{ControlService, MOST};
use crate::control::channel::EngineCommand::{About, Place, Plan, Reload, Takers, Watch};
use crate::control::channel::{self, MOST_WATCHING};
use crate::control::history::message::{DISABLED, HistoryMessage};
use crate::control::history::reader::HistoryFilter;
use crate::control::plan::PlanReply;
use crate::control::plan_report::{PlanReport, ProcessPlan};
use crate::control::protocol::{
    ControlRequest, ProcessReport, READERS, RequestError, RequestReader, WatchMessage, line,
};
use crate::event::{Gid, Uid};
use crate::policy::planned::PlanSources;
use crate::sys;

/// The time in which a client must send its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The time and the number of bytes for which the rest of an invalid request is discarded.
const DISCARD_TIMEOUT: Duration = Duration::from_millis(500);
const MOST_DISCARDED: usize = 1 << 20;
/// The time in which a client must read a reply, or the decisions of an interval: a terminal with
/// paused output should survive that.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// The time limit of a command. The client waits a little longer.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(100);
/// The time limit of a command that can be answered without the hot thread.
const SHORT_COMMAND_TIMEOUT: Duration = Duration::from_secs(2);
/// The interval of sending decisions to a watching client, which saves the hot thread the wakeups.
const WATCH_INTERVAL: Duration = Duration::from_millis(20);

const STALLED: &str = "the thread that moves processes does not respond";

/// The credentials of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: Uid,
    is_reader: bool,
}

impl Peer {
    pub(super) fn of(stream: &UnixStream, readers: Option<Gid>) -> io::Result<Self> {
        let credentials = getsockopt(stream, sockopt::PeerCredentials)?;
        let uid = Uid(credentials.uid());
        let is_reader = uid == Uid(0)
            || readers.is_some_and(|gid| {
                // If there are too many groups to read, none counts.
                credentials.gid() == gid.0
                    || sys::peer_groups(stream.as_fd()).unwrap_or_default().contains(&gid.0)
            });
        Ok(Self { uid, is_reader })
    }

    /// Returns the reason for which the request is not permitted, if it is not.
    fn refusal(self, request: &ControlRequest) -> Option<String> {
        if let Some(what) = request.needs_root_for().filter(|_| self.uid != Uid(0)) {
            return Some(format!("only root may request {what}"));
        }
        (!self.is_reader).then(|| format!("only root and members of group {READERS} have access"))
    }
}

/// A connected client. Its stream is in non-blocking mode, so that each wait has a time limit.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    peer: Peer,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, peer: Peer) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, peer })
    }

    /// Sends a refusal without waiting: it fits into the buffer of a new connection.
    pub(super) fn turn_away(&self, error: String) -> io::Result<()> {
        self.send_until(&line(&RequestError { error }), Instant::now())
    }

    /// Receives one request and replies to it.
    pub(super) fn serve(&self, service: &ControlService) {
        let request = self.receive(Instant::now() + REQUEST_TIMEOUT);
        let served = request.and_then(|request| match request {
            Ok(request) => self.answer(request, service),
            // Closing with unread data would reset the connection, and the client might not read why.
            Err(why) => self.refuse(why).map(|()| self.discard()),
        });
        if let Err(error) = served {
            ::log::debug!("client of the control socket with UID {}: {error}", self.peer.uid.0);
        }
    }

    fn answer(&self, request: ControlRequest, service: &ControlService) -> io::Result<()> {
        if let Some(why) = self.peer.refusal(&request) {
            return self.refuse(why);
        }
        let ControlService { channel, overview, .. } = service;
        match request {
            ControlRequest::Rules => self.tell(&overview.rules()),
            ControlRequest::Kept => self.tell(&overview.kept()),
            ControlRequest::Watch => self.watch(service),
            ControlRequest::History { ago_ms, pid, uid } => {
                self.history(service, HistoryFilter { ago_ms, pid, uid })
            }
            ControlRequest::Status => match channel.ask(SHORT_COMMAND_TIMEOUT, Takers)? {
                Some(takers) => self.tell(&overview.status_with(takers)),
                None => self.tell(&overview.status_stalled()),
            },
            ControlRequest::About { pids } => {
                self.report(channel.ask(SHORT_COMMAND_TIMEOUT, |reply| About(pids, reply))?)
            }
            ControlRequest::Explain { pids } => {
                let reports = channel.ask(SHORT_COMMAND_TIMEOUT, |reply| About(pids, reply))?;
                let context = overview.explain_context(reports.is_none());
                let reports = reports.iter().flatten().flat_map(line);
                self.send(&line(&context).into_iter().chain(reports).collect::<Vec<u8>>())
            }
            ControlRequest::Place { pids } => {
                self.report(channel.ask(COMMAND_TIMEOUT, |reply| Place(pids, reply))?)
            }
            ControlRequest::Plan { rules, file } => {
                let directories = rules.into_iter().map(PathBuf::from).collect();
                self.plan(service, PlanSources { directories, file: file.map(PathBuf::from) })
            }
            ControlRequest::Reload => {
                let before = overview.generation();
                match channel.ask(COMMAND_TIMEOUT, Reload)? {
                    Some(()) => self.tell(&overview.reloaded(true)),
                    None if before != overview.generation() => self.tell(&overview.reloaded(false)),
                    None => self.refuse("the reload is still in progress; see the log"),
                }
            }
        }
    }

    /// Sends what a reload of these files would change.
    fn plan(&self, service: &ControlService, sources: PlanSources) -> io::Result<()> {
        const BUSY: &str = "another plan is being computed; try again later";
        // One at a time: a plan is another set of rules in memory. Root waits for those of others.
        let one = match service.planning.try_lock() {
            Err(TryLockError::WouldBlock) if self.peer.uid != Uid(0) => return self.refuse(BUSY),
            Err(TryLockError::WouldBlock) => service.planning.lock(),
            Err(TryLockError::Poisoned(other)) => Err(other),
            Ok(one) => Ok(one),
        };
        let _one = one.unwrap_or_else(PoisonError::into_inner);
        match service.channel.ask(COMMAND_TIMEOUT, |reply| Plan(sources, reply))? {
            None => self.refuse(STALLED),
            Some(PlanReply::Errors(found)) => self.tell(&PlanReport::of_errors(&found)),
            Some(PlanReply::Superseded) => {
                self.refuse("other rules became active meanwhile; try again")
            }
            Some(PlanReply::NoProcesses) => self.refuse("the list of processes cannot be read"),
            Some(PlanReply::Plan(plan)) => {
                let trees = service.overview.hierarchies();
                let processes = plan.processes.iter().map(|one| ProcessPlan::new(one, trees));
                let processes = processes.flat_map(|one| line(&one));
                let report = line(&PlanReport::new(&plan));
                self.send(&report.into_iter().chain(processes).collect::<Vec<u8>>())
            }
        }
    }

    /// Sends a line for each process.
    fn report(&self, abouts: Option<Vec<ProcessReport>>) -> io::Result<()> {
        match abouts {
            Some(abouts) => self.send(&abouts.iter().flat_map(line).collect::<Vec<u8>>()),
            None => self.refuse(STALLED),
        }
    }

    /// Sends decisions until the client disconnects.
    fn watch(&self, service: &ControlService) -> io::Result<()> {
        let (watcher, stream) = channel::watch();
        let most = if self.peer.uid == Uid(0) { MOST } else { MOST_WATCHING };
        match service.channel.ask(SHORT_COMMAND_TIMEOUT, |reply| Watch(watcher, most, reply))? {
            Some(true) => self.tell(&WatchMessage::Lost { lost: 0 })?,
            Some(false) => {
                return self.refuse(format!("{most} clients are already watching"));
            }
            None => return self.refuse(STALLED),
        }
        loop {
            self.send(&stream.take())?;
            // Without events it only waits for a hangup.
            if self.wait(PollFlags::empty(), Instant::now() + WATCH_INTERVAL).is_ok() {
                return Ok(());
            }
        }
    }

    /// Sends the recorded evaluations that meet `filter`, without the hot thread.
    fn history(&self, service: &ControlService, filter: HistoryFilter) -> io::Result<()> {
        let Some(history) = &service.overview.history else { return self.refuse(DISABLED) };
        let mut found = history.find(filter);
        self.tell(&HistoryMessage::Begin(history.status()))?;
        while let Some(part) = found.next_part() {
            let lines = part.into_iter().map(|one| HistoryMessage::Evaluation(Box::new(one)));
            self.send(&lines.flat_map(|message| line(&message)).collect::<Vec<u8>>())?;
        }
        self.tell(&HistoryMessage::End { lost: found.lost() })
    }

    /// Sends an error as the reply.
    fn refuse(&self, why: impl Into<String>) -> io::Result<()> {
        self.tell(&RequestError { error: why.into() })
    }

    /// Sends a single line as the reply.
    fn tell(&self, answer: &impl Serialize) -> io::Result<()> {
        self.send(&line(answer))
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.send_until(bytes, Instant::now() + REPLY_TIMEOUT)
    }

    fn send_until(&self, mut bytes: &[u8], end: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            match (&self.stream).write(bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLOUT, end)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the request. Returns the reason as text if it is invalid.
    fn receive(&self, end: Instant) -> io::Result<Result<ControlRequest, String>> {
        let mut incoming = RequestReader::default();
        let mut part = [0; 4096];
        loop {
            match (&self.stream).read(&mut part) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    if let Some(request) = incoming.push(&part[..count]) {
                        return Ok(request);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLIN, end)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Discards what the client still sends, up to a limit.
    fn discard(&self) {
        let end = Instant::now() + DISCARD_TIMEOUT;
        // After that the client reads the end of the reply, and stops.
        let _shut = self.stream.shutdown(std::net::Shutdown::Write);
        let mut part = [0; 4096];
        for _ in 0..MOST_DISCARDED / part.len() {
            match (&self.stream).read(&mut part) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if self.wait(PollFlags::POLLIN, end).is_err() {
                        return;
                    }
                }
                Err(_) => return,
            }
        }
    }

    /// Waits for events of the stream, of which a hangup is always one.
    fn wait(&self, events: PollFlags, end: Instant) -> io::Result<()> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.stream.as_fd(), events)], timeout) {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const SOON: Duration = Duration::from_millis(200);

    fn connected() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::new(ours, Peer { uid: Uid(0), is_reader: true }).unwrap(), theirs)
    }

    /// Asserts that `result` is a timeout, [`SOON`] after `began`.
    fn expect_timeout<T: std::fmt::Debug>(result: io::Result<T>, began: Instant) {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::TimedOut);
        let took = began.elapsed();
        assert!(took > SOON / 2 && took < 20 * SOON, "{took:?}");
    }

    #[test]
    fn a_client_that_reads_nothing_or_little_is_given_up() {
        let reply = vec![b'x'; 4 << 20];
        let (connection, theirs) = connected();
        let began = Instant::now();
        expect_timeout(connection.send_until(&reply, began + SOON), began);
        drop(theirs);
        let (connection, mut theirs) = connected();
        let reader = thread::spawn(move || {
            while theirs.read(&mut [0; 512]).is_ok_and(|count| count > 0) {
                thread::sleep(Duration::from_millis(1));
            }
        });
        let began = Instant::now();
        expect_timeout(connection.send_until(&reply, began + SOON), began);
        drop(connection);
        reader.join().unwrap();
    }

    #[test]
    fn a_client_that_writes_slowly_is_given_up() {
        let (connection, mut theirs) = connected();
        let writer = thread::spawn(move || {
            while theirs.write_all(b" ").is_ok() {
                thread::sleep(Duration::from_millis(1));
            }
        });
        let began = Instant::now();
        expect_timeout(connection.receive(began + SOON), began);
        drop(connection);
        writer.join().unwrap();
    }

    #[test]
    fn a_request_is_received_in_pieces() {
        let (connection, mut theirs) = connected();
        let writer = thread::spawn(move || {
            for byte in b"{\"request\":\"status\"}\nrest" {
                theirs.write_all(&[*byte]).unwrap();
                thread::yield_now();
            }
            theirs
        });
        let received = connection.receive(Instant::now() + REQUEST_TIMEOUT).unwrap();
        assert_eq!(received, Ok(ControlRequest::Status));
        drop(writer.join().unwrap());
        let (connection, theirs) = connected();
        drop(theirs);
        let ended = connection.receive(Instant::now() + REQUEST_TIMEOUT).unwrap_err();
        assert_eq!(ended.kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn writes_are_for_root_and_reads_for_readers() {
        let [root, reader, other] = [(0, true), (7, true), (7, false)]
            .map(|(uid, is_reader)| Peer { uid: Uid(uid), is_reader });
        let place = ControlRequest::Place { pids: vec![1] };
        let history = ControlRequest::History { ago_ms: None, pid: None, uid: Some(7) };
        assert!(reader.refusal(&history).is_none() && other.refusal(&history).is_some());
        assert!(root.refusal(&place).is_none() && root.refusal(&ControlRequest::Status).is_none());
        assert!(
            reader.refusal(&place).is_some() && reader.refusal(&ControlRequest::Watch).is_none()
        );
        let plan = ControlRequest::Plan { rules: Vec::new(), file: None };
        let of_file = ControlRequest::Plan { rules: Vec::new(), file: Some("/a.toml".to_owned()) };
        assert!(reader.refusal(&plan).is_none() && reader.refusal(&of_file).is_some());
        assert!(root.refusal(&of_file).is_none() && other.refusal(&plan).is_some());
        assert!(
            other.refusal(&ControlRequest::Reload).is_some()
                && other.refusal(&ControlRequest::Rules).is_some()
        );
    }
}
