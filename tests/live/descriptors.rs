//! Tests more cgroups in use than the daemon may have open files.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use crate::harness::{Actor, Live, PATIENCE, Settings, Surroundings, census, eventually};

/// First of 600 UIDs, which have no names.
const FIRST: u32 = 61_100;
const RULES: &str = "[[rule]]\nuser = \"61100-61699\"\ncgroup = \"many/%U\"\n";

/// Starts one process for each UID of a range.
fn hold(live: &Live, users: std::ops::Range<u32>) -> Vec<Actor> {
    users.map(|user| live.hold(&format!("uid {0} {0}", FIRST + user))).collect()
}

fn misplaced(live: &Live, actors: &[Actor]) -> Vec<String> {
    let own = |index: usize| live.ground.at(&format!("many/{}", FIRST as usize + index));
    let found = actors.iter().enumerate().filter_map(|(index, actor)| {
        let found = census::cgroup_of(actor.subject, "");
        (found.as_deref() != Some(&own(index))).then(|| format!("{index} in {found:?}"))
    });
    found.collect()
}

fn expect_all(live: &Live, actors: &[Actor]) {
    let mut left = Vec::new();
    let all = eventually(PATIENCE, || {
        left = misplaced(live, actors);
        left.is_empty()
    });
    assert!(all, "{} of {} are misplaced: {:?}", left.len(), actors.len(), left.first());
}

/// Starts half of the processes before the daemon and half after it, then has all of them evaluated again.
fn all_are_placed_with(limit: &str) {
    let Some(live) = Live::require() else { return };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut actors = hold(&live, 0..150);
    let launcher = ["prlimit", limit];
    let on = Surroundings { launcher: &launcher, ..Surroundings::default() };
    let daemon = live.daemon_on(RULES, &Settings::default(), &on);
    expect_all(&live, &actors);
    actors.extend(hold(&live, 150..300));
    expect_all(&live, &actors);
    let loads = daemon.log().matches("active: ").count();
    daemon.signal(Signal::SIGHUP);
    assert!(eventually(PATIENCE, || daemon.log().matches("active: ").count() > loads));
    std::thread::sleep(Duration::from_millis(300));
    expect_all(&live, &actors);
    assert_eq!(daemon.stop().get("refused"), 0);
}

#[test]
fn three_hundred_groups_need_no_256_descriptors() {
    all_are_placed_with("--nofile=256:256");
}

/// Uses the smallest limit: below it the own descriptors of the daemon and the minimum
/// for cgroups do not fit.
#[test]
fn three_hundred_groups_need_no_48_descriptors() {
    all_are_placed_with("--nofile=48:48");
}
