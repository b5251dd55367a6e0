//! Time that passes while the daemon waits, and the silence before a check.

use cgruled::control::request::{PinAction, PinRequest};
use cgruled::event::Pid;

use super::history::Entry;
use super::machine::Machine;
use super::process::Process;
use super::services::BlockedRead;
use super::situations::Situation;

impl Machine {
    /// Checks whether the daemon's main loop has a reason to go on before its timer.
    fn is_awake(&self) -> bool {
        !self.event_socket.queue.is_empty()
            || !self.services.replies.is_empty()
            || !self.requests.is_empty()
    }

    /// Lets time pass up to `due`, with the steps until then; with `wakes` something to do ends it.
    pub(crate) fn sleep_until(&mut self, due: u64, wakes: bool) {
        loop {
            let is_over = self.is_killed || self.violation.is_some();
            if is_over || self.wants_rest && !self.is_silent || wakes && self.is_awake() {
                return;
            }
            if self.clock >= due {
                return;
            }
            let Some(entry) = self.next.filter(|_| !self.is_silent) else {
                self.clock = due;
                self.wants_rest |= self.next.is_none();
                return;
            };
            let at = self.clock + u64::from(entry.dt);
            if at > due {
                let dt = u32::try_from(at - due).unwrap_or(0);
                self.next = Some(Entry { dt, ..entry });
                self.clock = due;
                return;
            }
            self.clock = at;
            self.take();
            while let Some(Entry { gap: 0, dt, .. }) = self.next {
                if self.wants_rest || self.is_killed || self.violation.is_some() {
                    return;
                }
                self.clock += u64::from(dt);
                self.take();
            }
        }
    }

    /// Begins a silence of the kernel.
    pub(crate) fn fall_silent(&mut self) {
        self.journal.note(self.clock, || "the kernel falls silent".to_owned());
        self.is_silent = true;
        self.land_all();
        self.refusals.clear();
        self.late_reads = 0;
        self.sleep = 0;
        for one in &mut self.services.lookups {
            one.sleeps = one.sleeps.saturating_sub(1);
        }
    }

    /// Lets everything have its reply that has one.
    pub(crate) fn deliver_all(&mut self) {
        // From the last one: those that hang stay.
        for number in (0..self.services.lookups.len() + self.services.tasks.len()).rev() {
            self.reply(u16::try_from(number).unwrap_or(0), false);
        }
        // Reads that were late without a reason return.
        let blocked = self.services.blocked.clone();
        for BlockedRead { process, identity, .. } in blocked {
            let hangs = self
                .find(process)
                .is_some_and(|one| one.identity == identity && one.hang.is_some());
            if !hangs {
                self.services.blocked.retain(|one| one.identity != identity);
                let pid = Pid::new(process);
                let readable = cgruled::policy::worker::WorkerReply::Readable;
                self.services.replies.extend(pid.map(readable));
            }
        }
    }

    /// The daemon begins to serve a request, and returns the process as it is then. What is born until
    /// it is granted, also by children that exit before, may be included, born before the pin, or after it.
    pub(crate) fn open_pin(&mut self, request: PinRequest) -> Option<Process> {
        let pid = self.process_of(request.pid?.get())?.pid;
        let process = self.find_mut(pid)?;
        let before = process.clone();
        process.excuses.may_be_pinned |= concerns_children(request, &before);
        process.excuses.was_pinned = true;
        Some(before)
    }

    /// The daemon served a request for the process `meant`, which was `open` at first.
    pub(crate) fn close_pin(
        &mut self,
        request: PinRequest,
        open: Option<&Process>,
        meant: u64,
        is_granted: bool,
    ) {
        if let Some(open) = open {
            let is_it = |one: &&mut Process| one.identity == open.identity;
            if let Some(process) = self.find_mut(open.pid).filter(is_it) {
                process.excuses.may_be_pinned = open.excuses.may_be_pinned;
                process.excuses.was_pinned = open.excuses.was_pinned || is_granted;
            }
        }
        // The ID of a thread stands for its process.
        let process = request.pid.and_then(|id| self.process_of(id.get()));
        let Some(pid) = process.map(|one| one.pid) else { return };
        let Some(process) = self.find_mut(pid) else { return };
        // If another process had the PID when the request was made or served, the pin is void when
        // the fork of this one is read. A move meanwhile may be later than the pin, and end it.
        let state = (process.identity, process.excuses.moves);
        let is_certain = process.identity == meant
            && open.is_some_and(|open| (open.identity, open.excuses.moves) == state);
        if !is_granted {
            return;
        }
        process.excuses.was_pinned = true;
        match request.action {
            PinAction::Stay { children } => {
                process.is_pinned = is_certain;
                process.pins_children = children && is_certain;
                process.is_pin_inherited = false;
                process.excuses.may_be_pinned = !is_certain;
            }
            PinAction::Cancel => {
                process.is_pinned = false;
                process.pins_children = false;
                self.counts.hit(Situation::Unpinned);
            }
        }
        self.journal
            .note(self.clock, || format!("    daemon grants {:?} for {pid}", request.action));
        // Another process that got the PID meanwhile may have inherited a pin of its children.
        let is_same = |open: &&Process| open.identity == state.0;
        let is_concerned = open.filter(is_same).is_none_or(|open| concerns_children(request, open));
        self.note_children(pid, is_concerned);
    }

    /// The pin of a process changed: its children born since the request may be included, and what those created.
    fn note_children(&mut self, parent: u32, is_concerned: bool) {
        // Init takes the children of a zombie.
        let identity = self.find(parent).map(|one| one.identity);
        let is_child = |one: &Process| one.parent == parent || Some(one.creators[0]) == identity;
        let children: Vec<u32> = self.living(is_child).collect();
        for child in &children {
            self.find_mut(*child).into_iter().for_each(|child| child.excuses.was_pinned = true);
        }
        let mut open = if is_concerned { children } else { Vec::new() };
        while let Some(pid) = open.pop() {
            let Some(process) = self.find_mut(pid).filter(|one| one.is_fork_unread) else {
                continue;
            };
            // Its fork is read after the pin ended, or began anew.
            (process.is_pinned, process.pins_children) = (false, false);
            process.excuses.may_be_pinned = true;
            let identity = process.identity;
            let created: Vec<u32> = self.living(|one| one.heir_of == identity).collect();
            open.extend(created);
        }
    }

    /// Returns the PIDs of the processes for which the condition holds.
    fn living(&self, holds: impl Fn(&Process) -> bool) -> impl Iterator<Item = u32> {
        self.pids.iter().copied().filter(move |&pid| self.find(pid).is_some_and(&holds))
    }

    /// The daemon lists the children of a process: after forks were lost it pins the living descendants
    /// of processes that pin their children. It cannot tell which are older than the pin.
    pub(crate) fn note_search(&mut self, parent: u32) {
        if !self.has_losses() || !self.find(parent).is_some_and(Process::may_pin_children) {
            return;
        }
        for pid in self.pids.clone() {
            if let Some(child) = self.find_mut(pid).filter(|one| one.parent == parent) {
                child.excuses.may_be_pinned = true;
            }
        }
        self.note_unread_children();
    }

    /// Children inherit what their creator may have when their forks are read.
    fn note_unread_children(&mut self) {
        loop {
            let is_new = |one: &&Process| {
                let may = |creator: &Process| creator.excuses.may_be_pinned;
                one.is_fork_unread
                    && !one.excuses.may_be_pinned
                    && self.by_identity(one.heir_of).is_some_and(may)
            };
            let found = self.pids.iter().filter_map(|&pid| self.find(pid)).find(is_new);
            let Some(pid) = found.map(|one| one.pid) else { return };
            if let Some(child) = self.find_mut(pid) {
                child.excuses.may_be_pinned = true;
            }
        }
    }
}

/// Checks whether the request begins or ends a pin of the children of the process.
fn concerns_children(request: PinRequest, before: &Process) -> bool {
    before.pins_children || request.action == PinAction::Stay { children: true }
}
