//! Kernel events in the form that the engine uses. Pure.
//!
//! [`wire`] parses datagrams into [`Event`]s, and [`trace_page`] parses pages of a trace buffer into
//! external moves.

pub mod trace_format;
pub mod trace_page;
pub mod wire;

use std::fmt;
use std::ops::BitOr;

/// Thread-group ID in the initial PID namespace, as in `/proc` and `cgroup.procs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(u32);

impl Pid {
    /// Creates a PID. `None` for 0 and for values outside the kernel's signed `pid_t`: writing 0 to
    /// `cgroup.procs` would move the writer itself.
    pub const fn new(raw: u32) -> Option<Self> {
        if raw == 0 || raw > i32::MAX as u32 { None } else { Some(Self(raw)) }
    }

    /// Returns the numeric value of the PID.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// User ID in the initial user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(pub u32);

/// Group ID in the initial user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gid(pub u32);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Time of `CLOCK_MONOTONIC` in nanoseconds, the clock of the kernel's event time stamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Returns the time from `earlier` to `self`; 0 when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Returns `self` plus `ns` nanoseconds.
    pub const fn plus(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }
}

/// Kernel event that can affect placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Time stamp that the kernel gave the event.
    pub at: Nanos,
    /// Type and process of the event.
    pub what: EventKind,
}

/// Types of the subscribed events, with their process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A process (not a thread) was forked. Sent before the child runs and before it is linked to
    /// its cgroup.
    Fork {
        /// Process that called fork, or its parent with `CLONE_PARENT`.
        parent: Pid,
        /// New process, which may not run yet.
        child: Pid,
    },
    /// A process executed a new program.
    Exec(Pid),
    /// A thread changed one of its user IDs.
    Uid(Task),
    /// A thread changed one of its group IDs.
    Gid(Task),
}

/// A thread and its process. Credentials belong to the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// PID of the process, the ID of its leader.
    pub process: Pid,
    /// ID of the thread that acted.
    pub thread: Pid,
}

/// Set of reasons for an evaluation: one login is setgid, setuid and exec in a single evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cause(u16);

impl Cause {
    /// The process executed a program.
    pub const EXEC: Self = Self(1);
    /// The process changed a user ID.
    pub const UID: Self = Self(2);
    /// The process changed a group ID.
    pub const GID: Self = Self(4);
    /// The process was forked while its creator was being placed, or by a process that has exited.
    pub const FORK: Self = Self(8);
    /// A scan of `/proc` found the process.
    pub const SCAN: Self = Self(16);
    /// Recheck of an earlier placement.
    pub const RECHECK: Self = Self(32);
    /// In addition to [`Self::RECHECK`]: an external move was reverted before.
    pub const AGAIN: Self = Self(64);
    /// A client requested the evaluation.
    pub const ASKED: Self = Self(128);
    /// Retry after the kernel refused the move for a temporary reason.
    pub const RETRY: Self = Self(256);

    /// Another process moved this one.
    pub const MOVED: Self = Self(512);
    /// Besides [`Self::FORK`]: it was born in another cgroup than that of its creator, some time ago.
    pub const ELSEWHERE: Self = Self(1024);

    /// An execution of a gated file waits for the placement.
    pub const GATE: Self = Self(2048);

    /// Number of bits of a set.
    pub const BITS: u32 = 12;

    /// Returns the set as a number below 2^[`Self::BITS`].
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Returns the set with these bits; those beyond [`Self::BITS`] are ignored.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & ((1 << Self::BITS) - 1))
    }

    /// Returns the union of both sets, in const context.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Checks whether any cause of `other` is in `self`.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Checks whether all causes of `other` are in `self`.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Cause {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.or(other)
    }
}

impl fmt::Display for Cause {
    /// Writes the names of the causes, as `setuid+exec`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Cause, &str); Cause::BITS as usize] = [
            (Cause::GID, "setgid"),
            (Cause::UID, "setuid"),
            (Cause::EXEC, "exec"),
            (Cause::FORK, "fork"),
            (Cause::SCAN, "scan"),
            (Cause::RECHECK, "recheck"),
            (Cause::AGAIN, "again"),
            (Cause::ASKED, "asked"),
            (Cause::RETRY, "retry"),
            (Cause::MOVED, "moved"),
            (Cause::ELSEWHERE, "elsewhere"),
            (Cause::GATE, "gate"),
        ];
        let mut separator = "";
        for (cause, name) in NAMES {
            if self.contains(cause) {
                write!(f, "{separator}{name}")?;
                separator = "+";
            }
        }
        Ok(())
    }
}
