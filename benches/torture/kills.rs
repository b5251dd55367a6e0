//! Row 4: SIGKILL at random moments under a storm. One second after the next start every process is
//! right, and no cgroup, tracing instance or netlink socket is left.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, CAROL};
use crate::harness::{Live, PATIENCE, census, within};
use crate::report::Outcome;
use crate::storm::{QUIET, Storm, daemon};
use crate::subject::rules;

const RULES: [(&str, &str); 2] = [("cgt-alice", "alice"), ("cgt-carol", "carol")];
/// Longest time from a start to its end by SIGKILL.
const MOST_MS: u64 = 700;
const CORRECT_WITHIN: Duration = Duration::from_secs(1);

pub(crate) fn run(live: &Live, length: Duration) -> Outcome {
    let before = leavings(live);
    let mut storm = Storm::of_execs(live);
    let mut row = Outcome::new("");
    let began = Instant::now();
    let mut random = 0x9e37_79b9_u64;
    let mut kills = 0;
    while began.elapsed() < length {
        storm.keep_up();
        let killed = daemon(live, &rules(&RULES), &QUIET);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut tree = live.actor(&format!("uid {ALICE} {ALICE} tree 3 5"));
        std::thread::sleep(Duration::from_millis((random >> 33) % MOST_MS));
        killed.signal(Signal::SIGKILL);
        drop(killed);
        tree.said("tree");
        kills += 1;
        let next = daemon(live, &rules(&RULES), &QUIET);
        let group = live.ground.at("alice");
        let is_right = || census::outside(ALICE, &group).is_empty();
        let took = within(PATIENCE, is_right);
        row.expect_none_misplaced(census::outside(ALICE, &group).len());
        row.expect_soon(took, CORRECT_WITHIN, "correct after a restart");
        next.stop();
    }
    row.done = format!("{kills} times SIGKILL at random moments");
    drop(storm);
    assert!(within(Duration::from_secs(10), || census::of(CAROL).is_empty()).is_some());
    let after = leavings(live);
    let left: Vec<&String> = after.difference(&before).collect();
    let is_expected = |one: &&String| ["alice", "carol"].iter().any(|group| one.ends_with(group));
    let leaked: Vec<&String> = left.into_iter().filter(|one| !is_expected(one)).collect();
    row.expect(leaked.is_empty(), format!("left: {leaked:?}"));
    row
}

/// Returns the cgroups of the test, the tracing instances, and the netlink sockets of the connector.
fn leavings(live: &Live) -> BTreeSet<String> {
    let ground = live.ground.directory("", "").unwrap();
    let directories = [ground, "/sys/kernel/tracing/instances".into(), "/run/cgruled".into()];
    let entries = directories.iter().flat_map(fs::read_dir).flatten().flatten();
    let entries = entries.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_file()));
    let mut all: BTreeSet<String> =
        entries.map(|entry| entry.path().display().to_string()).collect();
    let table = fs::read_to_string("/proc/net/netlink").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let connector = rows.filter(|row| row.get(1) == Some(&"11"));
    all.extend(connector.map(|row| format!("netlink socket {}", row[9])));
    all
}
