//! Tests v1 hierarchies, alone and together with v2.

use crate::harness::user::ALICE;
use crate::harness::{Live, REST, census, skip, within};

/// Moves alice to `there` for `controllers`; the process must arrive in each of these hierarchies and in v2.
fn alice_arrives_in(controllers: &[&str]) {
    let Some(live) = Live::require() else { return };
    let missing = controllers.iter().find(|name| live.ground.directory(name, "").is_none());
    if let Some(name) = missing {
        skip(&format!("no v1 hierarchy for {name}"));
        return;
    }
    let key = match controllers {
        [] => String::new(),
        names => format!("controllers = {names:?}\n"),
    };
    let rules = format!("[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"there/%u\"\n{key}");
    let _daemon = live.daemon(&rules);
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    for controller in controllers.iter().chain(&[""]) {
        live.expect_pid(controller, actor.subject, "there/cgt-alice");
    }
}

#[test]
fn v2_alone() {
    alice_arrives_in(&[]);
}

#[test]
fn pids() {
    alice_arrives_in(&["pids"]);
}

#[test]
fn freezer_and_pids() {
    alice_arrives_in(&["freezer", "pids"]);
}

#[test]
fn cpu_cpuacct_and_blkio() {
    alice_arrives_in(&["cpu", "cpuacct", "blkio"]);
}

#[test]
fn children_born_later_inherit_every_hierarchy() {
    let Some(live) = Live::require() else { return };
    if live.ground.directory("pids", "").is_none() {
        skip("no v1 hierarchy for pids");
        return;
    }
    let _daemon = live
        .daemon("[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"there\"\ncontrollers = [\"pids\"]\n");
    let mut tree = live.actor(&format!("uid {ALICE} {ALICE} tree 3 5"));
    let size = tree.said("tree") as usize;
    live.expect_all(ALICE, size, "there");
    for resident in census::of(ALICE) {
        live.expect_pid("pids", resident.pid, "there");
    }
}

/// Checks a process that is real-time at first: the v1 cpu controller refuses it in a cgroup
/// without a real-time budget (EINVAL). The kernel sends no event when it becomes an ordinary
/// process; it must be moved without a reload nevertheless.
#[test]
fn a_process_that_is_not_real_time_any_more_is_placed() {
    let Some(live) = Live::require() else { return };
    if live.ground.directory("cpu", "").is_none() {
        skip("no v1 hierarchy for cpu");
        return;
    }
    let daemon = live
        .daemon("[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"there\"\ncontrollers = [\"cpu\"]\n");
    let mut actor =
        live.actor(&format!("fifo uid {ALICE} {ALICE} say real-time gate normal say normal hold"));
    let pid = actor.said("real-time");
    live.fence();
    let wanted = live.ground.at("there");
    assert_ne!(census::cgroup_of(pid, "cpu").as_ref(), Some(&wanted), "it was not refused");
    actor.open_gate();
    actor.said("normal");
    let placed = within(REST, || census::cgroup_of(pid, "cpu").as_ref() == Some(&wanted));
    println!("placed after it became an ordinary process: {placed:?}, ms");
    assert!(placed.is_some(), "1 of 1 outside after {REST:?}");
    assert!(daemon.stop().get("refused") > 0);
}
