//! Row 9: cgroups are removed, frozen and filled to pids.max, and no new one can be created for a while.
//! Processes get to their cgroup by themselves when that is over, and the log reports what could not be done.
//! The read-only mount of the row is left out: a mount with open files for writing cannot become read-only.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::Live;
use crate::harness::user::ALICE;
use crate::harness::{Actor, census, within};
use crate::report::Outcome;
use crate::storm::{QUIET, Storm, daemon};

const RULES: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"people/%u\"\n\
                     [cgroup.\"people/%u\"]\npids.max = 3\n\
                     [[rule]]\nuser = \"cgt-carol\"\ncgroup = \"carol\"\n";
/// A refused move is repeated after 0.1, 0.2, 0.4 and 0.8 s.
pub(crate) const RECOVERED_WITHIN: Duration = Duration::from_secs(5);
const REFUSED_FOR: Duration = Duration::from_millis(700);

pub(crate) fn run(live: &Live, length: Duration) -> Outcome {
    let running = daemon(live, RULES, &QUIET);
    let mut storm = Storm::of_execs(live);
    let mut row = Outcome::new("");
    let began = Instant::now();
    let group = live.ground.directory("", "people/cgt-alice").unwrap();
    let mut rounds = 0;
    while began.elapsed() < length {
        storm.keep_up();
        rounds += 1;
        // Removed: by another program, while it is empty.
        let _busy = fs::remove_dir(&group);
        expect(live, &mut row, &[one(live)], "after a removal");
        // Frozen: a process can be moved into it.
        let _absent = fs::write(group.join("cgroup.freeze"), "1");
        // It is frozen before it can say its PID.
        let frozen = live.actor(&format!("uid {ALICE} {ALICE} hold"));
        expect(live, &mut row, &[frozen], "while frozen");
        let _absent = fs::write(group.join("cgroup.freeze"), "0");
        // Full: the limit is for forks, not for moves.
        let many: Vec<Actor> = (0..6).map(|_| one(live)).collect();
        expect(live, &mut row, &many, "beyond pids.max");
        drop(many);
        // Full of cgroups: mkdir fails with EAGAIN.
        empty(&group);
        let limit = live.ground.directory("", "cgroup.max.descendants").unwrap();
        fs::write(&limit, "0").unwrap();
        let actor = one(live);
        std::thread::sleep(REFUSED_FOR);
        fs::write(&limit, "max").unwrap();
        expect(live, &mut row, &[actor], "after cgroup.max.descendants");
    }
    row.done = format!("{rounds} times removed, frozen, full of processes and of cgroups");
    let log = running.log();
    row.expect(log.contains("cgroup.max.descendants"), "no warning about cgroup.max.descendants");
    drop(storm);
    let counters = running.stop();
    row.count(|name| counters.get(name));
    row
}

fn one(live: &Live) -> Actor {
    live.hold(&format!("uid {ALICE} {ALICE}"))
}

fn expect(live: &Live, row: &mut Outcome, actors: &[Actor], when: &str) {
    let group = live.ground.at("people/cgt-alice");
    let is_inside =
        |actor: &Actor| census::cgroup_of(actor.subject, "").as_deref() == Some(&*group);
    let took = within(RECOVERED_WITHIN, || actors.iter().all(is_inside));
    row.expect(took.is_some(), format!("not placed {when}"));
    row.expect_none_misplaced(actors.iter().filter(|actor| !is_inside(actor)).count());
}

/// Removes the cgroup and the one above it when its last process is gone.
fn empty(group: &Path) {
    let is_gone = within(RECOVERED_WITHIN, || fs::remove_dir(group).is_ok() || !group.exists());
    assert!(is_gone.is_some(), "{} has processes", group.display());
    let _absent = fs::remove_dir(group.parent().unwrap());
}
