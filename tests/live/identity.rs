//! Tests the criteria for users and groups.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use crate::harness::user::{ALICE, BOB, CAROL, NAMELESS, SUBORDINATE, TEAM, passwd_line};
use crate::harness::{Live, PATIENCE, census, eventually};

/// Returns a rule with the criteria `when` and the cgroup `there`.
fn rule(when: &str) -> String {
    format!("[[rule]]\n{when}\ncgroup = \"there\"\n")
}

/// Checks that a process that does `steps` matches the rule `when` and is moved.
fn sends(when: &str, steps: &str) {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(&rule(when));
    live.expect(&live.hold(steps), "there");
}

/// Checks that a process that does `steps` is evaluated and does not match the rule `when`.
fn leaves(when: &str, steps: &str) {
    let Some(live) = Live::require() else { return };
    let _daemon = live.daemon(&rule(when));
    live.expect_untouched(&live.hold(steps));
}

fn become_user(uid: u32) -> String {
    format!("uid {uid} {uid}")
}

#[test]
fn a_user_is_meant_by_name() {
    sends("user = \"cgt-alice\"", &become_user(ALICE));
}

#[test]
fn another_user_is_left() {
    leaves("user = \"cgt-alice\"", &become_user(BOB));
}

#[test]
fn a_user_matches_by_uid() {
    sends(&format!("user = \"{ALICE}\""), &become_user(ALICE));
}

#[test]
fn a_user_without_a_name_matches_by_uid() {
    sends(&format!("user = \"{NAMELESS}\""), &become_user(NAMELESS));
}

#[test]
fn users_are_meant_by_range_with_both_ends() {
    sends(&format!("user = \"{ALICE}-{BOB}\""), &become_user(ALICE));
    sends(&format!("user = \"{ALICE}-{BOB}\""), &become_user(BOB));
    leaves(&format!("user = \"{ALICE}-{BOB}\""), &become_user(CAROL));
}

#[test]
fn users_are_meant_by_glob() {
    sends("user = \"cgt-a*\"", &become_user(ALICE));
    leaves("user = \"cgt-a*\"", &become_user(BOB));
}

#[test]
fn users_are_meant_by_any_of_several() {
    let when = format!("user = [\"cgt-alice\", \"{CAROL}\"]");
    sends(&when, &become_user(CAROL));
    leaves(&when, &become_user(BOB));
}

#[test]
fn the_effective_user_counts() {
    sends("user = \"cgt-alice\"", &format!("uid {BOB} {ALICE}"));
}

#[test]
fn the_real_user_does_not_count() {
    leaves("user = \"cgt-bob\"", &format!("uid {BOB} {ALICE}"));
}

#[test]
fn a_group_is_meant_by_the_effective_group() {
    sends("group = \"cgt-bob\"", &format!("gid {BOB} {BOB}"));
    sends(&format!("group = \"{BOB}\""), &format!("gid {ALICE} {BOB}"));
}

#[test]
fn the_real_group_does_not_count() {
    leaves("group = \"cgt-bob\"", &format!("gid {BOB} {ALICE}"));
}

#[test]
fn a_group_matches_its_members() {
    sends("group = \"cgt-team\"", &become_user(ALICE));
    sends(&format!("group = \"{TEAM}\""), &become_user(ALICE));
    leaves("group = \"cgt-team\"", &become_user(BOB));
}

#[test]
fn user_and_group_must_both_match() {
    let when = "user = \"cgt-alice\"\ngroup = \"cgt-bob\"";
    sends(when, &format!("gid {BOB} {BOB} uid {ALICE} {ALICE}"));
    leaves(when, &become_user(ALICE));
}

#[test]
fn what_is_negated_is_left() {
    let when = "user = \"cgt-*\"\nnot = { user = \"cgt-bob\" }";
    sends(when, &become_user(ALICE));
    leaves(when, &become_user(BOB));
}

/// Checks that a rule for an unknown user name becomes active soon after the user is created.
#[test]
fn a_user_created_later_is_known_soon() {
    let Some(live) = Live::require() else { return };
    let rules = "[[rule]]\nuser = \"cgt-late\"\ncgroup = \"late\"\n";
    let _daemon = live.daemon(rules);
    live.expect_untouched(&live.hold(&become_user(NAMELESS)));
    let mut passwd = OpenOptions::new().append(true).open("/etc/passwd").unwrap();
    passwd.write_all(passwd_line("cgt-late", NAMELESS).as_bytes()).unwrap();
    drop(passwd);
    let known = eventually(PATIENCE, || {
        let actor = live.hold(&become_user(NAMELESS));
        live.fence();
        census::cgroup_of(actor.subject, "") == Some(live.ground.at("late"))
    });
    assert!(known, "cgt-late was never known");
}

/// Checks that all subordinate UIDs of a user share one cgroup, that of the user.
#[test]
fn subordinate_uids_of_a_user_share_the_cgroup_of_the_user() {
    let Some(live) = Live::require() else { return };
    if !Path::new("/etc/subuid").exists() {
        return println!("skipped: no /etc/subuid");
    }
    let uids = format!("{SUBORDINATE}-{}", SUBORDINATE + 65_535);
    let rule = format!(
        "[[rule]]\nuser = [\"cgt-*\", \"{uids}\"]\nnot = {{ user = \"cgt-fence\" }}\ncgroup = \"people/%u\"\n"
    );
    let daemon = live.daemon(&rule);
    for uid in [ALICE, SUBORDINATE, SUBORDINATE + 7, SUBORDINATE + 65_535] {
        live.expect(&live.hold(&become_user(uid)), "people/cgt-alice");
    }
    assert_eq!(
        daemon.stop().get("name_lookups"),
        0,
        "alice is local, and nobody else needs a name"
    );
}
