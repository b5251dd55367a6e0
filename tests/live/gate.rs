//! Tests rules with `gate`: a process is in its cgroup before the program that it executes begins.
//!
//! `CGRULED_GATE_COUNT` and `CGRULED_GATE_CONCURRENT` scale the storms (defaults: 2,000 and 200).

use std::collections::HashMap;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{
    Actor, Daemon, Live, PATIENCE, Settings, census, eventually, gate, name_value_lines,
};

/// Of 20 executions: on a busy machine some wait for 10 ms and go on without a placement.
const MOST_OF_20: i64 = 16;

/// Copies the gated program to a file of its own, in place of one that may run.
fn gated_program(live: &Live, below: &str) -> String {
    let draft = live.program(&format!("{below}.new"));
    fs::copy(gate(), &draft).unwrap();
    let path = live.path(below).display().to_string();
    fs::rename(&draft, &path).unwrap();
    path
}

/// A rule by which executions of `program` wait, and `more` keys.
fn rule(program: &str, more: &str) -> String {
    format!("[[rule]]\nexe = \"{program}\"\ngate = true\ncgroup = \"there\"\n{more}\n")
}

/// Starts a daemon with such a rule.
fn daemon(live: &Live, program: &str, more: &str) -> Daemon {
    live.daemon(&rule(program, &format!("user = [\"cgt-alice\", \"cgt-bob\"]\n{more}")))
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn count() -> usize {
    number("CGRULED_GATE_COUNT", 2000)
}

/// Begins executions, `parallel` at a time.
fn begin(live: &Live, uid: u32, (count, parallel): (usize, usize), program: &str) -> Child {
    Command::new(gate())
        .args(["storm", &uid.to_string(), &count.to_string(), &parallel.to_string(), program])
        .arg(live.ground.at("there"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Returns what the executions told.
fn results(what: &str, child: Child) -> HashMap<String, i64> {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{what}: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{what}: {}", text.replace('\n', ", "));
    name_value_lines(&text)
}

fn storm(live: &Live, what: &str, size: (usize, usize), program: &str) -> HashMap<String, i64> {
    results(what, begin(live, ALICE, size, program))
}

#[test]
fn each_process_is_inside_before_the_program_begins() {
    let Some(live) = Live::require() else { return };
    let program = gated_program(&live, "bin/gated");
    let outside = storm(&live, "without a daemon", (100, 1), &program);
    assert_eq!((outside["inside"], outside["errors"]), (0, 0));
    let daemon = daemon(&live, &program, "");
    let found = storm(&live, "one by one", (count(), 1), &program);
    assert_eq!(found["errors"], 0);
    let counters = daemon.stop();
    // A late one is placed by its event.
    let late = counters.get("gate_late") + counters.get("gate_skipped");
    assert!(found["outside"] <= late, "{} late or skipped", late);
    assert!(late * 20 <= found["inside"], "{late} late");
    assert_eq!(counters.get("gate_returned"), 0);
    assert!(counters.get("gated") >= found["inside"]);
}

#[test]
fn concurrent_executions_wait_for_20_ms_at_most_and_none_is_refused() {
    let Some(live) = Live::require() else { return };
    let program = gated_program(&live, "bin/gated");
    let size = number("CGRULED_GATE_CONCURRENT", 200);
    let mut least = i64::MAX;
    // They also wait for a processor, as without a daemon: the attempt with the least disturbance counts.
    for _ in 0..5 {
        let free = storm(&live, "without a daemon", (size, size), &program);
        let daemon = daemon(&live, &program, "");
        let found = storm(&live, "concurrent", (size, size), &program);
        assert_eq!((free["errors"], found["errors"]), (0, 0));
        assert_eq!(daemon.stop().get("gate_opened"), 0);
        least = least.min(found["slowest_us"] - 2 * free["slowest_us"]);
        if least < 20_000 {
            return;
        }
    }
    panic!("{least} us more");
}

#[test]
fn a_storm_by_one_user_does_not_make_another_late() {
    let Some(live) = Live::require() else { return };
    let program = gated_program(&live, "bin/gated");
    let daemon = daemon(&live, &program, "");
    let storm = begin(&live, BOB, (count(), 20), &program);
    let found = results("alice", begin(&live, ALICE, (100, 1), &program));
    results("bob", storm);
    drop(daemon);
    assert_eq!(found["errors"], 0);
    assert!(found["inside"] >= 80, "{} of 100 inside", found["inside"]);
}

#[test]
fn memory_is_charged_to_the_cgroup_of_the_rule() {
    let Some(live) = Live::require() else { return };
    let program = gated_program(&live, "bin/gated");
    let daemon = daemon(&live, &program, "");
    let output = Command::new(gate())
        .args(["fill", &ALICE.to_string(), "20", &program, &live.ground.at("there"), "64"])
        .output()
        .unwrap();
    let found = name_value_lines(&String::from_utf8_lossy(&output.stdout));
    let gated = daemon.stop().get("gated");
    assert_eq!((found["inside"] + found["outside"], found["errors"]), (20, 0));
    assert!(gated >= found["inside"] && found["inside"] >= MOST_OF_20, "{found:?}");
}

/// Starts a process whose execution fails, and returns it, its child and its grandchild.
fn failed(live: &Live, program: &str) -> (Actor, [u32; 3]) {
    let mut actor = live.run_program(gate(), &format!("fail {ALICE} {program}"));
    let pids = [(); 3].map(|()| actor.said("pid"));
    (actor, pids)
}

#[test]
fn a_process_whose_execution_fails_is_returned_with_its_children() {
    let Some(live) = Live::require() else { return };
    let program = gated_program(&live, "bin/gated");
    let daemon = daemon(&live, &program, "");
    let (_actor, pids) = failed(&live, &program);
    let there = live.ground.at("there");
    let is_out = |pid: &u32| census::cgroup_of(*pid, "").is_some_and(|path| path != there);
    assert!(eventually(PATIENCE, || pids.iter().all(is_out)));
    sleep(Duration::from_millis(300));
    assert!(pids.iter().all(is_out));
    let counters = daemon.stop();
    assert_eq!(counters.get("gated"), 1);
    assert_eq!(counters.get("gate_returned"), 3);
}

#[test]
fn a_replaced_file_is_gated_too() {
    let Some(live) = Live::require() else { return };
    let program = gated_program(&live, "bin/gated");
    let daemon = daemon(&live, &program, "");
    let mut inside = 0;
    let mut ungated = 0;
    for _ in 0..20 {
        gated_program(&live, "bin/gated");
        sleep(Duration::from_millis(20));
        let found = storm(&live, "after an upgrade", (20, 1), &program);
        assert_eq!(found["errors"], 0);
        inside += found["inside"];
        ungated += found["outside"];
    }
    // On a busy machine an execution can wait for 10 ms.
    assert!(inside >= 20 * MOST_OF_20, "{inside} inside, {ungated} outside");
    // Without a pause some executions can be of a file that is not marked yet.
    let storm = begin(&live, ALICE, (count(), 2), &program);
    for _ in 0..50 {
        gated_program(&live, "bin/gated");
        sleep(Duration::from_millis(2));
    }
    let found = results("upgrades", storm);
    assert_eq!(found["errors"], 0);
    assert!(found["inside"] > found["outside"], "{found:?}");
    drop(daemon);
}

#[test]
fn a_file_that_appears_later_is_gated() {
    let Some(live) = Live::require() else { return };
    gated_program(&live, "bin/other");
    let path = live.path("bin/later").display().to_string();
    let _daemon = daemon(&live, &path, "");
    gated_program(&live, "bin/later");
    sleep(Duration::from_millis(100));
    assert!(storm(&live, "a new file", (20, 1), &path)["inside"] >= MOST_OF_20);
}

#[test]
fn other_files_do_not_wait() {
    let Some(live) = Live::require() else { return };
    let [program, other] = ["bin/gated", "bin/other"].map(|below| gated_program(&live, below));
    let daemon = daemon(&live, &program, "");
    assert_eq!(storm(&live, "another file", (50, 1), &other)["outside"], 50);
    // A copy of its name elsewhere, and a hard link to it, are not the file that the rule names.
    let link = live.path("bin/link").display().to_string();
    fs::hard_link(&program, &link).unwrap();
    assert_eq!(storm(&live, "a hard link", (50, 1), &link)["outside"], 50);
    let counters = daemon.stop();
    assert_eq!((counters.get("gated"), counters.get("gate_skipped")), (0, 50));
}

/// A rule of another user, and a rule before the gated one.
#[test]
fn executions_without_the_gated_rule_go_on() {
    let Some(live) = Live::require() else { return };
    let program = gated_program(&live, "bin/gated");
    let first = "[[rule]]\nuser = \"cgt-bob\"\ncgroup = \"first\"\n";
    let daemon = live.daemon(&format!("{first}{}", rule(&program, "user = \"cgt-bob\"")));
    for uid in [ALICE, BOB] {
        let found = results("no gated rule", begin(&live, uid, (50, 1), &program));
        assert_eq!((found["inside"], found["errors"]), (0, 0));
    }
    let counters = daemon.stop();
    assert_eq!((counters.get("gate_waits"), counters.get("gated")), (100, 0));
}

#[test]
fn nothing_waits_for_a_daemon_that_was_killed() {
    let Some(live) = Live::require() else { return };
    let program = gated_program(&live, "bin/gated");
    let daemon = daemon(&live, &program, "");
    let storm = begin(&live, ALICE, (count(), 4), &program);
    sleep(Duration::from_millis(100));
    daemon.signal(Signal::SIGKILL);
    let found = results("killed", storm);
    assert_eq!(found["errors"], 0);
    assert!(found["slowest_us"] < 500_000);
}

#[test]
fn a_stopped_daemon_is_killed_after_a_second() {
    let Some(live) = Live::require() else { return };
    let program = gated_program(&live, "bin/gated");
    let mut daemon = daemon(&live, &program, "");
    assert!(storm(&live, "running", (20, 1), &program)["inside"] >= MOST_OF_20);
    daemon.signal(Signal::SIGSTOP);
    let found = storm(&live, "stopped", (5, 1), &program);
    assert_eq!(found["errors"], 0);
    assert!(found["slowest_us"] < 1_500_000, "{} us", found["slowest_us"]);
    assert!(eventually(PATIENCE, || daemon.has_exited()));
}

#[test]
fn a_reload_changes_which_files_wait() {
    let Some(live) = Live::require() else { return };
    let [program, other] = ["bin/gated", "bin/other"].map(|below| gated_program(&live, below));
    let daemon = daemon(&live, &program, "");
    assert!(storm(&live, "before", (20, 1), &program)["inside"] >= MOST_OF_20);
    live.write_rules(&rule(&other, "user = \"cgt-alice\""));
    daemon.signal(Signal::SIGHUP);
    live.fence();
    sleep(Duration::from_millis(100));
    assert!(storm(&live, "the new one", (20, 1), &other)["inside"] >= MOST_OF_20);
    assert_eq!(storm(&live, "the old one", (10, 1), &program)["outside"], 10);
}

#[test]
fn a_dry_run_lets_nothing_wait() {
    let Some(live) = Live::require() else { return };
    let program = gated_program(&live, "bin/gated");
    let settings = Settings { arguments: &["--dry-run"], ..Settings::default() };
    let daemon = live.daemon_with(&rule(&program, "user = \"cgt-alice\""), &settings);
    assert_eq!(storm(&live, "dry run", (10, 1), &program)["outside"], 10);
    assert_eq!(daemon.stop().get("gate_waits"), 0);
}

#[test]
fn a_script_waits_as_well() {
    let Some(live) = Live::require() else { return };
    let script =
        live.script("bin/job", "#!/bin/sh\nread line < /proc/self/cgroup\ncat /proc/$$/cgroup\n");
    let daemon = daemon(&live, &script, "");
    let steps = format!("uid {ALICE} {ALICE} exec {script} job");
    let wanted = format!("0::{}\n", live.ground.at("there"));
    let mut inside = 0;
    for _ in 0..20 {
        let output = Command::new(live.path("bin/actors")).args(steps.split(' ')).output().unwrap();
        inside += i64::from(String::from_utf8_lossy(&output.stdout).contains(&wanted));
    }
    assert!(inside >= MOST_OF_20, "{inside} inside");
    assert!(daemon.stop().get("gated") >= inside);
}
