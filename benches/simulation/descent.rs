//! Programs that root runs in ancestors of processes, as the daemon must know them and as it may.

use cgruled::event::{EventKind, Task};

use super::machine::Machine;
use super::process::Process;
use super::programs::PROGRAMS;
use super::rules::TESTED;
use super::situations::Situation;

impl Machine {
    /// Returns the programs that a child of this process is below.
    pub(crate) fn below_for_children(&self, parent: u32) -> [bool; 2] {
        let Some(parent) = self.find(parent) else { return [false; 2] };
        let mut below = parent.was_below;
        if let Some(program) = parent.tested_program() {
            below[program] = true;
        }
        below
    }

    /// Returns the programs of which the daemon may take a child to be below. One that was created with CLONE_PARENT is
    /// born in the cgroup of its creator, which its fork does not name.
    pub(crate) fn may_be_below(&self, creator: u32, named_parent: u32) -> [bool; 2] {
        let (creator, parent) = (self.may_pass_on(creator), self.may_pass_on(named_parent));
        [creator[0] || parent[0], creator[1] || parent[1]]
    }

    /// Returns the programs that the daemon may take a process to pass on: until it has evaluated the last change, also
    /// those that it ran before.
    fn may_pass_on(&self, pid: u32) -> [bool; 2] {
        let Some(process) = self.find(pid) else { return [false; 2] };
        let mut may = process.may_be_below;
        if let Some(program) = process.tested_program() {
            may[program] = true;
        }
        let program = PROGRAMS[process.program];
        let is_plain = program.shares_mounts && !program.is_hidden && program.invoked.is_none();
        // Opened, but not evaluated until its executable is read or examined.
        let is_waiting = self.opened.is_some_and(|(opened, _)| opened == pid)
            || self.services.awaits_examination(pid);
        let is_known = !process.has_changed && !process.has_lost_change && !is_waiting;
        let is_evaluated = is_known && is_plain && process.hang.is_none();
        if !is_evaluated || process.has_leader_exited || !process.threads.is_empty() {
            may = [0, 1].map(|one| may[one] || process.has_run[one]);
        }
        may
    }

    /// A process executed a program, or changed its user: its living descendants may be below it.
    pub(crate) fn note_program(&mut self, process: u32) {
        let Some(program) = self.find(process).and_then(Process::tested_program) else { return };
        self.find_mut(process).into_iter().for_each(|own| own.has_run[program] = true);
        self.note_born_since_exec(process, program);
        let mut parents = vec![process];
        while let Some(parent) = parents.pop() {
            for pid in self.pids.clone() {
                let Some(child) = self.find_mut(pid).filter(|one| one.parent == parent) else {
                    continue;
                };
                child.may_be_below[program] = true;
                if !std::mem::replace(&mut child.was_below[program], true) {
                    parents.push(pid);
                }
            }
        }
    }

    /// A process that becomes root may count as such for its children since its last exec: if both are evaluated
    /// together, no event tells which user it had before.
    fn note_born_since_exec(&mut self, process: u32, program: usize) {
        let Some(own) = self.find(process) else { return };
        let (identity, executed_after) = (own.identity, own.executed_after);
        for pid in self.pids.clone() {
            let Some(child) = self.find_mut(pid) else { continue };
            child.may_be_below[program] |=
                child.identity > executed_after && child.creators.contains(&identity);
        }
    }

    /// The kernel dropped this event. If the process runs a tested program since, those that it created before may count
    /// as below it: also descendants of children that have exited.
    pub(crate) fn note_lost_change(&mut self, what: EventKind) {
        let (EventKind::Exec(process) | EventKind::Uid(Task { process, .. })) = what else {
            return;
        };
        let Some(own) = self.find_mut(process.get()) else { return };
        own.has_lost_change = true;
        let identity = own.identity;
        let Some(program) = own.tested_program() else { return };
        for pid in self.pids.clone() {
            if let Some(child) = self.find_mut(pid).filter(|one| one.identity > identity) {
                child.may_be_below[program] = true;
            }
        }
    }

    /// Returns the combinations of programs that the daemon may take a process to be below: certainly that of a living
    /// ancestor, perhaps one that an ancestor ran at any time, and no other.
    pub(crate) fn possible_ancestors(
        &mut self,
        process: &Process,
    ) -> impl Iterator<Item = [bool; 2]> + use<> {
        let certain = self.certain_ancestors(process);
        // A child that is born while its creator executes another program may count either way.
        let may = |one: usize| process.was_below[one] || process.may_be_below[one];
        let possible = [may(0), may(1)];
        if certain.contains(&true) {
            self.counts.hit(Situation::BelowProgram);
        } else if possible.contains(&true) {
            self.counts.hit(Situation::OrphanOfProgram);
        }
        let all = [[false, false], [false, true], [true, false], [true, true]];
        let fits = move |below: &[bool; 2]| {
            (0..TESTED.len())
                .all(|one| (below[one] || !certain[one]) && (!below[one] || possible[one]))
        };
        all.into_iter().filter(fits)
    }

    fn certain_ancestors(&self, process: &Process) -> [bool; 2] {
        let mut found = [false; 2];
        // What root runs cannot be read for a time.
        if self.services.blocked.iter().any(|one| one.uid == 0) {
            return found;
        }
        let mut parent = process.parent;
        while let Some(one) = self.find(parent).filter(|one| one.pid != 1) {
            let is_known = one.hang.is_none()
                && !one.has_leader_exited
                && !one.has_unknown_program
                && one.threads.is_empty();
            if let Some(program) = one.tested_program().filter(|_| is_known) {
                found[program] = true;
            }
            parent = one.parent;
        }
        found
    }
}
