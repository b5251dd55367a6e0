use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::event::Cause;

const USER: Uid = Uid(5);
const MANAGER: u32 = 40;
const PAM: u32 = 41;

/// Host with a manager, its `(sd-pam)` and other processes of the same user.
struct FakeHost {
    root: tempfile::TempDir,
    proc: ProcFs,
    managers: UserManagers,
}

impl FakeHost {
    fn new(script: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let draft = root.path().join("draft");
        let program = root.path().join("systemctl");
        let directory = root.path().join("proc");
        fs::create_dir(&directory).unwrap();
        let log = root.path().join("log");
        fs::write(&draft, format!("#!/bin/sh\necho >>{}\n{script}\n", log.display())).unwrap();
        // See `lookup_tests`.
        assert!(Command::new("/bin/cp").arg(&draft).arg(&program).status().unwrap().success());
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let lookup = ManagerLookup::of(&program, &directory, Duration::from_secs(30));
        let managers = UserManagers::new(lookup, Arc::new(Metrics::default()));
        let host = Self { proc: ProcFs::open(&directory).unwrap(), root, managers };
        host.start(MANAGER, 1, "systemd", "41 ");
        host.start(PAM, MANAGER, "(sd-pam)", "");
        host.start(50, MANAGER, "(sd-pam)", "");
        host.start(51, 50, "(sd-pam)", "");
        host
    }

    fn dir(&self, pid: u32) -> PathBuf {
        self.root.path().join("proc").join(pid.to_string())
    }

    fn start(&self, pid: u32, parent: u32, comm: &str, children: &str) {
        let dir = self.dir(pid);
        fs::create_dir_all(dir.join(format!("task/{pid}"))).unwrap();
        fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
        let status = format!("Tgid:\t{pid}\nPPid:\t{parent}\nUid:\t5\t5\t5\t5\nGid:\t5\t5\t5\t5\n");
        fs::write(dir.join("status"), status).unwrap();
        let zeros = "0 ".repeat(17);
        fs::write(dir.join("stat"), format!("{pid} (x) S {parent} {zeros}{pid} 0\n")).unwrap();
        fs::write(dir.join(format!("task/{pid}/children")), children).unwrap();
    }

    fn check(&mut self, pid: u32, since: u64, now: u64) -> ManagerVerdict {
        let parent = self.proc.parent(Pid::new(pid).unwrap());
        let is_named_pam = self.proc.comm(Pid::new(pid).unwrap()) == Some(b"(sd-pam)");
        let candidate = ManagerCandidate {
            evaluation: evaluation(pid, since),
            uid: USER,
            parent,
            is_named_pam,
        };
        self.managers.check(candidate, &mut self.proc, seconds(now))
    }

    /// Waits until a candidate must be evaluated again.
    fn due(&mut self, now: u64) -> Option<u32> {
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end {
            if let Some(evaluation) = self.managers.take_due(&self.proc, seconds(now)) {
                return Some(evaluation.pid.get());
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Returns the number of executions of systemctl.
    fn lookups(&self) -> usize {
        fs::read(self.root.path().join("log")).unwrap_or_default().len()
    }
}

fn seconds(seconds: u64) -> Nanos {
    Nanos(seconds * 1_000_000_000)
}

fn evaluation(pid: u32, since: u64) -> EvaluationRequest {
    EvaluationRequest::at_once(Pid::new(pid).unwrap(), Cause::EXEC, seconds(since))
}

fn answered() -> FakeHost {
    let mut host = FakeHost::new("echo MainPID=40");
    assert_eq!(host.check(MANAGER, 9, 10), ManagerVerdict::Pending);
    assert_eq!(host.due(10), Some(MANAGER));
    host
}

#[test]
fn a_candidate_waits_until_systemd_has_answered() {
    let mut host = FakeHost::new("echo MainPID=40");
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
    let mut host = FakeHost::new("echo MainPID=40");
    host.start(MANAGER, 1, "systemd", "");
    assert_eq!(host.check(MANAGER, 9, 10), ManagerVerdict::Pending);
    assert_eq!(host.due(10), Some(MANAGER));
    assert_eq!(host.check(PAM, 10, 10), ManagerVerdict::Pending);
    assert_eq!(host.check(51, 10, 10), ManagerVerdict::Movable, "not a child of the manager");
    host.start(MANAGER, 1, "systemd", "41 50 ");
    assert_eq!((host.due(11), host.lookups()), (Some(PAM), 2));
    assert_eq!(host.check(PAM, 10, 11), ManagerVerdict::Protected);
    // Once found, it is not looked up again, also when it was killed.
    fs::remove_dir_all(host.dir(PAM)).unwrap();
    host.start(MANAGER, 1, "systemd", "50 ");
    assert_eq!(host.check(50, 20, 20), ManagerVerdict::Pending);
    assert_eq!((host.due(25), host.lookups()), (Some(50), 2));
    assert_eq!(host.check(50, 20, 25), ManagerVerdict::Movable);
}

#[test]
fn lookups_for_an_sd_pam_that_is_not_found_come_to_an_end() {
    let mut host = FakeHost::new("echo MainPID=40");
    host.start(MANAGER, 1, "systemd", "49 50 ");
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
    fs::remove_dir_all(host.dir(MANAGER)).unwrap();
    assert_eq!(host.check(50, 9, 10), ManagerVerdict::Movable, "it existed when systemd was asked");
    host.start(60, 1, "systemd", "");
    // No lookup is made before one second is over.
    assert_eq!(host.check(60, 10, 10), ManagerVerdict::Pending);
    assert_eq!(host.managers.next_due(), Some(seconds(11)));
    assert!(host.managers.take_due(&host.proc, seconds(10)).is_none());
    assert_eq!((host.due(11), host.lookups()), (Some(60), 2));
    assert_eq!(host.check(60, 10, 11), ManagerVerdict::Movable, "systemd reports another one");
    assert!(!host.managers.is_protected_parent(Pid::new(MANAGER).unwrap()));
}

#[test]
fn without_an_answer_candidates_go_on_waiting_up_to_a_bound() {
    let mut host = FakeHost::new("[ -e ${0%/*}/works ] && echo MainPID=40");
    assert_eq!(host.check(MANAGER, 9, 10), ManagerVerdict::Pending);
    let end = Instant::now() + Duration::from_secs(20);
    while host.managers.metrics.failed_manager_lookups.get() == 0 && Instant::now() < end {
        assert!(host.managers.take_due(&host.proc, seconds(10)).is_none());
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(host.managers.next_due(), Some(seconds(15)));
    for pid in 100..163 {
        assert_eq!(host.check(pid, 9, 11), ManagerVerdict::Pending);
    }
    assert_eq!(host.check(163, 9, 11), ManagerVerdict::Movable);
    fs::write(host.root.path().join("works"), "").unwrap();
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
        host.managers.check(candidate, &mut host.proc, seconds(10)),
        ManagerVerdict::Pending
    );
    assert_eq!(host.managers.users.len(), 1);
    assert!(!host.managers.is_protected_parent(Pid::new(MANAGER).unwrap()));
    assert_eq!(host.check(MANAGER, 9, 11), ManagerVerdict::Pending);
}
