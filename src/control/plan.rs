//! The plan as the hot thread computes it, before it is written for a client: what a reload would change for
//! each process. Must not contain text that has to be formatted on the hot thread.

use std::sync::Arc;

use super::difference::DecisionChange;
use super::failures::PlacementFailure;
use crate::cgroup::config::GroupConfigs;
use crate::config::daemon_toml::changes::SettingChanges;
use crate::config::diagnostic::Diagnostic;
use crate::event::{Pid, Uid};
use crate::policy::Summary;
use crate::rules::Origin;

/// The reply of the hot thread to a request for a plan.
#[derive(Debug)]
pub enum PlanReply {
    /// The files have errors.
    Errors(Vec<Diagnostic>),
    /// Other rules became active, or another plan was requested, before the plan was complete.
    Superseded,
    /// The list of processes could not be read.
    NoProcesses,
    /// The plan.
    Plan(Box<Plan>),
}

/// What a reload would change.
#[derive(Debug)]
pub struct Plan {
    /// The warnings about the files.
    pub diagnostics: Vec<Diagnostic>,
    /// The settings of the daemon that would change.
    pub settings: SettingChanges,
    /// The rules that would be active.
    pub summary: Summary,
    /// The settings of cgroups and units: the active ones, and those of the plan.
    pub configs: [Arc<GroupConfigs>; 2],
    /// The number of processes about which was decided.
    pub examined: usize,
    /// The processes for which the decision differs, or is not known.
    pub processes: Vec<PlannedProcess>,
}

/// The difference for one process.
#[derive(Debug)]
pub struct PlannedProcess {
    /// Its PID.
    pub pid: Pid,
    /// Its effective user.
    pub uid: Uid,
    /// The name of that user, if it is known.
    pub user: Option<Box<str>>,
    /// Its name (comm).
    pub comm: Box<[u8]>,
    /// The text of its `/proc/PID/cgroup`.
    pub cgroups: Box<[u8]>,
    /// What differs.
    pub change: DecisionChange,
    /// The decision by the active rules.
    pub before: PlannedDecision,
    /// The decision by the rules of the plan.
    pub after: PlannedDecision,
    /// The moves that the rules of the plan cause.
    pub moves: Vec<PlannedMove>,
    /// The systemd unit that loses the process.
    pub unit: Option<Box<str>>,
}

/// A decision about a process.
#[derive(Clone, Debug)]
pub struct PlannedDecision {
    /// The rule that decides, if one does.
    pub rule: Option<(Arc<str>, Origin)>,
    /// The outcome by its name in the protocol, or [`super::difference::UNKNOWN`].
    pub outcome: &'static str,
    /// Why a process stays that the rule names another cgroup for.
    pub failure: Option<PlacementFailure>,
    /// Why the decision is not known.
    pub reason: Option<&'static str>,
}

/// A move of a process in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedMove {
    /// The index of the hierarchy.
    pub hierarchy: usize,
    /// The present cgroup.
    pub from: Box<[u8]>,
    /// The cgroup of the rule.
    pub to: Box<str>,
    /// The cgroup of the rule would be created.
    pub creates: bool,
}
