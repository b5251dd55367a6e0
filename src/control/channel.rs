//! Channels between the hot thread and the thread that serves the control socket. The hot thread
//! must never wait for them.
//!
//! All channels are bounded: data that does not fit is counted or dropped. While no client watches,
//! a decision costs the hot thread one relaxed load.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::protocol::{ProcessReport, WatchedDecision};
use crate::config::escape::{Escaped, EscapedBytes};
use crate::event::{Cause, Nanos, Pid, Uid};
use crate::rules::Origin;
use crate::sys;

/// The maximum number of commands queued for the hot thread; a client is refused if its command
/// does not fit.
const ERRANDS: usize = 64;
/// The maximum number of queued decisions: a fifth of a second at 20,000 evaluations per second.
const DECISIONS: usize = 4096;

/// A command for the hot thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineCommand {
    /// A query for the history of these processes.
    About(Vec<u32>),
    /// An immediate re-evaluation of these processes.
    Place(Vec<u32>),
    /// A reload of all files and a re-evaluation of all processes.
    Reload,
    /// A query for the external movers and their counts.
    Takers,
}

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineReply {
    /// The result of [`EngineCommand::About`] and [`EngineCommand::Place`].
    About(Vec<ProcessReport>),
    /// The result of [`EngineCommand::Reload`]. The diagnostics are on the board of the rule thread.
    Reloaded,
    /// The result of [`EngineCommand::Takers`].
    Takers(Vec<(String, u64)>),
}

/// The identifier that links a result to its command.
pub type RequestId = u64;

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

impl From<DecisionRecord> for WatchedDecision {
    fn from(seen: DecisionRecord) -> Self {
        let ago = Duration::from_nanos(sys::monotonic().since(seen.at));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            time_ms: u64::try_from(now.saturating_sub(ago).as_millis()).unwrap_or(u64::MAX),
            pid: seen.pid.get(),
            uid: seen.uid.map(|uid| uid.0),
            exe: seen.exe.map(|exe| EscapedBytes(&exe).to_string()),
            rule: seen.rule.map(|rule| Escaped(&rule).to_string()),
            line: seen.origin.as_ref().map(|origin| origin.line),
            file: seen
                .origin
                .map(|origin| EscapedBytes(origin.file.as_os_str().as_encoded_bytes()).to_string()),
            cgroup: seen.cgroup.map(|path| Escaped(&path).to_string()),
            outcome: seen.outcome.to_owned(),
            cause: seen.cause.to_string(),
            latency_us: seen.latency_ns / 1000,
        }
    }
}

/// The hot thread's side of the channels.
#[derive(Debug)]
pub struct EngineChannel {
    commands: Receiver<(RequestId, EngineCommand)>,
    done: Sender<(RequestId, EngineReply)>,
    decisions: Sender<DecisionRecord>,
    shared: Arc<ChannelState>,
}

/// The server thread's side of the channels.
#[derive(Debug)]
pub struct ControlChannel {
    commands: Sender<(RequestId, EngineCommand)>,
    done: Receiver<(RequestId, EngineReply)>,
    decisions: Receiver<DecisionRecord>,
    shared: Arc<ChannelState>,
    hot_bell: Arc<EventFd>,
}

#[derive(Debug)]
struct ChannelState {
    is_watched: AtomicBool,
    /// The number of decisions that did not fit.
    missed: AtomicU64,
    /// The eventfd written when a command is done.
    bell: EventFd,
}

/// Creates both sides. `hot_bell` wakes the hot thread.
///
/// # Errors
/// As eventfd(2).
pub fn exchange(hot_bell: Arc<EventFd>) -> io::Result<(EngineChannel, ControlChannel)> {
    let (to_hot, commands) = bounded(ERRANDS);
    // Commands abandoned by their clients are answered too, so this channel has room for more.
    let (done, from_hot) = bounded(2 * ERRANDS);
    // The sender enforces the bound: a bounded channel would allocate all its slots now, half a
    // megabyte even if no client ever watches.
    let (decisions, seen) = unbounded();
    let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let is_watched = AtomicBool::new(false);
    let missed = AtomicU64::new(0);
    let shared = Arc::new(ChannelState { is_watched, missed, bell });
    let hot = EngineChannel { commands, done, decisions, shared: Arc::clone(&shared) };
    let control =
        ControlChannel { commands: to_hot, done: from_hot, decisions: seen, shared, hot_bell };
    Ok((hot, control))
}

impl EngineChannel {
    /// Checks whether a command is queued.
    pub fn has_command(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Returns the next queued command.
    pub fn take_command(&self) -> Option<(RequestId, EngineCommand)> {
        self.commands.try_recv().ok()
    }

    /// Sends the result of a command. If it does not fit it is dropped, and the client times out.
    pub fn answer(&self, ticket: RequestId, done: EngineReply) {
        if self.done.try_send((ticket, done)).is_ok() {
            self.shared.ring();
        }
    }

    /// Checks whether a client watches decisions.
    pub fn is_watched(&self) -> bool {
        self.shared.is_watched.load(Relaxed)
    }

    /// Queues a decision, or counts it as missed.
    pub fn tell(&self, seen: DecisionRecord) {
        if self.decisions.len() >= DECISIONS || self.decisions.send(seen).is_err() {
            self.shared.missed.fetch_add(1, Relaxed);
        }
    }
}

impl ControlChannel {
    /// Queues a command. Returns `false` if too many are queued.
    #[must_use]
    pub fn ask(&self, ticket: RequestId, command: EngineCommand) -> bool {
        // EAGAIN means an unread wakeup counter of 2^64 - 2, which no number of commands reaches.
        self.commands.try_send((ticket, command)).is_ok() && self.hot_bell.write(1).is_ok()
    }

    /// Returns the next result of a command.
    pub fn take_done(&self) -> Option<(RequestId, EngineReply)> {
        self.done.try_recv().ok()
    }

    /// Returns the descriptor that becomes readable when a command is done or [`Self::waker`] is
    /// used.
    pub fn wakeup_fd(&self) -> &EventFd {
        &self.shared.bell
    }

    /// Returns a handle that wakes this side.
    pub fn waker(&self) -> ControlWaker {
        ControlWaker(Arc::clone(&self.shared))
    }

    /// Sets whether a client watches decisions.
    pub fn set_watched(&self, is_watched: bool) {
        self.shared.is_watched.store(is_watched, Relaxed);
    }

    /// Returns the queued decisions.
    pub fn decisions(&self) -> impl Iterator<Item = DecisionRecord> + '_ {
        self.decisions.try_iter().take(DECISIONS)
    }

    /// Returns the number of decisions missed since the last call.
    pub fn take_missed(&self) -> u64 {
        self.shared.missed.swap(0, Relaxed)
    }
}

/// A handle that wakes the thread serving the socket.
#[derive(Clone, Debug)]
pub struct ControlWaker(Arc<ChannelState>);

impl ControlWaker {
    /// Wakes the server thread.
    pub fn ring(&self) {
        self.0.ring();
    }
}

impl ChannelState {
    fn ring(&self) {
        // EAGAIN means that a wakeup is already pending.
        let _rung = self.bell.write(1);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn pair() -> (EngineChannel, ControlChannel) {
        exchange(Arc::new(EventFd::new().unwrap())).unwrap()
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
    fn what_does_not_fit_is_counted() {
        let (hot, control) = pair();
        (0..DECISIONS + 5).for_each(|_| hot.tell(seen()));
        assert_eq!((control.take_missed(), control.take_missed()), (5, 0));
        assert_eq!(control.decisions().count(), DECISIONS);
    }

    #[test]
    fn too_many_errands_are_refused() {
        let (hot, control) = pair();
        assert_eq!(
            (0..100).filter(|&ticket| control.ask(ticket, EngineCommand::Takers)).count(),
            ERRANDS
        );
        (0..1000).for_each(|ticket| hot.answer(ticket, EngineReply::Reloaded));
        assert_eq!(std::iter::from_fn(|| control.take_done()).count(), 2 * ERRANDS);
    }

    #[test]
    fn names_are_made_harmless() {
        let decision = WatchedDecision::from(seen());
        assert_eq!(decision.exe.as_deref(), Some("/bin/\\xff\\u{a}"));
        assert_eq!((decision.file.as_deref(), decision.line), (Some("/r/\\u{a}.toml"), Some(7)));
        assert_eq!((decision.latency_us, decision.cause.as_str()), (1, "exec"));
    }
}
