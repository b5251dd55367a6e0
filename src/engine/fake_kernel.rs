//! Kernel in memory, for tests of the engine and its parts in one thread and with a clock of their
//! own.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::mem::take;
use std::sync::Arc;

use nix::errno::Errno;

use super::kernel::Kernel;
use crate::cgroup::config::{GroupConfigs, PathConfig};
use crate::cgroup::mounts::{Hierarchies, Hierarchy, HierarchySet, Version};
use crate::cgroup::tree::{AttachResult, CgroupError, CgroupOperation, CurrentCgroup, GroupId};
use crate::event::{Event, EventKind, Gid, Nanos, Pid, Task, Uid};
use crate::kernel::connector::{ConnectorError, Drained, Losses};
use crate::kernel::container::Containment;
use crate::kernel::exe_pool::Examination;
use crate::kernel::gate::GatedExec;
use crate::kernel::moves::TracedMove;
use crate::kernel::process::{ProcessHandle, ProcessRef, ProcessStatus};
use crate::kernel::user_manager::{LookupError, LookupReply, ManagerProcess, ManagerProcesses};
use crate::policy::Policy;
use crate::policy::planned::PlanRequest;
use crate::policy::worker::WorkerReply;
use crate::rules::container::ContainerKey;

/// PID of the daemon.
pub(super) const OWN: u32 = 999;
/// Time that passes with each reading of the clock.
const TICK_NS: u64 = 1_000;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct FakeProcess {
    pub(super) started: u64,
    pub(super) parent: u32,
    pub(super) uid: u32,
    pub(super) comm: &'static str,
    pub(super) children: Vec<u32>,
    /// Path of its v2 cgroup.
    pub(super) cgroup: String,
}

#[derive(Default)]
pub(super) struct FakeKernel {
    pub(super) clock: Cell<u64>,
    pub(super) processes: BTreeMap<u32, FakeProcess>,
    /// The process of each thread that is not a leader.
    pub(super) threads: BTreeMap<u32, u32>,
    pub(super) events: VecDeque<Event>,
    pub(super) forks: VecDeque<Event>,
    pub(super) losses: Losses,
    pub(super) accepts_gid: bool,
    /// Moves by others; `None` if they are not traced.
    pub(super) moves: Option<Vec<TracedMove>>,
    pub(super) lost_moves: u64,
    /// Duration of one read of the moves.
    pub(super) move_read_ns: u64,
    /// Error of each move into these cgroups.
    pub(super) refusals: BTreeMap<String, Errno>,
    /// PID of the service manager that systemd reports; `None` if it does not reply.
    pub(super) manager: Option<u32>,
    pub(super) lookups: usize,
    pub(super) runs_systemd: bool,
    /// Requested examinations, none of which has a result; `None` if they are refused.
    pub(super) examinations: Option<Vec<Examination>>,
    /// Each process is in a container of root.
    pub(super) is_in_container: bool,
    /// Users that the name service was asked for.
    pub(super) identified: Vec<Uid>,
    pub(super) replies: Vec<WorkerReply>,
    /// Requested plans.
    pub(super) plans: Vec<PlanRequest>,
    /// Files whose executions wait.
    pub(super) gated_files: Vec<Box<[u8]>>,
    /// Executions that wait.
    pub(super) gated: VecDeque<GatedExec>,
    /// Tickets of those that were answered.
    pub(super) answered: Vec<u64>,
    /// Number of threads of each process.
    pub(super) thread_count: u64,
    pub(super) hierarchies: Hierarchies,
    /// Paths of the opened cgroups.
    pub(super) groups: Vec<String>,
    pub(super) text: Vec<u8>,
    /// IDs of cgroups by path.
    pub(super) group_ids: BTreeMap<String, u64>,
}

pub(super) fn pid(raw: u32) -> Pid {
    Pid::new(raw).unwrap()
}

impl FakeKernel {
    pub(super) fn new() -> Self {
        let unified = Hierarchy::for_test(Version::V2, "/nowhere", "", Vec::new());
        let hierarchies = Hierarchies::new(vec![unified]);
        Self { clock: Cell::new(1_000_000_000), thread_count: 1, hierarchies, ..Self::default() }
    }

    /// Starts a process that no event reports.
    pub(super) fn start(&mut self, raw: u32, process: FakeProcess) {
        self.processes.insert(raw, process);
    }

    /// Lets a process fork.
    pub(super) fn fork(&mut self, parent: u32, child: u32) {
        let process =
            FakeProcess { parent, started: self.clock.get(), ..self.processes[&parent].clone() };
        self.start(child, process);
        let what = EventKind::Fork { parent: pid(parent), child: pid(child) };
        self.forks.push_back(Event { at: self.now(), what });
    }

    /// Lets a process change its user.
    pub(super) fn set_uid(&mut self, raw: u32, uid: u32) {
        self.processes.get_mut(&raw).unwrap().uid = uid;
        let what = EventKind::Uid(Task { process: pid(raw), thread: pid(raw) });
        self.events.push_back(Event { at: self.now(), what });
    }

    /// Lets a process move another one, which is traced.
    pub(super) fn move_by(&mut self, mover: u32, raw: u32, path: &str) {
        path.clone_into(&mut self.processes.get_mut(&raw).unwrap().cgroup);
        let at = self.now();
        let moved = TracedMove { at, mover, pid: raw, is_birth: false, hierarchy: 0 };
        self.moves.iter_mut().for_each(|moves| moves.push(moved));
    }

    /// Lets a process begin to execute a gated file. Returns the ticket.
    pub(super) fn begin_exec(&mut self, raw: u32, path: &str) -> u64 {
        let (pid, since) = (pid(raw), self.now());
        let ticket = self.clock.get();
        let path = path.as_bytes().into();
        let exec =
            self.open_process(pid).map(|handle| GatedExec { pid, handle, path, since, ticket });
        self.gated.extend(exec);
        ticket
    }

    /// Lets a process execute a program.
    pub(super) fn exec(&mut self, raw: u32, comm: &'static str) {
        self.processes.get_mut(&raw).unwrap().comm = comm;
        self.events.push_back(Event { at: self.now(), what: EventKind::Exec(pid(raw)) });
    }

    fn get(&self, pid: Pid) -> Option<&FakeProcess> {
        self.processes.get(&pid.get())
    }

    fn find(&self) -> Result<ManagerProcesses, LookupError> {
        let manager = self.manager.ok_or_else(|| LookupError::Output(String::new()))?;
        let oldest = self.processes.get(&manager).and_then(|one| one.children.first());
        let pam = oldest
            .filter(|&raw| self.processes.get(raw).is_some_and(|one| one.comm == "(sd-pam)"))
            .and_then(|&raw| self.open(raw));
        Ok(ManagerProcesses { manager: self.open(manager), pam })
    }

    fn open(&self, raw: u32) -> Option<ManagerProcess> {
        let reference = ProcessRef::Started(self.processes.get(&raw)?.started);
        Some(ManagerProcess { pid: pid(raw), reference })
    }
}

fn drain(queue: &mut VecDeque<Event>, bound: usize, take: impl FnMut(Event)) -> Drained {
    let read = queue.len().min(bound);
    queue.drain(..read).for_each(take);
    Drained { read, is_empty: queue.is_empty() }
}

impl Kernel for FakeKernel {
    fn now(&self) -> Nanos {
        self.clock.set(self.clock.get() + TICK_NS);
        Nanos(self.clock.get())
    }
    fn own_pid(&self) -> u32 {
        OWN
    }
    fn runs_systemd(&self) -> bool {
        self.runs_systemd
    }
    fn drain_events(&mut self, bound: usize, take: impl FnMut(Event)) -> io::Result<Drained> {
        Ok(drain(&mut self.events, bound, take))
    }
    fn drain_forks(&mut self, bound: usize, take: impl FnMut(Event)) -> io::Result<Drained> {
        Ok(drain(&mut self.forks, bound, take))
    }
    fn event_backlog(&self) -> io::Result<usize> {
        Ok(self.events.len())
    }
    fn take_losses(&mut self) -> io::Result<Losses> {
        Ok(take(&mut self.losses))
    }
    fn resubscribe(&mut self) -> Result<(), ConnectorError> {
        Ok(())
    }
    fn accept_gid_events(&mut self, accepts: bool) {
        self.accepts_gid = accepts;
    }
    fn traces_moves(&self) -> bool {
        self.moves.is_some()
    }
    fn read_moves(&mut self, take: impl FnMut(TracedMove)) -> io::Result<u64> {
        self.clock.set(self.clock.get() + self.move_read_ns);
        self.moves.iter_mut().flat_map(|moves| moves.drain(..)).for_each(take);
        Ok(std::mem::take(&mut self.lost_moves))
    }
    fn processes(&mut self, take: impl FnMut(Pid)) -> io::Result<()> {
        self.processes.keys().map(|&raw| pid(raw)).for_each(take);
        Ok(())
    }
    fn open_process(&mut self, pid: Pid) -> Option<ProcessHandle> {
        let &FakeProcess { started, uid, .. } = self.get(pid)?;
        let reference = Some(ProcessRef::Started(started));
        Some(ProcessHandle { uid: Uid(uid), gid: Gid(uid), unified: None, reference, thread: None })
    }
    fn stand_in(&mut self, _: Pid, handle: ProcessHandle) -> Option<ProcessHandle> {
        Some(handle)
    }
    fn has_exited(&self, _: &ProcessHandle) -> bool {
        false
    }
    fn is_same(&mut self, pid: Pid, process: &ProcessRef) -> bool {
        matches!(process, ProcessRef::Started(started) if self.identity(pid) == Some(*started))
    }
    fn exists(&self, pid: Pid) -> bool {
        self.get(pid).is_some()
    }
    fn identity(&mut self, pid: Pid) -> Option<u64> {
        self.get(pid).map(|process| process.started)
    }
    fn identity_of(&mut self, pid: Pid, _: &ProcessHandle) -> Option<u64> {
        self.identity(pid)
    }
    fn status(&mut self, pid: Pid) -> Option<ProcessStatus> {
        let process = self.threads.get(&pid.get()).and_then(|&raw| Pid::new(raw)).unwrap_or(pid);
        let &FakeProcess { uid, parent, .. } = self.get(process)?;
        Some(ProcessStatus {
            process,
            parent: Pid::new(parent),
            real: Uid(uid),
            effective: Uid(uid),
            real_group: Gid(uid),
            is_kernel_thread: false,
            has_exited: false,
            inner_pid: None,
        })
    }
    fn thread_ids(&self, pid: Pid, _: Pid) -> Option<(Uid, Gid)> {
        self.get(pid).map(|process| (Uid(process.uid), Gid(process.uid)))
    }
    fn thread_count(&self, pid: Pid) -> u64 {
        if self.exists(pid) { self.thread_count } else { 0 }
    }
    fn has_thread_of_others(&self, _: Pid, _: (Uid, Gid)) -> bool {
        false
    }
    fn has_leader_exited(&mut self, _: Pid) -> bool {
        false
    }
    fn children(&mut self, parent: Pid, take: impl FnMut(Pid)) {
        let children = self.get(parent).map(|process| process.children.clone());
        children.into_iter().flatten().map(pid).for_each(take);
    }
    fn comm(&mut self, pid: Pid) -> Option<&[u8]> {
        self.get(pid).map(|process| process.comm.as_bytes())
    }
    fn cgroup(&mut self, pid: Pid, _: Option<Pid>) -> Option<&[u8]> {
        self.text = format!("0::{}\n", self.get(pid)?.cgroup).into();
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
        Some(if self.is_in_container { Containment::OfUser(Uid(0)) } else { Containment::Host })
    }
    fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }
    fn adopt_configs(&mut self, _: &Arc<GroupConfigs>, _: &str) {
        self.groups.clear();
    }
    fn known_group(&self, _: HierarchySet, path: &str) -> Option<GroupId> {
        self.groups.iter().position(|known| known == path).map(GroupId)
    }
    fn group(
        &mut self,
        _: Pid,
        (span, path): (HierarchySet, &str),
        _: bool,
        _: impl FnOnce() -> Option<Arc<PathConfig>>,
    ) -> Result<GroupId, CgroupError> {
        Ok(self.known_group(span, path).unwrap_or_else(|| {
            self.groups.push(path.to_owned());
            GroupId(self.groups.len() - 1)
        }))
    }
    fn holds(&self, group: GroupId, now: CurrentCgroup<'_>) -> bool {
        now.text.is_some_and(|text| self.hierarchies[0].holds(&self.groups[group.0], text))
    }
    fn attach(&mut self, group: GroupId, pid: Pid, _: CurrentCgroup<'_>) -> AttachResult {
        let path = &self.groups[group.0];
        if let Some(&errno) = self.refusals.get(path) {
            let (path, step) = (path.into(), CgroupOperation::Write);
            return AttachResult::Refused(CgroupError { path, step, errno });
        }
        let Some(process) = self.processes.get_mut(&pid.get()) else { return AttachResult::Gone };
        process.cgroup.clone_from(path);
        AttachResult::Moved
    }
    fn move_back(
        &mut self,
        group: GroupId,
        pid: Pid,
        _: &[u8],
        home: &[u8],
    ) -> Result<(), CgroupError> {
        let home = self.hierarchies[0].place(home).map(String::from_utf8_lossy);
        let process = self.processes.get_mut(&pid.get());
        if let (Some(home), Some(process)) = (home, process) {
            if process.cgroup == self.groups[group.0] {
                process.cgroup = home.into_owned();
            }
        }
        Ok(())
    }
    fn gate(&mut self, files: &[Box<[u8]>]) {
        self.gated_files = files.to_vec();
    }
    fn next_gated(&mut self) -> Option<GatedExec> {
        self.gated.pop_front()
    }
    fn answer_gated(&mut self, ticket: u64) -> bool {
        self.answered.push(ticket);
        true
    }
    fn placed(&mut self, _: Nanos) {}
    fn group_owner(&self, _: usize, _: &[u8]) -> Option<Uid> {
        Some(Uid(0))
    }
    fn group_id(&self, _: usize, path: &[u8]) -> Option<u64> {
        self.group_ids.get(std::str::from_utf8(path).ok()?).copied()
    }
    fn has_groups_of_systemd(&self) -> bool {
        true
    }
    fn is_group_writable(&self, _: usize, _: &[u8]) -> bool {
        false
    }
    fn is_alone(&self, _: &str, _: Pid, _: impl Fn(Pid) -> bool) -> bool {
        false
    }
    fn replies(&mut self) -> Vec<WorkerReply> {
        take(&mut self.replies)
    }
    fn reload(&mut self) {}
    fn plan(&mut self, request: PlanRequest) {
        self.plans.push(request);
    }
    fn identify(&mut self, _: &Policy, uid: Uid) {
        self.identified.push(uid);
    }
    fn name_container(&mut self, _: &Policy, _: ContainerKey) {}
    fn name_group(&mut self, _: &Policy, _: Gid) {}
    fn examine(&mut self, _: Uid, examination: Examination) -> bool {
        let requested = self.examinations.as_mut();
        requested.map(|requested| requested.push(examination)).is_some()
    }
    fn take_overflown(&mut self) -> bool {
        false
    }
    fn find_manager(&mut self, uid: Uid) -> io::Result<()> {
        self.lookups += 1;
        let result = self.find();
        self.replies.push(WorkerReply::Manager(LookupReply { uid, result }));
        Ok(())
    }
    fn retire(&mut self, _: Box<Policy>) {}
    fn provoke(&mut self) {}
}
