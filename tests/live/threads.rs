//! Tests processes with threads that differ from the thread-group leader: credentials of a single
//! thread, and a leader that has exited while other threads live.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{Actor, Live, REST, census, eventually, rounds};

const RULES: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"alice\"\n\
                     [[rule]]\nuser = \"cgt-bob\"\ncgroup = \"bob\"\n";

/// Longer than the recheck delay and every wait of the daemon for an event.
const LATER: Duration = Duration::from_millis(300);

/// Reads `pid N` for each of `count` processes that hold.
fn await_pids(actor: &mut Actor, count: usize) {
    for _ in 0..count {
        actor.said("pid");
    }
}

/// Makes a thread alice and the leader `leader`; 300 ms later the thread forks or clones 100 children.
fn children_of_a_thread(leader: u32, births: &str, line: &str, lines: usize) {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULES);
    let mut actor = live.actor(&format!("fork thread-as {ALICE} {leader} sleep 300 {births}"));
    for _ in 0..lines {
        actor.said(line);
    }
    live.expect_at_rest(&format!("leader {leader}, thread: {births}"), ALICE, 100, "alice");
}

#[test]
fn forks_of_a_thread_with_its_own_user() {
    children_of_a_thread(0, "spawn 100 hold", "pid", 100);
}

#[test]
fn forks_of_a_thread_whose_leader_is_another_user() {
    children_of_a_thread(BOB, "spawn 100 hold", "pid", 100);
}

#[test]
fn clone_parent_by_a_thread_with_its_own_user() {
    children_of_a_thread(0, "siblings 100", "siblings", 1);
}

#[test]
fn clone_parent_by_a_thread_whose_leader_is_another_user() {
    children_of_a_thread(BOB, "siblings 100", "siblings", 1);
}

/// Does the same with a thread that had its user before the daemon started.
fn children_of_an_older_thread(leader: u32, births: &str, line: &str, lines: usize) {
    let Some(live) = Live::require() else { return };
    let steps = format!("fork thread-as {ALICE} {leader} sleep 50 say ready gate {births}");
    let mut actor = live.actor(&steps);
    actor.said("ready");
    let _daemon = live.daemon(RULES);
    sleep(LATER);
    actor.open_gate();
    for _ in 0..lines {
        actor.said(line);
    }
    let what = format!("before the daemon: leader {leader}, thread: {births}");
    live.expect_at_rest(&what, ALICE, 100, "alice");
}

#[test]
fn forks_of_a_thread_with_its_own_user_from_before_the_daemon() {
    children_of_an_older_thread(0, "spawn 100 hold", "pid", 100);
}

#[test]
fn forks_of_an_older_thread_whose_leader_is_another_user() {
    children_of_an_older_thread(BOB, "spawn 100 hold", "pid", 100);
}

#[test]
fn clone_parent_by_a_thread_with_its_own_user_from_before_the_daemon() {
    children_of_an_older_thread(0, "siblings 100", "siblings", 1);
}

/// Control: a thread of a process that belongs to alice with all threads.
#[test]
fn forks_of_a_thread_with_the_user_of_the_leader() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULES);
    let steps = format!("fork uid {ALICE} {ALICE} thread-as {ALICE} {ALICE} spawn 100 hold");
    let mut actor = live.actor(&steps);
    await_pids(&mut actor, 100);
    live.expect_at_rest("leader and thread alice: spawn 100", ALICE, 101, "alice");
}

/// Starts 50 processes of alice that do `steps`, during which their leader exits.
fn without_leader(live: &Live, steps: &str) -> Actor {
    let mut actor = live.actor(&format!("spawn 50 {steps} hold"));
    await_pids(&mut actor, 50);
    actor
}

#[test]
fn a_leader_that_exits_right_after_setuid() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(RULES);
    let _actor = without_leader(&live, &format!("uid {ALICE} {ALICE} exit-leader"));
    live.expect_at_rest("setuid, leader exits", ALICE, 50, "alice");
    daemon.expect_no_external_moves("dead leaders");
}

#[test]
fn a_leader_that_exited_before_the_daemon_started() {
    let Some(live) = Live::require() else { return };
    let _actor = without_leader(&live, &format!("uid {ALICE} {ALICE} exit-leader"));
    let daemon = live.daemon(RULES);
    live.expect_at_rest("dead leader, then start", ALICE, 50, "alice");
    daemon.expect_no_external_moves("dead leaders");
}

/// Checks a rule by executable, which is readable only through a live thread, before the rule by user.
#[test]
fn an_exe_rule_before_the_user_rule_with_a_dead_leader() {
    let Some(live) = Live::require() else { return };
    let rules = format!("[[rule]]\nexe = \"cc1\"\ncgroup = \"cc\"\n{RULES}");
    let early = without_leader(&live, &format!("uid {ALICE} {ALICE} exit-leader"));
    let daemon = live.daemon(&rules);
    live.expect_at_rest("exe rule first, dead leader, then start", ALICE, 50, "alice");
    drop(early);
    assert!(eventually(REST, || census::of(ALICE).is_empty()));
    let _late = without_leader(&live, &format!("exit-leader uid {ALICE} {ALICE}"));
    live.expect_at_rest("exe rule first, dead leader, then setuid", ALICE, 50, "alice");
    daemon.expect_no_external_moves("dead leaders");
}

/// Starts 50 processes of alice that execute `bin/tool`; their leaders exit before or
/// after the change of user.
fn tools_without_leader(live: &Live, after_setuid: bool) -> Actor {
    let tool = live.program("bin/tool");
    let user = format!("uid {ALICE} {ALICE}");
    let steps = if after_setuid {
        format!("exec {tool} tool {user} exit-leader")
    } else {
        format!("exec {tool} tool exit-leader {user}")
    };
    without_leader(live, &steps)
}

const TOOL: &str = "[[rule]]\nuser = \"cgt-alice\"\nexe = \"tool\"\ncgroup = \"there\"\n";
const NOT_TOOL: &str =
    "[[rule]]\nuser = \"cgt-alice\"\nnot = { exe = \"tool\" }\ncgroup = \"there\"\n";

#[test]
fn an_exe_rule_matches_when_the_leader_exited_before_setuid() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(TOOL);
    let _actor = tools_without_leader(&live, false);
    live.expect_at_rest("exe = \"tool\", leader exits, setuid", ALICE, 50, "there");
    daemon.expect_no_external_moves("dead leaders");
}

#[test]
fn an_exe_rule_matches_when_the_leader_exited_before_the_start() {
    let Some(live) = Live::require() else { return };
    let _actor = tools_without_leader(&live, true);
    let daemon = live.daemon(TOOL);
    live.expect_at_rest("exe = \"tool\", dead leader, then start", ALICE, 50, "there");
    daemon.expect_no_external_moves("dead leaders");
}

/// Asserts that none of 50 processes of alice is in the test cgroup.
fn expect_none_within(live: &Live, what: &str) {
    live.fence();
    sleep(LATER);
    let all = census::of(ALICE);
    let within = all.iter().filter(|resident| live.ground.holds(&resident.cgroup)).count();
    println!("{what}: {within} of 50 within");
    assert_eq!((within, all.len()), (0, 50), "{what}");
}

#[test]
fn a_negated_exe_does_not_match_when_the_leader_exited_before_setuid() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(NOT_TOOL);
    let _actor = tools_without_leader(&live, false);
    expect_none_within(&live, "not exe, leader exits, setuid");
}

#[test]
fn a_negated_exe_does_not_match_when_the_leader_exited_before_the_start() {
    let Some(live) = Live::require() else { return };
    let _actor = tools_without_leader(&live, true);
    let _daemon = live.daemon(NOT_TOOL);
    expect_none_within(&live, "not exe, dead leader, then start");
}

#[test]
fn a_destination_that_changes_and_changes_back_with_a_dead_leader() {
    let Some(live) = Live::require() else { return };
    let rule = |to: &str| format!("[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"{to}\"\n");
    let daemon = live.daemon(&rule("a"));
    let _actor = without_leader(&live, &format!("uid {ALICE} {ALICE} sleep 50 exit-leader"));
    live.expect_at_rest("dead leader in a", ALICE, 50, "a");
    for to in ["b", "a"] {
        live.write_rules(&rule(to));
        daemon.signal(Signal::SIGHUP);
        live.expect_at_rest(&format!("dead leader, reload to {to}"), ALICE, 50, to);
    }
    daemon.expect_no_external_moves("dead leaders");
}

#[test]
fn setuid_by_all_live_threads_after_the_leader_exited() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(RULES);
    let _actor = without_leader(&live, &format!("exit-leader sleep 100 uid {ALICE} {ALICE}"));
    live.expect_at_rest("leader exits, setuid", ALICE, 50, "alice");
    daemon.expect_no_external_moves("dead leaders");
}

#[test]
fn setgid_by_all_live_threads_after_the_leader_exited() {
    let Some(live) = Live::require() else { return };
    let daemon =
        live.daemon("[[rule]]\nuser = \"cgt-alice\"\ngroup = \"cgt-bob\"\ncgroup = \"there\"\n");
    let steps =
        format!("uid 0 {ALICE} exit-leader sleep 100 uid 0 0 gid {BOB} {BOB} uid 0 {ALICE}");
    let _actor = without_leader(&live, &steps);
    live.expect_at_rest("leader exits, setgid", ALICE, 50, "there");
    daemon.expect_no_external_moves("dead leaders");
}

#[test]
fn forks_of_a_thread_after_the_leader_exited() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(RULES);
    let before = format!("uid {ALICE} {ALICE} exit-leader spawn 10");
    let later = format!("uid {ALICE} {ALICE} exit-leader sleep 300 spawn 10");
    let after = format!("exit-leader sleep 300 uid {ALICE} {ALICE} spawn 10");
    for (what, steps) in [
        ("setuid, leader exits, fork", before),
        ("setuid, leader exits, fork later", later),
        ("leader exits, setuid, fork", after),
    ] {
        let mut actor = live.actor(&format!("spawn 10 {steps} hold"));
        await_pids(&mut actor, 100);
        live.expect_at_rest(what, ALICE, 110, "alice");
        drop(actor);
        assert!(eventually(REST, || census::of(ALICE).is_empty()));
    }
    daemon.expect_no_external_moves("dead leaders");
}

/// Checks the executable of an interpreter, which is read twice, the second time on a helper
/// thread, while the leader exits in between.
#[test]
fn a_leader_that_exits_between_two_reads_of_the_executable() {
    const COUNT: usize = 300;
    let Some(live) = Live::require() else { return };
    let python = live.program("bin/python3");
    let rules = format!("[[rule]]\nexe = \"cc1\"\ncgroup = \"cc\"\n{RULES}");
    let _daemon = live.daemon(&rules);
    let steps = format!("exec {python} python3 say ready gate uid-exit {ALICE} hold");
    let (mut outside, mut seen) = (0, 0);
    for _ in 0..rounds() {
        let mut actor = live.actor(&format!("spawn {COUNT} {steps}"));
        for _ in 0..COUNT {
            actor.said("ready");
        }
        for _ in 0..COUNT {
            actor.open_gate();
        }
        await_pids(&mut actor, COUNT);
        let (strays, all) = live.at_rest(ALICE, "alice");
        (outside, seen) = (outside + strays.len(), seen + all);
        drop(actor);
        assert!(eventually(REST, || census::of(ALICE).is_empty()));
    }
    println!("interpreter, setuid, leader exits: {outside} of {seen} outside");
    assert_eq!((outside, seen), (0, COUNT * rounds()), "interpreter, setuid, leader exits");
}
