//! The reply to a request for the history. Texts are escaped as everywhere in the protocol.

use serde::{Deserialize, Serialize};

/// The condition that the history is disabled, as reason of a refused request.
pub const DISABLED: &str = "the daemon keeps no history: history.size is \"0\" in its settings";

/// One line of the reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HistoryMessage {
    /// The first line.
    Begin(HistoryStatus),
    /// An evaluation; the oldest comes first.
    Evaluation(Box<RecordedEvaluation>),
    /// The last line.
    End {
        /// The number of evaluations that were overwritten while the reply was sent.
        lost: u64,
    },
}

/// The size of the history and the age of its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryStatus {
    /// The number of evaluations that fit; 0 if the history is disabled.
    pub capacity: u64,
    /// The number of evaluations in the history.
    pub kept: u64,
    /// The number of earlier ones that were overwritten.
    pub overwritten: u64,
    /// The time of the oldest one, in milliseconds since 1970; `None` if there is none.
    #[serde(default)]
    pub oldest_ms: Option<u64>,
}

/// A recorded evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedEvaluation {
    /// The end of the evaluation, in milliseconds since 1970.
    pub time_ms: u64,
    /// The PID of the process.
    pub pid: u32,
    /// The effective user ID; absent if the process had exited.
    pub uid: Option<u32>,
    /// The effective group ID.
    pub gid: Option<u32>,
    /// The path of the executable; absent if no rule needed it.
    pub exe: Option<String>,
    /// Whether that path refers to the same file on the host.
    #[serde(default)]
    pub exe_on_host: bool,
    /// The script or link that was invoked, if known.
    #[serde(default)]
    pub invoked: Option<String>,
    /// The name of the rule, or its file and line; absent if no rule matched or none was searched.
    pub rule: Option<String>,
    /// The file that contains the rule.
    #[serde(default)]
    pub file: Option<String>,
    /// The line of its first key, from 1.
    #[serde(default)]
    pub line: Option<u32>,
    /// The destinations of the rule as written.
    #[serde(default)]
    pub cgroups: Vec<String>,
    /// The outcome, as in the decisions of `watch`.
    pub outcome: String,
    /// The causes of the evaluation, joined by `+`.
    pub cause: String,
    /// The microseconds from the event, or the request, to the end of the evaluation.
    pub latency_us: u64,
    /// What the history does not have in full: [`EXE_OVERWRITTEN`] and the others.
    #[serde(default)]
    pub incomplete: Vec<String>,
}

/// The text of the program was overwritten by those of later programs.
pub const EXE_OVERWRITTEN: &str = "exe-overwritten";
/// The path of the executable, or of what was invoked, is cut.
pub const EXE_TRUNCATED: &str = "exe-truncated";
/// The executable was not examined: a script may have been invoked.
pub const EXE_NOT_EXAMINED: &str = "exe-not-examined";
/// The text of the rule was overwritten.
pub const RULE_OVERWRITTEN: &str = "rule-overwritten";
/// The name, the file or the destinations of the rule are cut.
pub const RULE_TRUNCATED: &str = "rule-truncated";
