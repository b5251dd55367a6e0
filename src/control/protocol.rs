//! The protocol of the control socket: a client sends one request as a line of JSON, and the daemon
//! replies with one or more lines of JSON and closes the connection. Its schema must stay stable:
//! fields are added, never renamed or given another meaning.
//!
//! ```text
//! {"request":"status"}                  one Status
//! {"request":"rules"}                   one Rules
//! {"request":"kept"}                    one KeptTexts
//! {"request":"about","pids":[4711]}     one About per PID
//! {"request":"explain","pids":[4711]}   one ExplainContext, then one About per PID
//! {"request":"watch"}                   Watched, until the client disconnects
//! {"request":"history"}                 one HistoryStatus, the evaluations, one {"lost":0}
//! {"request":"reload"}                  one Reloaded, once all processes are evaluated by the new rules
//! {"request":"place","pids":[4711]}     one About per PID, once all are evaluated
//! {"request":"plan"}                    one PlanReport, then one ProcessPlan per process that differs
//! ```
//! A request that fails is answered by `{"error":"reason"}`. Reload, place, and a plan of other files than those of the
//! daemon require root, all others root or membership of the group `cgruled`.
//!
//! In all texts, unprintable bytes and characters are escaped as `\xff` or `\u{a}`, so that a
//! client can display them unchanged.

use std::collections::BTreeMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::status::{ActiveRules, KeptFile};
pub use crate::config::daemon_toml::CONTROL_SOCKET as SOCKET;
use crate::config::escape::Escaped;

/// The group with read access to the control socket.
pub const READERS: &str = "cgruled";

/// The maximum length of a request in bytes, including the line end.
pub const LONGEST_REQUEST: usize = 64 * 1024;

/// The maximum number of processes per request; a client sends several for more.
pub const MOST_PIDS: usize = 256;

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ControlRequest {
    /// The counters and state since startup: answered by one status.
    Status,
    /// The active rules in order: answered by one list.
    Rules,
    /// The active text of files with new errors: answered by one [`LastGoodFiles`].
    Kept,
    /// The history of these processes: answered by one [`ProcessReport`] each.
    About {
        /// The PIDs, at most [`MOST_PIDS`].
        pids: Vec<u32>,
    },
    /// All that the daemon knows about these processes and its rules, of one moment: answered by one
    /// [`ExplainContext`], and one [`ProcessReport`] each unless it is stalled.
    Explain {
        /// The PIDs, at most [`MOST_PIDS`].
        pids: Vec<u32>,
    },
    /// Decisions as they happen: answered by [`WatchMessage`] until the client disconnects. The first
    /// line is `{"lost":0}`: from then on nothing is missed.
    Watch,
    /// The recorded evaluations that meet all conditions: answered by [`HistoryMessage`]s.
    ///
    /// [`HistoryMessage`]: super::history::message::HistoryMessage
    History {
        /// The greatest age in milliseconds.
        #[serde(default)]
        ago_ms: Option<u64>,
        /// The PID of the process.
        #[serde(default)]
        pid: Option<u32>,
        /// The effective user ID of the process.
        #[serde(default)]
        uid: Option<u32>,
    },
    /// A reload of all files: answered by one [`ReloadReply`] when complete.
    Reload,
    /// What a reload would change: answered by one [`PlanReport`](super::plan_report::PlanReport), and one
    /// [`ProcessPlan`](super::plan_report::ProcessPlan) for each process that is concerned.
    Plan {
        /// The absolute paths of directories of rule files, in place of those of the daemon.
        #[serde(default)]
        rules: Vec<String>,
        /// The absolute path of a rule file, read as if it was in the first directory.
        #[serde(default)]
        file: Option<String>,
    },
    /// A re-evaluation of these processes: answered by one [`ProcessReport`] each when complete.
    Place {
        /// The PIDs, at most [`MOST_PIDS`].
        pids: Vec<u32>,
    },
}

impl ControlRequest {
    /// Returns what only root may request, if this is one of it.
    pub fn needs_root_for(&self) -> Option<&'static str> {
        let names_files =
            matches!(self, Self::Plan { rules, file } if !rules.is_empty() || file.is_some());
        match (self.is_write(), names_files) {
            (true, _) => Some("changes"),
            (false, true) => Some("plans of other files"),
            (false, false) => None,
        }
    }

    /// Checks whether the request changes anything.
    const fn is_write(&self) -> bool {
        match self {
            Self::Status
            | Self::Rules
            | Self::Kept
            | Self::About { .. }
            | Self::Explain { .. }
            | Self::Watch
            | Self::History { .. }
            | Self::Plan { .. } => false,
            Self::Reload | Self::Place { .. } => true,
        }
    }
}

/// The reply to a request that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestError {
    /// The reason, as text.
    pub error: String,
}

/// The answer to [`ControlRequest::Kept`]: the active version of files with new errors. Unlike elsewhere,
/// paths and texts are not escaped; bytes that are not UTF-8 are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGoodFiles {
    /// The files, or directories, with new errors.
    pub kept: Vec<KeptFile>,
    /// The active text by path; empty for a file that is treated as empty.
    pub texts: BTreeMap<String, String>,
    /// The directories that contain only the files in `texts`.
    pub directories: Vec<String>,
    /// The files that are ignored.
    pub aside: Vec<String>,
}

/// The first line of the answer to [`ControlRequest::Explain`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainContext {
    /// The version of the daemon.
    pub version: String,
    /// The PID of the daemon.
    pub pid: u32,
    /// Whether it only logs what it would move.
    pub dry_run: bool,
    /// Whether the thread that moves processes does not respond. Then no report follows.
    pub stalled: bool,
    /// The managed root.
    pub root: String,
    /// The active version of all files, with the notes about those with new errors.
    pub files: LastGoodFiles,
    /// The places of these files; absent if no rules are active, and in older versions.
    #[serde(default)]
    pub sources: Option<ActiveSources>,
    /// The active rules.
    pub rules: ActiveRules,
}

/// The places from which the daemon reads rules. Paths are not escaped; bytes that are not UTF-8 are replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveSources {
    /// The directories of TOML files, in order of precedence.
    pub directories: Vec<String>,
    /// Whether the files of cgrulesengd are read.
    pub legacy: bool,
}

/// The history of a process: failures, the current activity and the last move. The kernel shows
/// whether it is in the right cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// The PID of the process.
    pub pid: u32,
    /// The most recent events, oldest first.
    pub history: Vec<HistoryEntry>,
    /// The milliseconds since the last move; absent if it was never moved, or too long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_ago_ms: Option<u64>,
}

/// One entry in the history of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The milliseconds since the event.
    pub ago_ms: u64,
    /// The outcome of the evaluation, for example `placed`, `refused`, `externally-moved`, `abandoned`,
    /// `waiting`.
    pub outcome: String,
    /// The name of the rule, or its file and line.
    pub rule: String,
    /// The destination cgroup of the rule.
    pub cgroup: String,
    /// The reason as text; empty if there is none.
    pub detail: String,
}

/// One line of the answer to [`ControlRequest::Watch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WatchMessage {
    /// A gap in the lines, because the client or the daemon's queue could not keep up.
    Lost {
        /// The number of missing lines.
        lost: u64,
    },
    /// An evaluation and its outcome.
    Decision(WatchedDecision),
}

/// An evaluation of a process and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchedDecision {
    /// The time of the decision, in milliseconds since 1970.
    pub time_ms: u64,
    /// The PID of the process.
    pub pid: u32,
    /// The effective user ID; absent if the process had exited.
    pub uid: Option<u32>,
    /// The path of the executable, if it could be read.
    pub exe: Option<String>,
    /// The name of the rule, or its file and line; absent if no rule matched or none was searched.
    pub rule: Option<String>,
    /// The file that contains the rule.
    #[serde(default)]
    pub file: Option<String>,
    /// The line of its first key, from 1.
    #[serde(default)]
    pub line: Option<u32>,
    /// The destination cgroup of the rule, from the root of the hierarchy.
    pub cgroup: Option<String>,
    /// The outcome: `placed`, `in-place`, `confirmed`, `refused`, `abandoned`, `waiting`, `would-place`,
    /// `in-unit`, `reused`, `no-rule`, `ignored`, `inapplicable`, `protected`, `sticky` or `gone`;
    /// `would-match` for a rule that only observes, before the decision itself.
    pub outcome: String,
    /// The causes of the evaluation: `exec`, `setuid`, `setgid`, `fork`, `scan`, `recheck`,
    /// `again`, `asked`, joined by `+`.
    pub cause: String,
    /// The microseconds from the event, or the request, to the end of the evaluation.
    pub latency_us: u64,
}

/// The answer to [`ControlRequest::Reload`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReply {
    /// Whether the current version of all files is active. If not, files with new errors are kept
    /// at their last valid version.
    pub in_force: bool,
    /// The number of active rules.
    pub rules: u64,
    /// The number of their files.
    pub files: u64,
    /// The diagnostics of the current files, each several lines of text. Those that made files be
    /// kept come first.
    pub diagnostics: Vec<String>,
    /// The number of errors among the diagnostics.
    pub errors: u64,
    /// The number of errors that the previously active version did not have.
    #[serde(default)]
    pub new_errors: u64,
    /// The files, or directories, kept at their last valid version.
    #[serde(default)]
    pub kept: Vec<KeptFile>,
    /// Whether every process was re-evaluated. If `false`, that is still in progress.
    pub settled: bool,
}

/// Parses a line without its line end.
///
/// # Errors
/// Returns the reason as text.
pub fn parse(line: &[u8]) -> Result<ControlRequest, String> {
    let request: ControlRequest =
        serde_json::from_slice(line).map_err(|error| format!("invalid request: {error}"))?;
    if let Some(field) = unknown_field(&request, line) {
        return Err(format!("invalid request: unknown field {}", Escaped(&field)));
    }
    match &request {
        ControlRequest::About { pids }
        | ControlRequest::Explain { pids }
        | ControlRequest::Place { pids }
            if pids.len() > MOST_PIDS =>
        {
            Err(format!("{} processes in one request; the limit is {MOST_PIDS}", pids.len()))
        }
        ControlRequest::Plan { rules, file } => {
            let paths = rules.iter().chain(file);
            match paths.into_iter().find(|path| !path.starts_with('/')) {
                Some(relative) => Err(format!("{}: not an absolute path", Escaped(relative))),
                None => Ok(request),
            }
        }
        ControlRequest::Status
        | ControlRequest::Rules
        | ControlRequest::Kept
        | ControlRequest::About { .. }
        | ControlRequest::Explain { .. }
        | ControlRequest::Watch
        | ControlRequest::History { .. }
        | ControlRequest::Reload
        | ControlRequest::Place { .. } => Ok(request),
    }
}

/// Returns a field that the request does not have. In variants without fields serde accepts any.
fn unknown_field(request: &ControlRequest, line: &[u8]) -> Option<String> {
    let given: BTreeMap<String, IgnoredAny> = serde_json::from_slice(line).ok()?;
    let known = serde_json::to_value(request).ok()?;
    given.into_keys().find(|name| known.get(name).is_none())
}

/// Returns the text of a request or reply, with its line end.
pub fn line(message: &impl Serialize) -> Vec<u8> {
    // Serialization of these types cannot fail: no map has keys other than strings.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

/// A request that may be incomplete.
#[derive(Debug, Default)]
pub struct RequestReader(Vec<u8>);

impl RequestReader {
    /// Appends received bytes. Returns `None` until the line is complete; bytes after it are
    /// ignored.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Result<ControlRequest, String>> {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let length = self.0.len() + end.map_or(bytes.len(), |end| end + 1);
        if length > LONGEST_REQUEST || (end.is_none() && length == LONGEST_REQUEST) {
            return Some(Err(format!("request longer than {LONGEST_REQUEST} bytes")));
        }
        self.0.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
        end.map(|_| parse(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(request: &ControlRequest) -> Vec<u8> {
        serde_json::to_vec(request).unwrap()
    }

    #[test]
    fn requests_are_written_as_documented() {
        assert_eq!(parse(br#"{"request":"status"}"#), Ok(ControlRequest::Status));
        assert_eq!(
            parse(br#"{"request":"about","pids":[7]}"#),
            Ok(ControlRequest::About { pids: vec![7] })
        );
        assert_eq!(written(&ControlRequest::Reload), br#"{"request":"reload"}"#);
        for wrong in ["", "{}", "[]", "7", r#"{"request":"stop"}"#, r#"{"request":"about"}"#] {
            assert!(parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(parse(br#"{"request":"place","pids":[-1]}"#).is_err());
        assert!(parse(br#"{"request":"place","pids":[1],"more":1}"#).is_err());
        let unknown = parse(br#"{"more":1,"request":"status"}"#).unwrap_err();
        assert!(unknown.contains("unknown field more"), "{unknown}");
        assert!(parse(br#"{"request":"watch","pids":[1]}"#).is_err());
        let all = ControlRequest::History { ago_ms: None, pid: None, uid: None };
        assert_eq!(parse(br#"{"request":"history"}"#), Ok(all));
        let some = ControlRequest::History { ago_ms: Some(9), pid: None, uid: Some(0) };
        assert_eq!(parse(br#"{"request":"history","uid":0,"ago_ms":9}"#), Ok(some));
        assert!(parse(br#"{"request":"history","rule":"a"}"#).is_err());
        let plan = ControlRequest::Plan { rules: Vec::new(), file: None };
        assert_eq!(parse(br#"{"request":"plan"}"#), Ok(plan));
        let relative = parse(br#"{"request":"plan","rules":["a"]}"#).unwrap_err();
        assert!(relative.contains("not an absolute path"), "{relative}");
        assert!(parse("[".repeat(60_000).as_bytes()).is_err());
    }

    #[test]
    fn too_much_is_refused() {
        let pids = vec![1; MOST_PIDS + 1];
        assert!(parse(&written(&ControlRequest::About { pids })).is_err());
        let mut incoming = RequestReader::default();
        assert_eq!(incoming.push(&vec![b' '; LONGEST_REQUEST - 1]), None);
        assert!(incoming.push(b" ").unwrap().unwrap_err().contains("65536"));
        let longest = [vec![b' '; LONGEST_REQUEST - 21], b"{\"request\":\"status\"}\n".to_vec()];
        assert_eq!(
            RequestReader::default().push(&longest.concat()),
            Some(Ok(ControlRequest::Status))
        );
    }

    #[test]
    fn a_watcher_can_tell_loss_from_a_decision() {
        assert_eq!(
            serde_json::from_str::<WatchMessage>(r#"{"lost":3}"#).unwrap(),
            WatchMessage::Lost { lost: 3 }
        );
    }

    fn requests() -> impl Strategy<Value = ControlRequest> {
        let pids = prop::collection::vec(any::<u32>(), 0..MOST_PIDS);
        prop_oneof![
            Just(ControlRequest::Status),
            Just(ControlRequest::Rules),
            Just(ControlRequest::Kept),
            Just(ControlRequest::Watch),
            Just(ControlRequest::Reload),
            any::<(Option<u64>, Option<u32>, Option<u32>)>()
                .prop_map(|(ago_ms, pid, uid)| ControlRequest::History { ago_ms, pid, uid }),
            Just(ControlRequest::Plan { rules: vec!["/a".to_owned()], file: None }),
            Just(ControlRequest::Plan { rules: Vec::new(), file: Some("/a.toml".to_owned()) }),
            pids.clone().prop_map(|pids| ControlRequest::About { pids }),
            pids.clone().prop_map(|pids| ControlRequest::Explain { pids }),
            pids.prop_map(|pids| ControlRequest::Place { pids }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_arrives(request in requests(), size in 1usize..200) {
            let mut line = written(&request);
            line.push(b'\n');
            let mut incoming = RequestReader::default();
            let mut found = None;
            for part in line.chunks(size) {
                prop_assert!(found.is_none());
                found = incoming.push(part);
            }
            prop_assert_eq!(found, Some(Ok(request)));
        }

        #[test]
        fn any_bytes_are_answered_once_their_line_ends(parts: Vec<Vec<u8>>) {
            let mut incoming = RequestReader::default();
            for part in parts {
                let answer = incoming.push(&part);
                prop_assert_eq!(answer.is_some(), part.contains(&b'\n'));
                if answer.is_some() {
                    break;
                }
            }
        }
    }
}
