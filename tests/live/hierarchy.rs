//! v1 hierarchies, alone and together with v2.

use crate::harness::user::ALICE;
use crate::harness::{Live, skip};

/// Sends alice to `there` for `controllers`; she must arrive in all of those and in v2.
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
    for resident in crate::harness::census::of(ALICE) {
        live.expect_pid("pids", resident.pid, "there");
    }
}
