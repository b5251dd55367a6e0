//! From a decision to a process in its group: the last step, and the only one that writes.

mod described;

use std::hash::BuildHasher;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use described::{Described, Named};
use foldhash::fast::FixedState;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cgroup::fast_moves::FastMovesGuard;
use crate::cgroup::mounts::Span;
use crate::cgroup::tree::{Attached, Refusal, Tree, Whereabouts};
use crate::event::Cause;
use crate::event::batch::Look;
use crate::log::limit::Limiter;
use crate::metrics::Metrics;
use crate::policy::Policy;
use crate::process::{Grip, PATH_MAX, Proc, path_in};
use crate::rules::destination::{Field, Who};
use crate::rules::{Action, Below, Rule, RuleId, Target};
use crate::sys;

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// There is no such process any more.
    Gone,
    /// No rule matches.
    NoRule,
    /// A rule says to leave it.
    Ignored,
    /// It is never moved by a rule that does not name it.
    Protected,
    /// It asked to stay where it is.
    Sticky,
    /// It is where it belongs.
    InPlace,
    /// It was moved.
    Placed,
    /// It would have been moved but for `--dry-run`.
    WouldPlace,
    /// The kernel refused.
    Refused,
    /// An answer from another thread is needed first.
    Waiting,
    /// It was moved, but its number may have changed hands meanwhile: look again.
    Replaced,
    /// It was taken back for the second time and is left there.
    GivenUp,
}

/// The process of a look, with what was read of it.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Why it is looked at.
    pub look: Look,
    /// The process, held.
    pub grip: Grip,
    /// The user's name.
    pub user: Option<&'a str>,
    /// Path of the executable, if it was read.
    pub exe: Option<&'a [u8]>,
}

/// Where systemd's own programs are. A moved user manager cannot start units any more.
const SYSTEMD: [&[u8]; 2] = [b"/usr/lib/systemd/", b"/lib/systemd/"];

/// Writes processes into groups.
#[derive(Debug)]
pub struct Placer {
    tree: Tree,
    fast_moves: FastMovesGuard,
    metrics: Arc<Metrics>,
    limiter: Limiter,
    is_dry_run: bool,
    /// Where systemd does not run, only root has processes that must not be moved, and the link to the
    /// executable need not be read: 13 us of a placement (measured).
    has_systemd: bool,
    own_pid: u32,
    path: String,
    placement: u64,
    /// Room for `/proc/PID/cgroup`.
    text: Vec<u8>,
    exe: Box<[u8; PATH_MAX]>,
}

impl Placer {
    /// A placer that writes, or with `is_dry_run` only says what it would write.
    pub fn new(
        tree: Tree,
        fast_moves: FastMovesGuard,
        metrics: Arc<Metrics>,
        is_dry_run: bool,
    ) -> Self {
        Self {
            tree,
            fast_moves,
            limiter: Limiter::new(Arc::clone(&metrics)),
            metrics,
            is_dry_run,
            // As sd_booted(3).
            has_systemd: Path::new("/run/systemd/system").is_dir(),
            own_pid: std::process::id(),
            path: String::with_capacity(256),
            placement: 0,
            text: Vec::new(),
            exe: Box::new([0; PATH_MAX]),
        }
    }

    /// The number of the last placement: the same for the same group.
    pub fn last_placement(&self) -> u64 {
        self.placement
    }

    /// Drops every open group: after a change of rules others may be needed.
    pub fn adopt(&mut self, policy: &Policy) {
        self.tree.adopt(&policy.provisions, policy.beginning(Below::Root));
    }

    /// Does what the rule says with the process.
    pub fn apply(
        &mut self,
        policy: &Policy,
        proc: &mut Proc,
        id: RuleId,
        subject: &Subject<'_>,
    ) -> Outcome {
        let Some(rule) = policy.matcher.rule(id) else { return Outcome::NoRule };
        let Action::Place(targets) = &rule.action else { return Outcome::Ignored };
        let mut outcome = Outcome::InPlace;
        for (index, target) in targets.iter().enumerate() {
            let span = policy.span(self.tree.hierarchies(), id, index, target);
            // A controller that this host does not have was said when the rules were read; the original
            // does not go on to the lines that follow either.
            if span.is_empty() && target.below == Below::Top {
                break;
            }
            self.render(policy, proc, target, subject);
            for n in 0.. {
                let Some(step) = self.tree.hierarchies().step(target, span, n) else { break };
                match self.enter(policy, proc, rule, (step, target), subject) {
                    Outcome::Placed if outcome == Outcome::InPlace => outcome = Outcome::Placed,
                    other @ (Outcome::Gone
                    | Outcome::Replaced
                    | Outcome::GivenUp
                    | Outcome::Protected) => return other,
                    Outcome::Refused if target.below == Below::Top => return Outcome::Refused,
                    Outcome::Refused => outcome = Outcome::Refused,
                    Outcome::WouldPlace => outcome = Outcome::WouldPlace,
                    Outcome::Placed
                    | Outcome::InPlace
                    | Outcome::NoRule
                    | Outcome::Ignored
                    | Outcome::Sticky
                    | Outcome::Waiting => {}
                }
            }
        }
        outcome
    }

    /// Puts the process into the group `self.path` if it is elsewhere and may be moved.
    fn enter(
        &mut self,
        policy: &Policy,
        proc: &mut Proc,
        rule: &Rule,
        (span, target): (Span, &Target),
        subject: &Subject<'_>,
    ) -> Outcome {
        // Taken out while it is borrowed: where the process is now is read once for the whole placement.
        let mut text = std::mem::take(&mut self.text);
        let now = whereabouts(&self.tree, proc, span, subject, &mut text);
        let outcome = self.enter_from(now, policy, proc, rule, (span, target), subject);
        self.text = text;
        outcome
    }

    /// The same for a process that is there `now`.
    fn enter_from(
        &mut self,
        now: Whereabouts<'_>,
        policy: &Policy,
        proc: &mut Proc,
        rule: &Rule,
        (span, target): (Span, &Target),
        subject: &Subject<'_>,
    ) -> Outcome {
        if self.is_in_place(span, now) {
            return Outcome::InPlace;
        }
        if let Some(other) = self.unmovable(proc, rule, subject) {
            return other;
        }
        self.place(now, policy, proc, rule, (span, target), subject)
    }

    /// Fills `self.path` with the target's path for this process.
    fn render(&mut self, policy: &Policy, proc: &Proc, target: &Target, subject: &Subject<'_>) {
        let pid = subject.look.pid;
        let mut program = subject.exe;
        if program.is_none() && target.destination.fields().any(|field| field == Field::Program) {
            program = proc.exe(pid, &mut self.exe).ok();
        }
        let who = Who {
            uid: subject.grip.uid,
            user: subject.user,
            gid: subject.grip.gid,
            group: policy.groups.get(&subject.grip.gid).and_then(Option::as_deref),
            pid,
            program,
        };
        self.path.clear();
        self.path.push_str(policy.beginning(target.below));
        self.path.push('/');
        target.destination.render(&who, &mut self.path);
        if self.path.len() > 1 && self.path.ends_with('/') {
            self.path.pop();
        }
    }

    /// Whether the group is known and holds the process. Asked first: most programs that an already
    /// placed user starts end here, and a needless write is not only a write (it can wait for an RCU
    /// grace period).
    fn is_in_place(&self, span: Span, now: Whereabouts<'_>) -> bool {
        self.tree.known(span, &self.path).is_some_and(|group| self.tree.holds(group, now))
    }

    /// Why a process is not moved although a rule matches: it is one that only a rule that names its
    /// executable may move, or it is past moving.
    fn unmovable(
        &mut self,
        proc: &mut Proc,
        rule: &Rule,
        subject: &Subject<'_>,
    ) -> Option<Outcome> {
        let pid = subject.look.pid;
        if pid.get() == self.own_pid {
            return Some(Outcome::Protected);
        }
        // A zombie: the kernel would take the write and do nothing. Its children matter.
        if subject.grip.handle.as_ref().is_some_and(has_exited) {
            return Some(Outcome::Gone);
        }
        let can_be_protected = subject.grip.uid.0 == 0 || self.has_systemd;
        if !rule.when.exes.is_empty() || !can_be_protected {
            return None;
        }
        let exe = match subject.exe {
            Some(exe) => exe,
            None => match proc.exe(pid, &mut self.exe) {
                Ok(exe) => exe,
                // A kernel thread, or a zombie whose children matter.
                Err(Errno::ENOENT) if subject.grip.uid.0 == 0 && proc.is_kernel_thread(pid) => {
                    return Some(Outcome::Protected);
                }
                Err(Errno::ENOENT | Errno::ESRCH) => return Some(Outcome::Gone),
                // Without CAP_SYS_PTRACE nothing is known of it.
                Err(_) => b"",
            },
        };
        let is_protected = pid.get() == 1 || SYSTEMD.iter().any(|dir| exe.starts_with(dir));
        is_protected.then_some(Outcome::Protected)
    }

    /// Moves the process into the group `self.path`.
    fn place(
        &mut self,
        now: Whereabouts<'_>,
        policy: &Policy,
        proc: &mut Proc,
        rule: &Rule,
        (span, target): (Span, &Target),
        subject: &Subject<'_>,
    ) -> Outcome {
        if self.is_dry_run {
            ::log::info!("would move {} to {} by {}", Described(subject), self.path, Named(rule));
            return Outcome::WouldPlace;
        }
        let pid = subject.look.pid;
        // Whoever belongs elsewhere by now was not taken from there.
        let was_here = subject.look.placement == numbered(&self.path);
        if was_here && self.was_taken(proc, rule, subject) {
            return Outcome::GivenUp;
        }
        let provision = || policy.provisions.of(target);
        let group = match self.tree.group(span, &self.path, target.creates, provision) {
            Ok(group) => group,
            Err(refusal) => return self.refused(rule, subject, &refusal),
        };
        match self.tree.attach(group, pid, now) {
            Attached::InPlace => Outcome::InPlace,
            Attached::Gone => Outcome::Gone,
            Attached::Refused(refusal) => self.refused(rule, subject, &refusal),
            Attached::Moved => self.moved(rule, subject),
        }
    }

    fn moved(&mut self, rule: &Rule, subject: &Subject<'_>) -> Outcome {
        let now = sys::monotonic();
        self.metrics.placed.increment();
        self.placement = numbered(&self.path);
        self.fast_moves.moved(now);
        let cause = subject.look.cause;
        if cause.intersects(Cause::EXEC | Cause::UID | Cause::GID) {
            self.metrics.latency.record(now.since(subject.look.since));
        }
        if ::log::log_enabled!(::log::Level::Debug) {
            let microseconds = now.since(subject.look.since) / 1000;
            ::log::debug!(
                "moved {} to {} by {} after {cause}, {microseconds} us",
                Described(subject),
                self.path,
                Named(rule)
            );
        }
        // The number may have changed hands between the look and the write.
        if subject.grip.handle.as_ref().is_some_and(|handle| !sys::pidfd_alive(handle.as_fd())) {
            return Outcome::Replaced;
        }
        Outcome::Placed
    }

    fn refused(&mut self, rule: &Rule, subject: &Subject<'_>, refusal: &Refusal) -> Outcome {
        self.metrics.refused.increment();
        let cause = (rule.origin.line, refusal.step as u32, refusal.errno as i32);
        if let Some(left_out) = self.limiter.admit(&cause, sys::monotonic()) {
            ::log::warn!(
                "{} stays where it is: {refusal}: {}; {}{left_out}",
                Described(subject),
                refusal.advice(),
                Named(rule)
            );
        }
        Outcome::Refused
    }

    /// A second look found the process elsewhere: counts and says who has it now. Whether it is to be
    /// left there, this being the second time.
    fn was_taken(&mut self, proc: &mut Proc, rule: &Rule, subject: &Subject<'_>) -> bool {
        self.metrics.taken_back.increment();
        let gives_up = subject.look.cause.contains(Cause::AGAIN);
        if gives_up {
            self.metrics.given_up.increment();
        }
        let text = proc.cgroup(subject.look.pid).unwrap_or_default();
        let place = self.tree.hierarchies().unified().map_or("", |tree| tree.listed.as_str());
        let taker = path_in(text, place.as_bytes()).unwrap_or(b"another group");
        let taker = String::from_utf8_lossy(taker);
        if let Some(left_out) = self.limiter.admit(&(&*taker, gives_up), sys::monotonic()) {
            let then = if gives_up { "it is left there" } else { "it is put back once" };
            ::log::warn!(
                "{} was moved from {} to {}; {then}; {}{left_out}",
                Described(subject),
                self.path,
                taker.escape_debug(),
                Named(rule)
            );
        }
        gives_up
    }
}

/// A number for a group. Two groups with the same one would cost a wrong line in the log.
fn numbered(path: &str) -> u64 {
    FixedState::default().hash_one(path) | 1
}

/// Whether a process has ended, reaped or not: then its pidfd is readable.
fn has_exited(handle: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(handle.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

/// What is known of the place of a process, read from `/proc` only where the kernel did not say it.
fn whereabouts<'t>(
    tree: &Tree,
    proc: &mut Proc,
    span: Span,
    subject: &Subject<'_>,
    text: &'t mut Vec<u8>,
) -> Whereabouts<'t> {
    let unified = subject.grip.unified;
    if unified.is_some() && tree.is_unified(span) {
        return Whereabouts { unified, text: None };
    }
    text.clear();
    let read = proc.cgroup(subject.look.pid).map(|read| text.extend_from_slice(read));
    Whereabouts { unified, text: read.map(|()| text.as_slice()) }
}
