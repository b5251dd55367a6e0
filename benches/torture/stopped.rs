//! Row 3: the daemon is stopped again and again under a storm, with a receive buffer of 4 KiB, which
//! cgrulesengd cannot be given. Every survivor is right afterwards.

use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::user::{ALICE, BOB};
use crate::harness::{Live, Settings};
use crate::report::Outcome;
use crate::storm::{QUIET, Storm};
use crate::subject::{Setup, Subject, Which};

const RULES: [(&str, &str); 2] = [("cgt-alice", "alice"), ("cgt-bob", "bob")];
const TINY: Settings<'static> = Settings { config: "receive_buffer = \"4K\"\n", ..QUIET };

pub(crate) fn run(live: &Live, length: Duration, which: Which) -> Outcome {
    let setup = Setup { which, rules: &RULES, limit: None, settings: &TINY };
    let running = Subject::start(live, &setup);
    let mut storm = Storm::of_execs(live);
    let mut row = Outcome::new("");
    let began = Instant::now();
    let mut rounds = 0;
    while began.elapsed() < length {
        storm.keep_up();
        rounds += 1;
        running.signal(Signal::SIGSTOP);
        let mut tree = live.actor(&format!("uid {ALICE} {ALICE} tree 3 5"));
        tree.said("tree");
        let mut orphans = live.actor(&format!("orphans 100 {BOB}"));
        orphans.said("orphans");
        sleep(Duration::from_millis(500));
        running.signal(Signal::SIGCONT);
        for (user, group) in [(ALICE, "alice"), (BOB, "bob")] {
            let (outside, all) = running.at_rest(live, user, group);
            row.expect_none_misplaced(outside);
            row.expect(all >= 100, format!("{all} processes of {user}"));
        }
    }
    row.done = format!("stopped {rounds} times");
    running.stop(&mut row);
    row.expect(row.lost > Some(0), "no event was lost");
    row
}
