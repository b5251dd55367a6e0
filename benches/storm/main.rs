//! Measures the effect of the daemon on a loaded machine: latency, loss, cost.
//! `cargo bench --bench storm -- --help`.
//!
//! The results are ratios of interleaved runs against the floor (`benches/floor/floor.c`, the
//! minimum of a classifier) or against a machine without a daemon, because absolute times on a
//! shared machine are not comparable. Everything happens in throw-away cgroups, with test UIDs and
//! private mounts; `machine.rs` documents the clean-up.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "those lists are the wall around the library's pure modules"
)]

mod actors;
mod cases;
mod compare;
mod drops;
mod execs;
mod latency;
mod loss;
mod machine;
mod plan;
mod rate;
mod report;
mod rules;
mod scale;
mod subjects;
mod supervise;
mod trace;

use std::process::ExitCode;

use cases::CASES;
use clap::Parser;
use machine::Ground;
use plan::Plan;

/// The error is a text: a benchmark has no caller that matches on it.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("storm: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<ExitCode> {
    let plan = Plan::parse();
    if plan.list {
        CASES.iter().for_each(|case| println!("{}: benchmark", case.name));
        return Ok(ExitCode::SUCCESS);
    }
    // `cargo test --benches` runs every bench: there is nothing to test here.
    if !plan.bench {
        return Ok(ExitCode::SUCCESS);
    }
    match supervise::work_of_supervisor() {
        None => supervise::run(),
        Some(work) => measure(&plan, &Ground::stand_on(&work)?),
    }
}

/// Runs all cases. A case that fails is reported and fails the run; the other cases still run.
fn measure(plan: &Plan, ground: &Ground) -> Result<ExitCode> {
    report::heading(plan)?;
    let mut code = ExitCode::SUCCESS;
    for case in CASES.iter().filter(|case| plan.wants(case.name)) {
        if let Some(why) = case.left_out() {
            println!("{}: skipped, {why}\n", case.name);
            continue;
        }
        eprintln!("storm: {} ...", case.name);
        let before = machine::other_load();
        match (case.run)(plan, ground) {
            Ok(mut table) => {
                let after = machine::other_load();
                table.note += &format!(" Other load before and after: {before} %, {after} %.");
                report::print(plan, &table)?;
            }
            Err(error) => {
                println!("{} failed: {error}\n", case.name);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}
