//! Pinned processes: they requested on the socket of cgrulesengd not to be moved. A pin must never
//! apply to another process that reuses the PID.
//!
//! An entry contains the inode of the pidfd, or before Linux 6.9 the start time, of its process; a
//! process with the same PID and a different value is not pinned. So the exit of a process needs no
//! notification: entries of exited processes are collected gradually.
//!
//! The start time has a resolution of 10 ms. A PID is reused only after all free ones were
//! assigned: at 15,000 forks per second, more than two processors achieve, 32,768 PIDs last two
//! seconds. A pidfd per entry would cost the daemon a descriptor each, and its inode is not unique
//! before Linux 6.9.
//!
//! A pin can include *descendants*: children born later, their children, and so on. Walking up the
//! parents at the time of an evaluation would not find them: after a double fork the intermediate
//! process is gone and the parent of the orphan is init. Reading the fork socket as lazily as
//! otherwise would miss them too. But the kernel queues the fork of a child there before the child
//! runs, so before any exec or credential change of the child can be queued in the event socket. If
//! the fork socket is emptied *after* the event socket was read and *before* any process is
//! evaluated, every fork that precedes those events is known, in order, even if processes have
//! exited meanwhile. The engine does that in every turn while a pin includes descendants; otherwise
//! it costs one comparison per fork. The fork socket is still not polled: a fork causes no wakeup.
//!
//! The order of the fork socket has three consequences:
//! - A fork before the pin does not inherit it.
//! - A fork by a process that is not pinned removes the PID of the child from the table, because
//!   the PID was reused.
//! - An exited process with descendants is kept until the fork socket was emptied once more,
//!   because its last fork may still be in it.
//!
//! Forks dropped by the kernel are compensated by walking down to the living children; an orphan
//! with a dropped fork, or one that was never evaluated, loses its pin. As with cgrulesengd, no pin
//! survives the daemon.

mod after_loss;

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::control::request::{PinAction, PinClient, PinRequest};
use crate::engine::kernel::Kernel;
use crate::event::{Nanos, Pid, Uid};
use crate::telemetry::log::limit::LogLimiter;
use crate::telemetry::metrics::Metrics;
use crate::tracking::fork_tracker::Fork;

/// The maximum number of entries, 40 bytes each.
const MOST: usize = 65_536;
/// Entries that the requests of one user make, children included, but for root: so that one user
/// does not fill the table. A sixteenth.
const MOST_OF_USER: u32 = 4096;
/// The number of entries checked for exited processes: per added entry, so that those do not fill
/// the table, and periodically. A check takes 3 us for a descendant, otherwise 10 us.
const SWEEP: [usize; 2] = [2, 64];
/// The interval of the periodic check.
const SWEEP_NS: u64 = 100_000_000;

/// The pin of one process.
#[derive(Clone, Copy, Debug)]
struct PinnedProcess {
    /// The identity of the process, see [`ProcFs::identity`]; 0 until a descendant is first
    /// evaluated.
    started: u64,
    /// The time from which the pin is valid.
    since: Nanos,
    has_heirs: bool,
    /// It was not requested for this process, but for an ancestor.
    is_inherited: bool,
    /// Ended by a request or a move. Kept while pins include descendants: else the search after a loss would take the
    /// process for a descendant whose fork was lost.
    is_cancelled: bool,
    /// The PID of the client that requested it.
    client: u32,
    /// User whose limit it counts towards.
    account: Uid,
}

impl PinnedProcess {
    /// Checks whether it is a descendant that was not evaluated yet.
    const fn is_unknown(&self) -> bool {
        self.started == 0
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
    entries: HashMap<Pid, PinnedProcess, FixedState>,
    /// Number of entries of each user.
    used: HashMap<Uid, u32, FixedState>,
    /// The number of entries that include descendants.
    descendants: usize,
    /// The number of pins inherited since the fork socket was last empty.
    newcomers: usize,
    /// Exited processes with descendants, found since the fork socket was last empty.
    dead: Vec<(Pid, Nanos)>,
    /// Descendants that were first evaluated since the kernel is known to have dropped no forks, and when.
    unconfirmed: Vec<(Pid, Nanos)>,
    /// The PIDs of all entries, in the order of checks. PIDs without an entry are dropped when
    /// encountered.
    ring: VecDeque<Pid>,
    swept: Nanos,
    metrics: Arc<Metrics>,
    limiter: LogLimiter,
}

impl PinTable {
    /// Creates an empty table.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            entries: HashMap::default(),
            used: HashMap::default(),
            descendants: 0,
            newcomers: 0,
            dead: Vec::new(),
            unconfirmed: Vec::new(),
            ring: VecDeque::new(),
            swept: Nanos::default(),
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
        if self.entries.is_empty() {
            return None;
        }
        let entry = self.entries.get_mut(&pid)?;
        let started = kernel.identity(pid)?;
        // According to the fork socket the PID of this descendant has not been reused so far.
        if entry.is_unknown() {
            entry.started = started;
            self.unconfirmed.push((pid, kernel.now()));
        }
        let PinnedProcess { since, client, is_cancelled, .. } = *entry;
        (entry.started == started && !is_cancelled).then_some(Pin { since, client })
    }

    /// Removes this pin of a process. A pin that another process with the PID inherited since stays.
    pub(crate) fn unpin(&mut self, pid: Pid, pin: Pin) {
        let is_same =
            |entry: &PinnedProcess| (entry.since, entry.client) == (pin.since, pin.client);
        if let Some(entry) = self.entries.get(&pid).copied().filter(is_same) {
            self.cancel(pid, entry);
        }
    }

    /// Ends the pin of a process, if it has one: `entry` is it, or one for this process.
    fn cancel(&mut self, pid: Pid, entry: PinnedProcess) {
        self.remove(pid);
        if self.descendants > 0 && !entry.is_unknown() {
            let cancelled = PinnedProcess {
                has_heirs: false,
                is_inherited: false,
                is_cancelled: true,
                ..entry
            };
            // Without room a loss may pin it again.
            let _has_room = self.insert(pid, cancelled);
        }
    }

    /// Checks whether any pin includes descendants, so that the fork socket must be emptied before
    /// an evaluation.
    pub const fn has_descendants(&self) -> bool {
        self.descendants > 0
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
        // the exited process and cannot pin one of another user.
        let started = kernel.identity(pid)?;
        let owner = kernel.status(pid)?;
        if peer != Uid(0) && (owner.real, owner.effective) != (peer, peer) {
            return None;
        }
        let entry = PinnedProcess {
            started,
            since: kernel.now(),
            has_heirs: false,
            is_inherited: false,
            is_cancelled: false,
            client,
            account,
        };
        match request.action {
            PinAction::Cancel => {
                self.cancel(pid, entry);
                self.metrics.sticky_cancelled.increment();
            }
            PinAction::Stay { children } => {
                let entry = PinnedProcess { has_heirs: children, ..entry };
                // Those of processes that ended make room first; more at once would keep the hot thread.
                if !self.has_room(pid, account) {
                    self.sweep(SWEEP[1], kernel);
                }
                if !self.insert(pid, entry) {
                    self.metrics.sticky_over_limit.increment();
                    return None;
                }
                self.sweep(SWEEP[0], kernel);
                self.metrics.sticky_registered.increment();
            }
        }
        Some(())
    }

    /// Records a fork read from the fork socket. Returns whether that ended the pin of an earlier process with
    /// the PID of the child, for which an evaluation may have taken it.
    #[must_use]
    pub fn heard(&mut self, fork: Fork, now: Nanos) -> bool {
        if self.descendants == 0 {
            return false;
        }
        let earlier = self.entries.get(&fork.child);
        // A pin of the child itself that is newer than the fork takes precedence. One of a fork that was read before
        // is of an earlier process with the PID, also if the clock of another processor gave it a later time.
        if earlier.is_some_and(|own| own.since > fork.at && !own.is_unknown()) {
            return false;
        }
        let was_pinned = earlier.is_some_and(|own| !own.is_cancelled);
        let parent = self.entries.get(&fork.parent);
        match parent.filter(|parent| parent.has_heirs && parent.since <= fork.at) {
            Some(&parent) => {
                self.inherit(fork.child, fork.at, parent, now);
                false
            }
            None => {
                self.remove(fork.child);
                was_pinned
            }
        }
    }

    fn inherit(&mut self, child: Pid, since: Nanos, parent: PinnedProcess, now: Nanos) {
        let own =
            PinnedProcess { started: 0, since, has_heirs: true, is_inherited: true, ..parent };
        if self.insert(child, own) {
            self.newcomers += 1;
            self.metrics.sticky_inherited.increment();
            return;
        }
        self.metrics.sticky_refused.increment();
        self.metrics.sticky_over_limit.increment();
        if let Some(left_out) = self.limiter.admit(&("full", parent.account), now) {
            ::log::warn!(
                "more than {MOST} processes, or {MOST_OF_USER} of one user, asked to stay where they are; process \
                 {child} is moved as the rules say{left_out}"
            );
        }
    }

    /// Removes exited processes after the fork socket was emptied.
    pub fn emptied(&mut self, kernel: &mut impl Kernel) {
        for (pid, since) in std::mem::take(&mut self.dead) {
            if self.entries.get(&pid).is_some_and(|entry| entry.since == since) {
                self.remove(pid);
            }
        }
        let mut count = SWEEP[0] * std::mem::take(&mut self.newcomers);
        let now = kernel.now();
        if now.since(self.swept) > SWEEP_NS {
            self.swept = now;
            count = count.max(SWEEP[1]);
        }
        self.sweep(count, kernel);
    }

    /// Adds an entry. Returns `false` if the table is full.
    fn insert(&mut self, pid: Pid, entry: PinnedProcess) -> bool {
        if !self.has_room(pid, entry.account) {
            return false;
        }
        self.descendants += usize::from(entry.has_heirs);
        *self.used.entry(entry.account).or_default() += 1;
        match self.entries.insert(pid, entry) {
            Some(old) => self.release(old),
            None => self.ring.push_back(pid),
        }
        true
    }

    /// Whether there is room for an entry of this user, which may replace one of the process.
    fn has_room(&self, pid: Pid, account: Uid) -> bool {
        let old = self.entries.get(&pid);
        let is_of_account = old.is_some_and(|old| old.account == account);
        let used = self.used.get(&account).copied().unwrap_or_default();
        if account != Uid(0) && !is_of_account && used >= MOST_OF_USER {
            return false;
        }
        old.is_some() || self.entries.len() < MOST
    }

    fn remove(&mut self, pid: Pid) {
        if let Some(old) = self.entries.remove(&pid) {
            self.release(old);
        }
    }

    /// An entry is gone.
    fn release(&mut self, old: PinnedProcess) {
        self.descendants -= usize::from(old.has_heirs);
        if let Some(used) = self.used.get_mut(&old.account) {
            *used -= 1;
            if *used == 0 {
                self.used.remove(&old.account);
            }
        }
    }

    /// Checks the next `count` entries and removes those of exited processes.
    fn sweep(&mut self, count: usize, kernel: &mut impl Kernel) {
        // A PID that was removed and added again occurs twice in the ring.
        if self.ring.len() > 2 * self.entries.len() + 64 {
            self.ring.clear();
            self.ring.extend(self.entries.keys());
        }
        for _ in 0..count.min(self.ring.len()) {
            let Some(pid) = self.ring.pop_front() else { break };
            let Some(&entry) = self.entries.get(&pid) else { continue };
            let is_alive = match entry.started {
                0 => kernel.exists(pid),
                started => kernel.identity(pid) == Some(started),
            };
            if !is_alive && !entry.has_heirs {
                self.remove(pid);
                continue;
            }
            if !is_alive {
                self.dead.push((pid, entry.since));
            }
            self.ring.push_back(pid);
        }
    }
}

#[cfg(test)]
#[path = "sticky_tests.rs"]
mod tests;
