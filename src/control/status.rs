//! What the daemon says of itself: the answers to [`Request::Status`] and [`Request::Rules`]. Pure.
//!
//! As everywhere in the protocol, fields are added, never renamed or given another meaning. Times are
//! seconds since 1970; times of moves are microseconds.
//!
//! [`Request::Status`]: super::protocol::Request::Status
//! [`Request::Rules`]: super::protocol::Request::Rules

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What happened since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started.
    pub started: u64,
    /// Seconds since then.
    pub uptime: u64,
    /// Whether it only says what it would move.
    pub dry_run: bool,
    /// Whether the thread that moves processes did not answer within two seconds.
    pub stalled: bool,
    /// The rules in force.
    pub rules: RulesInForce,
    /// Set when files have new errors, because of which they stay as they were.
    pub refused_reload: Option<RefusedReload>,
    /// Where the groups of TOML rules begin, from the top of each hierarchy.
    pub root: String,
    /// The mounted cgroup hierarchies.
    pub hierarchies: Vec<HierarchyStatus>,
    /// What is done about external moves: `revert`, `report` or `off`.
    #[serde(default)]
    pub external_moves: String,
    /// How they are found: by `trace`, by a `scan` every 60 s where they cannot be traced, or `none`.
    #[serde(default)]
    pub external_moves_by: String,
    /// All counters by name; cgruled(8) has their meanings.
    pub counters: BTreeMap<String, u64>,
    /// The counter `refused` by cause, the most frequent first.
    pub refusals: Vec<Refusal>,
    /// The counter `taken_back` by who took, in the order of their first time; `others` for all after
    /// the first 64. A unit of systemd by its name, another group by its path.
    pub taken_back_by: Vec<Taker>,
    /// From the kernel's event to the end of the move.
    pub latency: Latency,
}

/// The rules in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesInForce {
    /// How many.
    pub count: u64,
    /// When they were read.
    pub since: u64,
    /// How many sets of rules were put into force since the start, this one included.
    pub generation: u64,
    /// The files that they are from.
    pub files: Vec<String>,
    /// Errors in the files, each of which cost a rule.
    pub errors: u64,
    /// Warnings about the files.
    pub warnings: u64,
}

/// Files that were not put into force as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedReload {
    /// When they were read.
    pub at: u64,
    /// The new errors, each of several lines.
    pub errors: Vec<String>,
    /// The files, or directories, that stay as they were.
    #[serde(default)]
    pub kept: Vec<KeptFile>,
}

/// A file, or directory, with new errors, which stays as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptFile {
    /// Its path.
    pub file: String,
    /// When what counts was read for the first time; not there for a directory, all of whose files stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The file that counts instead, where a new one would hide it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
    /// `FILE:LINE` of the first new error.
    pub first_error: String,
}

/// A mounted cgroup tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HierarchyStatus {
    /// 1 or 2.
    pub version: u8,
    /// Where it is mounted.
    pub mount_point: String,
    /// Its controllers.
    pub controllers: Vec<String>,
}

/// Moves that the kernel refused for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Its name, as `ENOSPC`.
    pub errno: String,
    /// In words.
    pub meaning: String,
    /// How many.
    pub count: u64,
}

/// Who took processes back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taker {
    /// A unit of systemd, or a path.
    pub name: String,
    /// How often.
    pub count: u64,
}

/// How long moves took, in microseconds. Rounded up to an eighth, but for the greatest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Moves measured: those after an event, not those found by a scan.
    pub count: u64,
    /// Half of the moves took at most this.
    pub p50_us: u64,
    /// Nine tenths.
    pub p90_us: u64,
    /// 99 of a hundred.
    pub p99_us: u64,
    /// The longest.
    pub max_us: u64,
    /// All together.
    pub sum_us: u64,
    /// Moves by powers of two, ascending: `[64, 12]` are 12 moves that took more than 32 and at most
    /// 64 microseconds.
    pub octaves: Vec<(u64, u64)>,
}

/// The rules in force, in the order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The first that holds decides.
    pub rules: Vec<RuleInForce>,
}

/// A rule in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleInForce {
    /// Its name, or file and line.
    pub name: String,
    /// The file.
    pub file: String,
    /// The line of its first key, from 1.
    pub line: u32,
    /// Its groups as they are written; none for a rule that leaves processes where they are.
    pub cgroups: Vec<String>,
}
