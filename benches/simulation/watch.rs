//! What the daemon does to the machine, and the checks that need not wait for rest.

use cgruled::cgroup::tree::AttachResult;
use cgruled::event::{Event, EventKind};
use cgruled::policy::worker::WorkerReply;
use nix::errno::Errno;

use super::machine::Machine;
use super::process::{OWN, Process};
use super::services::Key;
use super::situations::Situation;
use super::steps::is_temporary;

impl Machine {
    /// The engine opened a process, which begins an evaluation.
    pub(crate) fn note_opened(&mut self, pid: u32) {
        let (is_report, is_planning) = (self.config.reports_only, self.is_planning);
        let Some(process) = self.find_mut(pid) else { return };
        process.has_changed &= process.unread_change.is_some();
        process.has_unknown_program &= is_planning;
        if process.is_fork_unread && process.excuses.may_count_move {
            process.excuses.count_earlier_move(is_report);
        }
        let opened = (pid, process.identity);
        let (is_zombie, is_kernel) = (process.is_zombie, process.is_kernel_thread);
        let (is_pinned, uid) = (process.is_pinned, process.acting());
        let is_unknown = process.is_fork_unread;
        self.opened = Some(opened);
        self.is_opened_early = is_unknown;
        if is_zombie {
            self.counts.hit(Situation::ZombieEvaluated);
        }
        if is_kernel {
            self.counts.hit(Situation::KernelThread);
        }
        if is_pinned {
            self.counts.hit(Situation::PinnedEvaluated);
        }
        self.journal
            .note(self.clock, || format!("    daemon opens {pid} (uid {}, gid {})", uid.0, uid.1));
    }

    /// Carries out a write to `cgroup.procs` of the daemon.
    pub(crate) fn attach(
        &mut self,
        pid: u32,
        hierarchy: usize,
        group: usize,
        path: &str,
    ) -> Result<(), Errno> {
        if self.land_forks() > 0 {
            self.counts.hit(Situation::ForkFinishedByAttach);
        }
        self.check_write(pid, path);
        let refused = self.refused_group.clone().filter(|(meant, _)| meant == path);
        let refusal = self.refusals.pop_front().or(refused.map(|(_, errno)| errno));
        if !self.cgroups.get(group).exists {
            return Err(Errno::ENODEV);
        }
        let Some(process) = self.process_of(pid).map(|one| one.pid) else {
            self.journal.note(self.clock, || format!("    daemon: {pid} is gone"));
            return Err(Errno::ESRCH);
        };
        if let Some(errno) = refusal {
            self.counts.hit(if is_temporary(errno) {
                Situation::AttachRefused
            } else {
                Situation::AttachRefusedForGood
            });
            self.journal.note(self.clock, || format!("    daemon: {errno} for {pid} into {path}"));
            return Err(errno);
        }
        self.journal.note(self.clock, || format!("    daemon moves {pid} to {path}"));
        let opened = self.opened;
        let Some(own) = self.find_mut(process) else { return Ok(()) };
        if own.is_zombie {
            return Ok(());
        }
        let is_mistake = opened.is_none_or(|(_, identity)| identity != own.identity);
        if is_mistake && own.mistaken.is_none() {
            own.mistaken = Some(own.groups);
        } else if !is_mistake {
            own.mistaken = None;
        }
        own.groups[hierarchy] = group;
        if is_mistake {
            self.counts.hit(Situation::ReusedBetweenOpenAndWrite);
        }
        Ok(())
    }

    fn check_write(&mut self, pid: u32, path: &str) {
        let set = self.active.set;
        if pid == 0 || pid == OWN {
            return self.violate(format!("the daemon moves PID {pid} to {path}"));
        }
        if !path.starts_with(&format!("/r{set}/")) {
            return self.violate(format!("{path} is not of the active rule set {set}"));
        }
        let Some(process) = self.find(pid) else { return };
        let is_meant = self.opened.is_some_and(|(_, identity)| identity == process.identity);
        // The daemon may not know of a pin that was inherited by a fork that was lost.
        let is_certain = !process.is_pin_inherited || !self.has_losses() && !self.is_opened_early;
        if process.is_kernel_thread || pid == 1 {
            self.violate(format!("the daemon moves PID {pid}, which is protected, to {path}"));
        } else if is_meant && process.is_pinned && is_certain {
            self.violate(format!("the daemon moves the pinned process {pid} to {path}"));
        }
    }

    /// Records the result of an attach, for the excuses of the process.
    pub(crate) fn note_attached(&mut self, pid: u32, result: &AttachResult) {
        if matches!(result, AttachResult::Moved) {
            self.tally.moved += 1;
        }
        let opened = self.opened;
        let Some(process) = self.find_mut(pid) else { return };
        if opened.is_none_or(|(_, identity)| identity != process.identity) {
            return;
        }
        let identity = process.identity;
        if matches!(result, AttachResult::Moved) && process.excuses.is_retried {
            self.expect_children_of(identity);
        }
        let (clock, is_report) = (self.clock, self.config.reports_only);
        if let AttachResult::Refused(refusal) = result {
            self.excuse_newborn(identity, is_temporary(refusal.errno));
        }
        let Some(process) = self.find_mut(pid) else { return };
        if matches!(result, AttachResult::Moved) {
            process.placed_at = clock;
        }
        let is_fork_unread = process.is_fork_unread;
        let excuses = &mut process.excuses;
        match result {
            AttachResult::Refused(refusal) => {
                (excuses.is_refused, excuses.is_refusal_own) = (true, true);
                excuses.is_retried = is_temporary(refusal.errno);
            }
            AttachResult::Moved => {
                (excuses.is_refused, excuses.is_retried) = (false, false);
                // It inherits a pin when its fork is read.
                excuses.was_pinned &= is_fork_unread;
                excuses.may_be_pinned &= is_fork_unread;
                excuses.is_displaced &= is_report;
            }
            AttachResult::InPlace | AttachResult::Gone => {}
        }
    }

    /// A move that was refused before has succeeded: children born in between have no excuse now.
    fn expect_children_of(&mut self, creator: u64) {
        for pid in self.pids.clone() {
            if let Some(child) = self
                .find_mut(pid)
                .filter(|one| one.creators[0] == creator && !one.excuses.is_refusal_own)
            {
                (child.excuses.is_refused, child.excuses.is_retried) = (false, false);
            }
        }
    }

    /// A move was refused: children born since the write, or after an earlier refusal, are where their creator stays.
    fn excuse_newborn(&mut self, creator: u64, is_temporary: bool) {
        for pid in self.pids.clone() {
            let child = self.find_mut(pid).filter(|one| one.creators[0] == creator);
            let has_refusal = |one: &Process| one.excuses.is_refused && !one.excuses.is_refusal_own;
            if let Some(child) = child.filter(|one| one.is_fork_unread || has_refusal(one)) {
                (child.excuses.is_refused, child.excuses.is_retried) = (true, is_temporary);
            }
        }
    }

    /// The daemon moves a process back that it moved by mistake.
    pub(crate) fn move_home(&mut self, pid: u32, hierarchy: usize, group: usize) {
        self.journal.note(self.clock, || format!("    daemon moves {pid} back"));
        let Some(process) = self.find_mut(pid).filter(|one| !one.is_zombie) else { return };
        process.groups[hierarchy] = group;
        self.note_home(pid, hierarchy);
    }

    /// The daemon leaves a process there that it moved by mistake.
    pub(crate) fn note_home(&mut self, pid: u32, hierarchy: usize) {
        let Some(group) = self.find(pid).map(|one| one.groups[hierarchy]) else { return };
        // Where its parent or creator is, although that may have been moved since.
        let is_birth = self.find(pid).is_some_and(|one| {
            let origins = [self.find(one.parent), self.by_identity(one.creators[0])];
            origins.into_iter().flatten().any(|origin| origin.groups[hierarchy] == group)
        });
        let mistaken = self.find_mut(pid).and_then(|one| one.mistaken.as_mut());
        if let Some(before) = mistaken.filter(|_| is_birth) {
            before[hierarchy] = group;
        }
    }

    /// The daemon read these events.
    pub(crate) fn delivered(&mut self, chunk: &[Event]) {
        for event in chunk {
            match event.what {
                EventKind::Fork { parent, child } => {
                    self.tally.forks += 1;
                    self.fork_delivered(parent.get(), child.get(), event.at.0);
                    self.journal.note(self.clock, || {
                        format!("    daemon reads the fork of {child} by {parent}")
                    });
                }
                EventKind::Exec(pid) => {
                    self.tally.events += 1;
                    self.note_read(pid.get(), event.at.0);
                    self.journal.note(self.clock, || format!("    daemon reads the exec of {pid}"));
                }
                EventKind::Uid(task) | EventKind::Gid(task) => {
                    self.tally.events += 1;
                    let pid = task.process;
                    self.note_read(pid.get(), event.at.0);
                    self.journal
                        .note(self.clock, || format!("    daemon reads the set*id of {pid}"));
                }
            }
        }
    }

    fn fork_delivered(&mut self, parent: u32, child: u32, at: u64) {
        let is_ambiguous =
            self.has_losses() && self.find(parent).is_some_and(Process::may_pin_children);
        let Some(process) = self.find_mut(child) else { return };
        if process.forked_at == at {
            process.is_fork_unread = false;
            process.excuses.may_count_move = false;
        } else if process.is_fork_unread {
            // An earlier process with the PID inherited a pin. If the fork of this one is lost, nothing ends it.
            process.excuses.may_be_pinned |= is_ambiguous;
        }
    }

    /// The daemon requests a lookup for this generation.
    pub(crate) fn ask(&mut self, key: Key, generation: u64) {
        // A plan asks for its own rules.
        let of_plan = self.policies.iter().find(|one| one.0 == generation).map(|one| one.1);
        let set = of_plan.unwrap_or(self.active.set);
        self.journal.note(self.clock, || format!("    daemon asks for {key:?}"));
        self.services.ask(key, generation, set);
    }

    /// The daemon takes a reply.
    pub(crate) fn note_reply(&mut self, reply: &WorkerReply) {
        match reply {
            // Sent by the thread for missing names, which is not simulated.
            WorkerReply::NamesAppeared => {}
            WorkerReply::Policy(policy) => {
                self.journal.note(self.clock, || {
                    format!("    daemon activates policy {}", policy.generation)
                });
                self.tally.policies += 1;
                self.counts.hit(Situation::ReloadInTurn);
                let users = policy.users.values().map(|user| user.identity.clone()).collect();
                self.activate(policy.generation, users);
            }
            WorkerReply::User { generation, user } => {
                self.services.note(Key::User(user.identity.uid.0));
                if *generation != self.active.generation {
                    return self.counts.hit(Situation::StaleReply);
                }
                let uid = user.identity.uid;
                self.active.believed.retain(|one| one.uid != uid);
                self.active.believed.push(user.identity.clone());
                self.journal.note(self.clock, || format!("    daemon is told who {uid} is"));
            }
            WorkerReply::Group { generation, gid, name } => {
                self.services.note(Key::Group(gid.0));
                if *generation == self.active.generation {
                    let name = name.as_deref().map(str::to_owned);
                    self.active.named_groups.retain(|one| one.0 != gid.0);
                    self.active.named_groups.push((gid.0, name));
                }
            }
            WorkerReply::Planned(_)
            | WorkerReply::Examined { .. }
            | WorkerReply::Container { .. }
            | WorkerReply::Readable(_)
            | WorkerReply::Manager(_) => {}
        }
    }
}
