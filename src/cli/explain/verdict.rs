//! Comparison of the cgroups that the rules select for a process with its current ones. Must decide as the
//! daemon does.

use std::fs;
use std::path::PathBuf;

use super::stays;
use super::subject::{InspectedProcess, LiveProcess};
use crate::cgroup::mounts::{Hierarchies, Hierarchy, HierarchySet, Version};
use crate::cli::conditions::InspectedConditions;
use crate::cli::inspected_program::InspectedProgram;
use crate::cli::unread;
use crate::config::escape::EscapedBytes;
use crate::event::Pid;
use crate::kernel::process::{ProcFs, path_in};
use crate::placement;
use crate::placement::conditions::Conditions;
use crate::placement::stay::{StayReason, StayTarget};
use crate::policy::context_rules::ContextRules;
use crate::policy::rebuild::LoadedConfig;
use crate::rules::container::Container;
use crate::rules::destination::{Destination, DestinationPart, Specifier, SpecifierValues};
use crate::rules::explain::{Mismatch, Trace, walk};
use crate::rules::{Action, PathBase, Rule, RuleId, Target};

/// Overall result for a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlacementState {
    /// Process in the cgroup of its rule.
    InPlace,
    /// Process in another cgroup than that of its rule.
    Misplaced,
    /// Result uncertain: rules need an unknown executable, or not all rule files could be read.
    Unsure,
    /// Result uncertain: the daemon's active rules are not those that were evaluated.
    Outdated,
    /// Process that no rule matches.
    NoRule,
    /// Process that matches a rule with `ignore = true`.
    Ignored,
    /// Process with a rule that cannot be applied on this host.
    Inapplicable,
    /// Process that is moved only by a rule that names its executable.
    Protected,
    /// Process that stays in the slice of its user, which a table limits.
    InSlice,
    /// Process that stays in its systemd unit.
    InUnit,
    /// Process that stays in a container created by root.
    InContainer,
    /// Process of another user's job, which no rule moves.
    OthersJob,
    /// Process that has exited and is not yet reaped.
    Ended,
    /// Hypothetical process that a rule would move.
    Imagined,
    /// Hypothetical process whose rule selects a cgroup that does not exist or accepts no process.
    Obstructed,
}

impl PlacementState {
    /// Checks whether the process is left in another cgroup than that of its rule on purpose, for a reason
    /// that a key of the rule can change.
    pub(super) const fn is_kept(self) -> bool {
        matches!(self, Self::InUnit | Self::InContainer | Self::OthersJob)
    }

    /// Checks whether the answer names the reasons for which the process is elsewhere.
    pub const fn has_reasons(self) -> bool {
        self.is_kept() || matches!(self, Self::Misplaced)
    }

    /// Checks whether the process is not, or would not be, in the cgroup of its rule: exit status 1.
    pub(super) const fn is_negative(self) -> bool {
        self.is_kept() || matches!(self, Self::Misplaced | Self::Inapplicable | Self::Obstructed)
    }
}

/// Expected and actual cgroup in one hierarchy that the rule concerns.
#[derive(Clone, Debug)]
pub struct HierarchyState {
    /// Hierarchy: `cgroup v2`, or the controllers of a v1 hierarchy.
    pub tree: String,
    /// Expected cgroup, as a path from the hierarchy root.
    pub belongs: String,
    /// Actual cgroup; `None` if it is unknown.
    pub is: Option<Vec<u8>>,
    /// True if the actual cgroup is the expected one.
    pub is_right: bool,
    /// Directory of the expected cgroup.
    pub directory: PathBuf,
    /// cgroup version of the hierarchy.
    pub version: Version,
    /// True if the daemon creates the cgroup if it is missing.
    pub creates: bool,
}

impl HierarchyState {
    /// Returns the cause for which the kernel, or the rule, would refuse a move now.
    pub(super) fn obstacle(&self) -> Option<String> {
        let directory = EscapedBytes(self.directory.as_os_str().as_encoded_bytes());
        if !self.directory.exists() {
            let text = format!(
                "{directory} does not exist, and literal paths in cgrules.conf are not created: create the \
                 cgroup, or add a group section to /etc/cgconfig.conf"
            );
            return (!self.creates).then_some(text);
        }
        let enabled = fs::read_to_string(self.directory.join("cgroup.subtree_control"));
        let is_inner = enabled.is_ok_and(|text| !text.trim().is_empty());
        // Only the hierarchy root may have both processes and controllers in cgroup.subtree_control.
        let is_top = self.belongs == "/";
        (self.version == Version::V2 && is_inner && !is_top).then(|| {
            format!(
                "{directory} has controllers enabled in cgroup.subtree_control, so the kernel accepts no process \
                 (EBUSY): name a cgroup below it"
            )
        })
    }
}

/// Result of the rules for a process.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Overall result, from which the headline follows.
    pub state: PlacementState,
    /// Trace of the evaluation of the rules.
    pub walk: Trace,
    /// Hierarchies that the rule concerns, in order.
    pub seats: Vec<HierarchyState>,
    /// Reason for which the process stays in other cgroups.
    pub stays: Option<StayReason>,
    /// True if it is in the cgroup to which rules with criteria on its place lead.
    pub is_placed: bool,
    /// Container in which it is, if a rule tests that.
    pub container: Option<Container>,
    /// Files that the daemon uses and that the caller cannot read.
    pub unread: Vec<PathBuf>,
}

/// Evaluates the rules for a process and compares the result with its cgroups.
pub fn judge(survey: &LoadedConfig, subject: &InspectedProcess, proc: &mut ProcFs) -> Verdict {
    let rules = &survey.loaded.rules;
    let pid = subject.life.as_ref().map(|life| life.pid);
    let roots = [&*survey.roots.rules, &*survey.roots.legacy];
    let context = ContextRules::new(rules, &survey.hierarchies, roots);
    let facts = InspectedConditions {
        hierarchies: &survey.hierarchies,
        names: &survey.names,
        cgroup: subject.cgroup_text(),
        ancestors: &subject.ancestors,
        login: subject.login,
        pid,
        proc: Some(proc),
        subordinates: survey.subordinates(),
        container: subject.imagined_container.as_deref(),
        arguments: subject.arguments.as_deref(),
    };
    let mut conditions = Conditions::new(&context, facts);
    let walk = walk(rules, &subject.who, &subject.facts(), |id, rule| {
        conditions.test(id, rule).unwrap_or(Some(Mismatch::Circumstances))
    });
    let container = match rules.iter().any(Rule::tests_container) {
        true => conditions.container().ok().flatten().cloned(),
        false => None,
    };
    let is_placed = conditions.is_placed();
    let rule = walk.winner.and_then(|RuleId(id)| rules.get(id as usize));
    let states = rule.map(|rule| target_states(survey, subject, rule)).unwrap_or_default();
    let mut said = state(rule, subject, &states);
    let mut stays = None;
    if let (PlacementState::Misplaced, Some(rule)) = (said, rule) {
        stays = stay_reason(survey, subject, rule, &states, proc);
        said = match &stays {
            Some(StayReason::Delegated) => PlacementState::InPlace,
            Some(StayReason::Protected) => PlacementState::Protected,
            Some(StayReason::Exited) => PlacementState::Ended,
            Some(StayReason::InSlice(_)) => PlacementState::InSlice,
            Some(StayReason::InUnit(_)) => PlacementState::InUnit,
            Some(StayReason::InContainer(_)) => PlacementState::InContainer,
            Some(StayReason::OthersJob(_)) => PlacementState::OthersJob,
            Some(StayReason::ManagerUnknown) | None => said,
        };
    }
    let depends = said.is_kept()
        || matches!(
            said,
            PlacementState::InPlace | PlacementState::Misplaced | PlacementState::NoRule
        );
    let unread = unread::files(&survey.loaded.diagnostics);
    let is_unsure = depends && (unseen(rules, subject, &walk) > 0 || !unread.is_empty());
    let state = if is_unsure { PlacementState::Unsure } else { said };
    let seats = states.into_iter().flat_map(|state| state.seats).collect();
    Verdict { state, walk, seats, stays, is_placed, container, unread }
}

/// Returns the number of rules that need an unknown executable, so that the result may be wrong.
pub(super) fn unseen(rules: &[Rule], subject: &InspectedProcess, walk: &Trace) -> usize {
    if !matches!(subject.program, InspectedProgram::Hidden(_)) {
        return 0;
    }
    let rule = walk.winner.and_then(|RuleId(id)| rules.get(id as usize));
    let misses = walk.misses.iter().zip(rules);
    // The result does not depend on rules that observe.
    misses.filter(|(miss, rule)| **miss == Mismatch::UnknownExe && !rule.action.observes()).count()
        + usize::from(rule.is_some_and(|rule| !rule.not.exes.is_empty()))
}

fn state(
    rule: Option<&Rule>,
    subject: &InspectedProcess,
    states: &[TargetState<'_>],
) -> PlacementState {
    let Some(rule) = rule else { return PlacementState::NoRule };
    match &rule.action {
        Action::Ignore(_) => return PlacementState::Ignored,
        Action::Inapplicable(_) => return PlacementState::Inapplicable,
        // A rule that observes never decides.
        Action::Place(_) | Action::Observe(_) => {}
    }
    let mut seats = states.iter().flat_map(|state| &state.seats);
    match &subject.life {
        None if seats.any(|seat| seat.obstacle().is_some()) => PlacementState::Obstructed,
        None => PlacementState::Imagined,
        Some(_) if seats.all(|seat| seat.is_right) => PlacementState::InPlace,
        Some(_) => PlacementState::Misplaced,
    }
}

/// Destination of a rule for the process.
struct TargetState<'r> {
    target: &'r Target,
    span: HierarchySet,
    /// Path from the top of the hierarchies.
    path: String,
    seats: Vec<HierarchyState>,
}

/// Returns the destinations that the daemon applies.
fn target_states<'r>(
    survey: &LoadedConfig,
    subject: &InspectedProcess,
    rule: &'r Rule,
) -> Vec<TargetState<'r>> {
    let mut states = Vec::new();
    for target in rule.action.targets() {
        let (span, _) = survey.hierarchies.span_of(target);
        if span.is_empty() && target.below == PathBase::Top {
            // The daemon stops here too: it does not apply the targets that follow.
            break;
        }
        let path = path(survey, subject, target);
        let creates = survey.creates(target);
        let seats = span.indexes().filter_map(|index| {
            let tree = survey.hierarchies.get(index)?;
            Some(hierarchy_state(tree, &path, creates.has(index), subject))
        });
        let seats = seats.collect();
        states.push(TargetState { target, span, path, seats });
    }
    states
}

/// Returns the reason for which a process that is not in the cgroup of its rule stays where it is.
fn stay_reason(
    survey: &LoadedConfig,
    subject: &InspectedProcess,
    rule: &Rule,
    states: &[TargetState<'_>],
    proc: &mut ProcFs,
) -> Option<StayReason> {
    let elsewhere = states.iter().filter(|state| state.seats.iter().any(|seat| !seat.is_right));
    let mut targets = elsewhere.map(|&TargetState { target, span, ref path, .. }| StayTarget {
        rule,
        span,
        target,
        path,
    });
    targets.find_map(|target| stays::reason(survey, subject, &target, proc))
}

fn hierarchy_state(
    tree: &Hierarchy,
    path: &str,
    creates: bool,
    subject: &InspectedProcess,
) -> HierarchyState {
    let top = tree.top.trim_end_matches('/');
    let belongs = match path {
        "/" if !top.is_empty() => top.to_owned(),
        path => format!("{top}{path}"),
    };
    let text = subject.life.as_ref().map(|life| life.cgroup.as_slice());
    let is = text.and_then(|text| path_in(text, tree.listed.as_bytes())).map(<[u8]>::to_vec);
    HierarchyState {
        tree: match tree.version {
            Version::V2 => "cgroup v2".to_owned(),
            Version::V1 => tree.listed.clone(),
        },
        is_right: is.as_deref() == Some(belongs.as_bytes()),
        is,
        belongs,
        directory: tree.mount_point.join(path.trim_start_matches('/')),
        version: tree.version,
        creates,
    }
}

/// Renders the path of a target for the process as the daemon does. Specifiers that are unknown without a
/// process are left unexpanded.
fn path(survey: &LoadedConfig, subject: &InspectedProcess, target: &Target) -> String {
    let root = match target.below {
        PathBase::Root => &survey.roots.rules,
        PathBase::Top => &survey.roots.legacy,
    };
    let mut path = String::new();
    let pieces = target.destination.pieces().into_iter().map(|piece| match piece {
        DestinationPart::Field(Specifier::ProcessId) if subject.life.is_none() => {
            DestinationPart::Literal("%P".to_owned())
        }
        DestinationPart::Field(Specifier::Program)
            if subject.life.is_none() && subject.raw_exe().is_none() =>
        {
            DestinationPart::Literal("%p".to_owned())
        }
        piece @ (DestinationPart::Field(_) | DestinationPart::Literal(_)) => piece,
    });
    let destination = Destination::from_pieces(target.destination.as_str(), pieces.collect());
    // The PID of a hypothetical process is not shown.
    if let Some(pid) = subject.life.as_ref().map(|life| life.pid).or(Pid::new(1)) {
        let name = subject.who.name.as_deref();
        let (uid, user) = placement::path_user(survey.subordinates(), subject.who.uid, name);
        let gid = subject.gid;
        let group = subject.group.as_deref();
        let program = subject.raw_exe();
        let values = SpecifierValues { uid, user, gid, group, pid, program };
        placement::render(root, &destination, &values, &mut path);
    }
    path
}

/// Returns the v2 cgroup of a process, followed by its v1 cgroups except hierarchy roots.
pub(super) fn current(hierarchies: &Hierarchies, life: &LiveProcess) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for tree in hierarchies.iter() {
        let Some(path) = path_in(&life.cgroup, tree.listed.as_bytes()) else { continue };
        match tree.version {
            Version::V2 => found.insert(0, ("cgroup v2".to_owned(), path.to_vec())),
            Version::V1 if path != b"/" => found.push((tree.listed.clone(), path.to_vec())),
            Version::V1 => {}
        }
    }
    found
}
