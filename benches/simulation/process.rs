//! Simulated processes and threads.

use super::programs::PROGRAMS;
use super::rules::TESTED;

/// PID of the daemon.
pub(crate) const OWN: u32 = 5;
/// A process of root that moves others.
pub(crate) const ADMINISTRATOR: u32 = 7;
/// The first PID that the allocator returns.
pub(crate) const FIRST_PID: u32 = 10;

/// A thread besides the leader.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Thread {
    pub(crate) id: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Why the oracle accepts that a process is not where the rules say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Excuses {
    /// External moves since the policy is active.
    pub(crate) moves: u8,
    /// A move of an earlier process with its PID counts if it is evaluated before its fork is read.
    pub(crate) may_count_move: bool,
    /// The last one was by root, to a cgroup that no user controls.
    pub(crate) is_moved_by_root: bool,
    /// It was moved, or born elsewhere, and the daemon only reports that, or does not look before its
    /// next scan: without a trace, a move after the recheck.
    pub(crate) is_displaced: bool,
    /// The kernel refused to move it.
    pub(crate) is_refused: bool,
    /// It was its own move, not one of its creator before its birth.
    pub(crate) is_refusal_own: bool,
    /// The move may succeed later: it is tried again.
    pub(crate) is_retried: bool,
    /// It is or was pinned.
    pub(crate) was_pinned: bool,
    /// The daemon may have pinned it, after forks were lost.
    pub(crate) may_be_pinned: bool,
}

impl Excuses {
    /// A move of an earlier process with the PID counts for this one.
    pub(crate) const fn count_earlier_move(&mut self, is_report: bool) {
        self.may_count_move = false;
        self.moves = self.moves.saturating_add(1);
        self.is_displaced |= is_report;
    }
}

/// A process.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Distinguishes it from others with the same PID.
    pub(crate) identity: u64,
    pub(crate) pid: u32,
    pub(crate) parent: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Its real user, which the exec of a set-user-ID program does not change.
    pub(crate) real: u32,
    /// Index of its program.
    pub(crate) program: usize,
    pub(crate) threads: Vec<Thread>,
    pub(crate) has_leader_exited: bool,
    /// Credentials of threads that exited after the leader, which no event tells.
    pub(crate) acted: Vec<(u32, u32)>,
    pub(crate) is_zombie: bool,
    pub(crate) is_kernel_thread: bool,
    /// In a system call that has not ended: it can do nothing else.
    pub(crate) is_busy: bool,
    /// False until its fork links it to a cgroup.
    pub(crate) is_linked: bool,
    pub(crate) is_fork_unread: bool,
    /// Time stamp of its fork, once it has one.
    pub(crate) forked_at: u64,
    /// The program that it executes, in an exec that hangs.
    pub(crate) hang: Option<usize>,
    /// The child that it waits for after vfork.
    pub(crate) vforked: Option<u32>,
    /// Index of its cgroup in each hierarchy.
    pub(crate) groups: [usize; 2],
    /// Time stamp of its last event.
    pub(crate) stamp: u64,
    /// Pinned, as far as the daemon granted it; and whether children born later are.
    pub(crate) is_pinned: bool,
    pub(crate) is_pin_inherited: bool,
    pub(crate) pins_children: bool,
    pub(crate) excuses: Excuses,
    /// Time of its last move by the daemon.
    pub(crate) placed_at: u64,
    /// Changed since the daemon opened it last, or was opened before the event of that was read.
    pub(crate) has_changed: bool,
    /// Time stamp of its last change, while the event of that is unread.
    pub(crate) unread_change: Option<u64>,
    /// Moved by the daemon by mistake: its cgroups before that.
    pub(crate) mistaken: Option<[usize; 2]>,
    /// Who created it, the creator of that, and so on.
    pub(crate) creators: [u64; 4],
    /// The youngest process when it executed its program.
    pub(crate) executed_after: u64,
    /// Its creator, or the nearest one before that which lives or whose fork was read: what that has, it inherits when
    /// the forks in between are read.
    pub(crate) heir_of: u64,
    /// For each tested program: an ancestor ran it as root, now or earlier.
    pub(crate) was_below: [bool; 2],
    /// The daemon may take an ancestor to run it, or to have done so.
    pub(crate) may_be_below: [bool; 2],
    /// It ran it as root itself, now or earlier.
    pub(crate) has_run: [bool; 2],
    /// The event of an exec or of a change of its user was lost: nothing tells when what it runs began.
    pub(crate) has_lost_change: bool,
    /// What it runs is that of a creator that no event names, and was not read since.
    pub(crate) has_unknown_program: bool,
}

impl Process {
    /// Returns who created a child of this process, and so on.
    pub(crate) const fn creators_of_child(&self) -> [u64; 4] {
        let [first, second, third, _] = self.creators;
        [self.identity, first, second, third]
    }

    /// Checks whether it can make a system call.
    pub(crate) fn can_act(&self) -> bool {
        !self.is_zombie
            && !self.is_busy
            && self.is_linked
            && self.hang.is_none()
            && self.vforked.is_none()
            && !self.is_kernel_thread
            && self.pid >= FIRST_PID - 4
            && self.pid != ADMINISTRATOR
            && !(self.has_leader_exited && self.threads.is_empty())
    }

    /// Returns the credentials of its leader, or of the first live thread.
    pub(crate) fn acting(&self) -> (u32, u32) {
        match self.threads.first() {
            Some(thread) if self.has_leader_exited => (thread.uid, thread.gid),
            _ => (self.uid, self.gid),
        }
    }

    /// Returns which tested program it runs as root, if it does.
    pub(crate) fn tested_program(&self) -> Option<usize> {
        let program = PROGRAMS[self.program];
        let is_root = self.real == 0 && !self.is_zombie && !self.is_kernel_thread;
        (0..TESTED.len()).find(|&one| is_root && program.is_known_as(TESTED[one]))
    }

    /// Checks whether the daemon may pin its children.
    pub(crate) fn may_pin_children(&self) -> bool {
        self.pins_children || self.excuses.may_be_pinned
    }

    pub(crate) fn has_thread_of_others(&self) -> bool {
        self.threads.iter().any(|thread| (thread.uid, thread.gid) != (self.uid, self.gid))
    }
}
