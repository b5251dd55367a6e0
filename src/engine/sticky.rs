//! Pinned processes: they requested on the socket of cgrulesengd not to be moved. A pin must never
//! apply to another process that reuses the PID.
//!
//! A pin can include *descendants*: children born later, their children, and so on; see
//! `engine/inheritance.rs`. As with cgrulesengd, no pin survives the daemon.

use std::sync::Arc;

use crate::control::request::{PinAction, PinClient, PinRequest};
use crate::engine::inheritance::{Birth, Entry, Inheritance, Inherited, Limits};
use crate::engine::kernel::Kernel;
use crate::event::{Nanos, Pid, Uid};
use crate::telemetry::log::limit::LogLimiter;
use crate::telemetry::metrics::Metrics;
use crate::tracking::fork_tracker::Fork;

/// The maximum number of entries, 48 bytes each.
const MOST: usize = 65_536;
/// Entries that the requests of one user make, children included, but for root: so that one user
/// does not fill the table. A sixteenth.
const MOST_OF_USER: u32 = 4096;

/// The pin of one process.
#[derive(Clone, Copy, Debug)]
struct PinMark {
    has_heirs: bool,
    /// Ended by a request or a move. Kept while pins include descendants: else the search after a loss would take the
    /// process for a descendant whose fork was lost.
    is_cancelled: bool,
    /// The PID of the client that requested it.
    client: u32,
    /// User whose limit it counts towards.
    account: Uid,
}

impl Inherited for PinMark {
    fn of_child(&self) -> Option<Self> {
        self.has_heirs.then_some(*self)
    }

    fn is_valid(&self) -> bool {
        !self.is_cancelled
    }

    fn account(&self) -> Uid {
        self.account
    }
}

/// The time after its request in which a client may move the process that it pinned; later its PID
/// may have been reused.
const CLIENT_MOVES_NS: u64 = 10_000_000_000;

/// An active pin of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    /// The time from which it is valid.
    pub(super) since: Nanos,
    /// Children born from then on inherit it.
    pub(super) has_heirs: bool,
    client: u32,
}

impl Pin {
    /// Checks whether a move at this time by this process was made by the client, or before the
    /// pin.
    pub(crate) fn includes(self, mover: u32, at: Nanos) -> bool {
        at <= self.since || mover == self.client && at.since(self.since) < CLIENT_MOVES_NS
    }
}

/// The table of pinned processes.
#[derive(Debug)]
pub struct PinTable {
    pins: Inheritance<PinMark>,
    metrics: Arc<Metrics>,
    limiter: LogLimiter,
}

impl PinTable {
    /// Creates an empty table.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            pins: Inheritance::new(Limits { all: MOST, of_user: MOST_OF_USER }),
            limiter: LogLimiter::new(Arc::clone(&metrics)),
            metrics,
        }
    }

    /// Checks whether the process is pinned.
    pub fn holds(&mut self, pid: Pid, kernel: &mut impl Kernel) -> bool {
        self.pin(pid, kernel).is_some()
    }

    /// Returns the pin of the process, if it has one.
    pub(crate) fn pin(&mut self, pid: Pid, kernel: &mut impl Kernel) -> Option<Pin> {
        let entry = self.pins.get(pid, kernel)?;
        let PinMark { has_heirs, client, .. } = entry.mark;
        Some(Pin { since: entry.since, has_heirs, client })
    }

    /// Removes this pin of a process. A pin that another process with the PID inherited since stays.
    pub(crate) fn unpin(&mut self, pid: Pid, pin: Pin) {
        let is_same =
            |entry: &&Entry<PinMark>| (entry.since, entry.mark.client) == (pin.since, pin.client);
        if let Some(entry) = self.pins.entry(pid).filter(is_same).cloned() {
            self.cancel(pid, &entry);
        }
    }

    /// Ends the pin of a process, if it has one: `entry` is it, or one for this process.
    fn cancel(&mut self, pid: Pid, entry: &Entry<PinMark>) {
        self.pins.remove(pid);
        if self.pins.has_heirs() && entry.started != 0 {
            let mark = PinMark { has_heirs: false, is_cancelled: true, ..entry.mark };
            // Without room a loss may pin it again.
            let _has_room = self.pins.insert(pid, Entry::own(entry.started, entry.since, mark));
        }
    }

    /// Checks whether any pin includes descendants, so that the fork socket must be emptied before
    /// an evaluation.
    pub const fn has_descendants(&self) -> bool {
        self.pins.has_heirs()
    }

    /// Grants a wish of a client, which counts for the user `account`, or refuses it. Root may name
    /// any process, others only processes that are entirely their own. A later wish for the same
    /// process replaces the earlier.
    #[must_use]
    pub fn grant(
        &mut self,
        request: PinRequest,
        client: PinClient,
        account: Uid,
        kernel: &mut impl Kernel,
    ) -> bool {
        let is_granted = self.try_grant(request, client, account, kernel).is_some();
        let peer = client.uid;
        let PinRequest { pid, action } = request;
        let pid = pid.map_or(0, Pid::get);
        if is_granted {
            ::log::debug!("UID {peer} requested {action:?} for PID {pid}");
            return true;
        }
        self.metrics.sticky_refused.increment();
        if let Some(left_out) = self.limiter.admit(&peer, kernel.now()) {
            ::log::warn!(
                "request of UID {peer} for PID {pid} refused ({action:?}): no such process, owned by another \
                 user, or more than {MOST_OF_USER} processes of this user{left_out}"
            );
        }
        false
    }

    fn try_grant(
        &mut self,
        request: PinRequest,
        client: PinClient,
        account: Uid,
        kernel: &mut impl Kernel,
    ) -> Option<()> {
        let PinClient { uid: peer, process: client } = client;
        // The ID of a thread stands for its process.
        let pid = kernel.status(request.pid?)?.process;
        // The identity is read before the owner: if the PID is reused in between, the entry is for
        // the exited process and cannot pin one of another user. The time is read before that: the fork
        // of another process with the PID is later, and ends the pin.
        let now = kernel.now();
        let started = kernel.identity(pid)?;
        let owner = kernel.status(pid)?;
        if peer != Uid(0) && (owner.real, owner.effective) != (peer, peer) {
            return None;
        }
        let mark = PinMark { has_heirs: false, is_cancelled: false, client, account };
        match request.action {
            PinAction::Cancel => {
                self.cancel(pid, &Entry::own(started, now, mark));
                self.metrics.sticky_cancelled.increment();
            }
            PinAction::Stay { children } => {
                let mark = PinMark { has_heirs: children, ..mark };
                // Those of processes that ended make room first; more at once would keep the hot thread.
                if !self.pins.has_room(pid, account) {
                    self.pins.make_room(true, kernel);
                }
                if !self.pins.insert(pid, Entry::own(started, now, mark)) {
                    self.metrics.sticky_over_limit.increment();
                    return None;
                }
                self.pins.make_room(false, kernel);
                self.metrics.sticky_registered.increment();
            }
        }
        Some(())
    }

    /// Records a fork read from the fork socket.
    pub(super) fn heard(&mut self, fork: Fork, now: Nanos) -> Birth {
        let birth = self.pins.heard(fork);
        self.born(fork.child, birth, now);
        birth
    }

    /// Counts and logs what a child inherited.
    fn born(&mut self, child: Pid, birth: Birth, now: Nanos) {
        let account = match birth {
            Birth::Unmarked | Birth::EndsEarlier => return,
            Birth::Inherited => return self.metrics.sticky_inherited.increment(),
            Birth::NoRoom(account) => account,
        };
        self.metrics.sticky_refused.increment();
        self.metrics.sticky_over_limit.increment();
        if let Some(left_out) = self.limiter.admit(&("full", account), now) {
            ::log::warn!(
                "more than {MOST} processes, or {MOST_OF_USER} of one user, asked to stay where they are; process \
                 {child} is moved as the rules say{left_out}"
            );
        }
    }

    /// Removes exited processes after the fork socket was emptied.
    pub fn emptied(&mut self, kernel: &mut impl Kernel) {
        self.pins.emptied(kernel);
    }

    /// Records that at `now` the kernel had dropped no forks.
    pub fn confirm(&mut self, now: Nanos) {
        self.pins.confirm(now);
    }

    /// Pins the living children of pinned processes after the kernel dropped forks.
    pub fn search(&mut self, kernel: &mut impl Kernel) {
        let now = kernel.now();
        let mut births = Vec::new();
        self.pins.search(kernel, |_, child, birth| births.push((child, birth)));
        births.into_iter().for_each(|(child, birth)| self.born(child, birth, now));
    }
}

#[cfg(test)]
#[path = "sticky_tests.rs"]
mod tests;
