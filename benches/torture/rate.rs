//! Row 1: events at the limit of the machine. None is lost, and every process that reports its own
//! cgroup before its end is right.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::harness::user::ALICE;
use crate::harness::{Actor, Live};
use crate::report::Outcome;
use crate::storm::{QUIET, Storm};
use crate::subject::{Setup, Subject, Which};

const RULES: [(&str, &str); 2] = [("cgt-alice", "alice"), ("cgt-carol", "carol")];
/// Time after which a process reports its cgroup: longer than a recheck.
const REPORT_AFTER_MS: u32 = 300;
/// Age at which its report is read.
const READ_AFTER: Duration = Duration::from_millis(400);
const PAUSE: Duration = Duration::from_millis(20);

pub(crate) fn run(live: &Live, length: Duration, which: Which) -> Outcome {
    let setup = Setup { which, rules: &RULES, limit: None, settings: &QUIET };
    let running = Subject::start(live, &setup);
    let mut storm = Storm::of_execs(live);
    let (began, cpu) = (Instant::now(), running.cpu_time());
    let steps = format!("uid {ALICE} {ALICE} fork sleep {REPORT_AFTER_MS} verify /alice quit");
    let mut waiting: VecDeque<(Instant, Actor)> = VecDeque::new();
    let (mut reports, mut wrong) = (0, 0);
    while began.elapsed() < length || !waiting.is_empty() {
        storm.keep_up();
        if began.elapsed() < length {
            waiting.push_back((Instant::now(), live.actor(&steps)));
        }
        while waiting.front().is_some_and(|(at, _)| at.elapsed() > READ_AFTER) {
            let Some((_, mut actor)) = waiting.pop_front() else { break };
            reports += 1;
            wrong += usize::from(actor.said("verified") != 1);
        }
        std::thread::sleep(PAUSE);
    }
    let seconds = began.elapsed().as_secs_f64();
    let used = (running.cpu_time() - cpu).as_secs_f64() / seconds * 100.0;
    drop(storm);
    let mut row = Outcome::new("");
    running.stop(&mut row);
    let rate = row.events.map(|events| format!("{:.0} events/s, ", events as f64 / seconds));
    row.done = format!("{}{reports} processes reported", rate.unwrap_or_default());
    row.cpu = Some(used);
    row.expect_none_misplaced(wrong);
    row.expect(row.lost == Some(0), "events lost");
    row
}
