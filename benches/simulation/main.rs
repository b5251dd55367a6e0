//! Simulates a kernel, with a seed and virtual time, under the real engine, and checks at rest that
//! every process is where the rules say: over the orders that a kernel may produce.
//!
//! `cargo bench --bench simulation -- [--seed N] [--events N] [--mostly SET] [--mutations] [--replay FILE]`

#![allow(clippy::wildcard_enum_match_arm, reason = "steps are dispatched by group before")]
#![allow(clippy::too_many_lines, reason = "the state of the machine is one structure")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "random bits, and numbers for people"
)]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "those lists are the wall around the library's pure modules"
)]

mod boundary;
mod calls;
mod cgroups;
mod config;
mod descent;
mod driver;
mod history;
mod journal;
mod machine;
mod oracle;
mod plans;
mod process;
mod programs;
mod replies;
mod rules;
mod services;
mod shrink;
mod silence;
mod situations;
mod steps;
mod tally;
mod watch;
mod world;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;

use history::History;
use situations::{Counts, NAMES};

/// Occurrences that each situation must have in a run.
const FEWEST: u64 = 1_000;

#[derive(Parser)]
struct Arguments {
    /// First seed; each thread and world has another one that follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Number of kernel events, of all threads.
    #[arg(long, default_value_t = 20_000_000)]
    events: u64,
    /// Number of threads.
    #[arg(long, default_value_t = 2)]
    threads: u64,
    /// Rule set, from 0, that seven of eight policies have. Situations may then be rarer.
    #[arg(long)]
    mostly: Option<usize>,
    /// Applies each deliberate mutation of the engine and prints how soon it is found.
    #[arg(long)]
    mutations: bool,
    /// Replays a history and prints what happens.
    #[arg(long)]
    replay: Option<PathBuf>,
    /// Writes the shortest failing history to this file.
    #[arg(long)]
    save: Option<PathBuf>,
    /// Ends with the first violation, without shortening its history.
    #[arg(long, hide = true)]
    only_find: bool,
    /// Set by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Panics of the engine are violations, which are reported with their history.
    std::panic::set_hook(Box::new(|_| {}));
    if let Some(file) = &arguments.replay {
        return replay(file);
    }
    if !arguments.bench {
        return ExitCode::SUCCESS;
    }
    if let Some(set) = arguments.mostly.filter(|&set| set >= rules::SETS.len()) {
        eprintln!("--mostly {set}: the sets are 0 to {}", rules::SETS.len() - 1);
        return ExitCode::FAILURE;
    }
    if arguments.mutations {
        return mutate();
    }
    simulate(&arguments)
}

fn replay(file: &std::path::Path) -> ExitCode {
    let Some(history) = std::fs::read_to_string(file).ok().and_then(|text| History::parse(&text))
    else {
        eprintln!("{}: not a history", file.display());
        return ExitCode::FAILURE;
    };
    let outcome = world::replay(&history, true);
    outcome.lines.iter().for_each(|line| println!("{line}"));
    println!("{}", outcome.violation.as_deref().unwrap_or("no violation"));
    if outcome.violation.is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn mutate() -> ExitCode {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/simulation/mutations/run");
    match std::process::Command::new(script).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn simulate(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let threads = arguments.threads.max(1);
    let share = arguments.events.div_ceil(threads);
    let (seed, mostly) = (arguments.seed, arguments.mostly);
    let running: Vec<_> = (0..threads)
        .map(|thread| std::thread::spawn(move || world::explore(seed, thread, share, mostly)))
        .collect();
    let mut counts = Counts::default();
    let (mut events, mut found) = (0, Vec::new());
    for thread in running {
        let Ok(explored) = thread.join() else { return ExitCode::FAILURE };
        events += explored.events;
        counts.add(&explored.counts);
        found.extend(explored.found);
    }
    for (name, count) in NAMES.iter().zip(&counts.0) {
        println!("{count:>12}  {name}");
    }
    let seconds = began.elapsed().as_secs_f64();
    println!("{seconds:.1} s, {:.0} events per second", events as f64 / seconds);
    for failing in &found {
        println!("\nviolation after {} events: {}", failing.events, failing.violation);
        if !arguments.only_find {
            report(failing, arguments.save.as_deref());
        }
    }
    let fewest = if mostly.is_some() { 0 } else { FEWEST };
    let rare = counts.0.iter().filter(|&&count| count < fewest).count();
    let violations = found.len();
    println!("events: {events}, violations: {violations}, situations below {FEWEST}: {rare}");
    if violations == 0 && rare == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(failing: &world::Failing, save: Option<&std::path::Path>) {
    let shortest = shrink::shrink(&failing.history, &failing.violation);
    let outcome = world::replay(&shortest, true);
    outcome.lines.iter().for_each(|line| println!("{line}"));
    println!("history:\n{}", shortest.text());
    if let Some(file) = save {
        let text = format!("# {}\n{}", failing.violation, shortest.text());
        if let Err(error) = std::fs::write(file, text) {
            eprintln!("{}: {error}", file.display());
        }
    }
}
