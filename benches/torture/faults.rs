//! Row 7: system calls of the daemon fail. It goes on, and at rest after the failures every process is
//! right. The calls that read events, the counters of the kernel and /proc, and those that move processes
//! and create cgroups.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::cgroups::RECOVERED_WITHIN;
use crate::harness::user::{ALICE, BOB};
use crate::harness::{Live, injected_faults, with_faults};
use crate::report::Outcome;

const RULES: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"people/%u/%P\"\n\
                     [[rule]]\nuser = \"cgt-bob\"\nexe = \"tool\"\ncgroup = \"tool\"\n";

/// Calls, the number of the first that fails, and the errors of their manual pages that pass. Every seventh further call
/// fails: a number of calls by which no attempt can be divided, so that a repetition does not fail in the same place. The
/// calls of the start, which must have passed, have errors and tests of their own. No EAGAIN for `recvmmsg`: it says that
/// the queue is empty, and the kernel returns it in no other case.
const FAULTS: [(&str, u32, &[&str]); 9] = [
    ("recvmmsg", 6, &["ENOBUFS", "ENOMEM", "EINTR"]),
    ("getsockopt", 8, &["ENOMEM", "ENOBUFS"]),
    ("epoll_wait", 4, &["EINTR"]),
    ("readlinkat", 20, &["ENOMEM", "EINTR", "EMFILE"]),
    ("pidfd_open", 5, &["EMFILE", "ENFILE", "ENOMEM"]),
    ("mkdir", 3, &["ENOMEM", "EAGAIN"]),
    ("openat", 200, &["EMFILE", "ENFILE", "ENOMEM", "EINTR"]),
    ("write", 20, &["EAGAIN", "ENOMEM", "EINTR"]),
    ("getdents64", 20, &["ENOMEM"]),
];

pub(crate) fn run(live: &Live, length: Duration) -> Outcome {
    let mut row = Outcome::new("");
    let tool = live.program("bin/tool");
    let cases = FAULTS
        .iter()
        .flat_map(|(call, first, errors)| errors.iter().map(move |error| (call, first, error)));
    let cases: Vec<_> = cases.collect();
    let began = Instant::now();
    let (mut runs, mut failures) = (0, 0);
    for (call, first, error) in cases.iter().cycle() {
        // Each at least once, however short the row is.
        if runs >= cases.len() && began.elapsed() >= length {
            break;
        }
        runs += 1;
        let fault = format!("{call}:error={error}:when={first}+7");
        let Some(running) = with_faults(live, RULES, &[fault]) else { return row };
        let mut trees: Vec<_> = (0..4)
            .map(|_| live.actor(&format!("uid {BOB} {BOB} exec {tool} tool tree 2 4")))
            .collect();
        for tree in &mut trees {
            tree.said("tree");
        }
        let held: Vec<_> = (0..8).map(|_| live.hold(&format!("uid {ALICE} {ALICE}"))).collect();
        let (outside, all) = live.at_rest(BOB, "tool");
        row.expect(all >= 4, format!("{call} {error}: {all} processes"));
        row.expect(outside.is_empty(), format!("{call} {error}: {} outside", outside.len()));
        let mut misplaced = outside.len();
        for actor in &held {
            let below = format!("people/cgt-alice/{}", actor.subject);
            let is_right = live.placed_within(RECOVERED_WITHIN, actor.subject, &below).is_some();
            row.expect(is_right, format!("{call} {error}: {} outside", actor.subject));
            misplaced += usize::from(!is_right);
        }
        row.expect_none_misplaced(misplaced);
        drop((trees, held));
        let injected = injected_soon(live);
        failures += injected;
        row.expect(injected > 0, format!("{call} {error}: no call failed"));
        // Asserts the status 0.
        let _counters = running.stop();
    }
    row.done = format!("{runs} runs with {} faults, {failures} calls failed", cases.len());
    row
}

/// Returns the number of calls that failed. Those that the daemon makes from time to time may not have reached the first
/// that fails: further processes let it make more, for ten seconds at most.
fn injected_soon(live: &Live) -> usize {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let injected = injected_faults(live);
        if injected > 0 || Instant::now() > until {
            return injected;
        }
        drop(live.hold(&format!("uid {ALICE} {ALICE}")));
        sleep(Duration::from_millis(100));
    }
}
