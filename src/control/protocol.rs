//! Our own control socket: one request, one line of JSON, then one or more lines of JSON as the answer,
//! the last of which ends the connection. Pure.
//!
//! ```text
//! {"request":"status"}                  one Status
//! {"request":"rules"}                   one Rules
//! {"request":"kept"}                    one KeptTexts
//! {"request":"about","pids":[4711]}     one About for each
//! {"request":"watch"}                   Watched, until the client leaves
//! {"request":"reload"}                  one Reloaded, when everybody was looked at by the new rules
//! {"request":"place","pids":[4711]}     one About for each, when all were looked at
//! ```
//! What cannot be answered is answered by `{"error":"why"}`. Status, rules, kept, about and watch are for root
//! and members of the group `cgruled`, reload and place for root.
//!
//! The schema is stable: fields are added, never renamed or given another meaning. In all text, what is
//! no printable text is written as `\u{a}` or `\xff`, so that it can be shown as it is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::status::KeptFile;
pub use crate::config::daemon_toml::CONTROL_SOCKET as SOCKET;

/// The group whose members may ask, but not change anything.
pub const READERS: &str = "cgruled";

/// Bytes of a request at most, its line end included.
pub const LONGEST_REQUEST: usize = 64 * 1024;

/// Processes of one request at most; ask again for more.
pub const MOST_PIDS: usize = 256;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What happened since the start: answered by one status.
    Status,
    /// The rules in force, in order: answered by one list.
    Rules,
    /// What is in force of files with new errors: answered by one [`KeptTexts`].
    Kept,
    /// What the daemon remembers of these processes: answered by one [`About`] each.
    About {
        /// Process ids, at most [`MOST_PIDS`].
        pids: Vec<u32>,
    },
    /// Decisions as they happen: answered by [`Watched`] until the client leaves. The first line is
    /// `{"lost":0}`: from there on nothing is missed.
    Watch,
    /// Read all files again: answered by one [`Reloaded`] when that is done.
    Reload,
    /// Look at these processes now: answered by one [`About`] each when that is done.
    Place {
        /// Process ids, at most [`MOST_PIDS`].
        pids: Vec<u32>,
    },
}

impl Request {
    /// Whether something changes by it.
    pub const fn is_write(&self) -> bool {
        match self {
            Self::Status | Self::Rules | Self::Kept | Self::About { .. } | Self::Watch => false,
            Self::Reload | Self::Place { .. } => true,
        }
    }
}

/// Why a request was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// In words.
    pub error: String,
}

/// The answer to [`Request::Kept`]: what counts instead of what files with new errors say now. Other than
/// everywhere else paths and texts are as they are, but for what is not UTF-8.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTexts {
    /// The files, or directories, with new errors.
    pub kept: Vec<KeptFile>,
    /// What files say, by their paths; nothing of one that is to say nothing.
    pub texts: BTreeMap<String, String>,
    /// Directories that have no files but those of `texts`.
    pub directories: Vec<String>,
    /// Files that are passed over.
    pub aside: Vec<String>,
}

/// What the daemon remembers of a process: trouble, what is going on, and its last move. That a process is
/// in place can be seen from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Process id.
    pub pid: u32,
    /// The last happenings, oldest first.
    pub happenings: Vec<Happening>,
    /// Milliseconds since it was moved last; not there if it was not, or too long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_ago_ms: Option<u64>,
}

/// One thing that happened to a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// Milliseconds since it happened.
    pub ago_ms: u64,
    /// What the look came to, for example `placed`, `refused`, `taken-back`, `given-up`, `waiting`.
    pub outcome: String,
    /// The rule's name, or file and line.
    pub rule: String,
    /// The group it was to be in.
    pub cgroup: String,
    /// Why, in words; empty where there is nothing to say.
    pub detail: String,
}

/// One line of the answer to [`Request::Watch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Watched {
    /// Lines that are missing here, because the client or the daemon's watch could not keep up.
    Lost {
        /// How many.
        lost: u64,
    },
    /// A look and what it came to.
    Decision(Decision),
}

/// A look at a process and what it came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// When it was made, in milliseconds since 1970.
    pub time_ms: u64,
    /// Process id.
    pub pid: u32,
    /// Effective user id; not there for a process that was gone.
    pub uid: Option<u32>,
    /// Path of the executable, if it could be read.
    pub exe: Option<String>,
    /// The rule's name, or file and line; not there when no rule matched or none was looked for.
    pub rule: Option<String>,
    /// The file of the rule.
    #[serde(default)]
    pub file: Option<String>,
    /// The line of its first key, from 1.
    #[serde(default)]
    pub line: Option<u32>,
    /// The group that the rule means, from the top of the hierarchy.
    pub cgroup: Option<String>,
    /// What it came to: `placed`, `in-place`, `held`, `refused`, `given-up`, `waiting`,
    /// `would-place`, `in-unit`, `reused`, `no-rule`, `ignored`, `inapplicable`, `protected`, `sticky` or
    /// `gone`.
    pub outcome: String,
    /// Why the process was looked at: `exec`, `setuid`, `setgid`, `fork`, `scan`, `recheck`, `again`,
    /// `asked`, joined by `+`.
    pub cause: String,
    /// From the event, or the call for the look, to the end of the look, in microseconds.
    pub latency_us: u64,
}

/// The answer to [`Request::Reload`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Whether what all files say now is in force. If not, files with new errors stay as they were.
    pub in_force: bool,
    /// Rules in force.
    pub rules: u64,
    /// Files that they are from.
    pub files: u64,
    /// Complaints about what the files say now, as text of several lines; first those because of which
    /// files stay as they were.
    pub diagnostics: Vec<String>,
    /// How many of the complaints are errors.
    pub errors: u64,
    /// How many of those the rules that ran before did not have.
    #[serde(default)]
    pub new_errors: u64,
    /// Files, or directories, that stay as they were.
    #[serde(default)]
    pub kept: Vec<KeptFile>,
    /// Whether every process was looked at since. With `false` that goes on.
    pub settled: bool,
}

/// Understands a line without its end.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(line: &[u8]) -> Result<Request, String> {
    let request: Request =
        serde_json::from_slice(line).map_err(|error| format!("not understood: {error}"))?;
    match &request {
        Request::About { pids } | Request::Place { pids } if pids.len() > MOST_PIDS => {
            Err(format!("{} processes at once; at most {MOST_PIDS}", pids.len()))
        }
        Request::Status
        | Request::Rules
        | Request::Kept
        | Request::About { .. }
        | Request::Watch
        | Request::Reload
        | Request::Place { .. } => Ok(request),
    }
}

/// A request that is coming in.
#[derive(Debug, Default)]
pub struct Incoming(Vec<u8>);

impl Incoming {
    /// Takes what has come. `None` until the line is whole; what follows it does not count.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Result<Request, String>> {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let length = self.0.len() + end.map_or(bytes.len(), |end| end + 1);
        if length > LONGEST_REQUEST || (end.is_none() && length == LONGEST_REQUEST) {
            return Some(Err(format!("longer than {LONGEST_REQUEST} bytes")));
        }
        self.0.extend_from_slice(&bytes[..end.unwrap_or(bytes.len())]);
        end.map(|_| parse(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(request: &Request) -> Vec<u8> {
        serde_json::to_vec(request).unwrap()
    }

    #[test]
    fn requests_are_written_as_documented() {
        let line = |text: &str| parse(text.as_bytes());
        assert_eq!(line(r#"{"request":"status"}"#), Ok(Request::Status));
        assert_eq!(line(r#"{"request":"about","pids":[7]}"#), Ok(Request::About { pids: vec![7] }));
        assert_eq!(written(&Request::Reload), br#"{"request":"reload"}"#);
        for wrong in ["", "{}", "[]", "7", r#"{"request":"stop"}"#, r#"{"request":"about"}"#] {
            assert!(line(wrong).is_err(), "{wrong}");
        }
        assert!(line(r#"{"request":"place","pids":[-1]}"#).is_err());
        assert!(line(r#"{"request":"place","pids":[1],"more":1}"#).is_err());
        assert!(line(&"[".repeat(60_000)).is_err());
    }

    #[test]
    fn too_much_is_refused() {
        let pids = vec![1; MOST_PIDS + 1];
        assert!(parse(&written(&Request::About { pids })).is_err());
        let mut incoming = Incoming::default();
        assert_eq!(incoming.push(&vec![b' '; LONGEST_REQUEST - 1]), None);
        assert!(incoming.push(b" ").unwrap().unwrap_err().contains("65536"));
        let longest = [vec![b' '; LONGEST_REQUEST - 21], b"{\"request\":\"status\"}\n".to_vec()];
        assert_eq!(Incoming::default().push(&longest.concat()), Some(Ok(Request::Status)));
    }

    #[test]
    fn a_watcher_can_tell_loss_from_a_decision() {
        assert_eq!(
            serde_json::from_str::<Watched>(r#"{"lost":3}"#).unwrap(),
            Watched::Lost { lost: 3 }
        );
    }

    fn requests() -> impl Strategy<Value = Request> {
        let pids = || prop::collection::vec(any::<u32>(), 0..MOST_PIDS);
        prop_oneof![
            Just(Request::Status),
            Just(Request::Rules),
            Just(Request::Kept),
            Just(Request::Watch),
            Just(Request::Reload),
            pids().prop_map(|pids| Request::About { pids }),
            pids().prop_map(|pids| Request::Place { pids }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_arrives(request in requests(), size in 1usize..200) {
            let mut line = written(&request);
            line.push(b'\n');
            let mut incoming = Incoming::default();
            let mut found = None;
            for part in line.chunks(size) {
                prop_assert!(found.is_none());
                found = incoming.push(part);
            }
            prop_assert_eq!(found, Some(Ok(request)));
        }

        #[test]
        fn any_bytes_are_answered_once_their_line_ends(parts: Vec<Vec<u8>>) {
            let mut incoming = Incoming::default();
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
