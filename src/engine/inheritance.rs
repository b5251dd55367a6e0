//! A mark of processes that children inherit: born later, their children, and so on. A mark must never
//! apply to another process that reuses the PID.
//!
//! An entry contains the inode of the pidfd, or before Linux 6.9 the start time, of its process; a
//! process with the same PID and a different value has no mark. So the exit of a process needs no
//! notification: entries of exited processes are collected gradually.
//!
//! The start time has a resolution of 10 ms. A PID is reused only after all free ones were
//! assigned: at 15,000 forks per second, more than two processors achieve, 32,768 PIDs last two
//! seconds. A pidfd per entry would cost the daemon a descriptor each, and its inode is not unique
//! before Linux 6.9.
//!
//! Walking up the parents at the time of an evaluation would not find the ancestors: after a double fork the
//! intermediate process is gone and the parent of the orphan is init. Reading the fork socket as lazily as
//! otherwise would miss them too. But the kernel queues the fork of a child there before the child
//! runs, so before any exec or credential change of the child can be queued in the event socket. If
//! the fork socket is emptied *after* the event socket was read and *before* any process is
//! evaluated, every fork that precedes those events is known, in order, even if processes have
//! exited meanwhile. The engine does that in every turn while a mark has heirs; otherwise
//! it costs one comparison per fork. The fork socket is still not polled: a fork causes no wakeup.
//!
//! The order of the fork socket has three consequences:
//! - A fork before the mark does not inherit it.
//! - A fork by a process without a mark removes the PID of the child from the table, because
//!   the PID was reused.
//! - An exited process with heirs is kept until the fork socket was emptied once more,
//!   because its last fork may still be in it.
//!
//! Forks dropped by the kernel are compensated by walking down to the living children; an orphan
//! with a dropped fork, or one that was never evaluated, loses its mark.

mod after_loss;

pub(super) use after_loss::{children, is_child};

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::engine::kernel::Kernel;
use crate::event::{Nanos, Pid, Uid};
use crate::tracking::fork_tracker::Fork;

/// The number of entries checked for exited processes: per added entry, so that those do not fill
/// the table, and periodically. A check takes 3 us for a descendant, otherwise 10 us.
const SWEEP: [usize; 2] = [2, 64];
/// The interval of the periodic check.
const SWEEP_NS: u64 = 100_000_000;

/// Time in which the kernel has queued an event after its time stamp, and the fork of a process that it lists. Between
/// both it does not sleep, so the process only waits for a CPU.
pub(super) const QUEUED_NS: u64 = 1_000_000_000;

/// A mark that children inherit.
pub(super) trait Inherited: Clone {
    /// Returns the mark of a child that is born from now on. `None` if children inherit nothing.
    fn of_child(&self) -> Option<Self>;

    /// Returns this mark with one that the process inherited before it had this one. `None` if this one replaces or
    /// contains that.
    fn with_inherited(&self, _: &Self) -> Option<Self> {
        None
    }

    /// Checks whether the process has a mark itself: an entry can also record that it has none any more.
    fn is_valid(&self) -> bool {
        true
    }

    /// Returns the user whose limit the entry counts towards.
    fn account(&self) -> Uid {
        Uid(0)
    }
}

/// The mark of one process.
#[derive(Clone, Debug)]
pub(super) struct Entry<V> {
    /// The identity of the process, see [`Kernel::identity`]; 0 until a descendant is first evaluated.
    pub(super) started: u64,
    /// The time at which it was recorded: that of the fork for an inherited one.
    pub(super) since: Nanos,
    /// Forks from this time on pass it on.
    pub(super) from: Nanos,
    /// It was inherited from an ancestor.
    pub(super) is_inherited: bool,
    pub(super) mark: V,
}

impl<V> Entry<V> {
    /// Creates the entry of a process with this identity.
    pub(super) const fn new(
        started: u64,
        [since, from]: [Nanos; 2],
        is_inherited: bool,
        mark: V,
    ) -> Self {
        Self { started, since, from, is_inherited, mark }
    }

    /// Creates the entry of a process that did not inherit it.
    pub(super) const fn own(started: u64, since: Nanos, mark: V) -> Self {
        Self::new(started, [since; 2], false, mark)
    }

    /// Checks whether it is a descendant that was not evaluated yet.
    const fn is_unknown(&self) -> bool {
        self.started == 0
    }
}

/// Result of a fork. The process may have been evaluated before without what it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Birth {
    /// Neither the parent nor an earlier process with the PID had a mark.
    Unmarked,
    /// The child inherited a mark.
    Inherited,
    /// The child should inherit, and the table is full for this user.
    NoRoom(Uid),
    /// It ended the mark of an earlier process with the PID, for which an evaluation may have taken the child.
    EndsEarlier,
}

impl Birth {
    /// Checks whether an evaluation of the child must be repeated. `is_evaluated` tells whether there was one since the
    /// birth: of a process that got its PID while a scan read the list of processes.
    pub(super) fn changes_evaluation(self, is_evaluated: impl FnOnce() -> bool) -> bool {
        match self {
            Self::EndsEarlier => true,
            Self::Inherited => is_evaluated(),
            Self::Unmarked | Self::NoRoom(_) => false,
        }
    }
}

/// Limits of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The maximum number of entries.
    pub(super) all: usize,
    /// The maximum of those that count for one user, but for root: so that one user does not fill the table.
    pub(super) of_user: u32,
}

/// The table of marked processes.
#[derive(Clone, Debug)]
pub(super) struct Inheritance<V> {
    entries: HashMap<Pid, Entry<V>, FixedState>,
    limits: Limits,
    /// Number of entries of each user.
    used: HashMap<Uid, u32, FixedState>,
    /// The number of entries with marks that children inherit.
    with_heirs: usize,
    /// The number of marks inherited since the fork socket was last empty.
    newcomers: usize,
    /// Exited processes with heirs, found since the fork socket was last empty, each with identity and time of its
    /// entry.
    dead: Vec<(Pid, (u64, Nanos))>,
    /// Descendants that were first evaluated since the kernel is known to have dropped no forks, and when.
    unconfirmed: Vec<(Pid, Nanos)>,
    /// The PIDs of all entries, in the order of checks. PIDs without an entry are dropped when
    /// encountered.
    ring: VecDeque<Pid>,
    swept: Nanos,
}

impl<V: Inherited> Inheritance<V> {
    /// Creates an empty table.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            entries: HashMap::default(),
            limits,
            used: HashMap::default(),
            with_heirs: 0,
            newcomers: 0,
            dead: Vec::new(),
            unconfirmed: Vec::new(),
            ring: VecDeque::new(),
            swept: Nanos::default(),
        }
    }

    /// Returns the number of entries.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the number of entries that count towards any limit of a user.
    #[cfg(test)]
    pub(super) fn used(&self) -> u32 {
        self.used.values().sum()
    }

    /// Returns the number of PIDs that wait for a check.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.ring.len()
    }

    /// Checks whether any mark is inherited, so that the fork socket must be emptied before an evaluation.
    pub(super) const fn has_heirs(&self) -> bool {
        self.with_heirs > 0
    }

    /// Returns the entry of a process, if it has a mark.
    pub(super) fn get(&mut self, pid: Pid, kernel: &mut impl Kernel) -> Option<&Entry<V>> {
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
        (entry.started == started && entry.mark.is_valid()).then_some(&*entry)
    }

    /// Returns the entry of a PID, whoever has it now.
    pub(super) fn entry(&self, pid: Pid) -> Option<&Entry<V>> {
        self.entries.get(&pid)
    }

    /// Records that the process with an entry was born at this time: forks with its PID before are not its own.
    pub(super) fn begin(&mut self, pid: Pid, at: Nanos) {
        if let Some(entry) = self.entries.get_mut(&pid) {
            entry.from = at;
        }
    }

    /// Records a fork read from the fork socket.
    pub(super) fn heard(&mut self, fork: Fork) -> Birth {
        if self.with_heirs == 0 {
            return Birth::Unmarked;
        }
        let earlier = self.entries.get(&fork.child);
        let parent = self.entries.get(&fork.parent).filter(|parent| parent.from <= fork.at);
        let inherited = parent.and_then(|parent| parent.mark.of_child());
        // A mark of the child itself that is newer than the fork takes precedence. One of a fork that was read before
        // is of an earlier process with the PID, also if the clock of another processor gave it a later time.
        if let Some(own) = earlier.filter(|own| own.since > fork.at && !own.is_unknown()) {
            let both = inherited.and_then(|inherited| own.mark.with_inherited(&inherited));
            let Some(mark) = both else { return Birth::Unmarked };
            // It replaces one of the same process, so that there is room.
            let entry = Entry { mark, ..own.clone() };
            let _has_room = self.insert(fork.child, entry);
            return Birth::Inherited;
        }
        let was_marked = earlier.is_some_and(|own| own.mark.is_valid());
        match inherited {
            Some(mark) => self.inherit(fork.child, fork.at, mark),
            None => {
                self.remove(fork.child);
                if was_marked { Birth::EndsEarlier } else { Birth::Unmarked }
            }
        }
    }

    fn inherit(&mut self, child: Pid, since: Nanos, mark: V) -> Birth {
        let account = mark.account();
        if self.insert(child, Entry::new(0, [since; 2], true, mark)) {
            self.newcomers += 1;
            Birth::Inherited
        } else {
            Birth::NoRoom(account)
        }
    }

    /// Removes exited processes after the fork socket was emptied.
    pub(super) fn emptied(&mut self, kernel: &mut impl Kernel) {
        for (pid, entry) in std::mem::take(&mut self.dead) {
            let is_it = |now: &Entry<V>| (now.started, now.since) == entry;
            if self.entries.get(&pid).is_some_and(is_it) {
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

    /// Adds an entry, in place of an earlier one of the process. Returns `false` if the table is full.
    pub(super) fn insert(&mut self, pid: Pid, entry: Entry<V>) -> bool {
        let account = entry.mark.account();
        if !self.has_room(pid, account) {
            return false;
        }
        self.with_heirs += usize::from(entry.mark.of_child().is_some());
        *self.used.entry(account).or_default() += 1;
        match self.entries.insert(pid, entry) {
            Some(old) => self.release(&old),
            None => self.ring.push_back(pid),
        }
        true
    }

    /// Whether there is room for an entry of this user, which may replace one of the process.
    pub(super) fn has_room(&self, pid: Pid, account: Uid) -> bool {
        let old = self.entries.get(&pid);
        let is_of_account = old.is_some_and(|old| old.mark.account() == account);
        let used = self.used.get(&account).copied().unwrap_or_default();
        if account != Uid(0) && !is_of_account && used >= self.limits.of_user {
            return false;
        }
        old.is_some() || self.entries.len() < self.limits.all
    }

    pub(super) fn remove(&mut self, pid: Pid) {
        if let Some(old) = self.entries.remove(&pid) {
            self.release(&old);
        }
    }

    /// An entry is gone.
    fn release(&mut self, old: &Entry<V>) {
        self.with_heirs -= usize::from(old.mark.of_child().is_some());
        let account = old.mark.account();
        if let Some(used) = self.used.get_mut(&account) {
            *used -= 1;
            if *used == 0 {
                self.used.remove(&account);
            }
        }
    }

    /// Removes some entries of exited processes, because one is added.
    pub(super) fn make_room(&mut self, is_full: bool, kernel: &mut impl Kernel) {
        self.sweep(SWEEP[usize::from(is_full)], kernel);
    }

    /// Checks the next `count` entries and removes those of exited processes.
    pub(super) fn sweep(&mut self, count: usize, kernel: &mut impl Kernel) {
        // A PID that was removed and added again occurs twice in the ring.
        if self.ring.len() > 2 * self.entries.len() + 64 {
            self.ring.clear();
            self.ring.extend(self.entries.keys());
        }
        for _ in 0..count.min(self.ring.len()) {
            let Some(pid) = self.ring.pop_front() else { break };
            let Some(entry) = self.entries.get(&pid) else { continue };
            let is_alive = match entry.started {
                0 => kernel.exists(pid),
                started => kernel.identity(pid) == Some(started),
            };
            if !is_alive && entry.mark.of_child().is_none() {
                self.remove(pid);
                continue;
            }
            if !is_alive {
                self.dead.push((pid, (entry.started, entry.since)));
            }
            self.ring.push_back(pid);
        }
    }
}
