//! What passes between the hot thread and the thread that serves the control socket.
//!
//! The hot thread never waits: all channels have bounds, what does not fit is counted or comes to
//! nothing, and as long as nobody watches a decision costs it one relaxed load.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::protocol::{About, Decision};
use crate::config::escape::{Escaped, EscapedBytes};
use crate::event::{Cause, Nanos, Pid, Uid};
use crate::rules::Origin;
use crate::sys;

/// Errands that wait for the hot thread at most; a client whose errand does not fit is told so.
const ERRANDS: usize = 64;
/// Decisions that wait: a fifth of a second of 20,000 looks each second.
const DECISIONS: usize = 4096;

/// What the hot thread is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errand {
    /// Say what is known of these processes.
    About(Vec<u32>),
    /// Look at these processes now.
    Place(Vec<u32>),
    /// Read all files again, and look at everybody.
    Reload,
    /// Say who took processes back.
    Takers,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Of [`Errand::About`] and [`Errand::Place`].
    About(Vec<About>),
    /// Of [`Errand::Reload`]. The result is on the board of the rule thread.
    Reloaded,
    /// Of [`Errand::Takers`].
    Takers(Vec<(String, u64)>),
}

/// The number that comes back with the answer.
pub type Ticket = u64;

/// A look and what it came to, as the hot thread hands it over.
#[derive(Debug)]
pub struct Seen {
    /// The process.
    pub pid: Pid,
    /// Its effective user.
    pub uid: Option<Uid>,
    /// The link to its executable.
    pub exe: Option<Box<[u8]>>,
    /// The rule's name.
    pub rule: Option<Arc<str>>,
    /// Where the rule stands.
    pub origin: Option<Origin>,
    /// The group of the rule.
    pub cgroup: Option<Box<str>>,
    /// The word of what it came to.
    pub outcome: &'static str,
    /// Why it was looked at.
    pub cause: Cause,
    /// When the look ended.
    pub at: Nanos,
    /// From the event until then.
    pub latency_ns: u64,
}

impl From<Seen> for Decision {
    fn from(seen: Seen) -> Self {
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

/// The hot thread's side.
#[derive(Debug)]
pub struct HotSide {
    errands: Receiver<(Ticket, Errand)>,
    done: Sender<(Ticket, Done)>,
    decisions: Sender<Seen>,
    shared: Arc<Shared>,
}

/// The side of the thread that serves the socket.
#[derive(Debug)]
pub struct ControlSide {
    errands: Sender<(Ticket, Errand)>,
    done: Receiver<(Ticket, Done)>,
    decisions: Receiver<Seen>,
    shared: Arc<Shared>,
    hot_bell: Arc<EventFd>,
}

#[derive(Debug)]
struct Shared {
    is_watched: AtomicBool,
    /// Decisions that did not fit.
    missed: AtomicU64,
    /// Rung when an errand is done.
    bell: EventFd,
}

/// Both sides. `hot_bell` wakes the hot thread.
///
/// # Errors
/// As eventfd(2).
pub fn exchange(hot_bell: Arc<EventFd>) -> io::Result<(HotSide, ControlSide)> {
    let (to_hot, errands) = bounded(ERRANDS);
    // An errand that was given up by its client is answered too, so there is room for some more.
    let (done, from_hot) = bounded(2 * ERRANDS);
    // Bounded where it is filled: a bounded channel would touch all of its room now, half a megabyte for
    // those who never watch.
    let (decisions, seen) = unbounded();
    let bell = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
    let (is_watched, missed) = (AtomicBool::new(false), AtomicU64::new(0));
    let shared = Arc::new(Shared { is_watched, missed, bell });
    let hot = HotSide { errands, done, decisions, shared: Arc::clone(&shared) };
    let control =
        ControlSide { errands: to_hot, done: from_hot, decisions: seen, shared, hot_bell };
    Ok((hot, control))
}

impl HotSide {
    /// Whether an errand waits.
    pub fn has_errand(&self) -> bool {
        !self.errands.is_empty()
    }

    /// The next errand.
    pub fn take_errand(&self) -> Option<(Ticket, Errand)> {
        self.errands.try_recv().ok()
    }

    /// Answers an errand. Without room the client hears nothing and gives up.
    pub fn answer(&self, ticket: Ticket, done: Done) {
        if self.done.try_send((ticket, done)).is_ok() {
            self.shared.ring();
        }
    }

    /// Whether anybody wants to hear of decisions.
    pub fn is_watched(&self) -> bool {
        self.shared.is_watched.load(Relaxed)
    }

    /// Tells of a decision, or counts that it could not.
    pub fn tell(&self, seen: Seen) {
        if self.decisions.len() >= DECISIONS || self.decisions.send(seen).is_err() {
            self.shared.missed.fetch_add(1, Relaxed);
        }
    }
}

impl ControlSide {
    /// Hands an errand over. `false` when too many wait.
    #[must_use]
    pub fn ask(&self, ticket: Ticket, errand: Errand) -> bool {
        // EAGAIN means that the bell rings since 2^64 - 2 errands.
        self.errands.try_send((ticket, errand)).is_ok() && self.hot_bell.write(1).is_ok()
    }

    /// The next errand that is done.
    pub fn take_done(&self) -> Option<(Ticket, Done)> {
        self.done.try_recv().ok()
    }

    /// The descriptor that becomes readable when an errand is done or [`Self::ringer`] is used.
    pub fn bell(&self) -> &EventFd {
        &self.shared.bell
    }

    /// Wakes this side.
    pub fn ringer(&self) -> Ringer {
        Ringer(Arc::clone(&self.shared))
    }

    /// Says whether anybody wants to hear of decisions.
    pub fn set_watched(&self, is_watched: bool) {
        self.shared.is_watched.store(is_watched, Relaxed);
    }

    /// The decisions that have come.
    pub fn decisions(&self) -> impl Iterator<Item = Seen> + '_ {
        self.decisions.try_iter().take(DECISIONS)
    }

    /// How many decisions did not fit since the last call.
    pub fn take_missed(&self) -> u64 {
        self.shared.missed.swap(0, Relaxed)
    }
}

/// Wakes the thread that serves the socket.
#[derive(Clone, Debug)]
pub struct Ringer(Arc<Shared>);

impl Ringer {
    /// Does it.
    pub fn ring(&self) {
        self.0.ring();
    }
}

impl Shared {
    fn ring(&self) {
        // EAGAIN means that it rings already.
        let _rung = self.bell.write(1);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn pair() -> (HotSide, ControlSide) {
        exchange(Arc::new(EventFd::new().unwrap())).unwrap()
    }

    fn seen() -> Seen {
        Seen {
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
        assert_eq!((0..100).filter(|&ticket| control.ask(ticket, Errand::Takers)).count(), ERRANDS);
        (0..1000).for_each(|ticket| hot.answer(ticket, Done::Reloaded));
        assert_eq!(std::iter::from_fn(|| control.take_done()).count(), 2 * ERRANDS);
    }

    #[test]
    fn names_are_made_harmless() {
        let decision = Decision::from(seen());
        assert_eq!(decision.exe.as_deref(), Some("/bin/\\xff\\u{a}"));
        assert_eq!((decision.file.as_deref(), decision.line), (Some("/r/\\u{a}.toml"), Some(7)));
        assert_eq!((decision.latency_us, decision.cause.as_str()), (1, "exec"));
    }
}
