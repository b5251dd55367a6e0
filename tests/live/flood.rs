//! Tests floods of credential events: processes that change their effective user as fast as they can.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB, CAROL};
use crate::harness::{Actor, Live, Settings};

const RULES: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"alice\"\n\
                     [[rule]]\nuser = \"cgt-carol\"\ncgroup = \"carol\"\n";

/// Starts four processes that toggle between two users.
fn flood(live: &Live) -> [Actor; 4] {
    let steps = format!("keep-caps toggle 1000000000 {ALICE} {BOB}");
    [0; 4].map(|_| live.actor(&steps))
}

/// Limit until the daemon is ready: it takes a second on two idle processors; 0.1.0 was never ready.
const READY: Duration = Duration::from_secs(15);
/// Limit for the exit after SIGTERM, which 0.1.0 ignored.
const EXIT: Duration = Duration::from_secs(3);

/// Starts the daemon five times; each must be ready and exit in time.
fn starts(what: &str, config: &str, is_flooded: bool) {
    let Some(live) = Live::require() else { return };
    let _flood = is_flooded.then(|| flood(&live));
    let settings = Settings { config, arguments: &[] };
    let (mut late, mut times) = (0, Vec::new());
    for _ in 0..5 {
        let mut daemon = live.unready_daemon(RULES, &settings);
        let ready = daemon.ready_within(READY);
        let exited = daemon.exits_within(EXIT);
        if exited.is_none() {
            daemon.signal(Signal::SIGKILL);
        }
        late += usize::from(ready.is_none() || exited.is_none());
        times.push((ready, exited));
    }
    println!("{what}: {late} of 5 outside; ready and exited after {times:?}, ms");
    assert_eq!(late, 0, "of 5 starts were not ready, or did not exit, in time");
}

#[test]
fn starts_under_a_flood() {
    starts("starts under a flood", "", true);
}

#[test]
fn starts_under_a_flood_with_a_small_receive_buffer() {
    starts("starts under a flood, 1 MiB", "receive_buffer = \"1M\"\n", true);
}

/// Control: the same without a flood.
#[test]
fn starts_without_a_flood() {
    starts("starts without a flood", "", false);
}

/// Checks that losses cause one scan a second at most, and that carol is placed nevertheless.
#[test]
fn losses_cause_few_scans() {
    let Some(live) = Live::require() else { return };
    let settings = Settings { config: "receive_buffer = \"8K\"\n", arguments: &[] };
    let daemon = live.daemon_with(RULES, &settings);
    let begin = Instant::now();
    let flood = flood(&live);
    sleep(Duration::from_secs(5));
    let carol = live.hold(&format!("uid {CAROL} {CAROL}"));
    live.expect_at_rest("bystander of a flood", CAROL, 1, "carol");
    drop((flood, carol));
    let seconds = i64::try_from(begin.elapsed().as_secs()).unwrap();
    let counters = daemon.stop();
    let (lost, scans) = (counters.get("lost_events"), counters.get("scans"));
    println!("{lost} events lost, {scans} scans in {seconds} s, ms");
    assert!(lost > 0, "no event was lost: {counters:?}");
    assert!(scans <= seconds + 2, "{scans} scans in {seconds} s");
}

/// Starts four processes of alice, who has no privileges, that toggle their group as fast as they can:
/// with a set-group-ID copy of a program, as any user can make one of a group of theirs.
fn group_flood(live: &Live) -> [Actor; 4] {
    let path = live.setgid_program("bin/as-group", BOB);
    let become_alice = format!("groups -1 gid {ALICE} {ALICE} uid {ALICE} {ALICE}");
    let steps =
        format!("{become_alice} exec {path} as-group toggle-group 1000000000 {ALICE} {BOB}");
    [0; 4].map(|_| live.actor(&steps))
}

/// Returns the events read, those lost and the scans while `group_flood` runs, with carol as bystander.
fn during_group_flood(rules: &str) -> [i64; 3] {
    let Some(live) = Live::require() else { return [0, 0, 1] };
    let daemon = live.daemon(rules);
    let flood = group_flood(&live);
    sleep(Duration::from_secs(2));
    for _ in 0..20 {
        let carol = live.hold(&format!("uid {CAROL} {CAROL}"));
        live.expect(&carol, "carol");
    }
    drop(flood);
    let counters = daemon.stop();
    println!("{counters:?}");
    ["events", "lost_events", "scans"].map(|name| counters.get(name))
}

/// Any user can cause 160,000 group changes a second, so they are not received where no rule needs them.
#[test]
fn a_flood_of_group_changes_costs_nothing_where_no_rule_tests_groups() {
    let [events, lost, scans] = during_group_flood(RULES);
    assert!(events < 10_000, "{events} events");
    assert_eq!((lost, scans), (0, 1));
}

#[test]
fn a_flood_of_group_changes_hides_no_other_user_where_a_rule_tests_groups() {
    let rules =
        format!("{RULES}[[rule]]\nuser = \"cgt-bob\"\ngroup = \"cgt-team\"\ncgroup = \"b\"\n");
    let [events, ..] = during_group_flood(&rules);
    assert!(events == 0 || events > 10_000, "{events} events");
}
