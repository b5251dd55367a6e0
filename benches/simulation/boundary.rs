//! The boundary of the engine: the simulated machine as a [`Kernel`].

use std::cell::{RefCell, RefMut};
use std::io;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;

use cgruled::cgroup::config::{GroupConfigs, PathConfig};
use cgruled::cgroup::mounts::{Hierarchies, HierarchySet, Version};
use cgruled::cgroup::tree::{AttachResult, CgroupError, CgroupOperation, CurrentCgroup, GroupId};
use cgruled::engine::kernel::Kernel;
use cgruled::event::{Event, Gid, Nanos, Pid, Uid};
use cgruled::kernel::connector::{ConnectorError, Drained, Losses};
use cgruled::kernel::container::Containment;
use cgruled::kernel::exe_pool::Examination;
use cgruled::kernel::moves::TracedMove;
use cgruled::kernel::process::{ProcessHandle, ProcessRef, ProcessStatus};
use cgruled::kernel::user_manager::{LookupReply, ManagerProcesses};
use cgruled::policy::Policy;
use cgruled::policy::planned::PlanRequest;
use cgruled::policy::worker::WorkerReply;
use cgruled::rules::container::ContainerKey;
use nix::errno::Errno;

use super::machine::{HIERARCHY_IDS, Machine};
use super::process::{OWN, Process};
use super::programs::PROGRAMS;
use super::services::{Key, Task};
use super::situations::Situation;

/// The daemon was killed in a call: the payload that unwinds its stack.
pub(crate) struct Killed;

/// Datagrams of one read: few at first, then many.
const FEW: usize = 4;
const MANY: usize = 32;
/// Events of a drain that is cut short.
const CUT: usize = 8;
/// Attempts to create a cgroup that is removed.
const ATTEMPTS: usize = 16;

/// An open cgroup: its path, and its index in each hierarchy.
struct OpenGroup {
    span: HierarchySet,
    path: String,
    creates: bool,
    leaves: Vec<(usize, usize)>,
}

/// What the engine has of the machine.
pub(crate) struct SimKernel {
    pub(crate) machine: Rc<RefCell<Machine>>,
    hierarchies: Rc<Hierarchies>,
    groups: Vec<OpenGroup>,
    text: Vec<u8>,
    dropped: u64,
}

impl SimKernel {
    pub(crate) fn new(machine: &Rc<RefCell<Machine>>) -> Self {
        let (hierarchies, dropped) = {
            let machine = machine.borrow();
            // What was dropped before belongs to the sockets of a daemon that is dead.
            let dropped = machine.event_socket.dropped + machine.fork_socket.dropped;
            (Rc::clone(&machine.hierarchies), dropped)
        };
        let machine = Rc::clone(machine);
        Self { machine, hierarchies, groups: Vec::new(), text: Vec::new(), dropped }
    }

    /// Lets others run before a call that takes this long.
    fn call(&self, ns: u64) -> RefMut<'_, Machine> {
        let mut machine = self.machine.borrow_mut();
        machine.pass(ns);
        if machine.is_killed || machine.violation.is_some() {
            let in_attach = machine.in_attach;
            if machine.is_killed {
                machine.counts.hit(Situation::KilledInTurn);
                if in_attach {
                    machine.counts.hit(Situation::KilledInAttach);
                }
            }
            drop(machine);
            resume_unwind(Box::new(Killed));
        }
        machine
    }

    fn is_in(
        &self,
        machine: &Machine,
        leaf: (usize, usize),
        path: &str,
        now: CurrentCgroup<'_>,
    ) -> bool {
        let (hierarchy, group) = leaf;
        let tree = &self.hierarchies[hierarchy];
        if let (Version::V2, Some(inode)) = (tree.version, now.unified) {
            return inode == inode_of(group);
        }
        let _ = machine;
        now.text.is_some_and(|text| tree.holds(path, text))
    }

    /// Opens a cgroup in one hierarchy.
    fn open_leaf(&self, hierarchy: usize, path: &str, creates: bool) -> Result<usize, CgroupError> {
        let mut machine = self.call(20_000);
        match machine.cgroups.find(hierarchy, path) {
            Some(found) => Ok(found),
            None if creates => Ok(machine.cgroups.make(hierarchy, path, 0)),
            None => Err(refusal(path, CgroupOperation::Open, Errno::ENOENT)),
        }
    }

    fn write(&mut self, id: GroupId, index: usize, pid: Pid) -> Result<(), CgroupError> {
        let path = self.groups[id.0].path.clone();
        for _ in 0..ATTEMPTS {
            let leaf = self.groups[id.0].leaves[index];
            match self.write_once(leaf, &path, pid) {
                Err(Errno::ENODEV) => {
                    self.call(0).counts.hit(Situation::GroupRemoved);
                    let creates = self.groups[id.0].creates;
                    let opened = self.open_leaf(leaf.0, &path, creates)?;
                    self.groups[id.0].leaves[index] = (leaf.0, opened);
                }
                Err(errno) => return Err(refusal(&path, CgroupOperation::Write, errno)),
                Ok(()) => return Ok(()),
            }
        }
        Err(refusal(&path, CgroupOperation::Write, Errno::ENODEV))
    }

    /// Writes a PID to `cgroup.procs`: others run before the lock is taken, and forks under way end.
    fn write_once(
        &self,
        (hierarchy, group): (usize, usize),
        path: &str,
        pid: Pid,
    ) -> Result<(), Errno> {
        self.machine.borrow_mut().in_attach = true;
        {
            let mut machine = self.call(6_000);
            let sleep = std::mem::take(&mut machine.sleep);
            if sleep > 0 {
                machine.counts.hit(Situation::AttachSleeps);
                drop(machine);
                for _ in 0..8 {
                    drop(self.call(sleep / 8));
                }
            }
        }
        let mut machine = self.call(1_000);
        let result = machine.attach(pid.get(), hierarchy, group, path);
        drop(machine);
        drop(self.call(2_000));
        self.machine.borrow_mut().in_attach = false;
        result
    }
}

fn refusal(path: &str, step: CgroupOperation, errno: Errno) -> CgroupError {
    CgroupError { path: path.into(), step, errno }
}

pub(crate) const fn inode_of(group: usize) -> u64 {
    group as u64 + 1000
}

fn handle(machine: &Machine, process: &Process) -> ProcessHandle {
    let group = if process.is_linked { process.groups[0] } else { 0 };
    ProcessHandle {
        uid: Uid(process.uid),
        gid: Gid(process.gid),
        unified: machine.config.tells_group.then(|| inode_of(group)),
        reference: Some(ProcessRef::Started(process.identity)),
        thread: None,
    }
}

const fn identity_in(reference: &ProcessRef) -> Option<u64> {
    match reference {
        ProcessRef::Started(identity) => Some(*identity),
        ProcessRef::Pidfd(_) => None,
    }
}

impl Kernel for SimKernel {
    fn now(&self) -> Nanos {
        Nanos(self.call(100).clock)
    }

    fn own_pid(&self) -> u32 {
        OWN
    }

    fn runs_systemd(&self) -> bool {
        self.machine.borrow().config.runs_systemd
    }

    fn drain_events(&mut self, bound: usize, mut take: impl FnMut(Event)) -> io::Result<Drained> {
        self.drain(bound, false, &mut take)
    }

    fn drain_forks(&mut self, bound: usize, mut take: impl FnMut(Event)) -> io::Result<Drained> {
        self.drain(bound, true, &mut take)
    }

    fn event_backlog(&self) -> io::Result<usize> {
        Ok(self.call(500).event_socket.queue.len() * 3 / 2 + 1)
    }

    fn take_losses(&mut self) -> io::Result<Losses> {
        let dropped = {
            let machine = self.call(500);
            machine.event_socket.dropped + machine.fork_socket.dropped
        };
        let lost = dropped - std::mem::replace(&mut self.dropped, dropped);
        let machine = &mut *self.machine.borrow_mut();
        machine.journal.note(machine.clock, || format!("    daemon asks for losses: {lost}"));
        Ok(Losses { lost, refused: 0 })
    }

    fn resubscribe(&mut self) -> Result<(), ConnectorError> {
        let mut machine = self.call(1_000_000);
        machine.event_socket.queue.clear();
        machine.fork_socket.queue.clear();
        machine.has_resubscribed = true;
        Ok(())
    }

    fn traces_moves(&self) -> bool {
        self.machine.borrow().config.traces_moves
    }

    fn read_moves(&mut self, mut take: impl FnMut(TracedMove)) -> io::Result<u64> {
        let mut machine = self.call(3_000);
        let moves = std::mem::take(&mut machine.trace);
        let lost = std::mem::take(&mut machine.lost_moves);
        drop(machine);
        moves.into_iter().for_each(&mut take);
        Ok(lost)
    }

    fn processes(&mut self, mut take: impl FnMut(Pid)) -> io::Result<()> {
        let mut last = 0;
        {
            let mut machine = self.call(1_000);
            let clock = machine.clock;
            machine.scanned_at = clock;
            machine.is_scanning = true;
            machine.journal.note(clock, || "    daemon begins a scan".to_owned());
        }
        loop {
            let machine = self.call(700);
            let next = machine.pids.iter().copied().find(|&pid| pid > last);
            drop(machine);
            let Some(next) = next else { break };
            last = next;
            Pid::new(next).into_iter().for_each(&mut take);
        }
        Ok(())
    }

    fn open_process(&mut self, pid: Pid) -> Option<ProcessHandle> {
        let mut machine = self.call(1_500);
        machine.opened = None;
        let process = machine.find(pid.get())?;
        let handle = handle(&machine, process);
        machine.note_opened(pid.get());
        Some(handle)
    }

    fn stand_in(&mut self, pid: Pid, handle: ProcessHandle) -> Option<ProcessHandle> {
        let machine = self.call(4_000);
        let thread = *machine.find(pid.get())?.threads.first()?;
        Some(ProcessHandle {
            uid: Uid(thread.uid),
            gid: Gid(thread.gid),
            unified: None,
            thread: Pid::new(thread.id),
            ..handle
        })
    }

    fn has_exited(&self, handle: &ProcessHandle) -> bool {
        let machine = self.call(300);
        let identity = handle.reference.as_ref().and_then(identity_in);
        identity.is_some_and(|id| machine.by_identity(id).is_none_or(|one| one.is_zombie))
    }

    fn is_same(&mut self, pid: Pid, process: &ProcessRef) -> bool {
        let identity = identity_in(process);
        self.call(300).find(pid.get()).is_some_and(|one| Some(one.identity) == identity)
    }

    fn exists(&self, pid: Pid) -> bool {
        self.call(2_000).process_of(pid.get()).is_some()
    }

    fn identity(&mut self, pid: Pid) -> Option<u64> {
        self.call(500).find(pid.get()).map(|one| one.identity)
    }

    fn identity_of(&mut self, _: Pid, handle: &ProcessHandle) -> Option<u64> {
        handle.reference.as_ref().and_then(identity_in)
    }

    fn status(&mut self, pid: Pid) -> Option<ProcessStatus> {
        let machine = self.call(4_000);
        let process = machine.process_of(pid.get())?;
        let thread = process.threads.iter().find(|one| one.id == pid.get());
        let (uid, gid) = thread.map_or((process.uid, process.gid), |one| (one.uid, one.gid));
        let real = if thread.is_none() { process.real } else { uid };
        Some(ProcessStatus {
            process: Pid::new(process.pid)?,
            parent: Pid::new(process.parent),
            real: Uid(real),
            effective: Uid(uid),
            real_group: Gid(gid),
            is_kernel_thread: process.is_kernel_thread,
            has_exited: thread.is_none() && process.has_leader_exited,
            inner_pid: None,
        })
    }

    fn thread_ids(&self, pid: Pid, thread: Pid) -> Option<(Uid, Gid)> {
        let machine = self.call(2_000);
        let process = machine.find(pid.get())?;
        if thread == pid {
            return Some((Uid(process.uid), Gid(process.gid)));
        }
        let one = process.threads.iter().find(|one| one.id == thread.get())?;
        Some((Uid(one.uid), Gid(one.gid)))
    }

    fn thread_count(&self, pid: Pid) -> u64 {
        self.call(2_000).find(pid.get()).map_or(0, |one| 1 + one.threads.len() as u64)
    }

    fn has_thread_of_others(&self, pid: Pid, (uid, gid): (Uid, Gid)) -> bool {
        self.call(5_000).find(pid.get()).is_some_and(|process| {
            (process.uid, process.gid) != (uid.0, gid.0)
                || process.threads.iter().any(|one| (one.uid, one.gid) != (uid.0, gid.0))
        })
    }

    fn has_leader_exited(&mut self, pid: Pid) -> bool {
        let mut machine = self.call(4_000);
        let is_so = machine
            .find(pid.get())
            .is_some_and(|process| process.has_leader_exited && !process.threads.is_empty());
        if is_so {
            machine.counts.hit(Situation::LeaderExitedEvaluated);
        }
        is_so
    }

    fn children(&mut self, pid: Pid, take: impl FnMut(Pid)) {
        let mut machine = self.call(5_000);
        machine.note_search(pid.get());
        let is_child = |one: &u32| machine.find(*one).is_some_and(|one| one.parent == pid.get());
        let children: Vec<u32> = machine.pids.iter().copied().filter(is_child).collect();
        drop(machine);
        children.into_iter().filter_map(Pid::new).for_each(take);
    }

    fn comm(&mut self, pid: Pid) -> Option<&[u8]> {
        let program = self.call(2_000).process_of(pid.get())?.program;
        Some(PROGRAMS[program].comm.as_bytes())
    }

    fn cgroup(&mut self, pid: Pid, _: Option<Pid>) -> Option<&[u8]> {
        let mut text = std::mem::take(&mut self.text);
        let mut machine = self.call(4_000);
        let process = machine.find(pid.get())?;
        let is_linked = process.is_linked;
        machine.cgroup_text(process, &mut text);
        if !is_linked {
            machine.counts.hit(Situation::ForkUnlinkedRead);
        }
        drop(machine);
        self.text = text;
        Some(&self.text)
    }

    fn login(&mut self, _: Pid) -> Option<Uid> {
        None
    }

    fn is_real_time(&self, _: Pid) -> bool {
        false
    }

    fn is_in_namespace_of_root(&mut self, _: Pid) -> bool {
        false
    }

    fn containment(&self, _: &ProcessHandle) -> Option<Containment> {
        self.call(300).config.tells_containment.then_some(Containment::Host)
    }

    fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    fn adopt_configs(&mut self, _: &Arc<GroupConfigs>, _: &str) {
        self.groups.clear();
    }

    fn known_group(&self, span: HierarchySet, path: &str) -> Option<GroupId> {
        let known = |group: &OpenGroup| group.span == span && group.path == path;
        self.groups.iter().position(known).map(GroupId)
    }

    fn group(
        &mut self,
        _: Pid,
        (span, path): (HierarchySet, &str),
        creates: bool,
        config: impl FnOnce() -> Option<Arc<PathConfig>>,
    ) -> Result<GroupId, CgroupError> {
        if let Some(known) = self.known_group(span, path) {
            return Ok(known);
        }
        let _ = config();
        if std::mem::take(&mut self.call(1_000).closes_groups) {
            self.groups.clear();
        }
        let leaves: Result<Vec<(usize, usize)>, CgroupError> = span
            .indexes()
            .map(|hierarchy| Ok((hierarchy, self.open_leaf(hierarchy, path, creates)?)))
            .collect();
        let (path, leaves) = (path.to_owned(), leaves?);
        self.groups.push(OpenGroup { span, path, creates, leaves });
        Ok(GroupId(self.groups.len() - 1))
    }

    fn holds(&self, group: GroupId, now: CurrentCgroup<'_>) -> bool {
        let machine = self.machine.borrow();
        self.groups.get(group.0).is_some_and(|group| {
            group.leaves.iter().all(|&leaf| self.is_in(&machine, leaf, &group.path, now))
        })
    }

    fn attach(&mut self, group: GroupId, pid: Pid, now: CurrentCgroup<'_>) -> AttachResult {
        let Some(open) = self.groups.get(group.0) else { return AttachResult::InPlace };
        let count = open.leaves.len();
        if count > 1 {
            self.call(0).counts.hit(Situation::TwoHierarchies);
        }
        let mut outcome = AttachResult::InPlace;
        for index in 0..count {
            let open = &self.groups[group.0];
            let is_in = {
                let machine = self.machine.borrow();
                self.is_in(&machine, open.leaves[index], &open.path, now)
            };
            if is_in {
                continue;
            }
            match self.write(group, index, pid) {
                Ok(()) if outcome == AttachResult::InPlace => outcome = AttachResult::Moved,
                Ok(()) => {}
                Err(refusal) if refusal.errno == Errno::ESRCH => return AttachResult::Gone,
                Err(refusal) => outcome = AttachResult::Refused(refusal),
            }
        }
        self.call(0).note_attached(pid.get(), &outcome);
        outcome
    }

    fn move_back(
        &mut self,
        group: GroupId,
        pid: Pid,
        now: &[u8],
        home: &[u8],
    ) -> Result<(), CgroupError> {
        let Some(open) = self.groups.get(group.0) else { return Ok(()) };
        let path = open.path.clone();
        for leaf in open.leaves.clone() {
            let tree = &self.hierarchies[leaf.0];
            if !tree.holds(&path, now) {
                continue;
            }
            if tree.holds(&path, home) {
                self.machine.borrow_mut().note_home(pid.get(), leaf.0);
                continue;
            }
            let Some(place) = tree.place(home) else { continue };
            let place = String::from_utf8_lossy(place).into_owned();
            let place = if place.is_empty() { "/".to_owned() } else { place };
            let mut machine = self.call(6_000);
            machine.land_forks();
            let Some(to) = machine.cgroups.find(leaf.0, &place) else {
                return Err(refusal(&place, CgroupOperation::Open, Errno::ENOENT));
            };
            machine.move_home(pid.get(), leaf.0, to);
        }
        Ok(())
    }

    fn placed(&mut self, _: Nanos) {}

    /// Without effect: the engine must be right with more events than it needs.
    fn accept_gid_events(&mut self, _: bool) {}

    fn group_owner(&self, hierarchy: usize, path: &[u8]) -> Option<Uid> {
        let machine = self.call(3_000);
        let path = std::str::from_utf8(path).ok()?;
        match machine.cgroups.find(hierarchy, path) {
            Some(group) => Some(Uid(machine.cgroups.get(group).owner)),
            // Those above a cgroup exist, too.
            None => machine.cgroups.has_below(hierarchy, path).then_some(Uid(0)),
        }
    }

    fn group_id(&self, hierarchy: usize, path: &[u8]) -> Option<u64> {
        let machine = self.call(3_000);
        machine.cgroups.find(hierarchy, std::str::from_utf8(path).ok()?).map(inode_of)
    }

    fn has_groups_of_systemd(&self) -> bool {
        false
    }

    fn is_group_writable(&self, hierarchy: usize, path: &[u8]) -> bool {
        self.group_owner(hierarchy, path).is_some_and(|owner| owner != Uid(0))
    }

    fn is_alone(&self, path: &str, pid: Pid, leaves: impl Fn(Pid) -> bool) -> bool {
        let machine = self.call(5_000);
        let Some(group) = machine.cgroups.find(0, path) else { return false };
        let is_in = |one: &u32| {
            machine.find(*one).is_some_and(|one| one.groups[0] == group && !one.is_zombie)
        };
        let leaves = |one: &u32| Pid::new(*one).is_some_and(&leaves);
        machine.pids.iter().filter(|one| is_in(one) && !leaves(one)).eq([&pid.get()])
    }

    fn replies(&mut self) -> Vec<WorkerReply> {
        let mut machine = self.call(1_000);
        let replies = std::mem::take(&mut machine.services.replies);
        replies.iter().for_each(|reply| machine.note_reply(reply));
        replies
    }

    fn reload(&mut self) {
        self.call(1_000).services.tasks.push_back(Task::Reload);
    }

    fn plan(&mut self, request: PlanRequest) {
        self.call(1_000).services.tasks.push_back(Task::Plan(request.number));
    }

    fn identify(&mut self, policy: &Policy, uid: Uid) {
        let mut machine = self.call(1_000);
        machine.ask(Key::User(uid.0), policy.generation);
    }

    fn name_container(&mut self, _: &Policy, _: ContainerKey) {
        unreachable!("no rule tests containers")
    }

    fn name_group(&mut self, policy: &Policy, gid: Gid) {
        let mut machine = self.call(1_000);
        machine.ask(Key::Group(gid.0), policy.generation);
    }

    fn examine(&mut self, user: Uid, examination: Examination) -> bool {
        let mut machine = self.call(1_000);
        let at = machine.clock;
        machine.services.examine(user.0, examination, at);
        // Refused beyond 32,768 processes of a user: more than there are PIDs here.
        true
    }

    fn take_overflown(&mut self) -> bool {
        false
    }

    fn find_manager(&mut self, uid: Uid) -> io::Result<()> {
        let result = Ok(ManagerProcesses::default());
        let reply = WorkerReply::Manager(LookupReply { uid, result });
        self.call(1_000).services.replies.push(reply);
        Ok(())
    }

    fn retire(&mut self, _: Box<Policy>) {}

    fn provoke(&mut self) {
        self.call(1_000).services.tasks.push_back(Task::Provoke);
    }
}

impl SimKernel {
    fn drain(
        &mut self,
        bound: usize,
        is_forks: bool,
        take: &mut dyn FnMut(Event),
    ) -> io::Result<Drained> {
        let mut read = 0;
        let mut most = FEW;
        let bound = if self.machine.borrow().config.cuts_drains { CUT } else { bound };
        while read < bound {
            let mut machine = self.call(1_500);
            if is_forks && !machine.is_silent {
                machine.daemonize_before_forks();
            }
            let socket =
                if is_forks { &mut machine.fork_socket } else { &mut machine.event_socket };
            let count = most.min(socket.queue.len());
            let chunk: Vec<Event> = socket.queue.drain(..count).collect();
            if is_forks && count > 0 && !machine.event_socket.queue.is_empty() {
                machine.counts.hit(Situation::ForkReadBeforeParentsEvent);
            }
            machine.delivered(&chunk);
            drop(machine);
            chunk.into_iter().for_each(&mut *take);
            read += count;
            if count < most {
                return Ok(Drained { read, is_empty: true });
            }
            most = MANY;
        }
        self.call(0).counts.hit(Situation::CutDrain);
        Ok(Drained { read, is_empty: false })
    }
}

// The IDs are those that the engine compares with the text.
const _: () = assert!(HIERARCHY_IDS[0] == 0);
