//! Tests users and groups that only a module of the name service has.

use std::fmt::Write as _;
use std::process::Command;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{Actor, BASE, Live, NameService, PATIENCE, census, eventually};

/// UIDs and GIDs that the local files do not have.
const REMOTE: u32 = 61_760;
const OTHER: u32 = 61_761;
const DOMAIN: u32 = 61_762;
const MACHINE: u32 = 61_763;
const TEAM: u32 = 61_770;

/// Returns what `cgrulectl explain --user` prints about a user for the rules of the test.
fn explain(names: &NameService<'_>, user: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_cgrulectl"))
        .args(["explain", "--no-legacy", "--rules", &format!("{BASE}/rules.d"), "--user", user])
        .envs(names.environment())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn passwd(name: &str, id: u32, group: u32) -> String {
    format!("{name}:x:{id}:{group}::/nonexistent:/bin/false\n")
}

fn rule(when: &str, cgroup: &str) -> String {
    format!("[[rule]]\n{when}\ncgroup = \"{cgroup}\"\n")
}

fn become_user(live: &Live, uid: u32) -> Actor {
    live.hold(&format!("uid {uid} {uid}"))
}

/// Checks that a process of the user is moved to this cgroup within the patience of a test.
fn expect_moved(live: &Live, actor: &Actor, below: &str) {
    let group = live.ground.at(below);
    let is_there = || census::cgroup_of(actor.subject, "").as_deref() == Some(&*group);
    assert!(eventually(PATIENCE, is_there), "{:?}", census::cgroup_of(actor.subject, ""));
}

#[test]
fn a_user_that_appears_in_the_name_service_is_placed_without_a_reload() {
    let Some(live) = Live::require() else { return };
    let names = NameService::new(&live, "", "");
    let daemon = names.daemon(&rule("user = \"cgt-remote\"", "remote"));
    daemon.expect_log("no user is named \"cgt-remote\"");
    // Seen before it has a name: only the repeated lookup of the name helps.
    let early = become_user(&live, REMOTE);
    live.expect_untouched(&early);
    names.write("passwd", &passwd("cgt-remote", REMOTE, REMOTE));
    expect_moved(&live, &early, "remote");
    daemon.expect_log("user cgt-remote exists now");
    daemon.expect_log("2 rules from 2 files, 0 errors");
}

#[test]
fn a_user_is_looked_up_when_it_is_first_seen() {
    let Some(live) = Live::require() else { return };
    let names = NameService::new(&live, "", "");
    let rules = rule("user = \"cgt-remote\"", "remote") + &rule("user = \"cgt-never\"", "never");
    let _daemon = names.daemon(&rules);
    // The next lookup of the unknown names is 4 seconds after the third.
    std::thread::sleep(std::time::Duration::from_millis(3500));
    names.write("passwd", &passwd("cgt-remote", REMOTE, REMOTE));
    let actor = become_user(&live, REMOTE);
    assert!(live.placed_within_a_second(actor.subject, "remote").is_some());
}

#[test]
fn a_group_that_appears_in_the_name_service_is_active_without_a_reload() {
    let Some(live) = Live::require() else { return };
    let names = NameService::new(&live, "", "");
    let _daemon = names.daemon(&rule("group = \"cgt-remotes\"", "team"));
    let member = become_user(&live, ALICE);
    live.expect_untouched(&member);
    names.write("group", &format!("cgt-remotes:x:{TEAM}:cgt-alice\n"));
    expect_moved(&live, &member, "team");
}

#[test]
fn a_local_user_in_a_group_of_the_name_service_is_a_member_from_the_start() {
    let Some(live) = Live::require() else { return };
    let names = NameService::new(&live, "", &format!("cgt-remotes:x:{TEAM}:cgt-alice\n"));
    let _daemon = names.daemon(&rule("group = \"cgt-remotes\"", "team"));
    let member = become_user(&live, ALICE);
    live.expect(&member, "team");
    live.expect_untouched(&become_user(&live, BOB));
    assert!(explain(&names, "cgt-alice").contains("/team"), "{}", explain(&names, "cgt-alice"));
    assert!(!explain(&names, "cgt-bob").contains("/team"), "{}", explain(&names, "cgt-bob"));
}

#[test]
fn members_of_a_group_of_sixty_thousand_are_known() {
    let Some(live) = Live::require() else { return };
    let mut group = format!("cgt-students:x:{TEAM}:cgt-alice");
    for number in 0..60_000 {
        write!(group, ",student-{number:08}").unwrap();
    }
    let users = passwd("cgt-remote", REMOTE, TEAM);
    let names = NameService::new(&live, &users, &format!("{group}\n"));
    let rules = rule(&format!("user = {ALICE}\ngroup = \"cgt-students\""), "member-%u")
        + &rule(&format!("user = {REMOTE}"), "login-%u-%g");
    let _daemon = names.daemon(&rules);
    live.expect(&become_user(&live, ALICE), "member-cgt-alice");
    let student = live.hold(&format!("gid {TEAM} {TEAM} uid {REMOTE} {REMOTE}"));
    live.expect(&student, "login-cgt-remote-cgt-students");
    assert!(explain(&names, "cgt-remote").contains("login-cgt-remote-cgt-students"));
}

#[test]
fn a_login_name_of_digits_is_a_name() {
    let Some(live) = Live::require() else { return };
    let users = passwd("20231234", REMOTE, REMOTE) + &passwd("61761", DOMAIN, DOMAIN);
    let names = NameService::new(&live, &users, "");
    let rules = rule("user = \"20231234\"", "student")
        + &rule("user = \"61761\"", "name")
        + &rule("user = 61761", "id")
        + &rule("user = \"61763\"", "no-name");
    let _daemon = names.daemon(&rules);
    live.expect(&become_user(&live, REMOTE), "student");
    live.expect(&become_user(&live, DOMAIN), "name");
    live.expect(&become_user(&live, OTHER), "id");
    live.expect(&become_user(&live, MACHINE), "no-name");
    assert!(explain(&names, "20231234").contains("/student"));
    assert!(explain(&names, "61761").contains("/name"));
}

#[test]
fn a_name_of_digits_that_appears_later_is_a_name_from_then_on() {
    let Some(live) = Live::require() else { return };
    let names = NameService::new(&live, "", "");
    let _daemon = names.daemon(&rule("user = \"61761\"", "there"));
    let by_id = become_user(&live, OTHER);
    live.expect(&by_id, "there");
    let by_name = become_user(&live, REMOTE);
    live.expect_untouched(&by_name);
    names.write("passwd", &passwd("61761", REMOTE, REMOTE));
    expect_moved(&live, &by_name, "there");
}

#[test]
fn backslashes_and_dollars_are_parts_of_names() {
    let Some(live) = Live::require() else { return };
    let users = passwd("CGT\\alice", DOMAIN, DOMAIN)
        + &passwd("cgt-host$", MACHINE, MACHINE)
        + &passwd("CGT\\bob", REMOTE, REMOTE);
    let names = NameService::new(&live, &users, "");
    let rules = rule("user = 'CGT\\alice'", "%u")
        + &rule("user = \"cgt-host$\"", "%u")
        + &rule("user = 'CGT\\\\*'", "domain/%u");
    let _daemon = names.daemon(&rules);
    live.expect(&become_user(&live, DOMAIN), "CGT\\x5calice");
    live.expect(&become_user(&live, MACHINE), "cgt-host$");
    live.expect(&become_user(&live, REMOTE), "domain/CGT\\x5cbob");
    assert!(explain(&names, "CGT\\alice").contains("CGT\\x5calice"));
}

#[test]
fn a_slow_lookup_delays_no_other_user() {
    let Some(live) = Live::require() else { return };
    let users = passwd("cgt-remote", REMOTE, REMOTE) + &passwd("cgt-other", OTHER, OTHER);
    let names = NameService::new(&live, &users, "");
    names.write(&format!("slow-{REMOTE}"), "");
    let _daemon = names.daemon(&rule("user = \"cgt-*\"", "%u"));
    let slow = become_user(&live, REMOTE);
    let other = become_user(&live, OTHER);
    assert!(live.placed_within_a_second(other.subject, "cgt-other").is_some());
    live.expect_untouched(&slow);
    names.remove(&format!("slow-{REMOTE}"));
    live.expect(&slow, "cgt-remote");
}
