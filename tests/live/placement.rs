//! Tests when the daemon writes to cgroup.procs, and when it must not.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use crate::harness::user::ALICE;
use crate::harness::{Live, PATIENCE, Settings, census, eventually};

const ALICE_THERE: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"there\"\n";

fn become_alice() -> String {
    format!("uid {ALICE} {ALICE}")
}

#[test]
fn the_initial_scan_places_running_processes() {
    let Some(live) = Live::require() else { return };
    let mut tree = live.actor(&format!("{} tree 3 4", become_alice()));
    let size = tree.said("tree") as usize;
    let _daemon = live.daemon(ALICE_THERE);
    live.expect_all(ALICE, size, "there");
}

#[test]
fn a_process_in_place_is_not_written_again() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(ALICE_THERE);
    let tool = live.program("bin/tool");
    let mut actor = live.actor(&format!("{} say alice gate exec {tool} tool hold", become_alice()));
    actor.subject = actor.said("alice");
    live.expect(&actor, "there");
    actor.open_gate();
    actor.said("pid");
    live.fence();
    let counters = daemon.stop();
    assert!(counters.get("in_place") >= 1, "{counters:?}");
    // One for alice and one for the fence.
    assert_eq!(counters.get("placed"), 2, "{counters:?}");
}

#[test]
fn a_child_born_in_place_costs_no_write() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(ALICE_THERE);
    let mut actor = live.actor(&format!("{} say alice gate tree 3 4", become_alice()));
    actor.subject = actor.said("alice");
    live.expect(&actor, "there");
    sleep(Duration::from_millis(1500)); // until its placement no longer makes children candidates
    actor.open_gate();
    let size = actor.said("tree") as usize;
    live.expect_all(ALICE, size, "there");
    let counters = daemon.stop();
    assert_eq!(counters.get("placed"), 1, "{counters:?}");
}

#[test]
fn a_removed_cgroup_is_created_again() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(ALICE_THERE);
    let group = live.ground.directory("", "there").unwrap();
    for _ in 0..3 {
        let actor = live.hold(&become_alice());
        live.expect(&actor, "there");
        drop(actor);
        assert!(eventually(PATIENCE, || fs::remove_dir(&group).is_ok()), "not empty");
    }
    live.expect(&live.hold(&become_alice()), "there");
}

#[test]
fn a_process_moved_away_at_once_is_moved_back_once() {
    let Some(live) = Live::require() else { return };
    let settings = Settings { config: "recheck = \"1s\"\n", arguments: &[] };
    let daemon = live.daemon_with(ALICE_THERE, &settings);
    let actor = live.hold(&become_alice());
    live.expect(&actor, "there");
    live.ground.take_away(actor.subject);
    live.expect(&actor, "there");
    live.ground.take_away(actor.subject);
    daemon.expect_log("is left there");
    live.expect_untouched(&actor);
    let counters = daemon.stop();
    assert_eq!(counters.get("external_moves_found"), 2, "{counters:?}");
    assert_eq!(counters.get("abandoned"), 1, "{counters:?}");
}

#[test]
fn a_dry_run_moves_no_process() {
    let Some(live) = Live::require() else { return };
    let before = live.hold(&become_alice());
    let settings = Settings { config: "", arguments: &["--dry-run"] };
    let daemon = live.daemon_with(ALICE_THERE, &settings);
    let after = live.hold(&become_alice());
    for actor in [&before, &after] {
        daemon.expect_log(&format!("would move process {} of cgt-alice ", actor.subject));
        let found = census::cgroup_of(actor.subject, "").unwrap();
        assert!(!live.ground.holds(&found), "moved to {found}");
    }
    let counters = daemon.stop();
    assert_eq!(counters.get("placed"), 0, "{counters:?}");
    assert!(counters.get("would_place") >= 2, "{counters:?}");
    assert!(live.ground.residents().is_empty());
}
