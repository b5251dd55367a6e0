//! The machine as the engine sees it: events, processes, cgroups, time and the replies of helper
//! threads. The engine has no other access to it, so that the same code runs on Linux
//! (`daemon/linux.rs`) and on a simulated kernel in tests.
//!
//! Executables are not read by a method, because that can block: [`super::Engine::turn`] returns a
//! request to its caller, which supplies the result or reports that the read blocks.

use std::io;
use std::sync::Arc;

use crate::cgroup::config::{GroupConfigs, PathConfig};
use crate::cgroup::mounts::{Hierarchies, HierarchySet};
use crate::cgroup::tree::{AttachResult, CgroupError, CurrentCgroup, GroupId};
use crate::event::{Event, Gid, Nanos, Pid, Uid};
use crate::kernel::connector::{ConnectorError, Drained, Losses};
use crate::kernel::container::Containment;
use crate::kernel::exe_pool::Examination;
use crate::kernel::gate::GatedExec;
use crate::kernel::moves::TracedMove;
use crate::kernel::process::{ProcessHandle, ProcessRef, ProcessStatus};
use crate::policy::Policy;
use crate::policy::planned::PlanRequest;
use crate::policy::worker::WorkerReply;
use crate::rules::container::ContainerKey;

/// Access of the engine to the machine. No method waits for anything that a user controls, except
/// as listed in `docs/hot-thread.md`.
pub trait Kernel {
    /// Returns the current time of the monotonic clock, which also stamps events.
    fn now(&self) -> Nanos;

    /// Returns the PID of the daemon.
    fn own_pid(&self) -> u32;

    /// Checks whether systemd is the init system of the host.
    fn runs_systemd(&self) -> bool;

    // Events.

    /// Reads up to `bound` exec, UID and GID events.
    ///
    /// # Errors
    /// As recvmmsg(2).
    fn drain_events(&mut self, bound: usize, take: impl FnMut(Event)) -> io::Result<Drained>;

    /// Reads up to `bound` forks.
    ///
    /// # Errors
    /// As recvmmsg(2).
    fn drain_forks(&mut self, bound: usize, take: impl FnMut(Event)) -> io::Result<Drained>;

    /// Returns an upper bound of the number of unread exec, UID and GID events.
    ///
    /// # Errors
    /// As getsockopt(2).
    fn event_backlog(&self) -> io::Result<usize>;

    /// Returns the exact numbers of lost and rejected events since the last call.
    ///
    /// # Errors
    /// As getsockopt(2).
    fn take_losses(&mut self) -> io::Result<Losses>;

    /// Subscribes to events anew.
    ///
    /// # Errors
    /// The reason why no events can be received any more.
    fn resubscribe(&mut self) -> Result<(), ConnectorError>;

    /// Receives GID events from now on, or not any more.
    fn accept_gid_events(&mut self, accepts: bool);

    /// Checks whether [`Self::read_moves`] reports the moves between cgroups.
    fn traces_moves(&self) -> bool;

    /// Reads the moves by other processes since the last call, and returns the number of lost ones.
    ///
    /// # Errors
    /// As read(2).
    fn read_moves(&mut self, take: impl FnMut(TracedMove)) -> io::Result<u64>;

    // Processes. All methods accept the PID of a process that does not exist.

    /// Calls `take` for every existing process.
    ///
    /// # Errors
    /// As readdir(3).
    fn processes(&mut self, take: impl FnMut(Pid)) -> io::Result<()>;

    /// Opens a process and reads its effective IDs. `None` when it does not exist.
    fn open_process(&mut self, pid: Pid) -> Option<ProcessHandle>;

    /// Returns the process with the IDs of a live thread in place of those of its exited leader.
    /// `None` when all threads have exited.
    fn stand_in(&mut self, pid: Pid, handle: ProcessHandle) -> Option<ProcessHandle>;

    /// Checks whether all threads of an open process have exited, as far as that is known.
    fn has_exited(&self, handle: &ProcessHandle) -> bool;

    /// Checks whether the PID still belongs to this process, which may be a zombie.
    fn is_same(&mut self, pid: Pid, process: &ProcessRef) -> bool;

    /// Checks whether a process with this PID exists, including zombies.
    fn exists(&self, pid: Pid) -> bool;

    /// Returns a number that distinguishes a process from a later one with the same PID.
    fn identity(&mut self, pid: Pid) -> Option<u64>;

    /// Returns the [`Self::identity`] of an open process.
    fn identity_of(&mut self, pid: Pid, handle: &ProcessHandle) -> Option<u64>;

    /// Returns the status of a process, or of the thread with this ID.
    fn status(&mut self, pid: Pid) -> Option<ProcessStatus>;

    /// Returns the effective IDs of a thread.
    fn thread_ids(&self, pid: Pid, thread: Pid) -> Option<(Uid, Gid)>;

    /// Returns the number of threads of a process.
    fn thread_count(&self, pid: Pid) -> u64;

    /// Checks whether a thread of the process has other effective IDs.
    fn has_thread_of_others(&self, pid: Pid, ids: (Uid, Gid)) -> bool;

    /// Checks whether the leader has exited before other threads.
    fn has_leader_exited(&mut self, pid: Pid) -> bool;

    /// Calls `take` for the children of every thread of a process.
    fn children(&mut self, pid: Pid, take: impl FnMut(Pid));

    /// Returns the `comm` of the leader.
    fn comm(&mut self, pid: Pid) -> Option<&[u8]>;

    /// Returns the content of `/proc/PID/cgroup` of a process or of one of its threads.
    fn cgroup(&mut self, pid: Pid, thread: Option<Pid>) -> Option<&[u8]>;

    /// Returns the login UID of the leader. `None` if it is not set.
    fn login(&mut self, pid: Pid) -> Option<Uid>;

    /// Checks whether the leader has a real-time scheduling policy.
    fn is_real_time(&self, pid: Pid) -> bool;

    /// Checks whether a process is in a PID namespace below the initial one but in the initial user
    /// namespace.
    fn is_in_namespace_of_root(&mut self, pid: Pid) -> bool;

    /// Determines whether an open process is in a container created by root. `None` if its
    /// namespaces must be read for that, which can block.
    fn containment(&self, handle: &ProcessHandle) -> Option<Containment>;

    // Cgroups. Paths begin at the top of the hierarchy.

    /// Returns the mounted hierarchies.
    fn hierarchies(&self) -> &Hierarchies;

    /// Prepares for the cgroups of another policy, with the managed root `root`.
    fn adopt_configs(&mut self, configs: &Arc<GroupConfigs>, root: &str);

    /// Returns the cgroup of this path if it is open.
    fn known_group(&self, span: HierarchySet, path: &str) -> Option<GroupId>;

    /// Returns the cgroup of this path for the process `pid`, opening it if necessary and, with
    /// `creates`, creating it. `config` is called only if it has to be opened.
    ///
    /// # Errors
    /// The step that the kernel refused, with its error number.
    fn group(
        &mut self,
        pid: Pid,
        place: (HierarchySet, &str),
        creates: bool,
        config: impl FnOnce() -> Option<Arc<PathConfig>>,
    ) -> Result<GroupId, CgroupError>;

    /// Checks whether a process that is in `now` is in the cgroup, in each of its hierarchies.
    fn holds(&self, group: GroupId, now: CurrentCgroup<'_>) -> bool;

    /// Moves a process that is in `now` into the cgroup.
    fn attach(&mut self, group: GroupId, pid: Pid, now: CurrentCgroup<'_>) -> AttachResult;

    /// Moves a process out of the cgroup to the cgroups in `home`. Both `now` and `home` are texts
    /// of `/proc/PID/cgroup`.
    ///
    /// # Errors
    /// The kernel refused the move.
    fn move_back(
        &mut self,
        group: GroupId,
        pid: Pid,
        now: &[u8],
        home: &[u8],
    ) -> Result<(), CgroupError>;

    /// Records a placement at `now`: more will follow soon.
    fn placed(&mut self, now: Nanos);

    /// Records that root executed a program or changed its user at `now`: a login may follow.
    fn expect_move(&mut self, _now: Nanos) {}

    /// Returns the owner of a cgroup in the hierarchy with this index. `None` if it does not exist.
    fn group_owner(&self, hierarchy: usize, path: &[u8]) -> Option<Uid>;

    /// Returns the ID of a cgroup in the hierarchy with this index. `None` if it does not exist.
    fn group_id(&self, hierarchy: usize, path: &[u8]) -> Option<u64>;

    /// Checks whether the named v1 hierarchy of systemd is mounted and has cgroups below its root.
    fn has_groups_of_systemd(&self) -> bool;

    /// Checks whether a user other than root may move processes into a cgroup.
    fn is_group_writable(&self, hierarchy: usize, path: &[u8]) -> bool;

    /// Checks whether a cgroup of the v2 hierarchy contains this process and, apart from those for which
    /// `leaves` returns true, no other.
    fn is_alone(&self, path: &str, pid: Pid, leaves: impl Fn(Pid) -> bool) -> bool;

    // The gate.

    /// Lets executions of these files wait from now on, and no others. Another thread opens the files.
    fn gate(&mut self, _files: &[Box<[u8]>]) {}

    /// Returns the next execution that waits, if there is one.
    fn next_gated(&mut self) -> Option<GatedExec> {
        None
    }

    /// Looks whether other files have the paths of gated ones by now.
    fn check_gated_files(&mut self) {}

    /// Lets the execution with this ticket go on. `false` if it did already, because it waited too long or its process
    /// was killed.
    fn answer_gated(&mut self, _ticket: u64) -> bool {
        false
    }

    // Helper threads. Each request, except for `provoke`, has one reply.

    /// Returns the replies that have arrived.
    fn replies(&mut self) -> Vec<WorkerReply>;

    /// Requests a policy from the present files.
    fn reload(&mut self);

    /// Requests a policy that does not become active, for a plan.
    fn plan(&mut self, request: PlanRequest);

    /// Requests the names and groups of a user for the rules of `policy`.
    fn identify(&mut self, policy: &Policy, uid: Uid);

    /// Requests the name of a group for the rules of `policy`.
    fn name_group(&mut self, policy: &Policy, gid: Gid);

    /// Requests the name of a container for the rules of `policy`.
    fn name_container(&mut self, policy: &Policy, key: ContainerKey);

    /// Requests the examination of an executable on behalf of `user`. Returns `false` if that user
    /// has too many requests.
    #[must_use]
    fn examine(&mut self, user: Uid, examination: Examination) -> bool;

    /// Reports whether a user with refused examinations has none queued any more.
    fn take_overflown(&mut self) -> bool;

    /// Requests the service manager of a user.
    ///
    /// # Errors
    /// The request cannot be processed.
    fn find_manager(&mut self, uid: Uid) -> io::Result<()>;

    /// Frees a policy that is not used any more, in another thread: it has some allocations for each rule.
    fn retire(&mut self, policy: Box<Policy>);

    /// Starts a short-lived process, so that there is a fork event.
    fn provoke(&mut self);
}
