//! From a decision to a process in its group: the last step, and the only one that writes.

mod containers;
mod described;
mod external_moves;
mod inapplicable;
mod managers;
mod outcome;
mod places;
mod protected;
mod repair;
mod units;

use std::hash::BuildHasher;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use ::log::Level;
use containers::Containers;
use described::{Decided, Described, Named};
pub(crate) use external_moves::MoveWatch;
use external_moves::{ExternalMoveState, Reaction};
use foldhash::fast::FixedState;
use nix::errno::Errno;
pub(crate) use protected::{Protection, protection};

use crate::cgroup::fast_moves::FastMovesGuard;
use crate::cgroup::mounts::Span;
use crate::cgroup::tree::{Attached, GroupId, Refusal, Tree, Whereabouts, is_out_of_descriptors};
use crate::config::daemon_toml::ExternalMoves;
use crate::container::{Containment, HostNamespaces};
use crate::control::memory::Trouble;
use crate::decision::Exe;
use crate::event::batch::Look;
use crate::event::{Cause, Uid};
use crate::host::Host;
use crate::leader::{Activity, Call};
use crate::log::field;
use crate::log::limit::Limiter;
use crate::metrics::Metrics;
use crate::narrator::Obstacle;
use crate::policy::Policy;
use crate::process::{Grip, Proc};
use crate::rules::destination::{Field, Who};
use crate::rules::{Action, Below, Rule, RuleId, Target};
use crate::source::moves::MoveSource;
use crate::sys;
use crate::user_manager::{ManagerLookup, UserManagers};
pub use outcome::Outcome;

/// The process of a look, with what was read of it.
#[derive(Debug)]
pub struct Subject<'a> {
    /// Why it is looked at.
    pub look: Look,
    /// The process, held.
    pub grip: &'a Grip,
    /// The user's name.
    pub user: Option<&'a str>,
    /// What is known of the executable.
    pub exe: Exe<'a>,
    /// Whether it is in a container, if that was read.
    pub containment: Option<Containment>,
}

impl Subject<'_> {
    /// Path of the executable as the kernel shows it, if it was read.
    fn exe_path(&self) -> Option<&[u8]> {
        self.exe.seen().map(|seen| seen.raw)
    }

    /// Returns whether a thread of it was moved alone. An evaluation after an external move does not ask whether the
    /// leader has exited, so the thread is none that stands in for it.
    fn is_moved_thread(&self) -> bool {
        self.grip.thread.is_some() && self.look.cause.contains(Cause::MOVED)
    }
}

/// What must be read before a process can be placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Its executable.
    Exe,
    /// Its namespaces.
    Namespaces,
    /// The name and groups of this user, below whose service manager it is.
    Owner(Uid),
}

/// Writes processes into groups.
#[derive(Debug)]
pub struct Placer {
    tree: Tree,
    fast_moves: FastMovesGuard,
    metrics: Arc<Metrics>,
    limiter: Limiter,
    external: ExternalMoveState,
    containers: Containers,
    is_dry_run: bool,
    /// Where systemd does not run, only root has processes that must not be moved, and the link to the
    /// executable need not be read: 13 us of a placement (measured).
    has_systemd: bool,
    managers: UserManagers,
    own_pid: u32,
    path: String,
    /// Which destination of its rule that is.
    destination: usize,
    placement: u64,
    /// What the last process met that is not where its rule says.
    obstacle: Option<Obstacle>,
    /// With what the kernel refused it.
    errno: Option<Errno>,
    /// What went wrong with the last process, and on the way to which group.
    troubles: Vec<(Trouble, String)>,
    /// Room for `/proc/PID/cgroup`.
    text: Vec<u8>,
    /// Room for the v2 group that a process is in.
    place: String,
    /// The group that was written to last.
    written: Option<GroupId>,
    /// Told of calls that can take long.
    activity: Option<Arc<Activity>>,
}

impl Placer {
    /// A placer that writes, or with `is_dry_run` only says what it would write.
    pub fn new(
        tree: Tree,
        fast_moves: FastMovesGuard,
        metrics: Arc<Metrics>,
        is_dry_run: bool,
        external_moves: ExternalMoves,
        move_source: Option<Box<dyn MoveSource>>,
    ) -> Self {
        let watch = MoveWatch::new(move_source, Arc::clone(&metrics));
        Self {
            tree,
            fast_moves,
            limiter: Limiter::new(Arc::clone(&metrics)),
            containers: Containers::new(HostNamespaces::read(Path::new("/proc"))),
            external: ExternalMoveState::new(external_moves, watch),
            is_dry_run,
            has_systemd: Host::default().runs_systemd(),
            managers: UserManagers::new(ManagerLookup::default(), Arc::clone(&metrics)),
            metrics,
            own_pid: std::process::id(),
            path: String::with_capacity(256),
            destination: 0,
            placement: 0,
            obstacle: None,
            errno: None,
            troubles: Vec::new(),
            text: Vec::new(),
            place: String::new(),
            written: None,
            activity: None,
        }
    }

    /// Tells `activity` of calls that can take long.
    pub fn tell(&mut self, activity: Arc<Activity>) {
        self.activity = Some(activity);
    }

    /// The number of the last placement: the same for the same group.
    pub fn last_placement(&self) -> u64 {
        self.placement
    }

    /// What kept the last process from the group of its rule.
    pub fn last_obstacle(&self) -> Option<Obstacle> {
        self.obstacle
    }

    /// The group of the last placement, refused ones included, from the top of its hierarchies.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether something went wrong since they were taken.
    pub fn has_troubles(&self) -> bool {
        !self.troubles.is_empty()
    }

    /// Takes what went wrong, and on the way to which group.
    pub fn take_troubles(&mut self) -> Vec<(Trouble, String)> {
        std::mem::take(&mut self.troubles)
    }

    fn note(&mut self, trouble: Trouble) {
        self.troubles.push((trouble, self.path.clone()));
    }

    /// Does something that opens files. Where no descriptor is left the groups are closed and it is tried once
    /// more.
    ///
    /// # Errors
    /// As `attempt`.
    pub fn with_descriptors<T>(
        &mut self,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        attempt().or_else(|error| {
            let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
            if !is_out_of_descriptors(errno) {
                return Err(error);
            }
            self.tree.close();
            attempt()
        })
    }

    /// Drops every open group: after a change of rules others may be needed.
    pub fn adopt(&mut self, policy: &Policy) {
        self.external.history.clear();
        self.external.placements.clear();
        self.containers.adopt(policy);
        self.tree.adopt(&policy.provisions, policy.beginning(Below::Root));
    }

    /// Does what the rule says with the process.
    ///
    /// # Errors
    /// What must be read of the process first.
    pub fn apply(
        &mut self,
        policy: &Policy,
        proc: &mut Proc,
        id: RuleId,
        subject: &Subject<'_>,
    ) -> Result<Outcome, Missing> {
        let Some(rule) = policy.matcher.rule(id) else { return Ok(Outcome::NoRule) };
        let targets = match &rule.action {
            Action::Ignore(_) => return Ok(Outcome::Ignored),
            Action::Inapplicable(it) => return Ok(self.leave(rule, &it.reason, subject)),
            Action::Place(targets) => targets,
        };
        self.written = None;
        self.errno = None;
        self.obstacle = None;
        let mut outcome = Outcome::InPlace;
        for (index, target) in targets.iter().enumerate() {
            let span = policy.span(self.tree.hierarchies(), id, index, target);
            // A line whose controller this host does not have ends the rule, as in cgrulesengd; it was
            // reported when the rules were read. The first line has its controllers, or the rule would be
            // [`Action::Inapplicable`].
            if span.is_empty() && target.below == Below::Top {
                self.obstacle = Some(Obstacle::NoController);
                break;
            }
            if is_exe_missing(target, subject) {
                return Err(Missing::Exe);
            }
            self.render(policy, target, subject);
            self.destination = index;
            match self.enter_all(policy, proc, rule, (span, target), subject, outcome)? {
                ControlFlow::Continue(so_far) => outcome = so_far,
                ControlFlow::Break(last) => return Ok(last),
            }
        }
        Ok(outcome)
    }

    /// Puts the process into the group `self.path` of all hierarchies that the target concerns. Returns the outcome
    /// of the rule `so_far`, with whether it is the last one.
    fn enter_all(
        &mut self,
        policy: &Policy,
        proc: &mut Proc,
        rule: &Rule,
        (span, target): (Span, &Target),
        subject: &Subject<'_>,
        so_far: Outcome,
    ) -> Result<ControlFlow<Outcome, Outcome>, Missing> {
        let mut outcome = so_far;
        let mut is_in_place = true;
        let mut is_new = subject.look.cause.contains(Cause::SCAN);
        for n in 0.. {
            let Some(step) = self.tree.hierarchies().step(target, span, n) else { break };
            let entered = self.enter(policy, proc, rule, (step, target), subject)?;
            is_in_place &= matches!(entered, Outcome::Placed | Outcome::InPlace);
            is_new |= entered == Outcome::Placed;
            match entered {
                Outcome::Placed if outcome == Outcome::InPlace => outcome = Outcome::Placed,
                other @ (Outcome::Gone
                | Outcome::Replaced
                | Outcome::GivenUp
                | Outcome::InUnit
                | Outcome::InContainer
                | Outcome::OthersJob
                | Outcome::InSlice
                | Outcome::Protected
                | Outcome::Waiting) => return Ok(ControlFlow::Break(other)),
                Outcome::Refused if target.below == Below::Top => {
                    return Ok(ControlFlow::Break(Outcome::Refused));
                }
                Outcome::Refused => outcome = Outcome::Refused,
                Outcome::WouldPlace => outcome = Outcome::WouldPlace,
                Outcome::Placed
                | Outcome::InPlace
                | Outcome::NoRule
                | Outcome::Ignored
                | Outcome::Inapplicable
                | Outcome::Sticky => {}
            }
        }
        if is_in_place && is_new {
            self.record_placement(proc, subject);
        }
        Ok(ControlFlow::Continue(outcome))
    }

    /// Puts the process into the group `self.path` if it is elsewhere and may be moved.
    fn enter(
        &mut self,
        policy: &Policy,
        proc: &mut Proc,
        rule: &Rule,
        (span, target): (Span, &Target),
        subject: &Subject<'_>,
    ) -> Result<Outcome, Missing> {
        // Taken out while it is borrowed: where the process is now is read once for the whole placement.
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let unified = subject.grip.unified;
        let is_told = unified.is_some() && self.tree.is_unified(span);
        if !is_told {
            read_cgroup(proc, subject, &mut text);
        }
        let outcome = if self.is_in_place(span, Whereabouts { unified, text: Some(&text) }) {
            Ok(Outcome::InPlace)
        } else {
            // What keeps a process where it is depends on the paths: read once for all that asks.
            if is_told {
                read_cgroup(proc, subject, &mut text);
            }
            let now = Whereabouts { unified, text: Some(&text) };
            self.enter_from(now, policy, proc, rule, (span, target), subject)
        };
        self.text = text;
        outcome
    }

    /// The same for a process that is there `now`, and not in the group as far as that is open.
    fn enter_from(
        &mut self,
        now: Whereabouts<'_>,
        policy: &Policy,
        proc: &mut Proc,
        rule: &Rule,
        (span, target): (Span, &Target),
        subject: &Subject<'_>,
    ) -> Result<Outcome, Missing> {
        if self.is_delegated(now, policy, (span, target), subject) {
            return Ok(Outcome::InPlace);
        }
        if let Some(other) = self.unmovable(proc, rule, subject)? {
            return Ok(other);
        }
        if units::stays_in_slice(now, policy, rule, subject) {
            return Ok(Outcome::InSlice);
        }
        if let Some(other) = self.stays_in_cgroup(now, policy, proc, (span, rule), subject)? {
            return Ok(other);
        }
        if self.stays_in_unit(now, policy, proc, (span, rule), subject) {
            return Ok(Outcome::InUnit);
        }
        Ok(self.place(now, policy, proc, rule, (span, target), subject))
    }

    /// Fills `self.path` with the target's path for this process.
    fn render(&mut self, policy: &Policy, target: &Target, subject: &Subject<'_>) {
        let pid = subject.look.pid;
        let who = Who {
            uid: subject.grip.uid,
            user: subject.user,
            gid: subject.grip.gid,
            group: policy.groups.get(&subject.grip.gid).and_then(Option::as_deref),
            pid,
            program: subject.exe_path(),
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

    /// Whether the process is below the cgroup `self.path`, and the owner that its table names may move it there; or a
    /// thread was moved alone to a cgroup below it, whose limits include those of `self.path`.
    fn is_delegated(
        &self,
        now: Whereabouts<'_>,
        policy: &Policy,
        (span, target): (Span, &Target),
        subject: &Subject<'_>,
    ) -> bool {
        let text = target.destination.as_str().trim_matches('/');
        let table = policy.provisions.table(text).filter(|_| target.below == Below::Root);
        let has_owner = table.is_some_and(|table| table.perm.directory.uid.is_some());
        if !has_owner && !subject.is_moved_thread() {
            return false;
        }
        let text = now.text.unwrap_or_default();
        span.indexes().all(|index| self.tree.is_below(index, &self.path, text))
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
            let (who, by) = (Described(subject), Named(rule));
            self.decided(field::MOVED, rule, subject)
                .say(Level::Info, format_args!("would move {who} to {} by {by}", self.path));
            return Outcome::WouldPlace;
        }
        let pid = subject.look.pid;
        let is_open = self.tree.known(span, &self.path).is_some();
        if !is_open {
            self.begin(Call::Open, subject);
        }
        let provision = || policy.provisions.of(target);
        let opened = self.tree.group(span, &self.path, target.creates, provision);
        if !is_open {
            self.end_call();
        }
        let group = match opened {
            Ok(group) => group,
            Err(refusal) => return self.refused(rule, target, subject, &refusal),
        };
        // Only now it is known where the group is, when it was not open: after a reload.
        if self.tree.holds(group, now) {
            return Outcome::InPlace;
        }
        if self.was_moved_away(proc, subject) {
            match self.react(now, policy, proc, rule, span, subject) {
                Reaction::Revert => {}
                Reaction::Leave => return Outcome::GivenUp,
            }
        } else {
            self.external.history.forget(pid);
        }
        self.written = Some(group);
        self.begin(Call::Attach, subject);
        let attached = self.tree.attach(group, pid, now);
        self.end_call();
        match attached {
            Attached::InPlace => Outcome::InPlace,
            Attached::Gone => Outcome::Gone,
            Attached::Refused(refusal) => self.refused(rule, target, subject, &refusal),
            Attached::Moved => self.moved(rule, subject),
        }
    }

    fn begin(&self, call: Call, subject: &Subject<'_>) {
        if let Some(activity) = &self.activity {
            activity.begins(call, subject.look.pid);
        }
    }

    fn end_call(&self) {
        if let Some(activity) = &self.activity {
            activity.ends();
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
        if ::log::log_enabled!(Level::Debug) {
            let microseconds = now.since(subject.look.since) / 1000;
            let (who, to, by) = (Described(subject), &self.path, Named(rule));
            let more = Some(("latency_us", i64::try_from(microseconds).unwrap_or(i64::MAX)));
            Decided { more, ..self.decided(field::MOVED, rule, subject) }.say(
                Level::Debug,
                format_args!("moved {who} to {to} by {by} after {cause}, {microseconds} us"),
            );
        }
        // The number may have changed hands between the look and the write.
        if subject.grip.handle.as_ref().is_some_and(|handle| !sys::pidfd_alive(handle.as_fd())) {
            return Outcome::Replaced;
        }
        Outcome::Placed
    }

    fn refused(
        &mut self,
        rule: &Rule,
        target: &Target,
        subject: &Subject<'_>,
        refusal: &Refusal,
    ) -> Outcome {
        self.metrics.refused.increment();
        self.obstacle = Some(outcome::obstacle(refusal));
        self.errno = Some(refusal.errno);
        self.metrics.refusals.increment(refusal.errno as i32);
        self.note(Trouble::Refused(refusal.clone()));
        let cause = (rule.origin.line, refusal.step as u32, refusal.errno as i32);
        if let Some(left_out) = self.limiter.admit(&cause, sys::monotonic()) {
            let (who, by, advice) = (Described(subject), Named(rule), refusal.advice());
            let section = refusal.section(target, self.tree.hierarchies());
            let section = section.map_or_else(String::new, |section| format!(": {section}"));
            let more = Some(("errno", i64::from(refusal.errno as i32)));
            Decided { more, ..self.decided(field::REFUSED, rule, subject) }.say(
                Level::Warn,
                format_args!(
                    "{who} stays where it is: {refusal}: {advice}{section}; {by}{left_out}"
                ),
            );
        }
        Outcome::Refused
    }

    /// For the log: a decision about the group `self.path`.
    fn decided<'a>(
        &'a self,
        kind: &'static str,
        rule: &'a Rule,
        subject: &'a Subject<'a>,
    ) -> Decided<'a> {
        Decided { subject, rule, group: &self.path, kind, more: None }
    }
}

/// Whether the path of the group contains the program, which was not read.
fn is_exe_missing(target: &Target, subject: &Subject<'_>) -> bool {
    matches!(subject.exe, Exe::Unread)
        && target.destination.fields().any(|field| field == Field::Program)
}

/// A number for a group. Two groups with the same one would cost a wrong line in the log.
fn numbered(path: &str) -> u64 {
    FixedState::default().hash_one(path) | 1
}

/// Reads `/proc/PID/cgroup` of a process; empty when it is gone.
fn read_cgroup(proc: &mut Proc, subject: &Subject<'_>, text: &mut Vec<u8>) {
    text.extend(proc.cgroup(subject.look.pid, subject.grip.thread).unwrap_or_default());
}
