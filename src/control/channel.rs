//! Channels between the hot thread and the threads that serve the control socket. The hot thread
//! must never wait for them.
//!
//! All channels are bounded: data that does not fit is counted or dropped. While no client watches,
//! a decision costs the hot thread one comparison.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use nix::sys::eventfd::EventFd;

use super::plan::PlanReply;
use super::protocol::{ProcessReport, WatchMessage, WatchedDecision, line};
use crate::config::escape::{Escaped, EscapedBytes};
use crate::event::{Cause, Nanos, Pid, Uid};
use crate::policy::planned::PlanSources;
use crate::rules::Origin;
use crate::sys;

/// The maximum number of commands queued for the hot thread: those of all connections, and of
/// earlier ones that no longer wait for the reply.
const COMMANDS: usize = 64;
/// The maximum number of decisions queued for a client: a fifth of a second at 20,000 evaluations
/// per second.
const DECISIONS: usize = 4096;
/// The number of watching clients beyond which only root can watch: those stay connected.
pub(super) const MOST_WATCHING: usize = 16;

/// A command for the hot thread, with the channel for its result. The channel has room for the
/// result; if the client no longer waits for it, sending fails.
#[derive(Clone, Debug)]
pub enum EngineCommand {
    /// A query for the history of these processes.
    About(Vec<u32>, Sender<Vec<ProcessReport>>),
    /// An immediate re-evaluation of these processes.
    Place(Vec<u32>, Sender<Vec<ProcessReport>>),
    /// A reload of all files and a re-evaluation of all processes.
    Reload(Sender<()>),
    /// A query for what a reload of these files would change.
    Plan(PlanSources, Sender<PlanReply>),
    /// A query for the external movers and their counts.
    Takers(Sender<Vec<(String, u64)>>),
    /// A watching client. The result is `false` if this many are watching.
    Watch(Watcher, usize, Sender<bool>),
}

/// An evaluation and its outcome, as passed by the hot thread.
#[derive(Debug)]
pub struct DecisionRecord {
    /// The PID of the process.
    pub pid: Pid,
    /// The effective user ID, if it could be read.
    pub uid: Option<Uid>,
    /// The target of the `exe` link.
    pub exe: Option<Box<[u8]>>,
    /// The name of the matching rule.
    pub rule: Option<Arc<str>>,
    /// The file and line of the rule.
    pub origin: Option<Origin>,
    /// The cgroup of the rule.
    pub cgroup: Option<Box<str>>,
    /// The protocol name of the outcome.
    pub outcome: &'static str,
    /// The reason for the evaluation.
    pub cause: Cause,
    /// The end of the evaluation.
    pub at: Nanos,
    /// The time from the event to the end of the evaluation.
    pub latency_ns: u64,
}

impl From<&DecisionRecord> for WatchedDecision {
    fn from(seen: &DecisionRecord) -> Self {
        let ago = Duration::from_nanos(sys::monotonic().since(seen.at));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            time_ms: u64::try_from(now.saturating_sub(ago).as_millis()).unwrap_or(u64::MAX),
            pid: seen.pid.get(),
            uid: seen.uid.map(|uid| uid.0),
            exe: seen.exe.as_ref().map(|exe| EscapedBytes(exe).to_string()),
            rule: seen.rule.as_ref().map(|rule| Escaped(rule).to_string()),
            line: seen.origin.as_ref().map(|origin| origin.line),
            file: seen
                .origin
                .as_ref()
                .map(|origin| EscapedBytes(origin.file.as_os_str().as_encoded_bytes()).to_string()),
            cgroup: seen.cgroup.as_ref().map(|path| Escaped(path).to_string()),
            outcome: seen.outcome.to_owned(),
            cause: seen.cause.to_string(),
            latency_us: seen.latency_ns / 1000,
        }
    }
}

/// The hot thread's side of the channels.
#[derive(Debug)]
pub struct EngineChannel {
    commands: Receiver<EngineCommand>,
    watchers: Vec<Watcher>,
}

/// The side of the threads that serve the socket.
#[derive(Debug)]
pub struct ControlChannel {
    commands: Sender<EngineCommand>,
    hot_bell: Arc<EventFd>,
}

/// The channel to a watching client. Several clients share a record.
#[derive(Clone, Debug)]
pub struct Watcher {
    decisions: Sender<Arc<DecisionRecord>>,
    lost: Arc<AtomicU64>,
}

/// The decisions for a watching client. Dropping it ends the watch.
#[derive(Debug)]
pub struct WatchStream {
    decisions: Receiver<Arc<DecisionRecord>>,
    lost: Arc<AtomicU64>,
}

/// Creates both sides. `hot_bell` wakes the hot thread.
pub fn exchange(hot_bell: Arc<EventFd>) -> (EngineChannel, ControlChannel) {
    let (to_hot, commands) = bounded(COMMANDS);
    let hot = EngineChannel { commands, watchers: Vec::new() };
    (hot, ControlChannel { commands: to_hot, hot_bell })
}

/// Creates the channel for a watching client.
pub fn watch() -> (Watcher, WatchStream) {
    let (sender, decisions) = bounded(DECISIONS);
    let lost = Arc::<AtomicU64>::default();
    (Watcher { decisions: sender, lost: Arc::clone(&lost) }, WatchStream { decisions, lost })
}

impl EngineChannel {
    /// Checks whether a command is queued.
    pub fn has_command(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Returns the next queued command.
    pub fn take_command(&self) -> Option<EngineCommand> {
        self.commands.try_recv().ok()
    }

    /// Adds a watching client. Returns `false` if `most` are watching.
    pub fn watch(&mut self, watcher: Watcher, most: usize) -> bool {
        // Only the stream of a connected client shares the counter.
        self.watchers.retain(|watcher| Arc::strong_count(&watcher.lost) > 1);
        let is_free = self.watchers.len() < most;
        self.watchers.extend(is_free.then_some(watcher));
        is_free
    }

    /// Checks whether a client watches decisions.
    pub fn is_watched(&self) -> bool {
        !self.watchers.is_empty()
    }

    /// Passes a decision to the watching clients, and counts it for those that are too slow.
    pub fn tell(&mut self, seen: DecisionRecord) {
        let seen = Arc::new(seen);
        // No receiver waits for a message, so none costs a wakeup.
        self.watchers.retain(|Watcher { decisions, lost }| {
            let sent = decisions.try_send(Arc::clone(&seen));
            if matches!(sent, Err(TrySendError::Full(_))) {
                lost.fetch_add(1, Relaxed);
            }
            !matches!(sent, Err(TrySendError::Disconnected(_)))
        });
    }
}

impl WatchStream {
    /// Returns the lines of the protocol since the last call, and after them the number of lost
    /// ones.
    pub fn take(&self) -> Vec<u8> {
        let seen = self.decisions.try_iter().take(DECISIONS);
        let told = seen.map(|seen| WatchMessage::Decision(WatchedDecision::from(&*seen)));
        let mut lines: Vec<u8> = told.flat_map(|message| line(&message)).collect();
        let lost = self.lost.swap(0, Relaxed);
        if lost > 0 {
            lines.extend(line(&WatchMessage::Lost { lost }));
        }
        lines
    }
}

impl ControlChannel {
    /// Queues a command and waits for its result. Returns `None` if the hot thread does not send it
    /// within `patience`, or has not taken earlier commands either.
    ///
    /// # Errors
    /// Returns `BrokenPipe` if the hot thread has ended.
    pub fn ask<T>(
        &self,
        patience: Duration,
        command: impl FnOnce(Sender<T>) -> EngineCommand,
    ) -> io::Result<Option<T>> {
        let (sender, result) = bounded(1);
        match self.commands.try_send(command(sender)) {
            // EAGAIN means an unread wakeup counter of 2^64 - 2, which no number of commands
            // reaches.
            Ok(()) => self.hot_bell.write(1).map(drop)?,
            Err(TrySendError::Full(_)) => return Ok(None),
            Err(TrySendError::Disconnected(_)) => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        match result.recv_timeout(patience) {
            Ok(result) => Ok(Some(result)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;

    pub(in crate::control) fn pair() -> (EngineChannel, ControlChannel) {
        exchange(Arc::new(EventFd::new().unwrap()))
    }

    fn seen() -> DecisionRecord {
        DecisionRecord {
            pid: Pid::new(7).unwrap(),
            uid: Some(Uid(1)),
            exe: Some(Box::from(&b"/bin/\xff\n"[..])),
            rule: Some("web".into()),
            origin: Some(Origin { file: Arc::from(Path::new("/r/\n.toml")), line: 7 }),
            cgroup: None,
            outcome: "placed",
            cause: Cause::EXEC,
            at: Nanos(0),
            latency_ns: 1_999,
        }
    }

    #[test]
    fn too_many_errands_are_refused() {
        let (hot, control) = pair();
        for _ in 0..100 {
            assert_eq!(control.ask(Duration::ZERO, EngineCommand::Takers).unwrap(), None);
        }
        let commands: Vec<EngineCommand> = std::iter::from_fn(|| hot.take_command()).collect();
        assert_eq!(commands.len(), COMMANDS);
        // Nobody waits for the results any more.
        for command in commands {
            let EngineCommand::Takers(reply) = command else { panic!("{command:?}") };
            assert!(reply.try_send(Vec::new()).is_err());
        }
    }

    #[test]
    fn a_command_is_answered_or_its_thread_has_ended() {
        let (hot, control) = pair();
        let engine = std::thread::spawn(move || {
            while !hot.has_command() {
                std::thread::yield_now();
            }
            let Some(EngineCommand::Reload(reply)) = hot.take_command() else { panic!() };
            reply.try_send(()).unwrap();
        });
        let patience = Duration::from_secs(60);
        assert_eq!(control.ask(patience, EngineCommand::Reload).unwrap(), Some(()));
        engine.join().unwrap();
        let ended = control.ask(patience, EngineCommand::Reload).unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::BrokenPipe);
    }

    fn messages(stream: &WatchStream) -> Vec<WatchMessage> {
        let text = String::from_utf8(stream.take()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let (mut hot, _control) = pair();
        assert!(!hot.is_watched());
        let [(to_quick, quick), (to_slow, slow)] = [watch(), watch()];
        assert!(hot.watch(to_quick, 2) && hot.watch(to_slow, 2) && hot.is_watched());
        for _ in 0..DECISIONS + 5 {
            hot.tell(seen());
            assert_eq!(messages(&quick).len(), 1);
        }
        let mut told = messages(&slow);
        assert_eq!(told.pop(), Some(WatchMessage::Lost { lost: 5 }));
        assert_eq!(told.len(), DECISIONS);
        assert!(told.iter().all(|message| matches!(message, WatchMessage::Decision(_))));
        hot.tell(seen());
        assert_eq!([&quick, &slow].map(|stream| messages(stream).len()), [1, 1]);
        drop((quick, slow));
        hot.tell(seen());
        assert!(!hot.is_watched());
    }

    #[test]
    fn clients_beyond_the_limit_do_not_watch() {
        let (mut hot, _control) = pair();
        let mut streams = Vec::new();
        for count in 1..20 {
            let (watcher, stream) = watch();
            assert_eq!(hot.watch(watcher, MOST_WATCHING), count <= MOST_WATCHING);
            streams.push(stream);
        }
        drop(streams.remove(3));
        let (watcher, stream) = watch();
        assert!(hot.watch(watcher, MOST_WATCHING));
        hot.tell(seen());
        assert_eq!(messages(&stream).len(), 1);
    }

    #[test]
    fn names_are_made_harmless() {
        let decision = WatchedDecision::from(&seen());
        assert_eq!(decision.exe.as_deref(), Some("/bin/\\xff\\u{a}"));
        assert_eq!((decision.file.as_deref(), decision.line), (Some("/r/\\u{a}.toml"), Some(7)));
        assert_eq!((decision.latency_us, decision.cause.as_str()), (1, "exec"));
    }
}
