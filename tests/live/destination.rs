//! Tests the specifiers of destinations. All cgroups are missing and have to be created.

use crate::harness::user::{ALICE, BOB, NAMELESS};
use crate::harness::{BASE, Live};

/// Moves alice, with the group of bob, to `cgroup`; the process must arrive in `wanted`.
fn alice_arrives(cgroup: &str, wanted: &str) {
    let Some(live) = Live::require() else { return };
    let rules = format!("[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"{cgroup}\"\n");
    let _daemon = live.daemon(&rules);
    let actor = live.hold(&format!("gid {BOB} {BOB} uid {ALICE} {ALICE}"));
    live.expect(&actor, wanted);
}

#[test]
fn a_literal_path_is_created_with_its_parents() {
    alice_arrives("one/two/three", "one/two/three");
}

#[test]
fn user_by_name_and_uid() {
    alice_arrives("by/%u.%U", &format!("by/cgt-alice.{ALICE}"));
}

#[test]
fn group_by_name_and_gid() {
    alice_arrives("by/%g.%G", &format!("by/cgt-bob.{BOB}"));
}

#[test]
fn a_user_without_a_name_gives_the_uid() {
    let Some(live) = Live::require() else { return };
    let rules = format!("[[rule]]\nuser = \"{NAMELESS}\"\ncgroup = \"by/%u\"\n");
    let _daemon = live.daemon(&rules);
    let actor = live.hold(&format!("uid {NAMELESS} {NAMELESS}"));
    live.expect(&actor, &format!("by/{NAMELESS}"));
}

#[test]
fn program_by_base_name_and_process_by_pid() {
    let Some(live) = Live::require() else { return };
    let tool = live.program("bin/tool");
    let rules =
        format!("[[rule]]\nuser = \"cgt-alice\"\nexe = \"{BASE}/bin/tool\"\ncgroup = \"%p/%P\"\n");
    let _daemon = live.daemon(&rules);
    let actor = live.hold(&format!("uid {ALICE} {ALICE} exec {tool} tool"));
    live.expect(&actor, &format!("tool/{}", actor.subject));
}
