//! Placement of processes: applies the decision about a process by writing its PID to the cgroup of
//! its rule. The last step of an evaluation and the only one that writes. Must not select rules.

mod attach;
mod containers;
mod created_groups;
mod external_moves;
mod foreseen;
mod inapplicable;
mod known_texts;
mod labels;
mod managers;
mod outcome;
mod places;
mod repair;
mod stays;
mod units;

use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::sync::Arc;

use containers::LoggedStays;
use created_groups::CreatedGroups;
use external_moves::ExternalMoveState;
pub(crate) use external_moves::InheritedOrigins;
use foldhash::fast::FixedState;
use foreseen::ForeseenMoves;
use known_texts::KnownTexts;
use nix::errno::Errno;

use crate::cgroup::mounts::HierarchySet;
use crate::cgroup::tree::{CurrentCgroup, GroupId};
use crate::config::daemon_toml::ExternalMoves;
use crate::control::failures::PlacementFailure;
use crate::engine::kernel::Kernel;
use crate::engine::user_managers::UserManagers;
use crate::event::{Cause, Uid};
use crate::kernel::container::Containment;
use crate::kernel::process::ProcessHandle;
use crate::placement::stay::MoveDecision;
use crate::placement::{self, KnownExe, Missing};
use crate::policy::Policy;
use crate::policy::observer::PlacementError;
use crate::rules::destination::{Specifier, SpecifierValues};
use crate::rules::{Action, PathBase, Rule, RuleId, Target};
use crate::telemetry::log::limit::LogLimiter;
use crate::telemetry::metrics::Metrics;
use crate::tracking::queue::EvaluationRequest;
pub use outcome::Placement;
pub(crate) use places::is_moved_by_users;
pub use units::is_momentary;

/// Process that is being evaluated, with the data that was read about it.
#[derive(Debug)]
pub struct PlacedProcess<'a> {
    /// The evaluation: the PID, and the events that caused it.
    pub evaluation: EvaluationRequest,
    /// Open handle of the process.
    pub handle: &'a ProcessHandle,
    /// Name of its user, if it has one.
    pub user: Option<&'a str>,
    /// State of the executable: unread, read or unavailable.
    pub exe: KnownExe<'a>,
    /// Relation of the process to containers, if it was read.
    pub containment: Option<Containment>,
}

impl PlacedProcess<'_> {
    /// Returns the user whom paths for the process name: the owner of a subordinate UID, else its own.
    fn path_user<'u>(&'u self, policy: &'u Policy) -> (Uid, Option<&'u str>) {
        placement::path_user(&policy.subordinates, self.handle.uid, self.user)
    }

    /// Checks whether a thread of it was moved alone. An evaluation after an external move does
    /// not ask whether the leader has exited, so the thread is none that stands in for it.
    fn is_moved_thread(&self) -> bool {
        self.handle.thread.is_some() && self.evaluation.cause.contains(Cause::MOVED)
    }
}

/// A process with the rule that matches it and one destination of the rule, in some hierarchies.
#[derive(Clone, Copy, Debug)]
struct PlacementStep<'a> {
    policy: &'a Policy,
    id: RuleId,
    rule: &'a Rule,
    target: &'a Target,
    span: HierarchySet,
    subject: &'a PlacedProcess<'a>,
}

/// What a placer does with a process that belongs into another cgroup.
#[derive(Debug)]
enum PlacerMode {
    /// Moves it.
    Move,
    /// Logs the move.
    DryRun,
    /// Records the move for a plan. Logs and counts nothing.
    Foresee(ForeseenMoves),
}

/// Moves processes into the cgroups of their rules.
#[derive(Debug)]
pub struct Placer {
    metrics: Arc<Metrics>,
    limiter: LogLimiter,
    external: ExternalMoveState,
    logged: LoggedStays,
    created: CreatedGroups,
    mode: PlacerMode,
    managers: UserManagers,
    path: String,
    /// Which destination of its rule that is.
    destination: usize,
    placement: u64,
    /// Reason for which the last process is not in the cgroup of its rule.
    obstacle: Option<PlacementError>,
    /// Error number with which the kernel refused the last move.
    errno: Option<Errno>,
    /// Failures of the last process, each with the cgroup concerned.
    failures: Vec<(PlacementFailure, String)>,
    /// Buffer for `/proc/PID/cgroup`.
    text: Vec<u8>,
    known_texts: KnownTexts,
    /// The cgroups that the PID of the last process was written to.
    written: Vec<GroupId>,
}

impl Placer {
    /// Creates a placer. With `is_dry_run` it logs moves instead of making them.
    pub fn new(metrics: Arc<Metrics>, is_dry_run: bool, external_moves: ExternalMoves) -> Self {
        Self {
            limiter: LogLimiter::new(Arc::clone(&metrics)),
            logged: LoggedStays::default(),
            created: CreatedGroups::default(),
            external: ExternalMoveState::new(external_moves, &metrics),
            mode: if is_dry_run { PlacerMode::DryRun } else { PlacerMode::Move },
            managers: UserManagers::new(Arc::clone(&metrics)),
            metrics,
            path: String::with_capacity(256),
            destination: 0,
            placement: 0,
            obstacle: None,
            errno: None,
            failures: Vec::new(),
            text: Vec::new(),
            known_texts: KnownTexts::default(),
            written: Vec::new(),
        }
    }

    /// Returns the identifier of the last placement, which is a hash of the cgroup.
    pub fn last_placement(&self) -> u64 {
        self.placement
    }

    /// Returns the reason for which the last process is not in the cgroup of its rule.
    pub fn last_error(&self) -> Option<PlacementError> {
        self.obstacle
    }

    /// Returns the path of the last destination from the top of its hierarchies, also after a
    /// refused move.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the cgroups that the PID of the last process was written to.
    pub(super) fn written(&self) -> &[GroupId] {
        &self.written
    }

    /// Checks whether failures were recorded since they were last taken.
    pub fn has_failures(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Takes the recorded failures, each with the cgroup concerned.
    pub fn take_failures(&mut self) -> Vec<(PlacementFailure, String)> {
        std::mem::take(&mut self.failures)
    }

    fn note(&mut self, failure: PlacementFailure) {
        self.failures.push((failure, self.path.clone()));
    }

    /// Activates another policy: closes all cgroups, because its rules may need others.
    pub fn adopt(&mut self, policy: &Policy, kernel: &mut impl Kernel) {
        self.external.clear();
        self.logged.clear();
        kernel.adopt_configs(&policy.configs, policy.beginning(PathBase::Root));
    }

    /// Applies the rule to the process.
    ///
    /// # Errors
    /// Data about the process that must be read first.
    pub fn apply(
        &mut self,
        policy: &Policy,
        kernel: &mut impl Kernel,
        id: RuleId,
        subject: &PlacedProcess<'_>,
    ) -> Result<Placement, Missing> {
        let Some(rule) = policy.matcher.rule(id) else { return Ok(Placement::NoRule) };
        let targets = match &rule.action {
            Action::Ignore(_) => return Ok(Placement::Ignored),
            Action::Inapplicable(it) => return Ok(self.leave(rule, &it.reason, subject, kernel)),
            Action::Place(targets) => targets,
            // Never a decision: the search continued.
            Action::Observe(_) => return Ok(Placement::NoRule),
        };
        self.written.clear();
        self.errno = None;
        self.obstacle = None;
        let mut outcome = Placement::InPlace;
        for (index, target) in targets.iter().enumerate() {
            let span = policy.span(kernel.hierarchies(), id, index, target);
            // As in cgrulesengd, a line with a controller that this host does not have ends the
            // rule; it was reported when the rules were read. The controllers of the first line
            // exist, or the rule would be [`Action::Inapplicable`].
            if span.is_empty() && target.below == PathBase::Top {
                self.obstacle = Some(PlacementError::NoController);
                break;
            }
            if is_exe_missing(target, subject) {
                return Err(Missing::Exe);
            }
            self.render(policy, target, subject);
            self.destination = index;
            let step = PlacementStep { policy, id, rule, target, span, subject };
            match self.enter_all(kernel, step, outcome)? {
                ControlFlow::Continue(so_far) => outcome = so_far,
                ControlFlow::Break(last) => return Ok(last),
            }
        }
        Ok(outcome)
    }

    /// Puts the process into the group `self.path` of all hierarchies that the target concerns.
    /// Returns the outcome of the rule `so_far`, with whether it is the last one.
    fn enter_all(
        &mut self,
        kernel: &mut impl Kernel,
        all: PlacementStep<'_>,
        so_far: Placement,
    ) -> Result<ControlFlow<Placement, Placement>, Missing> {
        let mut outcome = so_far;
        let mut is_in_place = true;
        let PlacementStep { id, rule, target, subject, .. } = all;
        // A process that moves away later keeps the rule: see [`crate::placement::conditions`].
        let mut is_new = subject.evaluation.cause.contains(Cause::SCAN) || rule.tests_place();
        for n in 0.. {
            let Some(span) = kernel.hierarchies().step(target, all.span, n) else { break };
            let entered = self.enter(kernel, PlacementStep { span, ..all })?;
            is_in_place &= matches!(entered, Placement::Placed | Placement::InPlace);
            is_new |= entered == Placement::Placed;
            match entered {
                Placement::Placed if outcome == Placement::InPlace => outcome = Placement::Placed,
                other @ (Placement::Gone
                | Placement::Replaced
                | Placement::GivenUp
                | Placement::InUnit
                | Placement::InContainer
                | Placement::OthersJob
                | Placement::InSlice
                | Placement::Protected
                | Placement::Waiting) => return Ok(ControlFlow::Break(other)),
                Placement::Refused if target.below == PathBase::Top => {
                    return Ok(ControlFlow::Break(Placement::Refused));
                }
                Placement::Refused => outcome = Placement::Refused,
                Placement::WouldPlace => outcome = Placement::WouldPlace,
                Placement::Placed
                | Placement::InPlace
                | Placement::NoRule
                | Placement::Ignored
                | Placement::Inapplicable
                | Placement::Sticky => {}
            }
        }
        if is_in_place && is_new {
            self.record_placement(all.span, kernel, (id, rule), subject);
        }
        Ok(ControlFlow::Continue(outcome))
    }

    /// Moves the process into the cgroup `self.path` unless it is there or must stay where it is.
    fn enter(
        &mut self,
        kernel: &mut impl Kernel,
        step: PlacementStep<'_>,
    ) -> Result<Placement, Missing> {
        let PlacementStep { span, subject, .. } = step;
        // Taken out while it is borrowed: the current cgroup is read once for the whole placement.
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        let unified = subject.handle.unified;
        let is_told = unified.is_some() && kernel.hierarchies().has_only_v2(span);
        if !is_told {
            read_cgroup(kernel, subject, &mut text);
        }
        let outcome =
            if self.is_in_place(kernel, span, CurrentCgroup { unified, text: Some(&text) }) {
                Ok(Placement::InPlace)
            } else {
                // Several reasons to stay depend on the current paths, so they are read once for all
                // checks.
                if let Some(id) = unified.filter(|_| is_told) {
                    self.read_v2_cgroup(kernel, subject, id, &mut text);
                }
                let now = CurrentCgroup { unified, text: Some(&text) };
                self.enter_from(now, kernel, step)
            };
        self.text = text;
        outcome
    }

    /// Continues [`Self::enter`] for a process that is in `now`, and in no open cgroup of that
    /// path.
    fn enter_from(
        &mut self,
        now: CurrentCgroup<'_>,
        kernel: &mut impl Kernel,
        step: PlacementStep<'_>,
    ) -> Result<Placement, Missing> {
        let PlacementStep { rule, subject, .. } = step;
        match self.decide_move(now, kernel, step)? {
            MoveDecision::Stay(reason) => return Ok(self.stays(&reason, rule, subject, kernel)),
            MoveDecision::Move(Some(unit)) => {
                self.log_unit(&unit, false, rule, subject, kernel.now());
            }
            MoveDecision::Move(None) => {}
        }
        Ok(self.place(now, kernel, step))
    }

    /// Reads the current cgroups of a process that is in the v2 cgroup with this ID, at least those
    /// on which the reasons to stay depend: v2, and the named hierarchy of systemd.
    fn read_v2_cgroup(
        &mut self,
        kernel: &mut impl Kernel,
        subject: &PlacedProcess<'_>,
        id: u64,
        text: &mut Vec<u8>,
    ) {
        let is_enough = !kernel.has_groups_of_systemd();
        if let Some(known) = self.known_texts.get(id).filter(|_| is_enough) {
            text.extend_from_slice(known);
            return;
        }
        read_cgroup(kernel, subject, text);
        if is_enough {
            self.known_texts.record(id, text, kernel);
        }
    }

    /// Sets `self.path` to the path of the target for this process.
    fn render(&mut self, policy: &Policy, target: &Target, subject: &PlacedProcess<'_>) {
        let pid = subject.evaluation.pid;
        let (uid, user) = subject.path_user(policy);
        let who = SpecifierValues {
            uid,
            user,
            gid: subject.handle.gid,
            group: policy.groups.get(&subject.handle.gid).and_then(Option::as_deref),
            pid,
            program: subject.exe.raw(),
        };
        let root = policy.beginning(target.below);
        placement::render(root, &target.destination, &who, &mut self.path);
    }

    /// Checks whether the cgroup is open and contains the process.
    fn is_in_place(
        &self,
        kernel: &impl Kernel,
        span: HierarchySet,
        now: CurrentCgroup<'_>,
    ) -> bool {
        // Checked first: most programs that an already placed user starts need no more, and a
        // redundant write is expensive, because it can wait for an RCU grace period.
        kernel.known_group(span, &self.path).is_some_and(|group| kernel.holds(group, now))
    }
}

/// Checks whether the path of the cgroup contains the program, which was not read.
fn is_exe_missing(target: &Target, subject: &PlacedProcess<'_>) -> bool {
    matches!(subject.exe, KnownExe::Unread)
        && target.destination.fields().any(|field| field == Specifier::Program)
}

/// Returns a hash that identifies a cgroup. A collision would only cause a wrong line in the log.
fn numbered(path: &str) -> u64 {
    FixedState::default().hash_one(path) | 1
}

/// Appends `/proc/PID/cgroup` of a process to `text`; nothing if the process has exited.
fn read_cgroup(kernel: &mut impl Kernel, subject: &PlacedProcess<'_>, text: &mut Vec<u8>) {
    text.extend(kernel.cgroup(subject.evaluation.pid, subject.handle.thread).unwrap_or_default());
}
