//! External moves: another process moved a process out of the cgroup of its rule. Must not leave a
//! process where a user moved it, unless configured to.
//!
//! External moves are detected by a recheck, by the kernel's trace event ([`watch`]), and without
//! that by scans. [`reaction`] decides alone how to react.
//!
//! A move that a user can cause is reverted each time, because otherwise the user escapes the
//! limits of the rule: a move by a process without root rights and, regardless of the mover, a move
//! into a cgroup that a user controls. PID 1 makes such moves for users' service managers. Any
//! other move is made by an administrator or another daemon. It is reverted once, because it may
//! have been made before the process changed; the second time the process is left, because two
//! daemons that move it in turn would continue for ever.

mod bounded_map;
mod changes;
mod history;
mod inherited;
mod placements;
mod watch;

use std::sync::Arc;

use ::log::Level;

use super::labels::{ProcessLabel, RuleLabel};
use super::places::{CgroupPlace, is_users, place_in};
use super::{PlacedProcess, PlacementStep, Placer, numbered};
use crate::cgroup::mounts::HierarchySet;
use crate::cgroup::tree::CurrentCgroup;
use crate::cgroup::unit::Unit;
use crate::config::daemon_toml::ExternalMoves;
use crate::control::failures::PlacementFailure;
use crate::engine::kernel::Kernel;
use crate::engine::sticky::Pin;
use crate::event::{Cause, Nanos, Pid, Uid};
use crate::kernel::process::ProcessHandle;
use crate::policy::Policy;
use crate::rules::{Rule, RuleId};
use crate::telemetry::log::field;
use crate::telemetry::metrics::Metrics;
use crate::tracking::queue::EvaluationRequest;
use history::ExternalMoveHistory;
pub(crate) use inherited::InheritedOrigins;
use placements::{PlacedIn, Placements};
pub(crate) use watch::MoveWatch;
use watch::Mover;

/// Maximum number of destinations with a counter. Later ones share a counter, because the number of
/// session names is unlimited.
const MAX_NAMES: usize = 64;
const OTHERS: &str = "others";
/// ID of the v2 hierarchy in `/proc/PID/cgroup`.
const UNIFIED: u32 = 0;

/// Reaction to an external move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reaction {
    /// Move the process back to the cgroup of its rule.
    Revert,
    /// Leave the process in its current cgroup.
    Leave,
}

/// Inputs of the decision about an external move.
#[derive(Clone, Copy, Debug)]
struct MoveFacts {
    setting: ExternalMoves,
    /// The mover has no root rights, or a user controls the cgroup.
    is_by_user: bool,
    /// An earlier external move of the process was reverted.
    was_reverted: bool,
}

const fn reaction(facts: MoveFacts) -> Reaction {
    match facts.setting {
        ExternalMoves::Report | ExternalMoves::Off => Reaction::Leave,
        ExternalMoves::Revert if facts.is_by_user || !facts.was_reverted => Reaction::Revert,
        ExternalMoves::Revert => Reaction::Leave,
    }
}

/// Number of external moves by destination, in the order of the first move.
#[derive(Debug, Default)]
pub(super) struct MoveCounts(Vec<(String, u64)>);

impl MoveCounts {
    fn count(&mut self, name: &str) {
        let name =
            if self.0.len() < MAX_NAMES || self.find(name).is_some() { name } else { OTHERS };
        match self.find(name) {
            Some(index) => self.0[index].1 += 1,
            None => self.0.push((name.to_owned(), 1)),
        }
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.0.iter().position(|(known, _)| known == name)
    }
}

/// State of the handling of external moves.
#[derive(Debug)]
pub(super) struct ExternalMoveState {
    setting: ExternalMoves,
    pub(super) watch: MoveWatch,
    pub(super) history: ExternalMoveHistory,
    pub(super) placements: Placements,
    pub(super) origins: InheritedOrigins,
    counts: MoveCounts,
}

impl ExternalMoveState {
    pub(super) fn new(setting: ExternalMoves, metrics: &Arc<Metrics>) -> Self {
        Self {
            setting,
            watch: MoveWatch::new(Arc::clone(metrics)),
            history: ExternalMoveHistory::default(),
            placements: Placements::default(),
            origins: InheritedOrigins::new(Arc::clone(metrics)),
            counts: MoveCounts::default(),
        }
    }

    /// Forgets the processes: other rules are active.
    pub(super) fn clear(&mut self) {
        self.history.clear();
        self.placements.clear();
        self.origins.clear();
    }
}

impl Placer {
    /// Sets the reaction to external moves.
    pub fn set_reaction(&mut self, setting: ExternalMoves) {
        self.external.setting = setting;
    }

    /// Returns the destinations of external moves with the number of moves: systemd units by name,
    /// other cgroups by path. The first 64, then all further ones as `others`.
    pub fn external_movers(&self) -> &[(String, u64)] {
        &self.external.counts.0
    }

    /// Returns when the trace of moves must be read, if there is one.
    pub(crate) fn moves_due(&self, kernel: &impl Kernel) -> Option<Nanos> {
        self.external.watch.due(kernel)
    }

    /// Checks whether processes that others moved wait for their evaluation.
    pub(crate) fn has_moves(&self) -> bool {
        self.external.watch.has_work()
    }

    /// Returns the watch for external moves.
    pub(crate) fn moves(&mut self) -> &mut MoveWatch {
        &mut self.external.watch
    }

    /// Checks whether a process that is not in the cgroup of its rule was moved out of it by another.
    pub(super) fn was_moved_away(
        &self,
        now: CurrentCgroup<'_>,
        kernel: &mut impl Kernel,
        subject: &PlacedProcess<'_>,
    ) -> bool {
        const CHANGES: Cause = Cause::EXEC.or(Cause::UID).or(Cause::GID).or(Cause::ASKED);
        let (evaluation, cgroup) = (subject.evaluation, numbered(&self.path));
        // A process that changed by itself is classified anew.
        if self.external.setting == ExternalMoves::Off || evaluation.cause.intersects(CHANGES) {
            return false;
        }
        // A process that belongs elsewhere by now was not moved away from there.
        let was_here = evaluation.placement == cgroup;
        if self.is_where_placed(now.text.unwrap_or_default(), kernel, subject) {
            return false;
        }
        let mut identity = || kernel.identity_of(evaluation.pid, subject.handle);
        self.was_traced(evaluation)
            || self.external.history.has(evaluation.pid, &mut identity)
            // Another process may have the PID by now.
            || (was_here || evaluation.cause.contains(Cause::SCAN))
                && self.external.placements.has(evaluation.pid, self.destination, cgroup, identity)
    }

    /// Checks whether the trace reported a move of the process, not of an earlier one with its PID.
    fn was_traced(&self, evaluation: EvaluationRequest) -> bool {
        evaluation.cause.contains(Cause::MOVED) && self.external.watch.knows_move(evaluation.pid)
    }

    /// Checks whether the process is where the daemon saw it in place last: then its rule changed, as
    /// after a late examination, another reply of the name service or an event that was lost, and
    /// not its cgroup.
    fn is_where_placed(
        &self,
        text: &[u8],
        kernel: &mut impl Kernel,
        subject: &PlacedProcess<'_>,
    ) -> bool {
        let pid = subject.evaluation.pid;
        let Some(last) = self.external.placements.last(pid, self.destination) else {
            return false;
        };
        // The text has the hierarchies of the present rule only, if it was known.
        let trees = kernel.hierarchies();
        let is_whole = last
            .span
            .indexes()
            .all(|index| trees.get(index).is_some_and(|tree| tree.place(text).is_some()));
        let read;
        let text = if is_whole {
            text
        } else {
            read = kernel.cgroup(pid, subject.handle.thread).unwrap_or_default().to_vec();
            &read
        };
        let trees = kernel.hierarchies();
        let is_there = |place: &[u8]| {
            std::str::from_utf8(place).is_ok_and(|path| numbered(path) == last.cgroup)
        };
        let mut places = last.span.indexes().map(|index| trees.get(index)?.place(text));
        places.all(|place| place.is_some_and(is_there))
            && kernel.identity_of(pid, subject.handle) == Some(last.identity)
    }

    /// Checks whether the process, which was moved or born elsewhere, is in a cgroup to which users move processes
    /// without root rights. Not in the scope of a session, to which every login is moved.
    pub(crate) fn is_at_users(&self, pid: Pid, policy: &Policy, kernel: &mut impl Kernel) -> bool {
        let hierarchy = self.external.watch.hierarchy_of_move(pid).unwrap_or(UNIFIED);
        let place = place_in(kernel, hierarchy, (pid, None));
        place.is_some_and(|place| place.is_moved_by_users(policy, kernel))
    }

    /// Checks whether the process was seen in the cgroup of a rule since the policy is active.
    pub(crate) fn was_placed(&self, pid: Pid, identity: u64) -> bool {
        self.external.placements.last(pid, 0).is_some_and(|last| last.identity == identity)
    }

    /// Checks whether children inherit a rule with criteria on their place.
    pub(crate) const fn has_heirs(&self) -> bool {
        self.external.origins.has_heirs()
    }

    /// Returns the processes with a rule with criteria on their place, by themselves or by inheritance.
    pub(crate) fn origins(&mut self) -> &mut InheritedOrigins {
        &mut self.external.origins
    }

    /// Records that the process is in the cgroup `self.path` of its rule: after each placement, and when
    /// a scan finds it there.
    pub(super) fn record_placement(
        &mut self,
        span: HierarchySet,
        kernel: &mut impl Kernel,
        (id, rule): (RuleId, &Rule),
        subject: &PlacedProcess<'_>,
    ) {
        let (pid, cgroup) = (subject.evaluation.pid, numbered(&self.path));
        if self.external.setting == ExternalMoves::Off {
            return;
        }
        if let Some(identity) = kernel.identity_of(pid, subject.handle) {
            let placed = PlacedIn { identity, cgroup, span };
            self.external.placements.record(pid, self.destination, placed);
            // A rule with such criteria has one destination.
            if self.destination == 0 {
                let by = rule.tests_place().then_some(id);
                self.external.origins.placed((pid, identity), by, kernel);
            }
        }
    }

    /// Decides about an external move of the process, counts and reports it.
    pub(super) fn react(
        &mut self,
        now: CurrentCgroup<'_>,
        kernel: &mut impl Kernel,
        step: PlacementStep<'_>,
    ) -> Reaction {
        let PlacementStep { policy, rule, span, subject, .. } = step;
        let pid = subject.evaluation.pid;
        let identity = kernel.identity_of(pid, subject.handle).unwrap_or(0);
        let places = self.places_elsewhere(now.text.unwrap_or_default(), span, kernel);
        if self.external.history.is_left_in(pid, identity, &places) {
            return Reaction::Leave;
        }
        // Else the trace has reported the move, and that is why the process is evaluated.
        if !self.was_traced(subject.evaluation) {
            self.external.watch.read_now(kernel);
        }
        let mover = self.external.watch.mover(pid, kernel);
        let is_by_user = mover.as_ref().is_some_and(|mover| mover.acts_for_user(subject))
            || places.iter().any(|place| is_users(policy, place, kernel));
        let facts = MoveFacts {
            setting: self.external.setting,
            is_by_user,
            was_reverted: self.external.history.was_reverted(pid, identity),
        };
        let reaction = reaction(facts);
        self.metrics.external_moves_found.increment();
        match reaction {
            Reaction::Revert => self.external.history.reverted(pid, identity),
            Reaction::Leave => {
                self.metrics.abandoned.increment();
                self.external.history.left(pid, identity, &places);
            }
        }
        if facts.is_by_user {
            self.external.watch.moved_by_user(kernel.now());
        }
        let place = places.first().map_or_else(String::new, CgroupPlace::text);
        self.report(rule, subject, (&place, is_by_user), mover.as_ref(), reaction, kernel.now());
        reaction
    }

    /// Checks whether the last move of the process ends its pin: it was made by another process
    /// than the client that pinned it, and a user can have caused it.
    pub(crate) fn breaks_pin(
        &mut self,
        policy: &Policy,
        kernel: &mut impl Kernel,
        (evaluation, handle): (EvaluationRequest, &ProcessHandle),
        pin: Pin,
    ) -> bool {
        let mover = self.external.watch.mover(evaluation.pid, kernel);
        let at = self.external.watch.moved_at(evaluation.pid).unwrap_or(evaluation.since);
        if pin.includes(mover.as_ref().map_or(0, |mover| mover.process), at) {
            return false;
        }
        let hierarchy = self.external.watch.hierarchy_of_move(evaluation.pid);
        let place = hierarchy.and_then(|id| place_in(kernel, id, (evaluation.pid, handle.thread)));
        mover.is_some_and(|mover| mover.uid.is_some_and(|uid| uid != Uid(0)))
            || place.is_none_or(|place| is_users(policy, &place, kernel))
    }

    fn report(
        &mut self,
        rule: &Rule,
        subject: &PlacedProcess<'_>,
        (place, is_by_user): (&str, bool),
        mover: Option<&Mover>,
        reaction: Reaction,
        now: Nanos,
    ) {
        let unit = Unit::of(place, &[]).name().unwrap_or(place);
        self.external.counts.count(unit);
        let by = mover.map_or_else(String::new, |mover| format!(" by {mover}"));
        let text = format!("{place}{by}");
        let (failure, then) = match reaction {
            Reaction::Revert => (PlacementFailure::TakenBack(text), "it is moved back"),
            Reaction::Leave => (PlacementFailure::GivenUp(text), "it is left there"),
        };
        self.failures.push((failure, self.path.clone()));
        // The number of cgroup names that a user can create is unlimited.
        let to = if is_by_user { rule.name.as_ref() } else { unit };
        let key = (to, subject.handle.uid, reaction == Reaction::Leave);
        if let Some(left_out) = self.limiter.admit(&key, now) {
            let who = ProcessLabel(subject);
            let named = RuleLabel(rule);
            let from = &self.path;
            let to = place.escape_debug();
            self.decided(field::TAKEN, rule, subject).say(
                Level::Warn,
                format_args!("{who} was moved from {from} to {to}{by}; {then}; {named}{left_out}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_by_a_user_is_reverted_each_time_and_any_other_once() {
        use ExternalMoves::{Off, Report, Revert};
        for (setting, is_by_user, was_reverted, expected) in [
            (Revert, false, false, Reaction::Revert),
            (Revert, false, true, Reaction::Leave),
            (Revert, true, false, Reaction::Revert),
            (Revert, true, true, Reaction::Revert),
            (Report, false, false, Reaction::Leave),
            (Report, true, true, Reaction::Leave),
            (Off, true, false, Reaction::Leave),
        ] {
            assert_eq!(reaction(MoveFacts { setting, is_by_user, was_reverted }), expected);
        }
    }

    #[test]
    fn names_are_counted_up_to_a_bound() {
        let mut counts = MoveCounts::default();
        (0..100).for_each(|number| counts.count(&format!("session-{number}.scope")));
        counts.count("session-3.scope");
        counts.count("session-99.scope");
        assert_eq!(counts.0.len(), MAX_NAMES + 1);
        assert_eq!(counts.0[3], ("session-3.scope".to_owned(), 2));
        assert_eq!(counts.0[MAX_NAMES], (OTHERS.to_owned(), 37));
    }
}
