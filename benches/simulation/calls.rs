//! System calls of simulated processes.

use cgruled::event::{EventKind, Pid, Task};
use cgruled::kernel::moves::TracedMove;

use cgruled::event::Nanos;

use super::cgroups;
use super::machine::{Flight, HIERARCHY_IDS, Machine, event};
use super::process::{FIRST_PID, Process, Thread};
use super::programs::{PROGRAMS, SU};
use super::services::BlockedRead;
use super::situations::Situation;

/// Time after a placement within which its recheck finds each move by others.
const RECHECKED_NS: u64 = 95_000_000;
/// Time from a move to a fork with its PID within which the engine cannot tell their order.
const CLOCKS_DIFFER_NS: u64 = 10_000;

/// How a child is created.
#[derive(Clone, Copy, Default)]
pub(crate) struct Fork {
    pub(crate) is_slow: bool,
    pub(crate) keeps_parent: bool,
    /// Index of the thread that forks.
    pub(crate) thread: Option<usize>,
    /// The v2 cgroup of the child.
    pub(crate) into: Option<usize>,
    pub(crate) cpu: u16,
    /// It is the daemon's test process.
    pub(crate) is_test: bool,
}

fn pid(raw: u32) -> Option<Pid> {
    Pid::new(raw)
}

impl Machine {
    /// Forks. Returns the child; `None` if there is no room.
    pub(crate) fn fork(&mut self, creator: u32, how: Fork) -> Option<u32> {
        let child = self.allocate(how.is_test)?;
        // Exit, wait and fork take longer than the clocks of two CPUs differ.
        let moved_at = self.moved_at.get(&child);
        let reused_from = moved_at.map_or(0, |at| at + CLOCKS_DIFFER_NS + 1);
        self.clock = self.clock.max(reused_from);
        let process = self.find(creator)?.clone();
        self.events += 1;
        let ids = how
            .thread
            .and_then(|index| process.threads.get(index))
            .map_or_else(|| process.acting(), |thread| (thread.uid, thread.gid));
        let named_parent = if how.keeps_parent { process.parent } else { creator };
        self.note_birth(&process, child, ids, how);
        let new = self.new_process(child, named_parent, process.program, ids);
        let groups = how.into.map_or(process.groups, |into| [into, process.groups[1]]);
        let mut excuses = process.excuses;
        excuses.is_refusal_own = false;
        // Without a trace, an event of its creator can replace the recheck that would find both.
        excuses.is_displaced |= !self.config.traces_moves && excuses.moves > 0;
        // The trace has no identity: a move of an earlier process with the PID counts for this one,
        // unless its fork is read before.
        excuses.may_count_move = reused_from > 0;
        let named = self.find(named_parent);
        excuses.may_be_pinned |= named.is_some_and(|one| one.excuses.may_be_pinned);
        let is_pinned = named.is_some_and(|one| one.pins_children && !one.excuses.may_be_pinned);
        self.insert(Process {
            is_busy: true,
            excuses,
            is_pinned,
            is_pin_inherited: true,
            pins_children: is_pinned,
            creators: process.creators_of_child(),
            executed_after: process.executed_after,
            heir_of: process.identity,
            real: if ids.0 == process.uid { process.real } else { ids.0 },
            was_below: self.below_for_children(named_parent),
            may_be_below: self.may_be_below(process.pid, named_parent),
            has_unknown_program: how.keeps_parent,
            ..new
        });
        if is_pinned {
            if let Some(child) = self.find_mut(child) {
                child.excuses.was_pinned = true;
            }
            self.counts.hit(Situation::PinInherited);
        }
        if let Some(process) = self.find_mut(creator) {
            process.is_busy = true;
        }
        self.journal.note(self.clock, || {
            let how = if how.keeps_parent { " with CLONE_PARENT" } else { "" };
            format!("{creator} forks {child} (uid {}, gid {}){how}", ids.0, ids.1)
        });
        let stage = 0;
        self.flights.push(Flight::Fork { child, named_parent, stage, at: 0, groups });
        if how.into.is_some() {
            self.trace_move(creator, child, 0, true);
        }
        if !how.is_slow {
            let index = self.flights.len() - 1;
            (0..3).for_each(|_| self.advance(index, creator, how.cpu));
        }
        Some(child)
    }

    fn note_birth(&mut self, process: &Process, child: u32, ids: (u32, u32), how: Fork) {
        let is_opened = self.opened.is_some_and(|(pid, _)| pid == process.pid);
        if self.in_attach && is_opened {
            self.counts.hit(Situation::BornDuringAttach);
        }
        if process.has_changed {
            self.counts.hit(Situation::BornBetweenChangeAndAttach);
            if how.keeps_parent {
                self.counts.hit(Situation::CloneParentInWindow);
            }
        }
        if self.is_scanning {
            self.counts.hit(Situation::BornDuringScan);
        }
        if ids != (process.uid, process.gid) && !process.has_leader_exited {
            self.counts.hit(Situation::ForkOfThreadOfOther);
        }
        if self.has_queued_event(child) {
            self.counts.hit(Situation::ReusedWhileQueued);
        }
    }

    /// Checks whether one of the last events of this process is unread.
    pub(crate) fn has_queued_event(&self, process: u32) -> bool {
        self.event_socket.queue.iter().rev().take(64).any(|event| match event.what {
            EventKind::Exec(pid) => pid.get() == process,
            EventKind::Uid(task) | EventKind::Gid(task) => task.process.get() == process,
            EventKind::Fork { .. } => false,
        })
    }

    /// Continues a system call that is under way.
    pub(crate) fn proceed(&mut self, a: u16) {
        if self.flights.is_empty() {
            return;
        }
        let index = usize::from(a) % self.flights.len();
        let caller = match self.flights[index] {
            Flight::Fork { child, .. } => {
                let creator = self.find(child).map_or(0, |one| one.creators[0]);
                self.by_identity(creator).map_or(0, |one| one.pid)
            }
            Flight::Event { process, .. } => process,
        };
        self.advance(index, caller, a >> 8);
    }

    fn advance(&mut self, index: usize, caller: u32, cpu: u16) {
        match self.flights[index] {
            Flight::Event { process, event } => {
                self.flights.remove(index);
                self.send(event);
                self.journal.note(self.clock, || format!("the event of {process} is queued"));
                if let Some(process) = self.find_mut(process) {
                    process.is_busy = false;
                }
            }
            Flight::Fork { child, named_parent, stage, at, groups } => {
                let mut new_at = at;
                match stage {
                    0 => {
                        new_at = self.stamp(caller, cpu);
                        if let Some(child) = self.find_mut(child) {
                            child.forked_at = new_at;
                        }
                    }
                    1 => {
                        if let (Some(parent), Some(child)) = (pid(named_parent), pid(child)) {
                            self.send(event(at, EventKind::Fork { parent, child }));
                        }
                    }
                    _ => {
                        self.flights.remove(index);
                        if let Some(child) = self.find_mut(child) {
                            (child.is_busy, child.is_linked) = (false, true);
                            (child.groups, child.stamp) = (groups, at);
                        }
                        if let Some(caller) = self.find_mut(caller) {
                            caller.is_busy = false;
                        }
                        return;
                    }
                }
                let (stage, at) = (stage + 1, new_at);
                self.flights[index] = Flight::Fork { child, named_parent, stage, at, groups };
            }
        }
    }

    /// Ends the forks that are under way: a move waits for them.
    pub(crate) fn land_forks(&mut self) -> usize {
        let mut count = 0;
        while let Some(index) =
            self.flights.iter().position(|flight| matches!(flight, Flight::Fork { .. }))
        {
            self.proceed(u16::try_from(index).unwrap_or(0));
            count += 1;
        }
        count
    }

    /// Sends an event of a process; with `is_slow` it is queued later.
    fn tell(&mut self, process: u32, what: EventKind, is_slow: bool, cpu: u16) {
        let at = self.stamp(process, cpu);
        let event = event(at, what);
        let tells_program = matches!(what, EventKind::Exec(_) | EventKind::Uid(_));
        if let Some(own) = self.find_mut(process).filter(|_| tells_program) {
            own.unread_change = Some(at);
        }
        if is_slow {
            self.flights.push(Flight::Event { process, event });
            if let Some(process) = self.find_mut(process) {
                process.is_busy = true;
            }
        } else {
            self.send(event);
        }
    }

    /// Executes a program, by the leader or a thread.
    pub(crate) fn exec(
        &mut self,
        process: u32,
        program: usize,
        thread: Option<usize>,
        is_slow: bool,
    ) {
        self.events += 1;
        self.end_threads(process, thread);
        let youngest = self.youngest();
        let Some(own) = self.find_mut(process) else { return };
        own.program = program;
        own.executed_after = youngest;
        own.hang = None;
        own.has_changed = true;
        let gains = program == SU && own.uid != 0;
        if gains {
            own.uid = 0;
        }
        self.journal.note(self.clock, || format!("{process} executes {}", PROGRAMS[program].link));
        self.note_program(process);
        self.release_vfork(process);
        let Some(pid) = pid(process) else { return };
        if gains {
            self.counts.hit(Situation::SetuidExec);
            let task = Task { process: pid, thread: pid };
            self.tell(process, EventKind::Uid(task), false, 0);
        }
        self.tell(process, EventKind::Exec(pid), is_slow, 0);
    }

    /// Ends all threads but the one that executes a program, which becomes the leader.
    fn end_threads(&mut self, process: u32, thread: Option<usize>) {
        let Some(own) = self.find_mut(process) else { return };
        let by_thread = thread.and_then(|index| own.threads.get(index).copied());
        let by_thread = by_thread
            .or_else(|| own.has_leader_exited.then(|| own.threads.first().copied()).flatten());
        if let Some(Thread { uid, gid, .. }) = by_thread {
            if own.uid != uid {
                own.real = uid;
            }
            (own.uid, own.gid, own.has_leader_exited) = (uid, gid, false);
        }
        own.threads.clear();
        own.acted.clear();
        self.thread_ids.retain(|&(_, of)| of != process);
        if by_thread.is_some() {
            self.counts.hit(Situation::ExecOfThread);
        }
    }

    fn release_vfork(&mut self, child: u32) {
        for pid in self.pids.clone() {
            let Some(process) = self.find_mut(pid).filter(|one| one.vforked == Some(child)) else {
                continue;
            };
            process.vforked = None;
            self.counts.hit(Situation::VforkWaits);
        }
    }

    /// Begins an exec that hangs.
    pub(crate) fn hang(&mut self, process: u32, program: usize) {
        self.events += 1;
        self.end_threads(process, None);
        let Some(own) = self.find_mut(process) else { return };
        own.hang = Some(program);
        self.counts.hit(Situation::HangingExec);
        self.journal.note(self.clock, || {
            format!("{process} hangs in an exec of {}", PROGRAMS[program].link)
        });
    }

    /// Changes the IDs of all threads of a process, or of one.
    pub(crate) fn set_ids(
        &mut self,
        process: u32,
        (uid, gid): (Option<u32>, Option<u32>),
        thread: Option<usize>,
        is_slow: bool,
    ) {
        self.events += 1;
        let Some(own) = self.find_mut(process) else { return };
        let mut changed = Vec::new();
        let mut is_real_new = false;
        let mut change = |id: u32, own_uid: &mut u32, own_gid: &mut u32| {
            let new = (uid.unwrap_or(*own_uid), gid.unwrap_or(*own_gid));
            if new != (*own_uid, *own_gid) {
                changed.push((id, new.0 != *own_uid));
                (*own_uid, *own_gid) = new;
            }
        };
        if thread.is_none() && !own.has_leader_exited {
            change(process, &mut own.uid, &mut own.gid);
            is_real_new = uid.is_some_and(|uid| uid != own.real);
            own.real = uid.unwrap_or(own.real);
        }
        for (index, one) in own.threads.iter_mut().enumerate() {
            if thread.is_none_or(|meant| meant == index) {
                change(one.id, &mut one.uid, &mut one.gid);
            }
        }
        // The kernel reports a change of the real user alone too.
        if is_real_new && !changed.contains(&(process, true)) {
            changed.push((process, true));
        }
        if changed.is_empty() {
            return;
        }
        own.has_changed = true;
        let differs = own.has_thread_of_others();
        if differs {
            self.counts.hit(Situation::ThreadOfOther);
        }
        self.journal.note(self.clock, || {
            let who = thread.map_or(String::new(), |index| format!(" in thread {index} alone"));
            format!("{process} sets uid {uid:?} gid {gid:?}{who}")
        });
        self.note_program(process);
        let last = changed.len() - 1;
        for (index, (id, is_uid)) in changed.into_iter().enumerate() {
            let (Some(pid), Some(thread)) = (pid(process), pid(id)) else { continue };
            let task = Task { process: pid, thread };
            let what = if is_uid { EventKind::Uid(task) } else { EventKind::Gid(task) };
            self.tell(process, what, is_slow && index == last, 0);
        }
    }

    /// Creates a thread.
    pub(crate) fn clone_thread(&mut self, process: u32) {
        let Some(id) = self.allocate(false) else { return };
        let Some(own) = self.find_mut(process) else { return };
        let (uid, gid) = own.acting();
        own.threads.push(Thread { id, uid, gid });
        self.thread_ids.push((id, process));
        self.events += 1;
        self.journal.note(self.clock, || format!("{process} creates thread {id}"));
    }

    /// Ends the whole process.
    pub(crate) fn exit(&mut self, process: u32) {
        self.events += 1;
        if self.has_queued_event(process) {
            self.counts.hit(Situation::ExitBeforeEvaluation);
        }
        let Some(own) = self.find_mut(process) else { return };
        own.is_zombie = true;
        own.has_leader_exited = true;
        own.threads.clear();
        own.hang = None;
        own.vforked = None;
        self.thread_ids.retain(|&(_, of)| of != process);
        self.journal.note(self.clock, || format!("{process} exits"));
        let mut is_orphaned = false;
        for pid in self.pids.clone() {
            if let Some(child) = self.find_mut(pid).filter(|one| one.parent == process) {
                child.parent = 1;
                is_orphaned = true;
            }
        }
        if is_orphaned {
            self.counts.hit(Situation::OrphanOfGone);
        }
        self.release_vfork(process);
        self.unblock(process);
    }

    /// Lets the reads of an executable return.
    pub(crate) fn unblock(&mut self, process: u32) {
        let Some(identity) = self.find(process).map(|one| one.identity) else { return };
        let blocked = &mut self.services.blocked;
        let is_meant = |one: &BlockedRead| (one.process, one.identity) == (process, identity);
        let Some(index) = blocked.iter().position(is_meant) else { return };
        blocked.remove(index);
        self.counts.hit(Situation::ReadableAgain);
        if let Some(pid) = pid(process) {
            self.services.replies.push(cgruled::policy::worker::WorkerReply::Readable(pid));
        }
    }

    /// Ends one thread; the last one ends the process.
    pub(crate) fn exit_thread(&mut self, process: u32, index: usize) {
        let Some(own) = self.find_mut(process) else { return };
        if own.threads.is_empty() {
            return;
        }
        let index = index % own.threads.len();
        let thread = own.threads.remove(index);
        if own.has_leader_exited {
            own.acted.push((thread.uid, thread.gid));
        }
        let is_last = own.has_leader_exited && own.threads.is_empty();
        self.thread_ids.retain(|&(id, _)| id != thread.id);
        self.events += 1;
        self.journal.note(self.clock, || format!("thread {} of {process} exits", thread.id));
        if is_last {
            self.exit(process);
        }
    }

    /// Ends the leader alone.
    pub(crate) fn exit_leader(&mut self, process: u32) {
        let Some(own) = self.find_mut(process) else { return };
        if own.threads.is_empty() || own.has_leader_exited {
            return;
        }
        own.has_leader_exited = true;
        self.events += 1;
        self.counts.hit(Situation::LeaderExited);
        self.journal.note(self.clock, || format!("the leader of {process} exits"));
    }

    /// Frees the PID of a zombie.
    pub(crate) fn reap(&mut self, process: u32) {
        self.events += 1;
        self.remove(process);
        self.journal.note(self.clock, || format!("{process} is reaped"));
    }

    /// Moves a process to a cgroup, by another process than the daemon.
    pub(crate) fn move_by(
        &mut self,
        mover: u32,
        process: u32,
        hierarchy: usize,
        path: &str,
        owner: u32,
    ) {
        self.land_forks();
        let group = self.cgroups.make(hierarchy, path, owner);
        let is_report = self.config.reports_only;
        let (clock, is_traced) = (self.clock, self.config.traces_moves);
        let Some(own) = self.find_mut(process) else { return };
        if own.groups[hierarchy] == group {
            return;
        }
        own.groups[hierarchy] = group;
        let is_users = cgroups::is_users(path, owner) || mover == 1 && own.acting().0 != 0;
        own.excuses.moves = own.excuses.moves.saturating_add(1);
        own.excuses.is_moved_by_root = !is_users;
        let is_rechecked = clock < own.placed_at + RECHECKED_NS;
        own.excuses.is_displaced |= is_report || !is_traced && !is_rechecked;
        if is_users {
            // It ends a pin when it is evaluated; children until then may still inherit it.
            own.excuses.may_be_pinned |= own.pins_children;
            (own.is_pinned, own.pins_children) = (false, false);
        }
        own.mistaken = None;
        let moves = own.excuses.moves;
        self.events += 1;
        self.counts.hit(match (is_users, moves) {
            (true, _) => Situation::MoveForUser,
            (false, 0 | 1) => Situation::ExternalMove,
            (false, _) => Situation::SecondExternalMove,
        });
        self.journal.note(self.clock, || format!("{mover} moves {process} to {path}"));
        self.trace_move(mover, process, hierarchy, false);
    }

    fn trace_move(&mut self, mover: u32, process: u32, hierarchy: usize, is_birth: bool) {
        if !self.is_running || !self.config.traces_moves {
            return;
        }
        if self.trace.len() >= self.config.trace_room {
            self.lost_moves += 1;
            self.counts.hit(Situation::MoveLost);
            self.dropped_at = self.clock;
            return;
        }
        if !is_birth {
            self.moved_at.insert(process, self.clock);
        }
        let (at, hierarchy) = (Nanos(self.clock), HIERARCHY_IDS[hierarchy]);
        self.trace.push(TracedMove { at, mover, pid: process, is_birth, hierarchy });
    }

    /// The daemon's test process forks, executes and exits.
    pub(crate) fn run_test_process(&mut self) {
        // There is always room for it.
        let Some(child) = self.fork(super::process::OWN, Fork { is_test: true, ..Fork::default() })
        else {
            return;
        };
        self.exec(child, 0, None, false);
        self.exit(child);
        self.reap(child);
        debug_assert!(child >= FIRST_PID);
    }
}
