//! History of placement failures, which explains later why a process is not in the cgroup of its
//! rule. It must not blame a new process that reuses a PID.
//!
//! A process is identified by its PID and [`crate::kernel::process::ProcFs::identity`]. The hot thread writes
//! and reads the history; other threads query it through [`super::channel`].

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use super::protocol::HistoryEntry;
use crate::cgroup::tree::CgroupError;
use crate::config::escape::Escaped;
use crate::event::{Nanos, Pid};

/// The maximum number of failures; the oldest are dropped. Takes 300 KB when full.
const MOST: usize = 1024;

/// A reason for which a process is not in its cgroup, or came late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlacementFailure {
    /// The kernel refused the move.
    Refused(CgroupError),
    /// A third party moved it to this place, and it was moved back.
    TakenBack(String),
    /// A third party moved it to this place, and it is left there.
    GivenUp(String),
    /// It is left in this systemd unit.
    InUnit(String),
    /// It is left in this cgroup of a container created by root.
    InContainer(String),
    /// It is left in this cgroup below the service manager of another user.
    OthersJob(String),
    /// It would be in this cgroup, but too many cgroups were created for its user.
    SharedGroup(String),
    /// An NSS lookup, or resolving the executable, took this many nanoseconds.
    Waited(u64),
}

impl PlacementFailure {
    /// Returns its name in the protocol.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::TakenBack(_) => "externally-moved",
            Self::GivenUp(_) => "abandoned",
            Self::InUnit(_) => "in-unit",
            Self::InContainer(_) => "in-container",
            Self::OthersJob(_) => "others-job",
            Self::SharedGroup(_) => "shared-cgroup",
            Self::Waited(_) => "waited",
        }
    }
}

impl fmt::Display for PlacementFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => write!(f, "{refusal}: {}", refusal.advice()),
            Self::TakenBack(by) => write!(f, "it was moved to {by}, and moved back"),
            Self::GivenUp(by) => {
                write!(f, "it was moved to {by}, and is left there")
            }
            Self::InUnit(unit) => write!(
                f,
                "the systemd unit {unit} would lose track of it; set leave_units = true in the rule \
                 to move it"
            ),
            Self::InContainer(place) => write!(
                f,
                "it is in {place}, a container created by root; outside, its limits and device filter \
                 would not apply; set containers = true in the rule to move it"
            ),
            Self::OthersJob(place) => write!(
                f,
                "it is in {place}, below the service manager of a user that no rule moves"
            ),
            Self::SharedGroup(path) => write!(
                f,
                "more than 1,024 cgroups in a minute for its user: not {}, but one that all further processes \
                 of the user share",
                Escaped(path)
            ),
            Self::Waited(ns) => {
                write!(f, "an NSS lookup, or resolving the executable, took {} ms", ns / 1_000_000)
            }
        }
    }
}

/// A failure and the process concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailureRecord {
    /// The PID of the process.
    pub pid: Pid,
    /// The identity that distinguishes processes with the same PID.
    pub identity: u64,
    /// The time of the failure.
    pub at: Nanos,
    /// The reason of the failure.
    pub failure: PlacementFailure,
    /// The name of the rule; empty if none was found yet.
    pub rule: Arc<str>,
    /// The destination cgroup of the rule.
    pub cgroup: String,
}

/// The most recent failures, oldest first.
#[derive(Debug, Default)]
pub struct FailureHistory(VecDeque<FailureRecord>);

impl FailureHistory {
    /// Adds a failure. A repeated one only gets a new time, so that one process cannot displace all
    /// others.
    pub fn remember(&mut self, new: FailureRecord) {
        let repeated = self.0.iter().position(|old| {
            (old.pid, old.identity) == (new.pid, new.identity)
                && old.failure.word() == new.failure.word()
                && old.cgroup == new.cgroup
        });
        match repeated {
            Some(index) => drop(self.0.remove(index)),
            None if self.0.len() >= MOST => drop(self.0.pop_front()),
            None => {}
        }
        self.0.push_back(new);
    }

    /// Returns the failures of the process `pid` with this identity, or of the last process with
    /// that PID if it has exited.
    pub fn of(&self, pid: Pid, identity: Option<u64>) -> impl Iterator<Item = &FailureRecord> {
        let last = self.0.iter().rev().find(|one| one.pid == pid).map(|one| one.identity);
        let meant = identity.or(last);
        self.0.iter().filter(move |one| one.pid == pid && Some(one.identity) == meant)
    }
}

impl FailureRecord {
    /// Converts the failure to its protocol form at time `now`.
    pub fn told(&self, now: Nanos) -> HistoryEntry {
        HistoryEntry {
            ago_ms: now.since(self.at) / 1_000_000,
            outcome: self.failure.word().to_owned(),
            rule: Escaped(&self.rule).to_string(),
            cgroup: Escaped(&self.cgroup).to_string(),
            detail: Escaped(&self.failure.to_string()).to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(pid: u32, identity: u64, at: u64) -> FailureRecord {
        FailureRecord {
            pid: Pid::new(pid).unwrap(),
            identity,
            at: Nanos(at),
            failure: PlacementFailure::GivenUp("/a\n/b".to_owned()),
            rule: "web".into(),
            cgroup: "/people".to_owned(),
        }
    }

    #[test]
    fn a_number_that_changed_hands_is_not_blamed() {
        let mut memory = FailureHistory::default();
        memory.remember(failure(5, 100, 0));
        let five = Pid::new(5).unwrap();
        assert_eq!(memory.of(five, Some(100)).count(), 1);
        assert_eq!(memory.of(five, Some(101)).count(), 0);
        memory.remember(failure(5, 101, 1));
        assert_eq!(memory.of(five, None).map(|one| one.identity).collect::<Vec<_>>(), [101]);
    }

    #[test]
    fn the_oldest_go_and_the_same_counts_once() {
        let mut memory = FailureHistory::default();
        (0..5000).for_each(|at| memory.remember(failure(5, 100, at)));
        assert_eq!(memory.0.len(), 1);
        (0..5000).for_each(|at| memory.remember(failure(6, at, at)));
        assert_eq!(memory.0.len(), MOST);
        assert_eq!(memory.of(Pid::new(5).unwrap(), Some(100)).count(), 0);
    }

    #[test]
    fn what_is_told_is_one_harmless_line() {
        let told = failure(5, 1, 0).told(Nanos(7_000_000));
        assert_eq!((told.ago_ms, told.outcome.as_str()), (7, "abandoned"));
        assert!(!told.detail.contains('\n'), "{}", told.detail);
    }
}
