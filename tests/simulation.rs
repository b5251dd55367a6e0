//! Replays the kept histories of the simulation, each of which was a fault of the engine once, and
//! explores some worlds: see `benches/simulation`.
#![allow(dead_code, reason = "the benchmark uses the rest of these modules")]
#![allow(clippy::wildcard_enum_match_arm, reason = "steps are dispatched by group before")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "those lists are the wall around the library's pure modules"
)]

#[path = "../benches/simulation/boundary.rs"]
mod boundary;
#[path = "../benches/simulation/calls.rs"]
mod calls;
#[path = "../benches/simulation/cgroups.rs"]
mod cgroups;
#[path = "../benches/simulation/config.rs"]
mod config;
#[path = "../benches/simulation/descent.rs"]
mod descent;
#[path = "../benches/simulation/driver.rs"]
mod driver;
#[path = "../benches/simulation/history.rs"]
mod history;
#[path = "../benches/simulation/journal.rs"]
mod journal;
#[path = "../benches/simulation/machine.rs"]
mod machine;
#[path = "../benches/simulation/oracle.rs"]
mod oracle;
#[path = "../benches/simulation/plans.rs"]
mod plans;
#[path = "../benches/simulation/process.rs"]
mod process;
#[path = "../benches/simulation/programs.rs"]
mod programs;
#[path = "../benches/simulation/replies.rs"]
mod replies;
#[path = "../benches/simulation/rules.rs"]
mod rules;
#[path = "../benches/simulation/services.rs"]
mod services;
#[path = "../benches/simulation/silence.rs"]
mod silence;
#[path = "../benches/simulation/situations.rs"]
mod situations;
#[path = "../benches/simulation/steps.rs"]
mod steps;
#[path = "../benches/simulation/tally.rs"]
mod tally;
#[path = "../benches/simulation/watch.rs"]
mod watch;
#[path = "../benches/simulation/world.rs"]
mod world;

use std::path::Path;
use std::process::Command;

use history::History;

/// Kernel events of the exploration: a second in a build without optimization.
const EVENTS: u64 = 10_000;

#[test]
fn kept_histories_lead_to_no_violation() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/simulation/histories");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let file = entry.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        let history = History::parse(&text).unwrap();
        assert_eq!(History::parse(&history.text()), Some(history.clone()), "{}", file.display());
        let outcome = world::replay(&history, false);
        assert_eq!(outcome.violation, None, "{}", file.display());
        count += 1;
    }
    assert!(count > 0);
}

#[test]
fn some_worlds_have_no_violation() {
    let explored = world::explore(1, 0, EVENTS, None);
    assert!(explored.events >= EVENTS);
    let failing = explored.found;
    let failing =
        failing.map(|failing| format!("{}\n{}", failing.violation, failing.history.text()));
    assert_eq!(failing, None);
}

/// A patch that does not apply would be found by the next run of all mutations only, which takes long.
#[test]
fn mutations_apply_to_the_engine() {
    let tree = env!("CARGO_MANIFEST_DIR");
    let directory = Path::new(tree).join("benches/simulation/mutations");
    let mut count = 0;
    for entry in directory.read_dir().unwrap() {
        let patch = entry.unwrap().path();
        if patch.extension().is_none_or(|extension| extension != "patch") {
            continue;
        }
        let output = Command::new("patch")
            .args(["--dry-run", "--force", "--fuzz=0", "-p1", "-d", tree, "-i"])
            .arg(&patch)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {said}", patch.display());
        count += 1;
    }
    assert!(count >= 13, "{count}");
}
