//! What a step of a history does.

use cgruled::control::request::{PinAction, PinClient, PinRequest};
use cgruled::event::{Pid, Uid};
use nix::errno::Errno;

use super::calls::Fork;
use super::history::{Entry, Kind};
use super::machine::{Machine, Request};
use super::process::{ADMINISTRATOR, FIRST_PID, Process};
use super::programs::{ORDINARY, SHELL, SU};
use super::rules::{self, SETS};
use super::situations::Situation;

const UIDS: [u32; 8] = [1000, 1001, 1002, 1003, 2000, 0, 1000, 1001];
const GIDS: [u32; 8] = [500, 600, 601, 1000, 1001, 0, 500, 700];
/// Places of root, to which a process is moved.
const PLACES: [&str; 4] = ["/other", "/", "/other/deep", "/system.slice/some.service"];

const TEMPORARY: [Errno; 3] = [Errno::EAGAIN, Errno::ENOMEM, Errno::EINTR];
const LASTING: [Errno; 3] = [Errno::EBUSY, Errno::EPERM, Errno::EOPNOTSUPP];

/// Checks whether a refusal is tried again.
pub(crate) fn is_temporary(errno: Errno) -> bool {
    TEMPORARY.contains(&errno)
}

fn user_place(uid: u32, b: u16) -> String {
    let app = if b & 16 == 0 { "app.slice/x.scope" } else { "app.slice/y.service" };
    format!("/user.slice/user-{uid}.slice/user@{uid}.service/{app}")
}

fn can_exit(process: &Process) -> bool {
    process.pid >= FIRST_PID
        && process.is_linked
        && !process.is_zombie
        && !process.is_busy
        && process.vforked.is_none()
}

impl Machine {
    /// Carries out a step. It does nothing if no process can do it.
    pub(crate) fn step(&mut self, Entry { kind, a, b, .. }: Entry) {
        match kind {
            Kind::Reuse | Kind::ReuseByOrphan => self.reuse(kind, a, b),
            Kind::Fork
            | Kind::ForkSlowly
            | Kind::Vfork
            | Kind::CloneParent
            | Kind::CloneThread
            | Kind::CloneInto
            | Kind::Login
            | Kind::Daemonize
            | Kind::Storm => self.step_of_birth(kind, a, b),
            Kind::Exec
            | Kind::ExecSlowly
            | Kind::ExecOfThread
            | Kind::ExecSetuid
            | Kind::ExecHang
            | Kind::EndHang
            | Kind::SetUid
            | Kind::SetUidSlowly
            | Kind::SetGid
            | Kind::SetUidOfThread => self.step_of_change(kind, a, b),
            Kind::Exit
            | Kind::ExitOfLeader
            | Kind::ExitOfThread
            | Kind::Reap
            | Kind::MoveByRoot
            | Kind::MoveForUser => self.step_of_others(kind, a, b),
            Kind::Proceed
            | Kind::RemoveGroups
            | Kind::Refuse
            | Kind::RefuseGroup
            | Kind::Sleep
            | Kind::Reply
            | Kind::ReplyWrong
            | Kind::ReplyNever
            | Kind::ExamineBeforeExec
            | Kind::ReadLate
            | Kind::Rules
            | Kind::Kill
            | Kind::Pin
            | Kind::PinChildren
            | Kind::Unpin
            | Kind::CloseGroups
            | Kind::DaemonizeBeforeForks
            | Kind::Wait
            | Kind::Rest => self.step_of_machine(kind, a, b),
        }
    }

    fn step_of_birth(&mut self, kind: Kind, a: u16, b: u16) {
        let Some(creator) = self.pick(a, Process::can_act) else { return };
        let threads = self.find(creator).map_or(0, |one| one.threads.len());
        let thread = (threads > 0 && b & 2 != 0).then(|| usize::from(b >> 4) % threads);
        let how = Fork { thread, cpu: b, ..Fork::default() };
        match kind {
            Kind::ForkSlowly => drop(self.fork(creator, Fork { is_slow: true, ..how })),
            Kind::CloneParent => drop(self.fork(creator, Fork { keeps_parent: true, ..how })),
            Kind::CloneThread => self.clone_thread(creator),
            Kind::Vfork => {
                let child = self.fork(creator, how);
                if let Some(process) = self.find_mut(creator) {
                    process.vforked = child;
                }
            }
            Kind::CloneInto => {
                let uid = self.find(creator).map_or(0, |one| one.acting().0);
                let into = self.cgroups.make(0, &user_place(uid, b), uid);
                if uid != 0 {
                    self.counts.hit(Situation::BornElsewhere);
                    let child = self.fork(creator, Fork { into: Some(into), ..how });
                    let is_report = self.config.reports_only || !self.config.traces_moves;
                    if let Some(child) = child.and_then(|child| self.find_mut(child)) {
                        child.excuses.is_displaced |= is_report;
                    }
                }
            }
            Kind::Login => {
                // A process with one thread does nothing else until its system call has returned.
                if self.find(6).is_none_or(|one| one.is_busy) {
                    return;
                }
                let Some(child) = self.fork(6, Fork::default()) else { return };
                let uid = UIDS[usize::from(b) % 5];
                self.set_ids(child, (None, Some(uid)), None, false);
                self.set_ids(child, (Some(uid), None), None, false);
                if b & 8 != 0 {
                    self.exec(child, SHELL, None, false);
                }
            }
            Kind::Daemonize => {
                let Some(middle) = self.fork(creator, how) else { return };
                if b & 8 != 0 {
                    self.set_ids(middle, (Some(UIDS[usize::from(b >> 8) % 8]), None), None, false);
                }
                let _daemon = self.fork(middle, Fork::default());
                self.exit(middle);
                if b & 16 != 0 {
                    self.reap(middle);
                }
            }
            Kind::Storm => self.storm(creator, b),
            _ => drop(self.fork(creator, how)),
        }
    }

    /// A daemon with a UID of its own starts after the event socket was read and before the fork
    /// socket is: its fork is read before the event of its parent.
    pub(crate) fn daemonize_before_forks(&mut self) {
        if let Some((a, b)) = self.daemonizes.take() {
            self.step_of_birth(Kind::Daemonize, a, b | 8);
        }
    }

    /// The process that the daemon evaluates exits, and another one gets its PID, perhaps an orphan.
    fn reuse(&mut self, kind: Kind, a: u16, b: u16) {
        let Some((pid, _)) = self.opened else { return };
        if !self.find(pid).is_some_and(|one| can_exit(one) || one.is_zombie && !one.is_busy) {
            return;
        }
        let Some(mut creator) = self.pick(a, |one| one.can_act() && one.pid != pid) else { return };
        if kind == Kind::ReuseByOrphan {
            let Some(middle) = self.fork(creator, Fork::default()) else { return };
            creator = middle;
        }
        if self.find(pid).is_some_and(|one| !one.is_zombie) {
            self.exit(pid);
        }
        self.reap(pid);
        self.last_pid = pid - 1;
        let is_slow = kind == Kind::Reuse && b & 1 == 1;
        let _child = self.fork(creator, Fork { is_slow, cpu: b, ..Fork::default() });
        if kind == Kind::ReuseByOrphan {
            self.exit(creator);
            self.reap(creator);
        }
    }

    fn storm(&mut self, creator: u32, b: u16) {
        for _ in 0..10 + b % 64 {
            let Some(child) = self.fork(creator, Fork::default()) else { return };
            if b & 1024 != 0 {
                self.exec(child, usize::from(b) % ORDINARY, None, false);
            }
            if b & 2048 == 0 {
                self.exit(child);
                self.reap(child);
            }
        }
    }

    fn step_of_change(&mut self, kind: Kind, a: u16, b: u16) {
        if kind == Kind::EndHang {
            let Some(process) = self.pick(a, |one| one.hang.is_some()) else { return };
            let program = self.find(process).and_then(|one| one.hang).unwrap_or(0);
            self.unblock(process);
            return self.exec(process, program, None, false);
        }
        let has_threads = matches!(kind, Kind::ExecOfThread | Kind::SetUidOfThread);
        let is_meant = |one: &Process| one.can_act() && (!has_threads || !one.threads.is_empty());
        let Some(process) = self.pick(a, is_meant) else { return };
        let program = usize::from(b) % ORDINARY;
        let threads = self.find(process).map_or(1, |one| one.threads.len()).max(1);
        let thread = has_threads.then(|| usize::from(b >> 8) % threads);
        let is_slow = matches!(kind, Kind::ExecSlowly | Kind::SetUidSlowly);
        let uid = UIDS[usize::from(b) % 8];
        match kind {
            Kind::ExecSetuid => self.exec(process, SU, None, false),
            Kind::ExecHang => self.hang(process, program),
            Kind::SetGid => {
                self.set_ids(process, (None, Some(GIDS[usize::from(b) % 8])), None, false);
            }
            Kind::SetUid | Kind::SetUidSlowly | Kind::SetUidOfThread => {
                self.set_ids(process, (Some(uid), None), thread, is_slow);
            }
            _ => self.exec(process, program, thread, is_slow),
        }
    }

    fn step_of_others(&mut self, kind: Kind, a: u16, b: u16) {
        let can_be_moved = |one: &Process| {
            one.pid >= 6
                && one.pid != ADMINISTRATOR
                && !one.is_zombie
                && !one.is_kernel_thread
                && one.is_linked
        };
        match kind {
            Kind::Exit => {
                if let Some(process) = self.pick(a, can_exit) {
                    self.exit(process);
                }
            }
            Kind::ExitOfLeader => {
                if let Some(process) = self.pick(a, |one| one.can_act() && one.pid >= FIRST_PID) {
                    self.exit_leader(process);
                }
            }
            Kind::ExitOfThread => {
                let is_meant = |one: &Process| one.can_act() && one.pid >= FIRST_PID;
                if let Some(process) = self.pick(a, |one| is_meant(one) && !one.threads.is_empty())
                {
                    self.exit_thread(process, b.into());
                }
            }
            Kind::Reap => {
                if let Some(process) = self.pick(a, |one| one.is_zombie && !one.is_busy) {
                    self.reap(process);
                }
            }
            Kind::MoveByRoot => {
                let Some(process) = self.pick(a, can_be_moved) else { return };
                let hierarchy = usize::from(self.config.has_v1 && b & 128 != 0);
                let path = PLACES[usize::from(b) % 4];
                let path = if hierarchy == 1 { "/other" } else { path };
                self.move_by(ADMINISTRATOR, process, hierarchy, path, 0);
            }
            _ => {
                let Some(process) = self.pick(a, |one| can_be_moved(one) && one.acting().0 != 0)
                else {
                    return;
                };
                let uid = self.find(process).map_or(0, |one| one.acting().0);
                self.move_by(1, process, 0, &user_place(uid, b), uid);
            }
        }
    }

    fn step_of_machine(&mut self, kind: Kind, a: u16, b: u16) {
        match kind {
            Kind::Proceed => self.proceed(a),
            Kind::RemoveGroups => self.remove_groups(),
            Kind::Refuse => {
                let errno = if b & 4 == 0 { TEMPORARY } else { LASTING }[usize::from(b) % 3];
                self.refusals.push_back(errno);
            }
            Kind::RefuseGroup => {
                let paths: Vec<&str> =
                    SETS.iter().copied().flatten().filter_map(|rule| rule.to).collect();
                let path = paths[usize::from(a) % paths.len()].replace("%U", "1000");
                let errno = LASTING[usize::from(b) % 3];
                let path = format!("/{}", path.replace("%u", "anna"));
                self.refused_group = (b & 8 != 0).then_some((path, errno));
            }
            Kind::Sleep => self.sleep = 8_000_000,
            Kind::Reply => self.reply(a, false),
            Kind::ReplyWrong => self.reply(a, true),
            Kind::ReplyNever => {
                if let Some(one) = self.services.lookups.iter_mut().find(|one| !one.is_running) {
                    one.sleeps = 2;
                    self.counts.hit(Situation::NoReply);
                }
            }
            Kind::ExamineBeforeExec => self.examine_before_exec(a, b),
            Kind::ReadLate => self.late_reads += 1,
            Kind::Rules => {
                self.files = rules::chosen(b);
                self.requests.push_back(Request::Signal);
                if !self.services.lookups.is_empty() {
                    self.counts.hit(Situation::ReloadWhileLookup);
                }
                let files = self.files;
                self.journal
                    .note(self.clock, || format!("rule set {files} is written, and SIGHUP sent"));
            }
            Kind::Kill => {
                if self.is_running {
                    self.is_killed = true;
                    self.journal.note(self.clock, || "the daemon is killed".to_owned());
                }
            }
            Kind::Pin | Kind::PinChildren | Kind::Unpin => self.request_pin(kind, a, b),
            Kind::CloseGroups => self.closes_groups = true,
            Kind::DaemonizeBeforeForks => self.daemonizes = Some((a, b)),
            Kind::Wait => self.clock += u64::from(a) * 100,
            _ => self.wants_rest = true,
        }
    }

    fn remove_groups(&mut self) {
        for hierarchy in 0..self.hierarchies.len() {
            let used: Vec<usize> = self
                .pids
                .iter()
                .filter_map(|&pid| self.find(pid))
                .filter(|one| !one.is_zombie)
                .map(|one| one.groups[hierarchy])
                .collect();
            // A fork under way has a cgroup too.
            let flights: Vec<usize> = self
                .flights
                .iter()
                .filter_map(|flight| match flight {
                    super::machine::Flight::Fork { groups, .. } => Some(groups[hierarchy]),
                    super::machine::Flight::Event { .. } => None,
                })
                .collect();
            self.cgroups.remove_unused(hierarchy, |index| {
                used.contains(&index) || flights.contains(&index)
            });
        }
    }

    fn request_pin(&mut self, kind: Kind, a: u16, b: u16) {
        let is_meant = |one: &Process| {
            one.can_act() && one.pid >= FIRST_PID && (kind != Kind::Unpin || one.is_pinned)
        };
        let Some(process) = self.pick(a, is_meant) else { return };
        let Some(own) = self.find(process) else { return };
        let (uid, identity) = (own.acting().0, own.identity);
        let client = if b & 1 == 0 {
            PinClient { uid: Uid(0), process: ADMINISTRATOR }
        } else {
            PinClient { uid: Uid(uid), process }
        };
        let action = match kind {
            Kind::Pin => PinAction::Stay { children: false },
            Kind::PinChildren => PinAction::Stay { children: true },
            _ => PinAction::Cancel,
        };
        let request = PinRequest { pid: Pid::new(process), action };
        self.requests.push_back(Request::Pin(request, client, identity));
    }
}
