//! Kernel that refuses calls: wraps the kernel in memory, and returns an error from one kind of call
//! once, always or at random.

use std::cell::Cell;
use std::io;
use std::sync::Arc;

use nix::errno::Errno;

use super::fake_kernel::FakeKernel;
use super::kernel::Kernel;
use crate::cgroup::config::{GroupConfigs, PathConfig};
use crate::cgroup::mounts::{Hierarchies, HierarchySet};
use crate::cgroup::tree::{AttachResult, CgroupError, CgroupOperation, CurrentCgroup, GroupId};
use crate::event::{Event, Gid, Nanos, Pid, Uid};
use crate::kernel::connector::{ConnectorError, Drained, Losses};
use crate::kernel::container::Containment;
use crate::kernel::exe_pool::Examination;
use crate::kernel::moves::TracedMove;
use crate::kernel::process::{ProcessHandle, ProcessRef, ProcessStatus};
use crate::policy::Policy;
use crate::policy::planned::PlanRequest;
use crate::policy::worker::WorkerReply;
use crate::rules::container::ContainerKey;

/// Call that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    DrainEvents,
    DrainForks,
    EventBacklog,
    TakeLosses,
    ReadMoves,
    Processes,
    FindManager,
    CreateGroup,
    OpenGroup,
    Attach,
}

const GROUP_STEPS: [(Call, CgroupOperation); 2] =
    [(Call::CreateGroup, CgroupOperation::Create), (Call::OpenGroup, CgroupOperation::Open)];

/// Frequency of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frequency {
    Never,
    Once,
    Always,
    /// One of this many calls, at random.
    OneOf(u64),
}

/// Error that one kind of call returns.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    pub(super) call: Call,
    pub(super) errno: Errno,
    pub(super) frequency: Cell<Frequency>,
    /// Number of errors so far.
    pub(super) count: Cell<u64>,
    pub(super) random: Cell<u64>,
}

impl Faults {
    fn refuses(&self, call: Call) -> Option<Errno> {
        let is_due = call == self.call
            && match self.frequency.get() {
                Frequency::Never => false,
                Frequency::Always => true,
                Frequency::Once => {
                    self.frequency.set(Frequency::Never);
                    true
                }
                Frequency::OneOf(count) => {
                    let mut random = self.random.get();
                    random ^= random << 13;
                    random ^= random >> 7;
                    random ^= random << 17;
                    self.random.set(random);
                    random % count == 0
                }
            };
        self.count.set(self.count.get() + u64::from(is_due));
        is_due.then_some(self.errno)
    }

    fn of(&self, call: Call) -> io::Result<()> {
        self.refuses(call).map_or(Ok(()), |errno| Err(errno.into()))
    }
}

fn refusal(path: &str, step: CgroupOperation, errno: Errno) -> CgroupError {
    CgroupError { path: path.into(), step, errno }
}

pub(super) struct FaultyKernel {
    pub(super) inner: FakeKernel,
    pub(super) faults: Faults,
}

impl Kernel for FaultyKernel {
    fn now(&self) -> Nanos {
        self.inner.now()
    }
    fn own_pid(&self) -> u32 {
        self.inner.own_pid()
    }
    fn runs_systemd(&self) -> bool {
        self.inner.runs_systemd()
    }
    fn drain_events(&mut self, bound: usize, take: impl FnMut(Event)) -> io::Result<Drained> {
        self.faults.of(Call::DrainEvents)?;
        self.inner.drain_events(bound, take)
    }
    fn drain_forks(&mut self, bound: usize, take: impl FnMut(Event)) -> io::Result<Drained> {
        self.faults.of(Call::DrainForks)?;
        self.inner.drain_forks(bound, take)
    }
    fn event_backlog(&self) -> io::Result<usize> {
        self.faults.of(Call::EventBacklog)?;
        self.inner.event_backlog()
    }
    fn take_losses(&mut self) -> io::Result<Losses> {
        self.faults.of(Call::TakeLosses)?;
        self.inner.take_losses()
    }
    fn resubscribe(&mut self) -> Result<(), ConnectorError> {
        self.inner.resubscribe()
    }
    fn accept_gid_events(&mut self, accepts: bool) {
        self.inner.accept_gid_events(accepts);
    }
    fn traces_moves(&self) -> bool {
        self.inner.traces_moves()
    }
    fn read_moves(&mut self, take: impl FnMut(TracedMove)) -> io::Result<u64> {
        self.faults.of(Call::ReadMoves)?;
        self.inner.read_moves(take)
    }
    fn processes(&mut self, mut take: impl FnMut(Pid)) -> io::Result<()> {
        let failed = self.faults.of(Call::Processes);
        // readdir(3) can fail after some entries.
        let passed = if failed.is_err() { 1 } else { usize::MAX };
        let mut count = 0;
        self.inner.processes(|pid| {
            count += 1;
            if count <= passed {
                take(pid);
            }
        })?;
        failed
    }
    fn open_process(&mut self, pid: Pid) -> Option<ProcessHandle> {
        self.inner.open_process(pid)
    }
    fn stand_in(&mut self, pid: Pid, handle: ProcessHandle) -> Option<ProcessHandle> {
        self.inner.stand_in(pid, handle)
    }
    fn has_exited(&self, handle: &ProcessHandle) -> bool {
        self.inner.has_exited(handle)
    }
    fn is_same(&mut self, pid: Pid, process: &ProcessRef) -> bool {
        self.inner.is_same(pid, process)
    }
    fn exists(&self, pid: Pid) -> bool {
        self.inner.exists(pid)
    }
    fn identity(&mut self, pid: Pid) -> Option<u64> {
        self.inner.identity(pid)
    }
    fn identity_of(&mut self, pid: Pid, handle: &ProcessHandle) -> Option<u64> {
        self.inner.identity_of(pid, handle)
    }
    fn status(&mut self, pid: Pid) -> Option<ProcessStatus> {
        self.inner.status(pid)
    }
    fn thread_ids(&self, pid: Pid, thread: Pid) -> Option<(Uid, Gid)> {
        self.inner.thread_ids(pid, thread)
    }
    fn thread_count(&self, pid: Pid) -> u64 {
        self.inner.thread_count(pid)
    }
    fn has_thread_of_others(&self, pid: Pid, ids: (Uid, Gid)) -> bool {
        self.inner.has_thread_of_others(pid, ids)
    }
    fn has_leader_exited(&mut self, pid: Pid) -> bool {
        self.inner.has_leader_exited(pid)
    }
    fn children(&mut self, pid: Pid, take: impl FnMut(Pid)) {
        self.inner.children(pid, take);
    }
    fn comm(&mut self, pid: Pid) -> Option<&[u8]> {
        self.inner.comm(pid)
    }
    fn cgroup(&mut self, pid: Pid, thread: Option<Pid>) -> Option<&[u8]> {
        self.inner.cgroup(pid, thread)
    }
    fn login(&mut self, pid: Pid) -> Option<Uid> {
        self.inner.login(pid)
    }
    fn is_real_time(&self, pid: Pid) -> bool {
        self.inner.is_real_time(pid)
    }
    fn is_in_namespace_of_root(&mut self, pid: Pid) -> bool {
        self.inner.is_in_namespace_of_root(pid)
    }
    fn containment(&self, handle: &ProcessHandle) -> Option<Containment> {
        self.inner.containment(handle)
    }
    fn hierarchies(&self) -> &Hierarchies {
        self.inner.hierarchies()
    }
    fn adopt_configs(&mut self, configs: &Arc<GroupConfigs>, root: &str) {
        self.inner.adopt_configs(configs, root);
    }
    fn known_group(&self, span: HierarchySet, path: &str) -> Option<GroupId> {
        self.inner.known_group(span, path)
    }
    fn group(
        &mut self,
        pid: Pid,
        place: (HierarchySet, &str),
        creates: bool,
        config: impl FnOnce() -> Option<Arc<PathConfig>>,
    ) -> Result<GroupId, CgroupError> {
        for (call, step) in GROUP_STEPS {
            self.faults.refuses(call).map_or(Ok(()), |errno| Err(refusal(place.1, step, errno)))?;
        }
        self.inner.group(pid, place, creates, config)
    }
    fn holds(&self, group: GroupId, now: CurrentCgroup<'_>) -> bool {
        self.inner.holds(group, now)
    }
    fn attach(&mut self, group: GroupId, pid: Pid, now: CurrentCgroup<'_>) -> AttachResult {
        if let Some(errno) = self.faults.refuses(Call::Attach) {
            return AttachResult::Refused(refusal("", CgroupOperation::Write, errno));
        }
        self.inner.attach(group, pid, now)
    }
    fn move_back(
        &mut self,
        group: GroupId,
        pid: Pid,
        now: &[u8],
        home: &[u8],
    ) -> Result<(), CgroupError> {
        self.inner.move_back(group, pid, now, home)
    }
    fn placed(&mut self, now: Nanos) {
        self.inner.placed(now);
    }
    fn group_owner(&self, hierarchy: usize, path: &[u8]) -> Option<Uid> {
        self.inner.group_owner(hierarchy, path)
    }
    fn group_id(&self, hierarchy: usize, path: &[u8]) -> Option<u64> {
        self.inner.group_id(hierarchy, path)
    }
    fn has_groups_of_systemd(&self) -> bool {
        self.inner.has_groups_of_systemd()
    }
    fn is_group_writable(&self, hierarchy: usize, path: &[u8]) -> bool {
        self.inner.is_group_writable(hierarchy, path)
    }
    fn is_alone(&self, path: &str, pid: Pid, leaves: impl Fn(Pid) -> bool) -> bool {
        self.inner.is_alone(path, pid, leaves)
    }
    fn replies(&mut self) -> Vec<WorkerReply> {
        self.inner.replies()
    }
    fn reload(&mut self) {
        self.inner.reload();
    }
    fn plan(&mut self, request: PlanRequest) {
        self.inner.plan(request);
    }
    fn identify(&mut self, policy: &Policy, uid: Uid) {
        self.inner.identify(policy, uid);
    }
    fn name_container(&mut self, policy: &Policy, key: ContainerKey) {
        self.inner.name_container(policy, key);
    }
    fn name_group(&mut self, policy: &Policy, gid: Gid) {
        self.inner.name_group(policy, gid);
    }
    fn examine(&mut self, user: Uid, examination: Examination) -> bool {
        self.inner.examine(user, examination)
    }
    fn take_overflown(&mut self) -> bool {
        self.inner.take_overflown()
    }
    fn find_manager(&mut self, uid: Uid) -> io::Result<()> {
        self.faults.of(Call::FindManager)?;
        self.inner.find_manager(uid)
    }
    fn retire(&mut self, policy: Box<Policy>) {
        self.inner.retire(policy);
    }

    fn provoke(&mut self) {
        self.inner.provoke();
    }
}
