//! Tests which files the daemon trusts, and which processes it must never move.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{Live, Settings, Surroundings, strangers};

const ALICE_THERE: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"there\"\n";
const BOB_THERE: &str = "[[rule]]\nuser = \"cgt-bob\"\ncgroup = \"there\"\n";

/// Makes a second rule file untrusted: the daemon must reject it with its name, and apply the first one.
fn is_refused(spoil: impl FnOnce(&std::path::Path)) {
    let Some(live) = Live::require() else { return };
    live.rule_file("10-spoilt.toml", ALICE_THERE);
    spoil(&live.path("rules.d/10-spoilt.toml"));
    let daemon = live.daemon(BOB_THERE);
    daemon.expect_log("10-spoilt.toml");
    live.expect_untouched(&live.hold(&format!("uid {ALICE} {ALICE}")));
    live.expect(&live.hold(&format!("uid {BOB} {BOB}")), "there");
}

#[test]
fn a_rule_file_of_another_user_is_refused() {
    is_refused(|path| chown(path, Some(ALICE), None).unwrap());
}

#[test]
fn a_rule_file_that_others_may_write_is_refused() {
    is_refused(|path| fs::set_permissions(path, PermissionsExt::from_mode(0o666)).unwrap());
}

#[test]
fn a_rule_file_that_is_a_fifo_is_refused() {
    is_refused(|path| {
        fs::remove_file(path).unwrap();
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    });
}

/// Checks with a rule for all users and `--dry-run` that neither PID 1 nor a kernel thread would be moved.
#[test]
fn pid_1_and_kernel_threads_are_never_meant() {
    expect_protected(&[], "");
}

/// Checks the same for a daemon that may not read their executables, and that it reports this.
#[test]
fn kernel_threads_are_never_meant_where_executables_cannot_be_read() {
    let launcher = ["setpriv", "--bounding-set", "-sys_ptrace"];
    if Command::new(launcher[0]).arg("--version").output().is_err() {
        return println!("skipped: no setpriv");
    }
    expect_protected(
        &launcher,
        "lacks CAP_SYS_PTRACE: executables and containers of other users are unknown",
    );
}

/// Starts the daemon by `launcher` with a rule for all users and `--dry-run`, which logs `expected`.
fn expect_protected(launcher: &[&str], expected: &str) {
    let Some(live) = Live::require() else { return };
    let settings = Settings { config: "", arguments: &["--dry-run"] };
    let on = Surroundings { launcher, ..Surroundings::default() };
    let daemon = live.daemon_on("[[rule]]\nuser = \"*\"\ncgroup = \"all\"\n", &settings, &on);
    daemon.expect_log(expected);
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    daemon.expect_log(&format!("would move process {} of", actor.subject));
    let log = daemon.log();
    for pid in kernel_threads() {
        assert!(!log.contains(&format!("would move process {pid} of")), "{pid} would be moved");
    }
    let counters = daemon.stop();
    assert!(counters.get("protected") > 2, "{counters:?}");
}

/// Returns PID 1 and the children of kthreadd.
fn kernel_threads() -> Vec<u32> {
    let is_kernel = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        *pid <= 2 || parent == Some("2")
    };
    crate::harness::census::pids().filter(is_kernel).collect()
}

#[test]
fn processes_of_other_users_stay() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(ALICE_THERE);
    let _actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.fence();
    assert_eq!(strangers(&live.ground), [0; 0]);
}
