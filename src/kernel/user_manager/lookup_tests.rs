use std::fs;
use std::os::unix::fs::PermissionsExt;

use std::time::Instant;

use super::*;

const USER: Uid = Uid(5);

/// Directory with replacements of systemctl and `/proc`.
struct FakeHost {
    root: tempfile::TempDir,
}

impl FakeHost {
    fn new(script: &str) -> Self {
        let host = Self { root: tempfile::tempdir().unwrap() };
        // Written by another process: a file that this one has open for writing could be inherited
        // by a fork in another test, and then it cannot be executed.
        let draft = host.path("draft");
        let program = host.path("systemctl");
        let text = format!("#!/bin/sh\necho \"$*\" >>{}\n{script}\n", host.path("log").display());
        fs::write(&draft, text).unwrap();
        assert!(Command::new("/bin/cp").arg(&draft).arg(&program).status().unwrap().success());
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        fs::create_dir(host.path("proc")).unwrap();
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn process(&self, pid: u32, comm: &str, parent: u32, uid: u32, children: &str) {
        let dir = self.path("proc").join(pid.to_string());
        fs::create_dir_all(dir.join(format!("task/{pid}"))).unwrap();
        fs::write(dir.join("comm"), format!("{comm}\n")).unwrap();
        let status = format!(
            "Name:\t{comm}\nState:\tS (sleeping)\nTgid:\t{pid}\nPid:\t{pid}\nPPid:\t{parent}\n\
             Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t5\t5\t5\t5\n"
        );
        fs::write(dir.join("status"), status).unwrap();
        let zeros = "0 ".repeat(17);
        fs::write(dir.join("stat"), format!("{pid} ({comm}) S {parent} {zeros}{pid} 0\n")).unwrap();
        fs::write(dir.join(format!("task/{pid}/children")), children).unwrap();
    }

    fn lookup(&self, limit: Duration) -> ManagerLookup {
        ManagerLookup::of(&self.path("systemctl"), &self.path("proc"), limit)
    }

    /// Returns the PIDs of the manager and its `(sd-pam)`.
    fn find(&self) -> (Option<u32>, Option<u32>) {
        let found = self.lookup(LIMIT).find(USER).unwrap();
        let pid =
            |process: &Option<ManagerProcess>| process.as_ref().map(|process| process.pid.get());
        (pid(&found.manager), pid(&found.pam))
    }
}

fn with_manager() -> FakeHost {
    let host = FakeHost::new("echo MainPID=40");
    host.process(40, "systemd", 1, 5, "41 42 ");
    host.process(41, "(sd-pam)", 40, 5, "");
    host.process(42, "(sd-pam)", 40, 5, "");
    host
}

#[test]
fn the_manager_is_what_systemd_reports_and_its_oldest_child() {
    let host = with_manager();
    assert_eq!(host.find(), (Some(40), Some(41)));
    let log = fs::read_to_string(host.path("log")).unwrap();
    assert_eq!(log, "show --property=MainPID user@5.service\n");
}

#[test]
fn a_younger_child_is_no_sd_pam() {
    let host = with_manager();
    host.process(41, "dbus-daemon", 40, 5, "");
    assert_eq!(host.find(), (Some(40), None));
    host.process(40, "systemd", 1, 5, "");
    assert_eq!(host.find(), (Some(40), None));
}

#[test]
fn a_main_process_that_the_manager_named_is_not_taken() {
    let host = with_manager();
    host.process(40, "systemd", 39, 5, "41 ");
    assert_eq!(host.find(), (None, None));
    // A process of another user: the PID was reused.
    host.process(40, "systemd", 1, 6, "41 ");
    assert_eq!(host.find(), (None, None));
    // The manager has not set its user yet.
    host.process(40, "(systemd)", 1, 0, "41 ");
    assert_eq!(host.find(), (Some(40), Some(41)));
}

#[test]
fn a_unit_that_does_not_run_has_no_manager() {
    assert_eq!(FakeHost::new("echo MainPID=0").find(), (None, None));
    // The manager exited after the reply.
    assert_eq!(FakeHost::new("echo MainPID=40").find(), (None, None));
}

#[test]
fn a_later_process_of_the_same_pid_is_another_one() {
    let host = with_manager();
    let found = host.lookup(LIMIT).find(USER).unwrap();
    let mut proc = ProcFs::open(&host.path("proc")).unwrap();
    let [manager, pam, other] = [40, 41, 42].map(|pid| Pid::new(pid).unwrap());
    assert!(found.contains(manager, &mut proc) && found.contains(pam, &mut proc));
    assert!(!found.contains(other, &mut proc));
    assert_eq!(found.pids().collect::<Vec<_>>(), [manager, pam]);
    let stat = fs::read_to_string(host.path("proc/42/stat")).unwrap();
    fs::write(host.path("proc/40/stat"), stat).unwrap();
    assert!(!found.contains(manager, &mut proc));
}

#[test]
fn a_process_is_held_by_a_pidfd() {
    let mut child = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let mut proc = ProcFs::open(Path::new("/proc")).unwrap();
    let pid = Pid::new(child.id()).unwrap();
    let held = proc.refer(pid).unwrap();
    assert!(proc.is_same(pid, &held));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!proc.is_same(pid, &held));
}

#[test]
fn failures_say_what_failed() {
    let message =
        |script: &str| FakeHost::new(script).lookup(LIMIT).find(USER).unwrap_err().to_string();
    assert_eq!(
        message("echo 'Failed to connect to bus' >&2; exit 1"),
        "systemctl: exit status: 1: Failed to connect to bus"
    );
    assert_eq!(message("echo Main=3"), "systemctl printed no main PID: Main=3");
    let host = FakeHost::new("");
    fs::remove_file(host.path("systemctl")).unwrap();
    let error = host.lookup(LIMIT).find(USER).unwrap_err().to_string();
    assert!(error.starts_with("systemctl: No such file"), "{error}");
}

#[test]
fn a_systemctl_that_hangs_is_killed() {
    let host = FakeHost::new("exec sleep 60");
    let begin = Instant::now();
    let error = host.lookup(Duration::from_millis(200)).find(USER).unwrap_err();
    assert_eq!(error.to_string(), "systemctl did not answer within 0.2 s");
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_child_of_systemctl_that_lives_on_is_not_waited_for() {
    let host = FakeHost::new("echo MainPID=0; sleep 20 &");
    let begin = Instant::now();
    assert!(host.lookup(LIMIT).find(USER).unwrap().manager.is_none());
    assert!(begin.elapsed() < Duration::from_secs(15));
}
