//! Row 5: reloads under a storm, of valid and invalid files in turn, and of a directory that is
//! replaced as a whole. The last valid version decides.

use std::fs;
use std::time::{Duration, Instant};

use crate::harness::user::{ALICE, FENCE};
use crate::harness::{Live, PATIENCE, census, eventually};
use crate::report::Outcome;
use crate::storm::{QUIET, Storm, daemon};

/// Time in which a changed file takes effect: the quiet time of inotify, and the reload.
const RELOADED_WITHIN: Duration = Duration::from_secs(2);

pub(crate) fn run(live: &Live, length: Duration) -> Outcome {
    let running = daemon(live, &rules(0), &QUIET);
    let mut storm = Storm::of_execs(live);
    let mut row = Outcome::new("");
    let began = Instant::now();
    let mut version = 0;
    while began.elapsed() < length {
        storm.keep_up();
        version += 1;
        match version % 3 {
            0 => replace_directory(live, version),
            _ => live.write_rules(&rules(version)),
        }
        row.expect(is_active(live, version), format!("version {version} is not active"));
        live.write_rules(&format!("{}[[rule]]\nuser = [\n", rules(version + 1000)));
        std::thread::sleep(Duration::from_millis(300));
        let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
        let group = live.ground.at(&format!("v{version}"));
        let is_right = || census::cgroup_of(actor.subject, "").as_deref() == Some(&*group);
        row.expect_none_misplaced(usize::from(!eventually(PATIENCE, is_right)));
    }
    row.done = format!("{version} valid and {version} invalid versions");
    drop(storm);
    let counters = running.stop();
    row.count(|name| counters.get(name));
    row
}

fn rules(version: u32) -> String {
    let carol = "[[rule]]\nuser = \"cgt-carol\"\ncgroup = \"carol\"\n";
    format!("[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"v{version}\"\n{carol}")
}

/// Puts a directory with the next version in the place of the present one.
fn replace_directory(live: &Live, version: u32) {
    let [present, old] = ["rules.d", "old.d"].map(|name| live.path(name));
    let _absent = fs::remove_dir_all(&old);
    fs::rename(&present, &old).unwrap();
    let draft = live.path("draft.d");
    fs::create_dir_all(&draft).unwrap();
    let fence = format!("[[rule]]\npriority = 1000\nuser = \"{FENCE}\"\ncgroup = \"fence\"\n");
    let text = format!("version = 1\n{}{fence}", rules(version));
    fs::write(draft.join("50-test.toml"), text).unwrap();
    fs::rename(&draft, &present).unwrap();
}

/// Checks whether new processes go to the cgroup of this version soon.
fn is_active(live: &Live, version: u32) -> bool {
    let group = live.ground.at(&format!("v{version}"));
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    eventually(RELOADED_WITHIN, || census::cgroup_of(actor.subject, "").as_deref() == Some(&*group))
}
