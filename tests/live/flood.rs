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
