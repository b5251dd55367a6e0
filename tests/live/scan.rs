//! Tests forks while the daemon scans `/proc`: at the start, after a kill, and at a reload.

use std::thread::sleep;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, CAROL};
use crate::harness::{Actor, Live, REST, census, eventually, rounds};

/// Number of processes that no rule matches and that lengthen the scan.
const IDLE: usize = 1500;
const BREEDERS: usize = 4;

fn rule(to: &str) -> String {
    format!("[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"{to}\"\n")
}

/// Starts 1,500 idle processes of carol.
fn crowd(live: &Live) -> Actor {
    let mut crowd = live.actor(&format!("spawn {IDLE} uid {CAROL} {CAROL} hold"));
    for _ in 0..IDLE {
        crowd.said("pid");
    }
    crowd
}

/// Starts four processes of alice that each fork every 0.3 ms; the children live for half a second.
fn breeders(live: &Live) -> Actor {
    let user = format!("uid {ALICE} {ALICE}");
    let mut actor = live.actor(&format!("spawn {BREEDERS} {user} say breeding breed 300 500"));
    for _ in 0..BREEDERS {
        actor.said("breeding");
    }
    sleep(Duration::from_millis(300));
    actor
}

/// The totals of several rounds.
#[derive(Default)]
struct Tally {
    outside: usize,
    seen: usize,
    expected: usize,
}

impl Tally {
    /// Stops the forks and counts the processes of alice at rest.
    fn add(&mut self, live: &Live, mut breeders: Actor, to: &str) {
        for _ in 0..BREEDERS {
            breeders.open_gate();
        }
        let children: u32 = (0..BREEDERS).map(|_| breeders.said("bred")).sum();
        let (outside, seen) = live.at_rest(ALICE, to);
        self.outside += outside.len();
        self.seen += seen;
        self.expected += BREEDERS + children as usize;
        drop(breeders);
        assert!(eventually(REST, || census::of(ALICE).is_empty()));
    }

    fn expect_none_outside(&self, what: &str) {
        println!("{what}: {} of {} outside", self.outside, self.expected);
        assert!(self.expected > 500 * rounds(), "only {} processes", self.expected);
        assert_eq!((self.outside, self.seen), (0, self.expected), "{what}");
    }
}

#[test]
fn forks_while_the_daemon_starts() {
    let Some(live) = Live::require() else { return };
    let _crowd = crowd(&live);
    let mut tally = Tally::default();
    for _ in 0..rounds() {
        let breeders = breeders(&live);
        let _daemon = live.daemon(&rule("alice"));
        tally.add(&live, breeders, "alice");
    }
    tally.expect_none_outside("forks at the start");
}

#[test]
fn forks_while_a_killed_daemon_starts_again() {
    let Some(live) = Live::require() else { return };
    let _crowd = crowd(&live);
    let mut tally = Tally::default();
    let mut daemon = live.daemon(&rule("alice"));
    for _ in 0..rounds() {
        daemon.signal(Signal::SIGKILL);
        let breeders = breeders(&live);
        daemon = live.daemon(&rule("alice"));
        tally.add(&live, breeders, "alice");
    }
    tally.expect_none_outside("forks at the restart");
}

#[test]
fn forks_while_a_changed_rule_file_is_loaded() {
    let Some(live) = Live::require() else { return };
    let _crowd = crowd(&live);
    let mut tally = Tally::default();
    for round in 0..rounds() {
        let _daemon = live.daemon(&rule("old"));
        let breeders = breeders(&live);
        let to = format!("new-{round}");
        live.write_rules(&rule(&to));
        sleep(Duration::from_millis(200));
        tally.add(&live, breeders, &to);
    }
    tally.expect_none_outside("forks at a reload");
}

/// Runs two chains of processes that fork and exit at once, during many scans for reloads, each of
/// which moves the processes of alice from one cgroup to another. With PIDs from `low` and `high`
/// in turn, a chain can be behind and ahead of the scan at every read of `/proc`.
fn chains(what: &str, low: u32, high: u32) {
    const CHAINS: usize = 2;
    let Some(live) = Live::require() else { return };
    let _crowd = crowd(&live);
    let daemon = live.daemon(&rule("a"));
    let user = format!("keep-caps uid {ALICE} {ALICE}");
    let _relays = live.actor(&format!("spawn {CHAINS} {user} relay {low} {high}"));
    assert!(eventually(REST, || live.ground.members("a").len() >= 2 * CHAINS));
    let scans = 10 * rounds();
    let mut outside = 0;
    for number in 0..scans {
        let (from, to) = if number % 2 == 0 { ("a", "b") } else { ("b", "a") };
        live.write_rules(&rule(to));
        daemon.signal(Signal::SIGHUP);
        // The daemon follows a chain from fork to fork until it moves a member that is still alive:
        // this takes longer on a machine without an idle processor.
        eventually(REST, || live.ground.members(from).is_empty());
        live.fence();
        outside += live.ground.members(from).len();
    }
    println!("{what}: {outside} of {} outside", scans * CHAINS);
    assert_eq!(outside, 0, "{what}: of {}", scans * CHAINS);
}

#[test]
fn chains_of_processes_that_fork_and_exit_during_scans() {
    chains("chains", 0, 0);
}

#[test]
fn chains_with_chosen_pids_during_scans() {
    chains("chains with chosen PIDs", 400, 31_000);
}
