//! Tests processes that are forked, or lose their parents, faster than the daemon can read /proc.

use crate::harness::user::{ALICE, BOB, CAROL, NAMELESS};
use crate::harness::{Actor, Live, census, eventually, rounds};

const RULES: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"alice\"\n\
                     [[rule]]\nuser = \"cgt-bob\"\ncgroup = \"bob\"\n";

/// Starts a fork tree of alice, checks it at rest, stops it.
fn tree(live: &Live, depth: usize, width: usize) {
    let mut root = live.actor(&format!("uid {ALICE} {ALICE} tree {depth} {width}"));
    let size = root.said("tree") as usize;
    live.expect_all(ALICE, size, "alice");
    drop(root);
    assert!(eventually(crate::harness::PATIENCE, || census::of(ALICE).is_empty()));
}

#[test]
fn no_member_of_a_fork_tree_of_781_is_outside() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULES);
    for _ in 0..rounds().max(20) {
        tree(&live, 4, 5);
    }
}

#[test]
fn no_member_of_a_fork_tree_of_10_000_is_outside() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULES);
    // 3 levels: a tree of 3,616 processes; 4: one of 11,111.
    match rounds() {
        0..4 => tree(&live, 3, 15),
        _ => tree(&live, 4, 10),
    }
}

#[test]
fn no_orphan_whose_parent_left_at_once_is_outside() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULES);
    for _ in 0..rounds() {
        let mut spawner = live.actor(&format!("orphans 1000 {ALICE}"));
        let count = spawner.said("orphans") as usize;
        live.expect_all(ALICE, count, "alice");
    }
}

#[test]
fn no_orphan_of_several_spawners_at_once_is_outside() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULES);
    for _ in 0..rounds() {
        let spawners =
            [ALICE, BOB, ALICE, BOB].map(|uid| live.actor(&format!("orphans 500 {uid}")));
        let _all = spawners.map(|mut spawner| {
            spawner.said("orphans");
            spawner
        });
        live.expect_all(ALICE, 1000, "alice");
        live.expect_all(BOB, 1000, "bob");
    }
}

/// Checks orphans of a user without a name: the daemon must look up the UID with NSS
/// first, because rules contain names.
#[test]
fn no_orphan_of_an_unresolved_user_is_outside() {
    let Some(live) = Live::require() else { return };
    let rules = format!(
        "[[rule]]\nuser = \"cgt-*\"\ngroup = \"cgt-team\"\ncgroup = \"team\"\n\
         [[rule]]\nuser = \"{NAMELESS}\"\ncgroup = \"nameless\"\n"
    );
    for _ in 0..rounds() {
        let _daemon = live.daemon(&rules);
        let mut spawner = live.actor(&format!("orphans 500 {NAMELESS}"));
        let count = spawner.said("orphans") as usize;
        live.expect_all(NAMELESS, count, "nameless");
    }
}

#[test]
fn a_daemon_that_forks_twice_is_placed() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULES);
    let actors: Vec<Actor> =
        (0..50).map(|_| live.hold(&format!("uid {ALICE} {ALICE} double"))).collect();
    for actor in &actors {
        live.expect(actor, "alice");
    }
}

#[test]
fn the_child_of_a_thread_is_placed() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULES);
    for _ in 0..20 {
        live.expect(&live.hold(&format!("uid {ALICE} {ALICE} thread")), "alice");
    }
}

#[test]
fn children_that_change_user_each_are_placed_each() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULES);
    let mut brood = live.actor(&format!("spawn 500 uid {BOB} {BOB} hold"));
    for _ in 0..500 {
        brood.said("pid");
    }
    live.expect_all(BOB, 500, "bob");
}

/// Checks that bob is placed while alice toggles the effective UID as fast as possible.
#[test]
fn a_flood_of_one_user_does_not_keep_another_waiting() {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(RULES);
    let _floods = [0; 2].map(|_| live.actor(&format!("toggle 100000000 {ALICE} 0")));
    for _ in 0..20 {
        live.expect(&live.hold(&format!("uid {BOB} {BOB}")), "bob");
    }
}

#[test]
fn an_exec_storm_does_not_keep_another_waiting() {
    let Some(live) = Live::require() else { return };
    let tool = live.program("bin/tool");
    let _daemon = live.daemon(RULES);
    let _storms = [0; 2].map(|_| live.actor(&format!("uid {CAROL} {CAROL} storm 10000000 {tool}")));
    for _ in 0..20 {
        live.expect(&live.hold(&format!("uid {BOB} {BOB}")), "bob");
    }
}
