//! Tests external moves: another process writes to `cgroup.procs`, and the recheck reverts it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::user::{ALICE, BOB, CAROL};
use nix::sys::signal::Signal;

use crate::harness::{Live, census};

fn rule(to: &str) -> String {
    format!("[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"{to}\"\n")
}

/// Moves a process of alice away right after its placement. Before the recheck, 100 ms later,
/// `births` creates `count` descendants that print `line` in `lines` lines.
fn descendants(births: &str, line: &str, lines: usize, count: usize) {
    let Some(live) = Live::require() else { return };
    let tool = live.program("bin/tool");
    let _daemon = live.daemon(&rule("alice"));
    // Events of another user, so that the daemon processes these forks before the recheck.
    let _storm = live.actor(&format!("uid {CAROL} {CAROL} storm 10000000 {tool}"));
    let steps = format!("subreaper fork uid {ALICE} {ALICE} say ready gate {births}");
    let mut actor = live.actor(&steps);
    let pid = actor.said("ready");
    let wanted = live.ground.at("alice");
    let begin = Instant::now();
    while census::cgroup_of(pid, "").as_ref() != Some(&wanted) {
        assert!(begin.elapsed() < Duration::from_secs(3), "never placed");
    }
    live.ground.take_away(pid);
    actor.open_gate();
    let mut left = lines;
    while left > 0 {
        // The line of the brood itself may be anywhere among those of its children.
        left -= usize::from(actor.says().0 == line);
    }
    let reverted = census::cgroup_of(pid, "").as_ref() == Some(&wanted);
    println!("{births}: born in {:?}, reverted by then: {reverted}", begin.elapsed());
    live.expect_at_rest(&format!("external move, then {births}"), ALICE, count, "alice");
}

#[test]
fn children_born_before_an_external_move_is_reverted() {
    descendants("brood 50 hold", "pid", 50, 51);
}

#[test]
fn grandchildren_born_before_an_external_move_is_reverted() {
    descendants("brood 50 fork hold", "pid", 50, 101);
}

#[test]
fn great_grandchildren_born_before_an_external_move_is_reverted() {
    descendants("brood 25 fork fork hold", "pid", 25, 76);
}

#[test]
fn orphans_born_before_an_external_move_is_reverted() {
    descendants("brood 50 daemonize hold", "pid", 50, 51);
}

#[test]
fn siblings_born_before_an_external_move_is_reverted() {
    descendants("siblings 50", "siblings", 1, 51);
}

#[test]
fn nephews_born_before_an_external_move_is_reverted() {
    descendants("brood 10 daemonize siblings 5", "siblings", 10, 61);
}

/// Checks that reloads between placements and their rechecks are not reported as external moves.
#[test]
fn reloads_right_after_placements_report_no_external_move() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(&rule("alice"));
    let mut actors = Vec::new();
    for number in 0..200 {
        actors.push(live.hold(&format!("uid {ALICE} {ALICE}")));
        if number % 10 == 9 {
            daemon.signal(Signal::SIGHUP);
        }
    }
    live.expect_at_rest("reloads after placements", ALICE, 200, "alice");
    let counters = daemon.expect_no_external_moves("200 placements with reloads");
    assert!(counters.get("reloads") > 5 && counters.get("placed") >= 200);
}

/// Checks that a process that changes between two users is not reported as moved externally.
#[test]
fn changes_between_two_users_report_no_external_move() {
    let Some(live) = Live::require() else { return };
    let more = "[[rule]]\nuser = \"cgt-bob\"\ncgroup = \"bob\"\n";
    let daemon = live.daemon(&format!("{}{more}", rule("alice")));
    let flood = format!("keep-caps toggle 100000000 {ALICE} {BOB}");
    let floods = [0; 4].map(|_| live.actor(&flood));
    sleep(Duration::from_secs(2));
    drop(floods);
    let counters = daemon.expect_no_external_moves("4 processes between two users");
    assert!(counters.get("placed") > 4, "no change was seen");
}
