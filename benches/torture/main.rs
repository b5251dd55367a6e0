//! Runs the daemon under attacks and failures for a given time, and checks that its promises hold.
//! `cargo bench --bench torture -- [--seconds N] [--row N]...`, as root.
//!
//! It uses the environment of the live tests: test users, throw-away cgroups, private mounts. Prints one
//! table; the exit code is 1 unless every row holds. Times are those of this machine: the limit of a
//! latency is met only if the machine has little other work. `--without-limits` leaves limits out.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a row fails by panic and does its own input and output"
)]

mod bystander;
mod cgroups;
mod clients;
#[path = "../storm/drops.rs"]
mod drops;
mod exhaustion;
mod faults;
mod flood;
mod forgery;
#[allow(dead_code, unused_imports, reason = "shared with the live tests")]
#[path = "../../tests/live/harness/mod.rs"]
mod harness;
mod kills;
mod mixed;
mod names;
mod rate;
mod reloads;
mod report;
mod stopped;
mod storm;
mod subject;
#[path = "../storm/trace.rs"]
mod trace;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use harness::Live;
use report::Outcome;
use subject::Which;

/// The error of the tracing code is a text, as in `storm`.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// The names that the tracing code of `storm` uses.
mod machine {
    use std::path::PathBuf;

    /// Cgroup whose moves are traced.
    pub(crate) struct Ground {
        pub(crate) name: String,
    }

    /// Returns the directory of a tracing instance.
    pub(crate) fn trace_instance(name: &str) -> PathBuf {
        PathBuf::from("/sys/kernel/tracing/instances").join(name.replace('/', "-"))
    }
}

#[derive(Parser)]
#[command(name = "torture", about = "Runs the daemon under attacks and failures.")]
struct Plan {
    /// length of each row in seconds
    #[arg(long, default_value_t = 30, value_name = "N")]
    seconds: u64,
    /// run this row only; may be repeated
    #[arg(long, value_name = "N")]
    row: Vec<u32>,
    /// the exit code does not depend on times, CPU and memory, as on a machine with other work
    #[arg(long)]
    without_limits: bool,
    /// also run the real cgrulesengd, in the rows where it can
    #[arg(long)]
    original: bool,
    /// given by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

impl Plan {
    fn wants(&self, row: u32) -> bool {
        self.row.is_empty() || self.row.contains(&row)
    }
}

type Run = fn(&Live, Duration) -> Outcome;
type Row = (u32, Run);

const ROWS: [Row; 12] = [
    (1, |live, length| rate::run(live, length, Which::Ours)),
    (2, |live, length| flood::run(live, length, Which::Ours)),
    (3, |live, length| stopped::run(live, length, Which::Ours)),
    (4, kills::run),
    (5, reloads::run),
    (7, faults::run),
    (8, exhaustion::run),
    (9, cgroups::run),
    (10, names::run),
    (11, forgery::run),
    (12, clients::run),
    (14, mixed::run),
];

/// Rows that need nothing that cgrulesengd does not have.
const ORIGINAL: [Row; 3] = [
    (1, |live, length| rate::run(live, length, Which::Original)),
    (2, |live, length| flood::run(live, length, Which::Original)),
    (3, |live, length| stopped::run(live, length, Which::Original)),
];

fn main() -> ExitCode {
    let plan = Plan::parse();
    // `cargo test --benches` runs every bench: there is nothing to test here.
    if !plan.bench {
        return ExitCode::SUCCESS;
    }
    let length = Duration::from_secs(plan.seconds);
    let mut all_hold = true;
    report::print_head();
    for (number, run) in ROWS.into_iter().filter(|(number, _)| plan.wants(*number)) {
        let Some(live) = Live::without_limit() else { return ExitCode::FAILURE };
        let outcome = outcome(&live, run, length);
        all_hold &= outcome.broken.is_empty();
        all_hold &= plan.without_limits || outcome.exceeded.is_empty();
        report::print(&number.to_string(), &outcome);
    }
    if plan.original {
        for (number, run) in ORIGINAL.into_iter().filter(|(number, _)| plan.wants(*number)) {
            let Some(live) = Live::without_limit() else { return ExitCode::FAILURE };
            report::print(&format!("{number}, cgrulesengd"), &outcome(&live, run, length));
        }
    }
    if all_hold { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Returns the result of a row; a panic is a failure.
fn outcome(live: &Live, run: Run, length: Duration) -> Outcome {
    let outcome = catch_unwind(AssertUnwindSafe(|| run(live, length)));
    outcome.unwrap_or_else(|why| Outcome::failed(report::text_of(&*why)))
}
