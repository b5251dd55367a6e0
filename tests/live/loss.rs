//! Tests events that the kernel could not deliver.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB, CAROL};
use crate::harness::{Actor, Live, Settings};

const RULES: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"alice\"\n\
                     [[rule]]\nuser = \"cgt-bob\"\ncgroup = \"bob\"\n";
const TINY: Settings<'static> = Settings { config: "receive_buffer = \"8K\"\n", arguments: &[] };

/// Stops the daemon while a storm runs and users log in, then continues it; every process must be placed.
fn survives_a_pause(settings: &Settings<'_>, must_lose: bool) {
    let Some(live) = Live::require() else { return };
    let tool = live.program("bin/tool");
    let daemon = live.daemon_with(RULES, settings);
    let storms = [0; 2].map(|_| live.actor(&format!("uid {CAROL} {CAROL} storm 10000000 {tool}")));
    daemon.signal(Signal::SIGSTOP);
    sleep(Duration::from_secs(1));
    let mut tree = live.actor(&format!("uid {ALICE} {ALICE} tree 3 5"));
    let size = tree.said("tree") as usize;
    let mut orphans = live.actor(&format!("orphans 200 {BOB}"));
    let count = orphans.said("orphans") as usize;
    sleep(Duration::from_secs(1));
    daemon.signal(Signal::SIGCONT);
    drop(storms);
    live.expect_all(ALICE, size, "alice");
    live.expect_all(BOB, count, "bob");
    let counters = daemon.stop();
    let (lost, scans) = (counters.get("lost_events"), counters.get("scans"));
    assert!(lost > 0 || !must_lose, "no event was lost: {counters:?}");
    // The first scan is the initial one.
    assert!(lost == 0 || scans > 1, "lost {lost}, but no scan followed: {counters:?}");
}

#[test]
fn a_pause_of_two_seconds_under_a_storm_leaves_no_process_outside() {
    survives_a_pause(&Settings::default(), false);
}

#[test]
fn a_pause_with_a_tiny_receive_buffer_leaves_no_process_outside() {
    survives_a_pause(&TINY, true);
}

#[test]
fn a_fork_tree_with_a_tiny_receive_buffer_leaves_no_process_outside() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon_with(RULES, &TINY);
    for _ in 0..5 {
        let mut tree = live.actor(&format!("uid {ALICE} {ALICE} tree 4 5"));
        let size = tree.said("tree") as usize;
        live.expect_all(ALICE, size, "alice");
    }
}

/// Checks that scans complete although every round loses events. A scan that restarts at every loss
/// would never get past the first processes.
#[test]
fn scans_come_to_an_end_while_events_are_lost() {
    let Some(live) = Live::require() else { return };
    let mut crowd = live.actor(&format!("spawn 2000 uid {CAROL} {CAROL} hold"));
    for _ in 0..2000 {
        crowd.said("pid");
    }
    let daemon = live.daemon_with(RULES, &TINY);
    let _floods = [0; 3].map(|_| live.actor(&format!("toggle 100000000 {ALICE} 0")));
    let bobs: Vec<Actor> = (0..10).map(|_| live.hold(&format!("uid {BOB} {BOB}"))).collect();
    for bob in &bobs {
        live.expect(bob, "bob");
    }
    let counters = daemon.stop();
    assert!(counters.get("lost_events") > 0, "{counters:?}");
}

/// Kills the daemon at any time; the next start must place the processes that changed meanwhile.
#[test]
fn the_start_after_a_kill_places_all_processes() {
    let Some(live) = Live::require() else { return };
    let tool = live.program("bin/tool");
    let _storm = live.actor(&format!("uid {CAROL} {CAROL} storm 10000000 {tool}"));
    for _ in 0..5 {
        let daemon = live.daemon(RULES);
        let mut tree = live.actor(&format!("uid {ALICE} {ALICE} tree 3 5"));
        daemon.signal(Signal::SIGKILL);
        let size = tree.said("tree") as usize;
        drop(daemon);
        let _next = live.daemon(RULES);
        live.expect_all(ALICE, size, "alice");
    }
}
