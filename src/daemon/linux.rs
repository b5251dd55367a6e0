//! The running Linux kernel behind the interface of the engine: the proc connector, `/proc`, cgroupfs,
//! tracefs and the helper threads. Must not decide anything about a process.

mod systemd_root;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::eventfd::EventFd;

use super::leader::{Activity, Call};
use crate::cgroup::config::{GroupConfigs, PathConfig};
use crate::cgroup::fast_moves::FastMovesGuard;
use crate::cgroup::group_files;
use crate::cgroup::host::Host;
use crate::cgroup::mounts::{Hierarchies, HierarchySet};
use crate::cgroup::tree::{
    AttachResult, CgroupError, CgroupTree, CurrentCgroup, GroupId, is_out_of_descriptors,
};
use crate::engine::kernel::Kernel;
use crate::event::{Event, Gid, Nanos, Pid, Uid};
use crate::kernel::connector::{Connector, ConnectorError, Drained, Losses};
use crate::kernel::container::{Containment, HostNamespaces};
use crate::kernel::exe_pool::Examination;
use crate::kernel::gate::{Gate, GatedExec};
use crate::kernel::moves::{MoveTrace, OwnMoves, TracedMove};
use crate::kernel::process::{ProcFs, ProcessHandle, ProcessRef, ProcessStatus};
use crate::kernel::program::{ExeReader, ReadRequest};
use crate::kernel::user_manager::{LookupService, ManagerLookup};
use crate::policy::Policy;
use crate::policy::planned::PlanRequest;
use crate::policy::worker::{WorkerHandle, WorkerReply};
use crate::rules::container::ContainerKey;
use crate::sys;
use crate::telemetry::metrics::Metrics;
use systemd_root::SystemdRoot;

/// The running kernel.
pub(super) struct Linux {
    connector: Connector,
    proc: ProcFs,
    tree: CgroupTree,
    moves: Option<MoveTrace>,
    own_moves: OwnMoves,
    fast_moves: FastMovesGuard,
    worker: WorkerHandle,
    managers: LookupService,
    host: HostNamespaces,
    runs_systemd: bool,
    /// `None` if that hierarchy is not mounted.
    systemds_root: Option<SystemdRoot>,
    activity: Arc<Activity>,
    /// Started with the first gated file, because it has two threads and a process.
    gate: Option<Gate>,
    metrics: Arc<Metrics>,
}

impl Linux {
    /// Opens `/proc` and combines it with the other parts. `activity` receives reports about calls that can take long.
    ///
    /// # Errors
    /// As open(2).
    pub(super) fn open(
        connector: Connector,
        tree: CgroupTree,
        moves: Option<MoveTrace>,
        fast_moves: FastMovesGuard,
        worker: WorkerHandle,
        activity: Arc<Activity>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let proc = Path::new("/proc");
        let systemds_root = SystemdRoot::open(tree.hierarchies())?;
        Ok(Self {
            connector,
            proc: ProcFs::open(proc)?,
            tree,
            moves,
            own_moves: OwnMoves::default(),
            fast_moves,
            managers: LookupService::new(ManagerLookup::default(), worker.waker()),
            worker,
            host: HostNamespaces::read(proc),
            runs_systemd: Host::default().runs_systemd(),
            systemds_root,
            activity,
            gate: None,
            metrics,
        })
    }

    /// Returns the descriptor to poll for events. The fork socket is never polled.
    pub(super) fn event_fd(&self) -> BorrowedFd<'_> {
        self.connector.events.as_fd()
    }

    /// Returns the descriptor that becomes readable when another thread has replied.
    pub(super) fn wakeup_fd(&self) -> BorrowedFd<'_> {
        self.worker.wakeup_fd()
    }

    /// Replaces the method for fast moves.
    pub(super) fn set_fast_moves(&mut self, guard: FastMovesGuard) {
        let old = std::mem::replace(&mut self.fast_moves, guard);
        // Its end waits for a thread in a write of up to a grace period.
        std::thread::spawn(move || drop(old));
    }

    /// Changes the number of bytes that the kernel may queue.
    ///
    /// # Errors
    /// As setsockopt(2).
    pub(super) fn set_receive_buffer(&mut self, bytes: usize) -> io::Result<()> {
        self.connector.set_receive_buffer(bytes)
    }

    /// Returns the eventfd that wakes the main loop when it is written to.
    pub(super) fn waker(&self) -> Arc<EventFd> {
        self.worker.waker()
    }

    /// Creates the reader for the executables that the engine requests.
    ///
    /// # Errors
    /// As dup(2).
    pub(super) fn exe_reader(&self) -> io::Result<ExeReader> {
        ExeReader::new(&self.proc)
    }

    /// Returns the callback for late reads that have completed.
    pub(super) fn late_reads(&self) -> Box<dyn Fn(ReadRequest) + Send + Sync> {
        self.worker.late_reads()
    }

    fn directory_of(&self, hierarchy: usize, path: &[u8]) -> Option<PathBuf> {
        self.tree.hierarchies().get(hierarchy)?.directory(path)
    }
}

impl Kernel for Linux {
    fn now(&self) -> Nanos {
        sys::monotonic()
    }

    fn own_pid(&self) -> u32 {
        self.own_moves.process()
    }

    fn runs_systemd(&self) -> bool {
        self.runs_systemd
    }

    fn drain_events(&mut self, bound: usize, take: impl FnMut(Event)) -> io::Result<Drained> {
        self.connector.events.drain(bound, take)
    }

    fn drain_forks(&mut self, bound: usize, take: impl FnMut(Event)) -> io::Result<Drained> {
        self.connector.forks.drain(bound, take)
    }

    fn event_backlog(&self) -> io::Result<usize> {
        self.connector.events.backlog()
    }

    fn take_losses(&mut self) -> io::Result<Losses> {
        self.connector.take_losses()
    }

    fn resubscribe(&mut self) -> Result<(), ConnectorError> {
        self.connector.renew()
    }

    fn accept_gid_events(&mut self, accepts: bool) {
        self.connector.accept_gid(accepts);
    }

    fn traces_moves(&self) -> bool {
        self.moves.is_some()
    }

    fn read_moves(&mut self, mut take: impl FnMut(TracedMove)) -> io::Result<u64> {
        let Some(trace) = &mut self.moves else { return Ok(0) };
        let own = &mut self.own_moves;
        // Without the filter many placements would fill the buffers. Setting it takes an RCU grace
        // period, once for each thread.
        if own.add_current_thread() {
            if let Err(error) = trace.ignore_threads(own.threads()) {
                ::log::debug!("trace of external moves: filter: {error}");
            }
        }
        trace.read(|traced| {
            if !own.includes(&traced) {
                take(traced);
            }
        })
    }

    fn processes(&mut self, mut take: impl FnMut(Pid)) -> io::Result<()> {
        self.proc.all(&mut take).or_else(|error| {
            if !is_out_of_descriptors(sys::errno(&error)) {
                return Err(error);
            }
            // The directory could not be opened, so no process was passed on.
            self.tree.close();
            self.proc.all(take)
        })
    }

    fn open_process(&mut self, pid: Pid) -> Option<ProcessHandle> {
        self.proc.open_process(pid)
    }

    fn stand_in(&mut self, pid: Pid, handle: ProcessHandle) -> Option<ProcessHandle> {
        self.proc.stand_in(pid, handle)
    }

    fn has_exited(&self, handle: &ProcessHandle) -> bool {
        handle.has_exited()
    }

    fn is_same(&mut self, pid: Pid, process: &ProcessRef) -> bool {
        self.proc.is_same(pid, process)
    }

    fn exists(&self, pid: Pid) -> bool {
        self.proc.exists(pid)
    }

    fn identity(&mut self, pid: Pid) -> Option<u64> {
        self.proc.identity(pid)
    }

    fn identity_of(&mut self, pid: Pid, handle: &ProcessHandle) -> Option<u64> {
        self.proc.identity_of(pid, handle)
    }

    fn status(&mut self, pid: Pid) -> Option<ProcessStatus> {
        self.proc.status(pid)
    }

    fn thread_ids(&self, pid: Pid, thread: Pid) -> Option<(Uid, Gid)> {
        self.proc.thread_ids(pid, thread)
    }

    fn thread_count(&self, pid: Pid) -> u64 {
        self.proc.thread_count(pid)
    }

    fn has_thread_of_others(&self, pid: Pid, ids: (Uid, Gid)) -> bool {
        self.proc.has_thread_of_others(pid, ids)
    }

    fn has_leader_exited(&mut self, pid: Pid) -> bool {
        self.proc.has_leader_exited(pid)
    }

    fn children(&mut self, pid: Pid, take: impl FnMut(Pid)) {
        self.proc.children(pid, take);
    }

    fn comm(&mut self, pid: Pid) -> Option<&[u8]> {
        self.proc.comm(pid)
    }

    fn cgroup(&mut self, pid: Pid, thread: Option<Pid>) -> Option<&[u8]> {
        self.proc.cgroup(pid, thread)
    }

    fn login(&mut self, pid: Pid) -> Option<Uid> {
        self.proc.login(pid)
    }

    fn is_real_time(&self, pid: Pid) -> bool {
        self.proc.is_real_time(pid)
    }

    fn is_in_namespace_of_root(&mut self, pid: Pid) -> bool {
        self.proc.is_in_namespace_of_root(pid)
    }

    fn containment(&self, handle: &ProcessHandle) -> Option<Containment> {
        self.host.containment_of(handle)
    }

    fn hierarchies(&self) -> &Hierarchies {
        self.tree.hierarchies()
    }

    fn adopt_configs(&mut self, configs: &Arc<GroupConfigs>, root: &str) {
        self.tree.adopt(configs, root);
    }

    fn known_group(&self, span: HierarchySet, path: &str) -> Option<GroupId> {
        self.tree.known(span, path)
    }

    fn group(
        &mut self,
        pid: Pid,
        (span, path): (HierarchySet, &str),
        creates: bool,
        config: impl FnOnce() -> Option<Arc<PathConfig>>,
    ) -> Result<GroupId, CgroupError> {
        if self.tree.known(span, path).is_some() {
            return self.tree.group(span, path, creates, config);
        }
        self.activity.begins(Call::Open, pid);
        let opened = self.tree.group(span, path, creates, config);
        self.activity.ends();
        opened
    }

    fn holds(&self, group: GroupId, now: CurrentCgroup<'_>) -> bool {
        self.tree.holds(group, now)
    }

    fn attach(&mut self, group: GroupId, pid: Pid, now: CurrentCgroup<'_>) -> AttachResult {
        let began = self.activity.begins(Call::Attach, pid);
        let expedited = self.fast_moves.prepare(began);
        let attached = self.tree.attach(group, pid, now);
        drop(expedited);
        self.activity.ends();
        attached
    }

    fn move_back(
        &mut self,
        group: GroupId,
        pid: Pid,
        now: &[u8],
        home: &[u8],
    ) -> Result<(), CgroupError> {
        self.tree.move_back(group, pid, now, home)
    }

    fn placed(&mut self, now: Nanos) {
        self.fast_moves.moved(now);
    }

    fn expect_move(&mut self, now: Nanos) {
        self.fast_moves.expect_move(now);
    }

    fn group_owner(&self, hierarchy: usize, path: &[u8]) -> Option<Uid> {
        group_files::owner(&self.directory_of(hierarchy, path)?)
    }

    fn group_id(&self, hierarchy: usize, path: &[u8]) -> Option<u64> {
        group_files::id(&self.directory_of(hierarchy, path)?)
    }

    fn has_groups_of_systemd(&self) -> bool {
        self.systemds_root.as_ref().is_some_and(SystemdRoot::has_groups)
    }

    fn is_group_writable(&self, hierarchy: usize, path: &[u8]) -> bool {
        let directory = self.directory_of(hierarchy, path);
        directory.is_some_and(|directory| group_files::is_writable_by_users(&directory))
    }

    fn is_alone(&self, path: &str, pid: Pid, leaves: impl Fn(Pid) -> bool) -> bool {
        let Some(tree) = self.tree.hierarchies().unified() else { return false };
        let directory = tree.mount_point.join(path.trim_start_matches('/'));
        group_files::has_only(&directory, pid, leaves)
    }

    fn gate(&mut self, files: &[Box<[u8]>]) {
        if self.gate.is_none() && !files.is_empty() {
            let (waker, metrics) = (self.worker.waker(), Arc::clone(&self.metrics));
            match Gate::start(waker, metrics, PathBuf::from("/proc/self/exe")) {
                Ok(gate) => self.gate = Some(gate),
                Err(error) => ::log::error!("{error}"),
            }
        }
        if let Some(gate) = &self.gate {
            gate.set_files(files);
        }
    }

    fn next_gated(&mut self) -> Option<GatedExec> {
        self.gate.as_ref()?.next()
    }

    fn check_gated_files(&mut self) {
        if let Some(gate) = &self.gate {
            gate.check_marks();
        }
    }

    fn answer_gated(&mut self, ticket: u64) -> bool {
        self.gate.as_ref().is_some_and(|gate| gate.answer(ticket))
    }

    fn replies(&mut self) -> Vec<WorkerReply> {
        let mut replies: Vec<WorkerReply> = self.worker.answers().collect();
        replies.extend(self.managers.replies().map(WorkerReply::Manager));
        replies
    }

    fn reload(&mut self) {
        self.worker.reload();
    }

    fn plan(&mut self, request: PlanRequest) {
        self.worker.plan(request);
    }

    fn identify(&mut self, policy: &Policy, uid: Uid) {
        self.worker.identify(policy, uid);
    }

    fn name_container(&mut self, policy: &Policy, key: ContainerKey) {
        self.worker.name_container(policy, key);
    }

    fn name_group(&mut self, policy: &Policy, gid: Gid) {
        self.worker.name_group(policy, gid);
    }

    fn examine(&mut self, user: Uid, examination: Examination) -> bool {
        self.worker.examine(user, examination)
    }

    fn take_overflown(&mut self) -> bool {
        self.worker.take_overflown()
    }

    fn find_manager(&mut self, uid: Uid) -> io::Result<()> {
        self.managers.ask(uid)
    }

    fn retire(&mut self, policy: Box<Policy>) {
        self.worker.retire(policy);
    }

    fn provoke(&mut self) {
        self.worker.provoke();
    }
}
