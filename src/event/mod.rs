//! What the kernel tells us, in our words. Pure.
//!
//! [`wire`] turns datagrams into [`Event`]s, [`batch`] keeps one entry for each process,
//! [`fork_tracker`] decides which forked children must be evaluated.
//! [`trace_page`] turns pages of a trace buffer into moves that others made.

pub mod batch;
pub mod fork_tracker;
pub mod trace_format;
pub mod trace_page;
mod windows;
pub mod wire;

use std::fmt;
use std::ops::BitOr;

/// A thread-group id in the initial pid namespace: what `/proc` lists and `cgroup.procs` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pid(u32);

impl Pid {
    /// `None` for 0 and for what the kernel's signed `pid_t` cannot hold: writing 0 to
    /// `cgroup.procs` would move the writer itself.
    pub const fn new(raw: u32) -> Option<Self> {
        if raw == 0 || raw > i32::MAX as u32 { None } else { Some(Self(raw)) }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A user id in the initial user namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(pub u32);

/// A group id in the initial user namespace.
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

/// A point of `CLOCK_MONOTONIC` in nanoseconds, the clock that the kernel stamps events with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The time from `earlier` to `self`; 0 when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `self` plus `ns` nanoseconds.
    pub const fn plus(self, ns: u64) -> Self {
        Self(self.0.saturating_add(ns))
    }
}

/// One thing that happened, as far as it concerns placement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When the kernel made the event.
    pub at: Nanos,
    /// What happened.
    pub what: What,
}

/// The kinds of events that we subscribe to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A process (not a thread) was forked. Sent before the child runs and before it is linked to
    /// its cgroup.
    Fork {
        /// The process that forked.
        parent: Pid,
        /// The new process.
        child: Pid,
    },
    /// A process executes a new program.
    Exec(Pid),
    /// A thread changed one of its user IDs.
    Uid(Task),
    /// A thread changed one of its group IDs.
    Gid(Task),
}

/// A thread and its process. Credentials belong to the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// The process, by the ID of its first thread, the leader.
    pub process: Pid,
    /// The thread.
    pub thread: Pid,
}

/// Why we look at a process: a set, since one login is setgid, setuid and exec in one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cause(u16);

impl Cause {
    /// It executed a program.
    pub const EXEC: Self = Self(1);
    /// It changed a user id.
    pub const UID: Self = Self(2);
    /// It changed a group id.
    pub const GID: Self = Self(4);
    /// It was forked by a process that was placed, or found gone, meanwhile.
    pub const FORK: Self = Self(8);
    /// A scan of `/proc` met it.
    pub const SCAN: Self = Self(16);
    /// The second look after its placement.
    pub const RECHECK: Self = Self(32);
    /// Besides [`Self::RECHECK`]: somebody had moved it away and it was put back.
    pub const AGAIN: Self = Self(64);
    /// An administrator asked for it.
    pub const ASKED: Self = Self(128);
    /// The kernel had refused to move it for a reason that can pass.
    pub const RETRY: Self = Self(256);

    /// Another process moved it.
    pub const MOVED: Self = Self(512);
    /// Besides [`Self::FORK`]: it was born in another cgroup than that of its creator, some time ago.
    pub const ELSEWHERE: Self = Self(1024);

    /// Both sets, where `|` cannot be used.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `other` is in `self`.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether all of `other` is in `self`.
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
    /// `setuid+exec`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Cause, &str); 11] = [
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
