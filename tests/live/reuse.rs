//! Tests PIDs that are reused between the evaluation and the move.

use crate::harness::user::ALICE;
use crate::harness::{Live, REST, eventually, strangers};

/// Starts `count` processes of alice, `ms` apart, that exit at once, after which a process of root
/// gets the PID. No rule matches root: none may stay in a cgroup of alice.
fn reused(to: &str, count: u32, ms: u32) {
    let Some(live) = Live::require() else { return };
    let rule = format!("[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"{to}\"\n");
    let daemon = live.daemon(&rule);
    let mut helper = live.actor(&format!("reuse {count} {ALICE} {ms}"));
    let living = helper.said("reused");
    live.fence();
    eventually(REST, || strangers(&live.ground).is_empty());
    let moved = strangers(&live.ground).len();
    println!("PIDs reused, {to:?}: {moved} of {living} processes of root moved");
    drop(helper);
    let counters = daemon.stop();
    println!("moves of a process that was gone: {}", counters.get("reused_pids"));
    assert!(living > count / 2, "only {living} PIDs were reused");
    assert_eq!(moved, 0, "of {living} processes of root are in a cgroup of alice");
}

#[test]
fn reused_pids_at_once() {
    reused("alice", 2000, 0);
}

/// Creates a cgroup for each process between the evaluation and the move.
#[test]
fn reused_pids_while_a_cgroup_is_created() {
    reused("alice/%P", 300, 5);
}
