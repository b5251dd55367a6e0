//! The status of the daemon: the replies to [`Request::Status`] and [`Request::Rules`]. As
//! everywhere in the protocol, fields are added, never renamed or given another meaning.
//!
//! Times are seconds since 1970; durations of moves are microseconds.
//!
//! [`Request::Status`]: super::protocol::ControlRequest::Status
//! [`Request::Rules`]: super::protocol::ControlRequest::Rules

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::history::message::HistoryStatus;

/// The state of the daemon and its counters since startup.
///
/// A field that the daemon does not send, because it has another version, has its default value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// The version of the daemon.
    pub version: String,
    /// The PID of the daemon.
    pub pid: u32,
    /// The time of the start.
    pub started: u64,
    /// The seconds since the start.
    pub uptime: u64,
    /// Whether the daemon only logs moves (`--dry-run`).
    pub dry_run: bool,
    /// Whether the thread that moves processes did not respond within two seconds.
    pub stalled: bool,
    /// A summary of the active rules.
    pub rules: ActiveRulesStatus,
    /// The reload that left files with new errors at their last valid version.
    pub refused_reload: Option<RefusedReload>,
    /// The base of the cgroups of TOML rules, from the root of each hierarchy.
    pub root: String,
    /// The base of the cgroups of legacy rules; `None` without active ones.
    #[serde(default)]
    pub legacy_root: Option<String>,
    /// The mounted cgroup hierarchies.
    pub hierarchies: Vec<HierarchyStatus>,
    /// The reaction to external moves: `revert`, `report` or `off`.
    pub external_moves: String,
    /// The detection of external moves: `trace`, `scan` (every 60 s if they cannot be traced) or
    /// `none`.
    pub external_moves_by: String,
    /// All counters by name; cgruled(8) describes them.
    pub counters: BTreeMap<String, u64>,
    /// The counter `refused` by errno, the most frequent first.
    pub refusals: Vec<RefusedMoves>,
    /// The counter `external_moves_found` by mover, in the order of first occurrence; `others` for all after
    /// the first 64. A systemd unit is given by name, another cgroup by path.
    pub external_movers: Vec<ExternalMover>,
    /// The size and age of the history of evaluations.
    pub history: HistoryStatus,
    /// The time from the kernel's event to the end of the move.
    pub latency: MoveLatency,
}

impl Status {
    /// Returns a counter; 0 if the daemon has none of this name.
    pub fn counter(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }
}

/// A summary of the active rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveRulesStatus {
    /// The number of active rules.
    pub count: u64,
    /// The number of those that only observe.
    #[serde(default)]
    pub observing: u64,
    /// The time at which they were loaded.
    pub since: u64,
    /// The number of rule sets activated since startup, including this one.
    pub generation: u64,
    /// The files that contain the rules.
    pub files: Vec<String>,
    /// The number of errors in the files. Each disabled a rule.
    pub errors: u64,
    /// The number of warnings about the files.
    pub warnings: u64,
}

/// A reload that did not activate the current version of all files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedReload {
    /// The time of the reload.
    pub at: u64,
    /// The new errors, each several lines of text.
    pub errors: Vec<String>,
    /// The files, or directories, kept at their last valid version.
    #[serde(default)]
    pub kept: Vec<KeptFile>,
}

/// A file, or directory, with new errors that is kept at its last valid version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// The path of the file or directory.
    pub file: String,
    /// The time at which the active version was first read; absent for a directory, which keeps all
    /// its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The active file that a new invalid one would override.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
    /// The position of the first new error as `FILE:LINE`.
    pub first_error: String,
}

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchyStatus {
    /// The cgroup version: 1 or 2.
    pub version: u8,
    /// The mount point of the hierarchy.
    pub mount_point: String,
    /// The controllers of the hierarchy.
    pub controllers: Vec<String>,
}

/// The number of moves refused by the kernel with one errno.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedMoves {
    /// The symbolic name, such as `ENOSPC`.
    pub errno: String,
    /// The description of the errno.
    pub meaning: String,
    /// The number of refused moves.
    pub count: u64,
}

/// A third party that moved processes away from their cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalMover {
    /// The systemd unit or the cgroup path.
    pub name: String,
    /// The number of moves by this party.
    pub count: u64,
}

/// The latency of moves in microseconds. All but the maximum are rounded up, by at most an eighth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveLatency {
    /// The number of measured moves: those caused by an event, not by a scan.
    pub count: u64,
    /// The median latency.
    pub p50_us: u64,
    /// The 90th percentile of the latency.
    pub p90_us: u64,
    /// The 99th percentile of the latency.
    pub p99_us: u64,
    /// The maximum latency.
    pub max_us: u64,
    /// The sum of all latencies.
    pub sum_us: u64,
    /// The number of moves by powers of two, ascending: `[64, 12]` means that 12 moves took more
    /// than 32 and at most 64 microseconds.
    pub octaves: Vec<(u64, u64)>,
}

/// The active rules, in the order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveRules {
    /// The rules; the first match decides.
    pub rules: Vec<ActiveRule>,
}

/// One of the active rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveRule {
    /// The name of the rule, or its file and line.
    pub name: String,
    /// The file that contains the rule.
    pub file: String,
    /// The line of its first key, from 1.
    pub line: u32,
    /// The destinations as written; empty for a rule that leaves processes where they are.
    pub cgroups: Vec<String>,
    /// Whether the rule only observes.
    #[serde(default)]
    pub observe: bool,
    /// The evaluations that the rule decided or, if it observes, would have decided.
    #[serde(default)]
    pub matched: u64,
    /// Those of them that moved the process.
    #[serde(default)]
    pub placed: u64,
    /// The time from which both count: a rule that is unchanged in its file keeps them at a reload.
    #[serde(default)]
    pub since: u64,
}
