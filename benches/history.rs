//! Measures what the history costs the hot thread for an evaluation, without the evaluation itself.
//!
//! The cases take turns, so that other load of the machine affects all of them alike. One sample is the mean of
//! 256 records. `cargo bench --bench storm -- history-` measures a daemon with and without a history.
//!
//! `cargo bench --bench history`

#![allow(clippy::disallowed_methods, clippy::expect_used)]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use cgruled::control::history::open;
use cgruled::control::history::record::{EvaluationRecord, TextPosition};
use cgruled::control::history::recorder::HistoryRecorder;
use cgruled::control::outcome::EvaluationOutcome;
use cgruled::event::{Cause, Gid, Nanos, Pid, Uid};
use cgruled::kernel::program::ExeInfo;
use cgruled::rules::{
    Action, Criteria, ExeFacts, LeaveUnits, Negated, Origin, Rule, RuleId, container,
};

const BATCH: u32 = 256;
const ROUNDS: usize = 4_000;
const SIZE: usize = 8 << 20;

/// What an evaluation has besides its IDs.
#[derive(Clone, Copy)]
enum Content {
    Nothing,
    Rule,
    /// One of this many programs.
    Programs(usize),
}

const CASES: [(&str, Content); 4] = [
    ("record alone", Content::Nothing),
    ("with a rule", Content::Rule),
    ("with one of 300 programs", Content::Programs(300)),
    ("with one of 100,000 programs", Content::Programs(100_000)),
];

fn main() {
    let rule = rule();
    let programs: Vec<String> =
        (0..100_000).map(|number| format!("/usr/lib/package/bin/program-{number}")).collect();
    let mut recorders: Vec<HistoryRecorder> =
        CASES.iter().map(|_| open(SIZE, Arc::default()).0).collect();
    let mut samples = vec![Vec::new(); CASES.len()];
    for round in 0..ROUNDS {
        for (index, (_, content)) in CASES.iter().enumerate() {
            let began = Instant::now();
            for number in 0..BATCH {
                let number = number + round as u32 * BATCH;
                write(&mut recorders[index], *content, &rule, &programs, number);
            }
            samples[index].push(began.elapsed().as_nanos() as f64 / f64::from(BATCH));
        }
    }
    println!("{:<30} {:>8} {:>8} {:>8}", "ns for an evaluation", "p50", "p90", "min");
    for ((name, _), mut samples) in CASES.iter().zip(samples) {
        samples.sort_by(f64::total_cmp);
        let [p50, p90, min] = [ROUNDS / 2, ROUNDS * 9 / 10, 0].map(|index| samples[index]);
        println!("{name:<30} {p50:>8.1} {p90:>8.1} {min:>8.1}");
    }
}

fn write(
    recorder: &mut HistoryRecorder,
    content: Content,
    rule: &Rule,
    programs: &[String],
    number: u32,
) {
    let (mut program, mut by) = (TextPosition::NONE, TextPosition::NONE);
    match content {
        Content::Nothing => {}
        Content::Rule => by = recorder.rule(1, RuleId(0), rule),
        Content::Programs(count) => {
            let path = programs[number as usize % count].as_bytes();
            let exe = ExeFacts { path, on_host: true };
            program = recorder.program(ExeInfo { raw: path, exe, invoked: None, is_unsure: false });
        }
    }
    recorder.record(black_box(&EvaluationRecord {
        at: Nanos(u64::from(number) * 1000),
        pid: Pid::new(number % 4_000_000 + 1).expect("a valid PID"),
        ids: Some((Uid(1000), Gid(100))),
        program,
        rule: by,
        outcome: EvaluationOutcome::NoRule,
        cause: Cause::EXEC,
        latency_us: 40,
    }));
}

fn rule() -> Rule {
    Rule {
        name: Arc::from("people outside of sessions"),
        origin: Origin {
            file: Arc::from(Path::new("/etc/cgruled/rules.d/50-people.toml")),
            line: 7,
        },
        when: Criteria::default(),
        not: Negated::default(),
        exe_anywhere: false,
        is_gated: false,
        leave_units: LeaveUnits::No,
        leave_containers: container::LeaveContainers::default(),
        action: Action::ignore(),
    }
}
