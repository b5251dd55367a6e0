//! Helper threads for calls that can block, so that the hot thread does not: one reads rules, a few
//! query the name service, and those of [`crate::kernel::exe_pool`] examine executables. Requests and
//! replies pass through channels; an eventfd wakes the main loop.

mod directory;
mod lookups;
mod missing_names;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread;

use crossbeam_channel::{Receiver, Sender, unbounded};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::event::{Gid, Pid, Uid};
use crate::kernel::connector::run_test_process;
use crate::kernel::exe_pool::{Examination, ExaminationPool};
use crate::kernel::program::{self, Examined, ReadRequest};
use crate::kernel::user_manager::LookupReply;
use crate::policy::planned::{PlanRequest, PlannedPolicy};
use crate::policy::{Policy, User};
use crate::rules::container::ContainerKey;
use crate::rules::names::UnknownName;
use crate::sys;
pub use directory::Directory;
use directory::LookupKey;
use lookups::Lookups;
use missing_names::MissingNames;

/// Reply of a helper thread to the hot thread.
pub enum WorkerReply {
    /// New policy that is to be activated.
    Policy(Box<Policy>),
    /// Policy of a plan.
    Planned(Box<PlannedPolicy>),
    /// Names and groups of a user, evaluated by the rules of this generation.
    User {
        /// Generation of the policy that it was requested for.
        generation: u64,
        /// Result of the lookup in the name service.
        user: User,
    },
    /// Name of a group, if it has one.
    Group {
        /// Generation of the policy that it was requested for.
        generation: u64,
        /// Group ID that was looked up.
        gid: Gid,
        /// Name in the group database.
        name: Option<Box<str>>,
    },
    /// Name of a container, if it has one.
    Container {
        /// Generation of the policy that it was requested for.
        generation: u64,
        /// Container whose name was read.
        key: ContainerKey,
        /// Name in the files of its engine.
        name: Option<Box<str>>,
    },
    /// Result of the examination of an executable.
    Examined {
        /// Process that runs the executable.
        pid: Pid,
        /// Sequence number of the examination.
        number: u64,
        /// Data that was read about the executable.
        examined: Examined,
    },
    /// Process with an executable that is readable again, after a read of it blocked the hot
    /// thread.
    Readable(Pid),
    /// Result of the lookup of a user's service manager.
    Manager(LookupReply),
    /// A name in rules that was unknown when they were read exists now.
    NamesAppeared,
}

/// Requests to the rule thread.
enum WorkerRequest {
    Reload,
    Plan(PlanRequest),
    Retire(Box<Policy>),
    Provoke,
}

/// Reason for a reload of the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadReason {
    /// Request of the administrator, or a changed rule file.
    Rules,
    /// Change in the user or group database.
    Names,
}

/// Service that the rule thread runs.
pub trait PolicyService: Send + 'static {
    /// Reads the rules again. The last valid version of a file with new errors is used.
    fn reload(&mut self) -> Box<Policy>;
    /// Builds the policy that a reload would activate if these files were those of the daemon. It does not
    /// become active.
    fn plan(&mut self, request: &PlanRequest) -> PlannedPolicy;
    /// Called after a policy was sent to the hot thread, for work that it must not wait for.
    fn activated(&mut self) {}
    /// Returns the name service that resolves the names in rules.
    fn directory(&self) -> Arc<dyn Directory>;
    /// Returns the names in the rules that were read last that the name service does not know.
    fn missing_names(&self) -> &[UnknownName];
}

/// Interface of the hot thread to the helper threads.
pub struct WorkerHandle {
    questions: Sender<WorkerRequest>,
    executables: ExaminationPool,
    counter: ReplySender,
    answers: Receiver<WorkerReply>,
    bell: Arc<EventFd>,
    lookups: Lookups,
    missing: Arc<MissingNames>,
}

#[derive(Clone)]
struct ReplySender {
    answers: Sender<WorkerReply>,
    bell: Arc<EventFd>,
}

impl ReplySender {
    /// Sends a reply and wakes the main loop. Returns `false` only if the hot thread has ended.
    fn answer(&self, answer: WorkerReply) -> bool {
        self.answers.send(answer).is_ok() && self.bell.write(1).is_ok()
    }
}

impl WorkerHandle {
    /// Starts the threads.
    ///
    /// # Errors
    /// A thread or the eventfd cannot be created.
    pub fn open(office: impl PolicyService) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let bell = Arc::new(EventFd::from_value_and_flags(0, flags)?);
        let (questions, asked) = unbounded();
        let (sender, answers) = unbounded();
        let counter = ReplySender { answers: sender, bell: Arc::clone(&bell) };
        let of_rules = counter.clone();
        let of_executables = counter.clone();
        let missing = MissingNames::new(office.directory(), counter.clone());
        missing.watch(office.missing_names());
        let lookups = Lookups::open(office.directory(), counter.clone(), Arc::clone(&missing))?;
        let of_reloads = Arc::clone(&missing);
        thread::Builder::new().name("rules".into()).spawn(move || {
            serve(office, &asked, &of_rules, &of_reloads);
        })?;
        let executables = ExaminationPool::new(
            Box::new(|Examination { pid, raw, wants_arguments, .. }| {
                program::examine(pid, raw.as_deref(), wants_arguments)
            }),
            Box::new(move |pid, number, examined| {
                of_executables.answer(WorkerReply::Examined { pid, number, examined })
            }),
        );
        Ok(Self { questions, executables, counter, answers, bell, lookups, missing })
    }

    /// Requests a reload of the rules.
    pub fn reload(&self) {
        self.ask(WorkerRequest::Reload);
    }

    /// Requests the policy of a plan.
    pub fn plan(&self, request: PlanRequest) {
        self.ask(WorkerRequest::Plan(request));
    }

    /// Requests the names and groups of a user for the rules of `policy`.
    pub fn identify(&mut self, policy: &Policy, uid: Uid) {
        self.lookups.ask(LookupKey::User(uid), policy.generation, &policy.matcher);
    }

    /// Requests the name of a group for the rules of `policy`.
    pub fn name_group(&mut self, policy: &Policy, gid: Gid) {
        self.lookups.ask(LookupKey::Group(gid), policy.generation, &policy.matcher);
    }

    /// Requests the name of a container for the rules of `policy`.
    pub fn name_container(&mut self, policy: &Policy, key: ContainerKey) {
        self.lookups.ask(LookupKey::Container(key), policy.generation, &policy.matcher);
    }

    /// Requests the examination of an executable, accounted to `user`. Returns `false` if that user
    /// has too many queued requests.
    #[must_use]
    pub fn examine(&self, user: Uid, examination: Examination) -> bool {
        self.executables.submit(user, examination)
    }

    /// Checks whether a user with rejected requests has no queued requests left.
    pub fn take_overflown(&self) -> bool {
        self.executables.take_overflown()
    }

    /// Returns the callback that reports the completion of a late read.
    pub fn late_reads(&self) -> Box<dyn Fn(ReadRequest) + Send + Sync> {
        let counter = self.counter.clone();
        Box::new(move |request| {
            // Sending fails only if the hot thread has ended.
            let _told = counter.answer(WorkerReply::Readable(request.pid));
        })
    }

    /// Frees a policy that is not used any more.
    pub fn retire(&self, policy: Box<Policy>) {
        self.ask(WorkerRequest::Retire(policy));
    }

    /// Forks a short-lived process, so that the kernel sends an event.
    pub fn provoke(&self) {
        self.ask(WorkerRequest::Provoke);
    }

    fn ask(&self, question: WorkerRequest) {
        // The thread does not exit before this handle is dropped.
        if self.questions.send(question).is_err() {
            ::log::error!("the rule thread has exited: restart cgruled");
        }
    }

    /// Returns the eventfd to poll for replies.
    pub fn wakeup_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Returns the eventfd that wakes the main loop when it is written to.
    pub fn waker(&self) -> Arc<EventFd> {
        Arc::clone(&self.bell)
    }

    /// Returns the replies that have arrived.
    pub fn answers(&mut self) -> impl Iterator<Item = WorkerReply> + '_ {
        // Read before the channel: a later reply writes to it again. EAGAIN means that nothing was
        // written.
        let _rung = self.bell.read();
        let lookups = &mut self.lookups;
        self.answers.try_iter().inspect(|answer| lookups.note(answer))
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.missing.stop();
    }
}

fn serve(
    mut office: impl PolicyService,
    asked: &Receiver<WorkerRequest>,
    counter: &ReplySender,
    missing: &Arc<MissingNames>,
) {
    // The first policy was built before the thread started.
    office.activated();
    while let Ok(question) = asked.recv() {
        let answer = match question {
            WorkerRequest::Reload => {
                let policy = office.reload();
                missing.watch(office.missing_names());
                Some(WorkerReply::Policy(policy))
            }
            WorkerRequest::Plan(request) => {
                let planned = Box::new(office.plan(&request));
                sys::trim_memory();
                Some(WorkerReply::Planned(planned))
            }
            WorkerRequest::Retire(policy) => {
                drop(policy);
                sys::trim_memory();
                None
            }
            WorkerRequest::Provoke => {
                provoke();
                None
            }
        };
        if answer.is_some_and(|answer| !counter.answer(answer)) {
            return;
        }
        office.activated();
    }
}

fn provoke() {
    if let Err(error) = run_test_process() {
        ::log::warn!("cannot run a test process: {error}");
    }
}
