//! Plans in the control protocol: the answer to [`ControlRequest::Plan`](super::protocol::ControlRequest::Plan).
//! Its schema must stay stable, as that of the other messages. Pure.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::difference::DecisionChange;
use super::plan::{Plan, PlannedDecision, PlannedMove, PlannedProcess};
use crate::cgroup::config::{ConfigChange, ConfiguredKind, changes};
use crate::cgroup::mounts::{Hierarchies, Version};
use crate::config::daemon_toml::changes::SettingChange;
use crate::config::diagnostic::Diagnostic;
use crate::config::escape::{Escaped, EscapedBytes};
use crate::kernel::process::path_in;

/// The first line of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanReport {
    /// The number of errors among the diagnostics. With errors there is no plan.
    pub errors: u64,
    /// The diagnostics of the files, each several lines of text.
    pub diagnostics: Vec<String>,
    /// The number of rules that would be active.
    pub rules: u64,
    /// The number of their files.
    pub files: u64,
    /// The number of processes about which was decided.
    pub processes: u64,
    /// The settings that would change.
    pub settings: Vec<PlannedSetting>,
    /// The cgroups that would be created for the present processes.
    pub created: Vec<String>,
}

/// A setting that would change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSetting {
    /// What it is for: `cgroup`, `template`, `section`, `unit`, `user-slice` or `daemon`.
    pub kind: String,
    /// The path of the cgroup as written, the name of the unit, or an empty text.
    pub name: String,
    /// The name of the setting.
    pub key: String,
    /// The active value; absent if it is not set.
    pub old: Option<String>,
    /// The new value; absent if it would not be set any more.
    pub new: Option<String>,
    /// Whether it takes effect after a restart only.
    pub restart: bool,
}

/// What a reload would change for a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPlan {
    /// The PID of the process.
    pub pid: u32,
    /// Its effective user ID.
    pub uid: u32,
    /// The name of that user.
    pub user: Option<String>,
    /// The name of the process (comm).
    pub comm: String,
    /// What would change.
    pub change: DecisionChange,
    /// The present cgroup: in the v2 hierarchy, or the one in which it would be moved first.
    pub cgroup: String,
    /// The decision by the active rules.
    pub old: PlannedRule,
    /// The decision by the new rules.
    pub new: PlannedRule,
    /// The moves, one for each hierarchy.
    pub moves: Vec<PlannedMoveReport>,
    /// The systemd unit that would lose the process.
    pub unit: Option<String>,
}

/// A decision about a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRule {
    /// The name of the rule, or its file and line; absent if no rule decides.
    pub rule: Option<String>,
    /// The file that contains the rule.
    pub file: Option<String>,
    /// The line of its first key, from 1.
    pub line: Option<u32>,
    /// The outcome: those of decisions, or `unknown`.
    pub outcome: String,
    /// The reason why the process would stay, or why the decision is unknown; empty if there is none.
    pub reason: String,
}

/// A move of a process in one hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMoveReport {
    /// The hierarchy: `unified`, or the controllers or the name of a v1 hierarchy.
    pub hierarchy: String,
    /// The present cgroup.
    pub from: String,
    /// The cgroup of the rule.
    pub to: String,
    /// Whether that would be created.
    pub creates: bool,
}

impl PlanReport {
    /// Creates the report of files with errors.
    pub fn of_errors(found: &[Diagnostic]) -> Self {
        let errors = found.iter().filter(|one| one.is_error()).count();
        let diagnostics = found.iter().map(Diagnostic::to_string).collect();
        Self { errors: count(errors), diagnostics, ..Self::default() }
    }

    /// Creates the report of a plan.
    pub fn new(plan: &Plan) -> Self {
        let [old, new] = &plan.configs;
        let of_daemon = [(&plan.settings.applied, false), (&plan.settings.pending, true)];
        let of_daemon = of_daemon.into_iter().flat_map(|(changes, restart)| {
            changes.iter().map(move |change| PlannedSetting::of_daemon(change, restart))
        });
        let moves = plan.processes.iter().flat_map(|process| &process.moves);
        let created: BTreeSet<&str> = moves.filter(|one| one.creates).map(|one| &*one.to).collect();
        Self {
            rules: count(plan.summary.rules),
            files: count(plan.summary.files),
            processes: count(plan.examined),
            settings: changes(old, new).iter().map(PlannedSetting::from).chain(of_daemon).collect(),
            created: created.into_iter().map(|path| Escaped(path).to_string()).collect(),
            ..Self::of_errors(&plan.diagnostics)
        }
    }
}

impl PlannedSetting {
    fn of_daemon(SettingChange { key, old, new }: &SettingChange, restart: bool) -> Self {
        let value = |text: &str| Some(Escaped(text).to_string());
        let (kind, name, key) = ("daemon".to_owned(), String::new(), (*key).to_owned());
        Self { kind, name, key, old: value(old), new: value(new), restart }
    }
}

impl From<&ConfigChange> for PlannedSetting {
    fn from(change: &ConfigChange) -> Self {
        let kind = match change.kind {
            ConfiguredKind::Cgroup => "cgroup",
            ConfiguredKind::Template => "template",
            ConfiguredKind::Section => "section",
            ConfiguredKind::Unit => "unit",
            ConfiguredKind::UserSlice => "user-slice",
        };
        let safe = |text: &String| Escaped(text).to_string();
        Self {
            kind: kind.to_owned(),
            name: safe(&change.name),
            key: safe(&change.key),
            old: change.old.as_ref().map(safe),
            new: change.new.as_ref().map(safe),
            restart: false,
        }
    }
}

impl ProcessPlan {
    /// Creates the report of a process on a host with these hierarchies.
    pub fn new(process: &PlannedProcess, trees: &Hierarchies) -> Self {
        let present = path_in(&process.cgroups, b"").filter(|path| *path != b"/");
        let first = process.moves.first().map(|first| &*first.from);
        let cgroup = first.or(present).or_else(|| path_in(&process.cgroups, b""));
        Self {
            pid: process.pid.get(),
            uid: process.uid.0,
            user: process.user.as_ref().map(|name| Escaped(name).to_string()),
            comm: EscapedBytes(&process.comm).to_string(),
            change: process.change,
            cgroup: EscapedBytes(cgroup.unwrap_or_default()).to_string(),
            old: PlannedRule::from(&process.before),
            new: PlannedRule::from(&process.after),
            moves: process.moves.iter().map(|one| PlannedMoveReport::new(one, trees)).collect(),
            unit: process.unit.as_ref().map(|name| Escaped(name).to_string()),
        }
    }
}

impl From<&PlannedDecision> for PlannedRule {
    fn from(decision: &PlannedDecision) -> Self {
        let rule = decision.rule.as_ref();
        let file =
            |path: &std::path::Path| EscapedBytes(path.as_os_str().as_encoded_bytes()).to_string();
        let failure =
            decision.failure.as_ref().map(|failure| Escaped(&failure.to_string()).to_string());
        Self {
            rule: rule.map(|(name, _)| Escaped(name).to_string()),
            file: rule.map(|(_, origin)| file(&origin.file)),
            line: rule.map(|(_, origin)| origin.line),
            outcome: decision.outcome.to_owned(),
            reason: failure.or(decision.reason.map(str::to_owned)).unwrap_or_default(),
        }
    }
}

impl PlannedMoveReport {
    fn new(planned: &PlannedMove, trees: &Hierarchies) -> Self {
        let hierarchy = match trees.get(planned.hierarchy) {
            Some(tree) if tree.version == Version::V1 => Escaped(&tree.listed).to_string(),
            Some(_) | None => "unified".to_owned(),
        };
        Self {
            hierarchy,
            from: EscapedBytes(&planned.from).to_string(),
            to: Escaped(&planned.to).to_string(),
            creates: planned.creates,
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
