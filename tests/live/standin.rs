//! Tests the harness without a daemon: the assertions of the other tests must fail here.

use std::fs;

use crate::harness::user::{ALICE, BOB, CAROL};
use crate::harness::{Live, census};

#[test]
fn without_a_daemon_a_fork_tree_is_outside() {
    let Some(live) = Live::require() else { return };
    let mut tree = live.actor(&format!("uid {ALICE} {ALICE} tree 3 5"));
    assert_eq!(tree.said("tree"), 156);
    assert_eq!(census::outside(ALICE, &live.ground.at("alice")).len(), 156);
}

#[test]
fn without_a_daemon_orphans_are_outside_and_leave_with_the_test() {
    let Some(live) = Live::require() else { return };
    let mut actor = live.actor(&format!("orphans 50 {BOB}"));
    assert_eq!(actor.said("orphans"), 50);
    assert_eq!(census::outside(BOB, &live.ground.at("bob")).len(), 50);
    drop(actor);
    assert!(live.strays(BOB, "bob").is_empty());
}

#[test]
fn the_users_exist_in_the_namespace_of_the_test_alone() {
    let Some(live) = Live::require() else { return };
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    assert!(passwd.contains(&format!("cgt-carol:x:{CAROL}:")));
    // With one test thread the main thread of the runner is ours, and there is no other to compare with.
    let is_main = fs::read_link("/proc/self/ns/mnt").unwrap()
        == fs::read_link("/proc/thread-self/ns/mnt").unwrap();
    let host = fs::read_to_string("/proc/self/root/etc/passwd").unwrap();
    assert!(is_main || !host.contains("cgt-carol"));
    drop(live);
}

#[test]
fn a_cgroup_contains_the_written_pid_and_is_removed() {
    let Some(live) = Live::require() else { return };
    let group = live.ground.directory("", "deep").unwrap();
    fs::create_dir(&group).unwrap();
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    fs::write(group.join("cgroup.procs"), actor.subject.to_string()).unwrap();
    live.expect(&actor, "deep");
    assert_eq!(live.ground.residents(), [actor.subject]);
    drop(actor);
    drop(live);
    assert!(!group.exists());
}
