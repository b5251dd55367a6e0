//! Row 8: descriptors, threads and memory of the daemon, and inotify instances are exhausted. It goes on and
//! is right, or is ended by the OOM killer and is right a second after its next start.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::harness::user::{ALICE, CAROL};
use crate::harness::{Daemon, Live, PATIENCE, Settings, Surroundings, census, with_faults, within};
use crate::report::Outcome;
use crate::storm::{QUIET, Storm, daemon};

const RULES: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"alice\"\n\
                     [[rule]]\nuser = \"cgt-carol\"\ncgroup = \"carol\"\n\
                     [[rule]]\nuser = \"61100-61699\"\ncgroup = \"many/%U\"\n";
/// First UID of those that each have a cgroup of their own.
const FIRST: u32 = 61_100;
const CORRECT_WITHIN: Duration = Duration::from_secs(1);
/// Memory between what the daemon needs to start and what it has under load.
const MEMORY: u64 = 3 << 20;

pub(crate) fn run(live: &Live, length: Duration) -> Outcome {
    let mut row = Outcome::new("");
    let began = Instant::now();
    let mut rounds = 0;
    let mut killed = 0;
    while rounds == 0 || began.elapsed() < length {
        rounds += 1;
        expect_right(live, &mut row, "few descriptors", start(live, &["prlimit", "--nofile=48"]));
        let one_thread = limited(live, "pids", "pids.max", "1");
        if let Some(launcher) = &one_thread {
            // The threads of the start exist; later ones cannot be created.
            let running = start(live, &[]);
            enter(launcher, &running);
            expect_right(live, &mut row, "no further threads", running);
        }
        let inotify = vec!["inotify_init1:error=EMFILE".to_owned()];
        let Some(running) = with_faults(live, RULES, &inotify) else { return row };
        expect_right(live, &mut row, "no inotify instance", running);
        if let Some(group) = limited(live, "memory", "memory.limit_in_bytes", &MEMORY.to_string()) {
            killed += usize::from(starve(live, &mut row, &group));
        }
    }
    row.done = format!(
        "{rounds} times few descriptors, threads, watches and little memory; {killed} ended by OOM"
    );
    row
}

fn start(live: &Live, launcher: &[&str]) -> Daemon {
    let on = Surroundings { launcher, ..Surroundings::default() };
    live.daemon_on(RULES, &Settings::default(), &on)
}

/// Creates a cgroup with a limit in a v1 hierarchy.
fn limited(live: &Live, controller: &str, file: &str, value: &str) -> Option<PathBuf> {
    let group = live.ground.directory(controller, "limited")?;
    fs::create_dir_all(&group).unwrap();
    fs::write(group.join(file), value).unwrap();
    Some(group)
}

fn enter(group: &std::path::Path, running: &Daemon) {
    fs::write(group.join("cgroup.procs"), running.pid().to_string()).unwrap();
}

/// Checks that processes of 60 users and a tree get to their cgroups.
fn expect_right(live: &Live, row: &mut Outcome, what: &str, running: Daemon) {
    let mut tree = live.actor(&format!("uid {ALICE} {ALICE} tree 3 5"));
    tree.said("tree");
    let held: Vec<_> = (0..60).map(|n| live.hold(&format!("uid {0} {0}", FIRST + n))).collect();
    let (outside, all) = live.at_rest(ALICE, "alice");
    row.expect(
        all >= 100 && outside.is_empty(),
        format!("{what}: {} of {all} outside", outside.len()),
    );
    let right = (FIRST..).zip(&held).filter(|(uid, actor)| {
        live.placed_within_a_second(actor.subject, &format!("many/{uid}")).is_some()
    });
    let wrong = held.len() - right.count();
    row.expect(wrong == 0, format!("{what}: {wrong} of {} outside", held.len()));
    row.expect_none_misplaced(outside.len() + wrong);
    // Asserts the status 0.
    let _counters = running.stop();
}

/// Takes the memory of the daemon away under a storm. Returns whether it was killed.
fn starve(live: &Live, row: &mut Outcome, group: &std::path::Path) -> bool {
    let storm = Storm::of_execs(live);
    let mut running = daemon(live, RULES, &QUIET);
    enter(group, &running);
    let mut tree = live.actor(&format!("uid {ALICE} {ALICE} tree 3 5"));
    tree.said("tree");
    std::thread::sleep(Duration::from_millis(500));
    let was_killed = running.has_exited();
    drop(running);
    let next = daemon(live, RULES, &QUIET);
    let alice = live.ground.at("alice");
    let took = within(PATIENCE, || census::outside(ALICE, &alice).is_empty());
    row.expect_soon(took, CORRECT_WITHIN, "correct after a restart");
    row.expect_none_misplaced(census::outside(ALICE, &alice).len());
    drop(storm);
    assert!(within(Duration::from_secs(10), || census::of(CAROL).is_empty()).is_some());
    next.stop();
    was_killed
}
