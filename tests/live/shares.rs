//! Tests the effect of settings: processors are divided by weight, and only the process above its
//! memory limit is killed. `tests/vm` has the same on v2.

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{Actor, Live, PATIENCE, eventually, skip};

/// Returns a rule with this setting for each of the two users.
fn rules(alice: &str, bob: &str) -> String {
    let rule = |user: &str, setting: &str| {
        format!(
            "[[rule]]\nuser = \"cgt-{user}\"\ncgroup = \"{user}\"\n[cgroup.{user}]\n{setting}\n"
        )
    };
    rule("alice", alice) + &rule("bob", bob)
}

/// Returns the v1 hierarchy of the controller, or v2 (empty) if the controller is there.
fn locate(live: &Live, controller: &'static str) -> Option<&'static str> {
    if live.ground.directory(controller, "").is_some() {
        return Some(controller);
    }
    let ground = live.ground.directory("", "").unwrap();
    let available = fs::read_to_string(ground.parent().unwrap().join("cgroup.controllers"));
    let is_there = available.unwrap().split_whitespace().any(|name| name == controller);
    if !is_there {
        skip(&format!("no hierarchy has {controller}"));
    }
    is_there.then_some("")
}

/// Returns the CPU time in nanoseconds.
fn used(actor: &Actor) -> f64 {
    let text = fs::read_to_string(format!("/proc/{}/schedstat", actor.subject)).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn a_busy_processor_is_shared_by_weight() {
    let Some(live) = Live::require() else { return };
    let Some(controller) = locate(&live, "cpu") else { return };
    let _daemon = live.daemon(&rules("cpu.weight = 1000", "cpu.weight = 100"));
    let [alice, bob] = [(ALICE, "alice"), (BOB, "bob")].map(|(uid, group)| {
        let mut actor = live.actor(&format!("uid {uid} {uid} busy"));
        actor.subject = actor.said("busy");
        live.expect_pid(controller, actor.subject, group);
        actor
    });
    let before = (used(&alice), used(&bob));
    sleep(Duration::from_secs(3));
    let ratio = (used(&alice) - before.0) / (used(&bob) - before.1);
    println!("weights 10:1, CPU time {ratio:.2}:1");
    // A wide range, as other processes use this machine too; without weights the ratio is 1.
    assert!((5.0..20.0).contains(&ratio), "{ratio}");
}

#[test]
fn only_the_process_above_its_memory_limit_is_killed() {
    let Some(live) = Live::require() else { return };
    let Some(controller) = locate(&live, "memory") else { return };
    let _daemon = live.daemon(&rules("memory.max = \"32M\"", "memory.max = \"512M\""));
    let [mut alice, mut bob] = [(ALICE, "alice"), (BOB, "bob")].map(|(uid, group)| {
        let mut actor = live.actor(&format!("uid {uid} {uid} say at gate eat 100 hold"));
        actor.subject = actor.said("at");
        live.expect_pid(controller, actor.subject, group);
        actor
    });
    alice.open_gate();
    let exe = format!("/proc/{}/exe", alice.subject);
    assert!(
        eventually(PATIENCE, || fs::read_link(Path::new(&exe)).is_err()),
        "alice was not killed"
    );
    bob.open_gate();
    assert_eq!(bob.said("pid"), bob.subject);
}
