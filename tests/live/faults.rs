//! Tests failures of system calls that pass, and limits of the kernel that are reached. strace lets the
//! calls of the daemon fail.

use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{Live, injected_faults, with_faults};

const RULES: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"a\"\n";

/// Checks that processes are placed while every 8th of these calls fails, and that the daemon goes on.
fn goes_on(fault: &str) {
    let Some(live) = Live::require() else { return };
    let Some(daemon) = with_faults(&live, RULES, &[fault.to_owned()]) else { return };
    for _ in 0..40 {
        live.expect(&live.hold(&format!("uid {ALICE} {ALICE}")), "a");
    }
    assert!(injected_faults(&live) > 0, "no call failed");
    // Asserts the status 0.
    let _counters = daemon.stop();
}

#[test]
fn reads_of_events_without_buffers_do_not_stop_the_daemon() {
    goes_on("recvmmsg:error=ENOBUFS:when=40+8");
}

#[test]
fn reads_of_events_without_memory_do_not_stop_the_daemon() {
    goes_on("recvmmsg:error=ENOMEM:when=40+8");
}

#[test]
fn interrupted_reads_of_events_do_not_stop_the_daemon() {
    goes_on("recvmmsg:error=EINTR:when=40+8");
}

#[test]
fn a_count_of_losses_without_memory_does_not_stop_the_daemon() {
    goes_on("getsockopt:error=ENOMEM:when=6+2");
}

/// Checks that the daemon starts without watches, names the sysctl, and reloads when asked to.
fn starts_unwatched(fault: &str, sysctl: &str) {
    let Some(live) = Live::require() else { return };
    let Some(daemon) = with_faults(&live, RULES, &[fault.to_owned()]) else { return };
    daemon.expect_log(sysctl);
    daemon.expect_log("run 'cgrulectl reload' after a change");
    live.expect(&live.hold(&format!("uid {ALICE} {ALICE}")), "a");
    live.write_rules("[[rule]]\nuser = \"cgt-bob\"\ncgroup = \"b\"\n");
    daemon.signal(Signal::SIGHUP);
    live.expect(&live.hold(&format!("uid {BOB} {BOB}")), "b");
}

#[test]
fn without_an_inotify_instance_the_daemon_starts_and_names_the_limit() {
    starts_unwatched("inotify_init1:error=EMFILE", "fs.inotify.max_user_instances");
}

#[test]
fn without_inotify_watches_the_daemon_starts_and_names_the_limit() {
    starts_unwatched("inotify_add_watch:error=ENOSPC", "fs.inotify.max_user_watches");
}
