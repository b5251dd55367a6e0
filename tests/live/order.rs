//! Tests the order of rules.

use crate::harness::Live;
use crate::harness::user::{ALICE, BOB};

const TO_A: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"a\"\n";
const TO_B: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"b\"\n";
const IGNORE: &str = "[[rule]]\nuser = \"cgt-alice\"\nignore = true\n";

/// Checks the cgroup of alice with these rules; `None`: the process is not moved.
fn alice_goes(rules: &str, wanted: Option<&str>) {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(rules);
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    match wanted {
        Some(group) => live.expect(&actor, group),
        None => live.expect_untouched(&actor),
    }
}

#[test]
fn the_first_rule_wins() {
    alice_goes(&format!("{TO_A}{TO_B}"), Some("a"));
}

#[test]
fn ignore_first_leaves_the_process() {
    alice_goes(&format!("{IGNORE}{TO_A}"), None);
}

#[test]
fn ignore_later_does_nothing() {
    alice_goes(&format!("{TO_A}{IGNORE}"), Some("a"));
}

#[test]
fn the_higher_priority_wins() {
    alice_goes(&format!("{TO_A}{TO_B}priority = 5\n"), Some("b"));
}

#[test]
fn a_negative_priority_loses() {
    alice_goes(&format!("{TO_A}priority = -1\n{TO_B}"), Some("b"));
}

#[test]
fn a_rule_that_does_not_match_is_passed_over() {
    alice_goes(&format!("[[rule]]\nuser = \"cgt-bob\"\ncgroup = \"c\"\n{TO_B}"), Some("b"));
}

#[test]
fn the_earlier_file_name_wins() {
    let Some(live) = Live::require() else { return };
    live.rule_file("60-late.toml", TO_B);
    live.rule_file("40-early.toml", TO_A);
    let _daemon = live.daemon("");
    live.expect(&live.hold(&format!("uid {ALICE} {ALICE}")), "a");
}

#[test]
fn a_rule_by_program_before_a_rule_by_user() {
    let Some(live) = Live::require() else { return };
    let tool = live.program("bin/tool");
    let rules =
        format!("[[rule]]\nuser = \"cgt-alice\"\nexe = \"tool\"\ncgroup = \"tool\"\n{TO_A}");
    let _daemon = live.daemon(&rules);
    live.expect(&live.hold(&format!("uid {ALICE} {ALICE}")), "a");
    live.expect(&live.hold(&format!("uid {ALICE} {ALICE} exec {tool} tool")), "tool");
}

/// Checks a process that no rule matches any more: it stays where the last match placed it.
#[test]
fn a_process_without_a_rule_stays_where_it_is() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(TO_A);
    let steps = format!("uid 0 {ALICE} say alice gate uid 0 0 uid {BOB} {BOB} hold");
    let mut actor = live.actor(&steps);
    actor.subject = actor.said("alice");
    live.expect(&actor, "a");
    actor.open_gate();
    actor.said("pid");
    live.fence();
    live.expect(&actor, "a");
}
