//! Tests rules by arguments with argument vectors that are rewritten, empty or long.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::user::ALICE;
use crate::harness::{Actor, Live};

const RULES: &str = "[[rule]]\nuser = \"cgt-alice\"\nargument = \"worker\"\ncgroup = \"workers\"\n\
                     [[rule]]\nuser = \"cgt-alice\"\nnot = { argument = \"free\" }\ncgroup = \"rest\"\n";

/// Starts a process of alice that says `ready` before these steps.
fn alice(live: &Live, steps: &str) -> Actor {
    let mut actor = live.actor(&format!("uid {ALICE} {ALICE} say ready {steps}"));
    actor.subject = actor.said("ready");
    actor
}

#[test]
fn rewritten_arguments_count_from_the_next_evaluation_on() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(RULES);
    let mut workers = alice(&live, "gate retitle tool,worker hold");
    let mut free = alice(&live, "gate retitle tool,free hold");
    let mut empty = alice(&live, "gate retitle , hold");
    for actor in [&mut workers, &mut free, &mut empty] {
        live.expect(actor, "rest");
        actor.open_gate();
        assert_eq!(actor.says().0, "pid");
    }
    daemon.signal(Signal::SIGHUP);
    live.expect(&workers, "workers");
    // No rule matches any more, so that the process stays where it is.
    sleep(Duration::from_millis(300));
    live.expect(&free, "rest");
    live.expect(&empty, "rest");
}

#[test]
fn a_process_without_arguments_matches_no_argument() {
    let Some(live) = Live::require() else { return };
    let program = live.program("bin/tool");
    let _daemon = live.daemon(RULES);
    live.expect(&alice(&live, &format!("say worker exec-empty {program}")), "rest");
}

/// The daemon reads 64 KiB. What is beyond counts for nothing, and neither does a part of an argument.
#[test]
fn of_two_mebibytes_of_arguments_the_first_count() {
    let Some(live) = Live::require() else { return };
    let program = live.program("bin/tool");
    let _daemon = live.daemon(RULES);
    // The user comes last: with the arguments of before the exec the second rule would match.
    let long = |last: &str, steps: &str| {
        let user = format!("uid {ALICE} {ALICE} say ready");
        let mut actor =
            live.actor(&format!("exec-long {program} 2 {last} tool {user} {steps} hold"));
        actor.subject = actor.said("ready");
        actor
    };
    live.expect(&long("free", "say worker"), "workers");
    live.expect(&long("worker", "say other"), "rest");
    live.expect_untouched(&long("other", "say free"));
}
