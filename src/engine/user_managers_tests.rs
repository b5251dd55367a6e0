use super::*;
use crate::engine::fake_kernel::{FakeKernel, FakeProcess};
use crate::event::Cause;
use crate::policy::worker::WorkerReply;

const USER: Uid = Uid(5);
const MANAGER: u32 = 40;
const PAM: u32 = 41;

/// Host with a manager, its `(sd-pam)` and other processes of the same user.
struct FakeHost {
    kernel: FakeKernel,
    managers: UserManagers,
}

impl FakeHost {
    /// Creates a host on which systemd reports this manager, or does not reply.
    fn new(manager: Option<u32>) -> Self {
        let kernel = FakeKernel { manager, ..FakeKernel::new() };
        let mut host = Self { kernel, managers: UserManagers::new(Arc::new(Metrics::default())) };
        host.start(MANAGER, 1, "systemd", &[41]);
        host.start(PAM, MANAGER, "(sd-pam)", &[]);
        host.start(50, MANAGER, "(sd-pam)", &[]);
        host.start(51, 50, "(sd-pam)", &[]);
        host
    }

    fn start(&mut self, pid: u32, parent: u32, comm: &'static str, children: &[u32]) {
        let (children, started) = (children.to_vec(), u64::from(pid));
        let process =
            FakeProcess { parent, comm, children, started, uid: USER.0, ..FakeProcess::default() };
        self.kernel.start(pid, process);
    }

    fn check(&mut self, pid: u32, since: u64, now: u64) -> ManagerVerdict {
        let parent = self.kernel.status(Pid::new(pid).unwrap()).and_then(|status| status.parent);
        let is_named_pam = self.kernel.comm(Pid::new(pid).unwrap()) == Some(b"(sd-pam)");
        let candidate = ManagerCandidate {
            evaluation: evaluation(pid, since),
            uid: USER,
            parent,
            is_named_pam,
        };
        self.managers.check(candidate, &mut self.kernel, seconds(now))
    }

    /// Returns a candidate that must be evaluated again after the replies that have arrived.
    fn due(&mut self, now: u64) -> Option<u32> {
        loop {
            let due = self.managers.take_due(&mut self.kernel, seconds(now));
            let replies = self.kernel.replies();
            if due.is_some() || replies.is_empty() {
                return due.map(|evaluation| evaluation.pid.get());
            }
            for reply in replies {
                let WorkerReply::Manager(reply) = reply else { panic!() };
                self.managers.take(reply, &mut self.kernel, seconds(now));
            }
        }
    }

    /// Returns the number of requested lookups.
    fn lookups(&self) -> usize {
        self.kernel.lookups
    }
}

fn seconds(seconds: u64) -> Nanos {
    Nanos(seconds * 1_000_000_000)
}

fn evaluation(pid: u32, since: u64) -> EvaluationRequest {
    EvaluationRequest::at_once(Pid::new(pid).unwrap(), Cause::EXEC, seconds(since))
}

fn answered() -> FakeHost {
    let mut host = FakeHost::new(Some(MANAGER));
    assert_eq!(host.check(MANAGER, 9, 10), ManagerVerdict::Pending);
    assert_eq!(host.due(10), Some(MANAGER));
    host
}

#[test]
fn a_candidate_waits_until_systemd_has_answered() {
    let mut host = FakeHost::new(Some(MANAGER));
    for pid in [MANAGER, PAM, 50, 50] {
        assert_eq!(host.check(pid, 9, 10), ManagerVerdict::Pending);
    }
    assert!(!host.managers.is_protected_parent(Pid::new(MANAGER).unwrap()));
    let due = [host.due(10), host.due(10), host.due(10)];
    assert_eq!(due, [Some(MANAGER), Some(PAM), Some(50)]);
    assert_eq!(host.check(MANAGER, 9, 10), ManagerVerdict::Protected);
    assert_eq!(host.check(PAM, 9, 10), ManagerVerdict::Protected);
    let protected =
        [MANAGER, PAM, 50].map(|pid| host.managers.is_protected_parent(Pid::new(pid).unwrap()));
    assert_eq!(protected, [true, true, false]);
    assert_eq!((host.lookups(), host.managers.metrics.manager_lookups.get()), (1, 1));
}

#[test]
fn what_is_neither_is_movable_at_once_while_the_manager_lives() {
    let mut host = answered();
    // Newer than the reply, and named like the (sd-pam): no further lookup is made.
    assert_eq!(host.check(51, 20, 20), ManagerVerdict::Movable);
    assert_eq!(host.lookups(), 1);
}

#[test]
fn a_manager_that_was_looked_up_before_it_forked_the_sd_pam_is_looked_up_again() {
    let mut host = FakeHost::new(Some(MANAGER));
    host.start(MANAGER, 1, "systemd", &[]);
    assert_eq!(host.check(MANAGER, 9, 10), ManagerVerdict::Pending);
    assert_eq!(host.due(10), Some(MANAGER));
    assert_eq!(host.check(PAM, 10, 10), ManagerVerdict::Pending);
    assert_eq!(host.check(51, 10, 10), ManagerVerdict::Movable, "not a child of the manager");
    host.start(MANAGER, 1, "systemd", &[41, 50]);
    assert_eq!((host.due(11), host.lookups()), (Some(PAM), 2));
    assert_eq!(host.check(PAM, 10, 11), ManagerVerdict::Protected);
    // Once found, it is not looked up again, also when it was killed.
    host.kernel.processes.remove(&PAM).unwrap();
    host.start(MANAGER, 1, "systemd", &[50]);
    assert_eq!(host.check(50, 20, 20), ManagerVerdict::Pending);
    assert_eq!((host.due(25), host.lookups()), (Some(50), 2));
    assert_eq!(host.check(50, 20, 25), ManagerVerdict::Movable);
}

#[test]
fn lookups_for_an_sd_pam_that_is_not_found_come_to_an_end() {
    let mut host = FakeHost::new(Some(MANAGER));
    host.start(MANAGER, 1, "systemd", &[49, 50]);
    let mut now = 10;
    assert_eq!(host.check(50, 9, now), ManagerVerdict::Pending);
    while host.lookups() < usize::from(MAX_LOOKUPS_WITHOUT_PAM) {
        assert_eq!(host.due(now), Some(50));
        assert_eq!(host.check(50, 9, now), ManagerVerdict::Pending);
        now += 1;
    }
    // The last time it waited for the time limit of any child of the manager.
    now += 4;
    assert_eq!(host.due(now), Some(50));
    assert_eq!(host.check(50, 9, now), ManagerVerdict::Movable);
    assert_eq!(host.lookups(), usize::from(MAX_LOOKUPS_WITHOUT_PAM));
}

#[test]
fn a_child_of_the_manager_has_five_seconds_to_become_a_unit() {
    let mut host = answered();
    assert_eq!(host.check(50, 20, 20), ManagerVerdict::Pending);
    assert_eq!(host.managers.next_due(), Some(seconds(20).plus(50_000_000)));
    assert_eq!(host.due(24), Some(50));
    assert_eq!(host.check(50, 20, 24), ManagerVerdict::Pending, "its executor is slow");
    assert_eq!(host.due(25), Some(50));
    assert_eq!(host.check(50, 20, 25), ManagerVerdict::Movable);
}

#[test]
fn systemd_is_asked_again_for_what_is_newer_than_an_answer_without_a_living_manager() {
    let mut host = answered();
    host.kernel.processes.remove(&MANAGER).unwrap();
    assert_eq!(host.check(50, 9, 10), ManagerVerdict::Movable, "it existed when systemd was asked");
    host.start(60, 1, "systemd", &[]);
    // No lookup is made before one second is over.
    assert_eq!(host.check(60, 10, 10), ManagerVerdict::Pending);
    assert_eq!(host.managers.next_due(), Some(seconds(11)));
    assert!(host.managers.take_due(&mut host.kernel, seconds(10)).is_none());
    assert_eq!((host.due(11), host.lookups()), (Some(60), 2));
    assert_eq!(host.check(60, 10, 11), ManagerVerdict::Movable, "systemd reports another one");
    assert!(!host.managers.is_protected_parent(Pid::new(MANAGER).unwrap()));
}

#[test]
fn without_an_answer_candidates_go_on_waiting_up_to_a_bound() {
    let mut host = FakeHost::new(None);
    assert_eq!(host.check(MANAGER, 9, 10), ManagerVerdict::Pending);
    assert_eq!(host.due(10), None);
    assert_eq!(host.managers.metrics.failed_manager_lookups.get(), 1);
    assert_eq!(host.managers.next_due(), Some(seconds(15)));
    for pid in 100..163 {
        assert_eq!(host.check(pid, 9, 11), ManagerVerdict::Pending);
    }
    assert_eq!(host.check(163, 9, 11), ManagerVerdict::Movable);
    host.kernel.manager = Some(MANAGER);
    assert_eq!((host.due(15), host.lookups()), (Some(MANAGER), 2));
    assert_eq!(host.check(MANAGER, 9, 15), ManagerVerdict::Protected);
}

#[test]
fn users_are_forgotten_when_they_are_too_many() {
    let mut host = answered();
    assert_eq!(host.check(MANAGER, 9, 10), ManagerVerdict::Protected);
    for uid in 0..MAX_USERS as u32 {
        host.managers.users.entry(Uid(1000 + uid)).or_default();
    }
    let candidate = ManagerCandidate {
        evaluation: evaluation(70, 9),
        uid: Uid(6),
        parent: None,
        is_named_pam: false,
    };
    assert_eq!(
        host.managers.check(candidate, &mut host.kernel, seconds(10)),
        ManagerVerdict::Pending
    );
    assert_eq!(host.managers.users.len(), 1);
    assert!(!host.managers.is_protected_parent(Pid::new(MANAGER).unwrap()));
    assert_eq!(host.check(MANAGER, 9, 11), ManagerVerdict::Pending);
}
