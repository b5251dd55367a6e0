//! Changes of credentials by other ways than setresuid(2) and setresgid(2): files with a mode or with
//! capabilities, user namespaces, and changes that no rule depends on.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB, TEAM};
use crate::harness::{Crowd, Live, PATIENCE, census, eventually};

const RULES: &str = "[[rule]]\nuser = \"cgt-alice\"\ngroup = \"cgt-bob\"\ncgroup = \"group\"\n\
                     [[rule]]\nuser = \"cgt-alice\"\nexe = \"capable\"\ncgroup = \"tools\"\n\
                     [[rule]]\nuser = \"cgt-bob\"\ncgroup = \"bob\"\n\
                     [[rule]]\nuser = \"cgt-alice\"\ncgroup = \"alice\"\n";

const COUNT: usize = 50;

/// An unprivileged process of alice, without capabilities and saved IDs of root.
fn as_alice(live: &Live) -> String {
    let actors = live.path("bin/actors").display().to_string();
    format!("groups -1 gid {ALICE} {ALICE} uid {ALICE} {ALICE} exec {actors} actors")
}

/// 50 children of root do `steps` and hold; then all are of `uid` and belong into `cgroup`.
fn expect(live: &Live, what: &str, steps: &str, uid: u32, cgroup: &str) {
    let steps = format!("spawn {COUNT} {steps} hold");
    live.expect_crowd(
        RULES,
        &Crowd { what, steps: &steps, lines: COUNT, uid, count: COUNT, cgroup },
    );
}

/// The exec changes no ID, so there is an EXEC event alone.
#[test]
fn a_program_with_file_capabilities_is_placed() {
    let Some(live) = Live::require() else { return };
    let capable = live.capable_program("bin/capable");
    let steps = format!("{} exec {capable} capable", as_alice(&live));
    expect(&live, "exec of a file with capabilities", &steps, ALICE, "tools");
}

#[test]
fn a_program_with_file_capabilities_that_changes_its_user_is_placed() {
    let Some(live) = Live::require() else { return };
    let capable = live.capable_program("bin/capable");
    let steps = format!("{} exec {capable} capable uid {BOB} {BOB}", as_alice(&live));
    expect(&live, "file capabilities, setuid", &steps, BOB, "bob");
    let steps = format!("{} exec {capable} capable gid {BOB} {BOB}", as_alice(&live));
    expect(&live, "file capabilities, setgid", &steps, ALICE, "group");
}

/// The control: without the capabilities alice cannot become bob.
#[test]
fn without_file_capabilities_the_user_cannot_change() {
    let Some(live) = Live::require() else { return };
    let plain = live.program("bin/capable");
    let child = format!("exec {plain} capable say ready gate uid {BOB} {BOB} hold");
    let mut actor = live.actor(&format!("{} brood {COUNT} {child}", as_alice(&live)));
    for _ in 0..=COUNT {
        let _line = actor.says();
    }
    assert_eq!(census::of(ALICE).len(), COUNT + 1);
    for _ in 0..COUNT {
        actor.open_gate();
    }
    // Those that cannot change their user exit.
    assert!(eventually(PATIENCE, || census::of(ALICE).len() == 1));
    assert_eq!(census::of(BOB), []);
}

#[test]
fn a_setgid_program_has_the_group_of_its_file() {
    let Some(live) = Live::require() else { return };
    let path = live.setgid_program("bin/as-group", BOB);
    let steps = format!("{} exec {path} as-group", as_alice(&live));
    expect(&live, "set-group-ID program", &steps, ALICE, "group");
}

/// Alice owns a user namespace with her own and bob's IDs. 50 processes of hers enter it and become bob.
fn in_a_user_namespace(what: &str, then: &str) {
    let Some(live) = Live::require() else { return };
    let mut owner = live.actor(&format!("{} userns say namespace hold", as_alice(&live)));
    let pid = owner.said("namespace");
    // As newuidmap(1) does it for subordinate IDs.
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{pid}/{map}"), format!("0 {ALICE} 1\n1 {BOB} 1\n")).unwrap();
    }
    let steps = format!("{} join {pid} user {then}", as_alice(&live));
    expect(&live, what, &steps, BOB, "bob");
}

/// No event reports setns(2): the IDs of the host stay. The change to a mapped ID is reported.
#[test]
fn a_mapped_user_after_setns_is_the_user_of_the_host() {
    in_a_user_namespace("setns, setuid to a mapped ID", "gid 1 1 uid 1 1");
}

#[test]
fn a_mapped_user_of_a_later_child_is_the_user_of_the_host() {
    in_a_user_namespace("setns, fork, setuid to a mapped ID", "sleep 300 daemonize uid 1 1");
}

/// Processes of alice that were placed do `steps`, which change nothing that a rule needs: they stay, and
/// a scan finds nothing to do.
fn stays(what: &str, steps: &str) {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(RULES);
    let user = format!("gid {ALICE} {ALICE} uid {ALICE} {ALICE}");
    let mut actor =
        live.actor(&format!("spawn {COUNT} keep-caps {user} say placed gate {steps} hold"));
    for _ in 0..COUNT {
        actor.said("placed");
    }
    live.expect_at_rest(&format!("{what}, before"), ALICE, COUNT, "alice");
    for _ in 0..COUNT {
        actor.open_gate();
    }
    for _ in 0..COUNT {
        actor.said("pid");
    }
    live.fence();
    live.expect_at_rest(what, ALICE, COUNT, "alice");
    daemon.signal(Signal::SIGHUP);
    live.fence();
    live.expect_at_rest(&format!("{what}, reload"), ALICE, COUNT, "alice");
}

#[test]
fn filesystem_ids_do_not_count() {
    stays("setfsuid, setfsgid", &format!("fsid {BOB}"));
}

/// The group of a rule is the effective one, or one that lists the user.
#[test]
fn supplementary_groups_do_not_count() {
    stays("setgroups", &format!("groups {BOB} groups {TEAM}"));
}

#[test]
fn real_ids_do_not_count() {
    stays("setregid, setreuid of the real IDs", &format!("gid {BOB} -1 uid {BOB} -1"));
}

#[test]
fn personality_and_name_do_not_count() {
    stays("personality, PR_SET_NAME", "persona 40000 comm capable");
}

#[test]
fn the_effective_user_counts_while_the_real_one_stays() {
    let Some(live) = Live::require() else { return };
    expect(&live, "seteuid", &format!("uid {ALICE} -1 uid -1 {BOB}"), BOB, "bob");
    expect(&live, "setegid", &format!("gid -1 {BOB} uid -1 {ALICE}"), ALICE, "group");
}
