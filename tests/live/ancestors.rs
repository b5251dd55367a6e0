//! Tests rules by the programs of ancestors: a program of root in place of sshd.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{Actor, Live};

const RULES: &str = "[[rule]]\nuser = \"cgt-*\"\nbelow = \"remoted\"\ncgroup = \"remote/%u\"\n\
                     [[rule]]\nuser = \"cgt-*\"\nexe = \"tool\"\nnot = { below = \"remoted\" }\ncgroup = \"tool\"\n\
                     [[rule]]\nuser = \"cgt-*\"\ncgroup = \"local/%u\"\n";

/// Starts a process with these steps below a program, which root executes.
fn below(live: &Live, program: &str, steps: &str) -> Actor {
    let mut actor = live.actor(&format!("exec {program} daemon fork {steps} hold"));
    actor.subject = actor.said("pid");
    actor
}

#[test]
fn descendants_of_the_program_are_below_it_whatever_they_execute() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULES);
    let [tool, remoted, locald] =
        ["tool", "remoted", "locald"].map(|name| live.program(&format!("bin/{name}")));
    let own = below(&live, &remoted, &format!("uid {ALICE} {ALICE}"));
    let executed = below(&live, &remoted, &format!("uid {BOB} {BOB} exec {tool} tool"));
    let other = below(&live, &locald, &format!("uid {ALICE} {ALICE}"));
    let other_tool = below(&live, &locald, &format!("uid {BOB} {BOB} exec {tool} tool"));
    live.expect(&own, "remote/cgt-alice");
    live.expect(&executed, "remote/cgt-bob");
    live.expect(&other, "local/cgt-alice");
    live.expect(&other_tool, "tool");
}

#[test]
fn an_orphan_stays_below_the_program() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(RULES);
    let program = live.program("bin/remoted");
    let tool = live.program("bin/tool");
    // The program itself ends too.
    let steps =
        format!("subreaper double exec {program} remoted double setsid double uid {BOB} {BOB}");
    let mut actor = live.actor(&format!("{steps} say ready gate exec {tool} tool hold"));
    actor.said("ready");
    sleep(Duration::from_millis(300));
    actor.open_gate();
    actor.subject = actor.said("pid");
    live.expect(&actor, "remote/cgt-bob");
    daemon.signal(Signal::SIGHUP);
    sleep(Duration::from_millis(500));
    live.expect(&actor, "remote/cgt-bob");
}

#[test]
fn the_program_may_run_before_the_daemon_and_descendants_survive_its_restart() {
    let Some(live) = Live::require() else { return };
    let [remoted, locald] = ["remoted", "locald"].map(|name| live.program(&format!("bin/{name}")));
    let own = below(&live, &remoted, &format!("uid {ALICE} {ALICE}"));
    let deep = below(&live, &remoted, &format!("fork setsid fork uid {BOB} {BOB}"));
    let other = below(&live, &locald, &format!("uid {ALICE} {ALICE}"));
    for _ in 0..2 {
        let daemon = live.daemon(RULES);
        live.expect(&own, "remote/cgt-alice");
        live.expect(&deep, "remote/cgt-bob");
        live.expect(&other, "local/cgt-alice");
        daemon.stop();
    }
}

#[test]
fn a_program_of_a_user_with_that_name_does_not_count() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULES);
    let program = live.program("bin/remoted");
    let mut actor =
        live.actor(&format!("uid {ALICE} {ALICE} exec {program} remoted fork comm sshd hold"));
    actor.subject = actor.said("pid");
    sleep(Duration::from_millis(300));
    live.expect(&actor, "local/cgt-alice");
}

#[test]
fn a_storm_of_double_forks_below_the_program_loses_nobody() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(RULES);
    let program = live.program("bin/remoted");
    let mut actor = live.actor(&format!("subreaper exec {program} remoted orphans 300 {ALICE}"));
    actor.said("orphans");
    live.expect_at_rest("orphans below the program", ALICE, 300, "remote/cgt-alice");
    drop(actor);
    let counters = daemon.stop();
    assert_eq!(counters.get("lost_ancestors"), 0);
}
