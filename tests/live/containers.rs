//! Tests processes in containers: a cgroup and namespaces, as container engines create them.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::Duration;

use crate::harness::user::ALICE;
use crate::harness::{Live, census};

const RULE: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"alice\"\n";

/// A process in a cgroup beside that of the test, which is the `--root`; both are removed on drop.
pub(crate) struct Contained {
    child: Child,
    cgroup: PathBuf,
    /// Cgroup as in `/proc/PID/cgroup`.
    place: String,
    /// PID of the process of alice.
    pub(crate) pid: u32,
}

/// Starts a sleeping shell of alice by `command`, in a cgroup of its own or in the root cgroup.
fn contained(live: &Live, has_cgroup: bool, command: &[&str]) -> Contained {
    let name = unused_name();
    contained_in(live, if has_cgroup { &name } else { "" }, command)
}

/// Returns a name for a container.
pub(crate) fn unused_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("cgruled-test-box-{}-{number}", std::process::id())
}

/// As [`contained`], in the top-level cgroup of this name. An empty name means the root cgroup.
pub(crate) fn contained_in(live: &Live, name: &str, command: &[&str]) -> Contained {
    let top = live.ground.directory("", "").unwrap().parent().unwrap().to_owned();
    let (cgroup, place) = (top.join(name), format!("/{name}"));
    fs::create_dir_all(&cgroup).unwrap();
    let procs = cgroup.join("cgroup.procs");
    // The inner shell prints its PID in the PID namespace of the test: /proc is still that of the host.
    let inner = "read -r pid rest < /proc/self/stat; echo $pid; exec sleep 1000";
    let script = format!("echo $$ > {}; exec \"$@\"", procs.display());
    let id = ALICE.to_string();
    let is_alice_already = command.contains(&"--user");
    let become_alice = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
    let become_alice = if is_alice_already { &[][..] } else { &become_alice[..] };
    let mut child = Command::new("/bin/sh")
        .args(["-c", &script, "sh"])
        .args(command)
        .args(become_alice)
        .args(["sh", "-c", inner])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pid = line.trim().parse().unwrap();
    Contained { child, cgroup, place, pid }
}

impl Drop for Contained {
    fn drop(&mut self) {
        let pid = i32::try_from(self.pid).unwrap();
        let _ended = nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid),
            nix::sys::signal::Signal::SIGKILL,
        );
        let _waited = self.child.wait();
        if self.place != "/" {
            for _ in 0..100 {
                if fs::remove_dir(&self.cgroup).is_ok() {
                    break;
                }
                sleep(Duration::from_millis(20));
            }
        }
    }
}

impl Contained {
    fn expect_left(&self) {
        sleep(Duration::from_millis(1500));
        assert_eq!(census::cgroup_of(self.pid, ""), Some(self.place.clone()), "1 of 1 moved");
    }
}

pub(crate) const BY_ROOT: &[&str] = &["unshare", "--pid", "--cgroup", "--fork", "--kill-child"];

#[test]
fn a_container_that_root_created_keeps_its_processes() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(RULE);
    let inside = contained(&live, true, BY_ROOT);
    inside.expect_left();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    inside.expect_left();
    drop(inside);
    let counters = daemon.stop();
    assert!(counters.get("kept_in_container") >= 2, "{counters:?}");
}

#[test]
fn a_container_that_shares_the_pid_namespace_keeps_its_processes() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULE);
    contained(&live, true, &["unshare", "--cgroup"]).expect_left();
}

/// Control: the same cgroup without namespaces.
#[test]
fn a_cgroup_alone_is_not_a_container() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULE);
    let inside = contained(&live, true, &["env"]);
    live.expect_pid("", inside.pid, "alice");
}

#[test]
fn a_rule_for_containers_moves_their_processes() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(&format!("{RULE}containers = true\n"));
    let inside = contained(&live, true, BY_ROOT);
    live.expect_pid("", inside.pid, "alice");
}

/// Checks namespaces that set-user-ID programs create for any user, in the cgroup of the user.
#[test]
fn namespaces_of_root_mean_nothing_in_the_root_cgroup() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULE);
    let inside = contained(&live, false, BY_ROOT);
    live.expect_pid("", inside.pid, "alice");
}

#[test]
fn namespaces_of_a_user_mean_nothing() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULE);
    let inside = contained_by_alice(&live, &unused_name());
    live.expect_pid("", inside.pid, "alice");
}

/// Starts a process in namespaces that alice created, in the top-level cgroup of this name.
pub(crate) fn contained_by_alice(live: &Live, name: &str) -> Contained {
    let id = ALICE.to_string();
    let become_alice = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"];
    let create = ["unshare", "--user", "--pid", "--cgroup", "--fork", "--kill-child"];
    contained_in(live, name, &[&become_alice[..], &create[..]].concat())
}
