//! Tests reloads of rules while processes run.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB, CAROL};
use crate::harness::{Live, PATIENCE, Settings, Surroundings, census, eventually};

const OLD: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"old\"\n";
const NEW: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"new\"\n";
const BROKEN: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"new\"\nnonsense = [\n";

fn become_user(uid: u32) -> String {
    format!("uid {uid} {uid}")
}

#[test]
fn sighup_places_running_processes_anew() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(OLD);
    let actor = live.hold(&become_user(ALICE));
    live.expect(&actor, "old");
    live.write_rules(NEW);
    daemon.signal(Signal::SIGHUP);
    live.expect(&actor, "new");
}

#[test]
fn a_changed_rule_file_is_noticed() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(OLD);
    let actor = live.hold(&become_user(ALICE));
    live.expect(&actor, "old");
    live.write_rules(NEW);
    live.expect(&actor, "new");
}

#[test]
fn a_new_and_a_removed_rule_file_are_noticed() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(OLD);
    let actor = live.hold(&become_user(ALICE));
    live.expect(&actor, "old");
    live.rule_file("10-new.toml", NEW);
    live.expect(&actor, "new");
    fs::remove_file(live.path("rules.d/10-new.toml")).unwrap();
    live.expect(&actor, "old");
}

#[test]
fn broken_rules_leave_those_that_ran() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(OLD);
    live.write_rules(BROKEN);
    daemon.signal(Signal::SIGHUP);
    daemon.expect_log("50-test.toml");
    let actor = live.hold(&become_user(ALICE));
    live.expect(&actor, "old");
    live.write_rules(NEW);
    daemon.signal(Signal::SIGHUP);
    live.expect(&actor, "new");
}

/// Returns a rule file of a package for the user.
fn package(user: &str, cgroup: &str) -> String {
    format!("[[rule]]\nuser = \"{user}\"\ncgroup = \"{cgroup}\"\n")
}

#[test]
fn a_broken_file_of_one_package_changes_nothing_for_the_others() {
    let Some(live) = Live::require() else { return };
    live.rule_file("60-b.toml", &package("cgt-bob", "b"));
    live.rule_file("65-d.toml", &package("cgt-carol", "d"));
    let daemon = live.daemon(OLD);
    live.rule_file("60-b.toml", "[[rule]]\nuser = \"cgt-bob\"\ncgrup = \"b\"\n");
    daemon.expect_log("60-b.toml: 2 new errors: the last valid version stays active");
    live.rule_file("70-c.toml", &package("cgt-alice", "c"));
    live.write_rules("");
    fs::remove_file(live.path("rules.d/65-d.toml")).unwrap();
    daemon.signal(Signal::SIGHUP);
    let alice = live.hold(&become_user(ALICE));
    live.expect(&alice, "c");
    live.expect(&live.hold(&become_user(BOB)), "b");
    let carol = live.hold(&become_user(CAROL));
    live.fence();
    assert!(!live.ground.holds(&census::cgroup_of(carol.subject, "").unwrap()), "D is gone");
    live.write_rules(NEW);
    live.expect(&alice, "new");
    live.rule_file("60-b.toml", &package("cgt-bob", "mended"));
    live.expect(&live.hold(&become_user(BOB)), "mended");
    assert!(daemon.stop().get("refused_reloads") > 0);
}

#[test]
fn one_bad_rule_costs_only_itself_at_start() {
    let Some(live) = Live::require() else { return };
    let bad = "[[rule]]\nuser = \"cgt-alice\"\n\
               [[rule]]\nuser = \"cgt-bob\"\ncgroup = \"b\"\ncolour = \"red\"\n\
               [[rule]]\nuser = \"cgt-nobody-knows\"\ncgroup = \"c\"\n";
    let daemon = live.daemon(&format!("{bad}{OLD}"));
    daemon.expect_log("50-test.toml:2");
    live.expect(&live.hold(&become_user(ALICE)), "old");
}

/// Alternates between two sets of rules while a fork tree grows and a storm runs; at rest all
/// processes must be placed by the last set.
#[test]
fn reloads_under_a_storm_end_with_the_last_rules() {
    let Some(live) = Live::require() else { return };
    let tool = live.program("bin/tool");
    let daemon = live.daemon(OLD);
    let storm = live.actor(&format!("uid {CAROL} {CAROL} storm 10000000 {tool}"));
    let mut tree = live.actor(&format!("{} tree 3 8", become_user(ALICE)));
    for round in 0..30 {
        live.write_rules(if round % 2 == 0 { NEW } else { OLD });
        daemon.signal(Signal::SIGHUP);
        let late = live.hold(&become_user(BOB));
        assert!(!live.ground.holds(&census::cgroup_of(late.subject, "").unwrap()));
    }
    let size = tree.said("tree") as usize;
    live.write_rules(NEW);
    daemon.signal(Signal::SIGHUP);
    live.expect_all(ALICE, size, "new");
    drop(storm);
}

#[test]
fn a_rule_that_was_removed_leaves_its_processes() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(OLD);
    let actor = live.hold(&become_user(ALICE));
    live.expect(&actor, "old");
    live.write_rules("");
    daemon.signal(Signal::SIGHUP);
    let unruled = eventually(PATIENCE, || {
        let late = live.hold(&become_user(ALICE));
        live.fence();
        !live.ground.holds(&census::cgroup_of(late.subject, "").unwrap())
    });
    assert!(unruled, "the removed rule still matches");
    live.expect(&actor, "old");
}

/// Checks a file of a package that is broken while the daemon is stopped. A later, wider rule must
/// not get its processes.
#[test]
fn a_file_that_is_broken_at_a_restart_keeps_its_last_valid_version() {
    let Some(live) = Live::require() else { return };
    let state = live.path("state");
    let environment = [("STATE_DIRECTORY", state.to_str().unwrap())];
    let on = Surroundings { environment: &environment, ..Surroundings::default() };
    let start = |rules: &str| live.daemon_on(rules, &Settings::default(), &on);
    live.rule_file("60-wide.toml", "[[rule]]\nuser = \"cgt-*\"\ncgroup = \"wide\"\n");
    let daemon = start(OLD);
    let actor = live.hold(&become_user(ALICE));
    live.expect(&actor, "old");
    assert!(eventually(PATIENCE, || state.join("rule-files.json").exists()));
    daemon.stop();
    let broken = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"new\"\nnonsense = 1\n";
    let daemon = start(broken);
    daemon.expect_log("50-test.toml: 1 new error: the last valid version stays active");
    let later = live.hold(&become_user(ALICE));
    live.expect(&later, "old");
    // A second restart, and the correction of the file.
    daemon.stop();
    let daemon = start(broken);
    daemon.expect_log("the last valid version stays active");
    live.write_rules(NEW);
    live.expect(&actor, "new");
    live.expect(&later, "new");
    drop(daemon);
    // Errors that were active before are not new.
    let partly = format!("{NEW}[[rule]]\nuser = \"nobody-of-that-name\"\ncgroup = \"x\"\n");
    let fresh = live.path("other");
    let environment = [("STATE_DIRECTORY", fresh.to_str().unwrap())];
    let on = Surroundings { environment: &environment, ..Surroundings::default() };
    let start = |rules: &str| live.daemon_on(rules, &Settings::default(), &on);
    let daemon = start(&partly);
    assert!(eventually(PATIENCE, || fresh.join("rule-files.json").exists()));
    daemon.stop();
    let daemon = start(&partly.replace("\"new\"", "\"newer\""));
    live.expect(&actor, "newer");
    drop(daemon);
}
