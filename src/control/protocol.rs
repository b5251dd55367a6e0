//! Our own control socket: one request, one line of JSON, then one or more lines of JSON as the answer,
//! the last of which ends the connection. Pure.
//!
//! The schema is stable: fields are added, never renamed or given another meaning.

use serde::{Deserialize, Serialize};

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What happened since the start: answered by one [`Status`].
    Status,
    /// What the daemon remembers of these processes: answered by one [`About`] each.
    About {
        /// Process ids.
        pids: Vec<u32>,
    },
    /// Decisions as they happen: answered by [`Watched`] until the client leaves.
    Watch,
    /// Read all files again: answered by one [`Reloaded`] when that is done.
    Reload,
    /// Look at these processes now: answered by one [`About`] each when that is done.
    Place {
        /// Process ids.
        pids: Vec<u32>,
    },
}

/// What the daemon remembers of a process. Only trouble and what is going on are remembered: that a
/// process is in place can be seen from the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// Process id.
    pub pid: u32,
    /// The last happenings, oldest first.
    pub happenings: Vec<Happening>,
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
