//! Demonstrates the daemon on real processes in a throw-away cgroup:
//! `cargo run --release --example demo`, as root.
//!
//! Everything is created for the demo and removed at its end, also on failure and on an interrupt:
//! a cgroup, a directory with one rule file, and processes of an unused UID.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "those lists are the wall around the library's pure modules"
)]

/// Prints a line. A reader that closed the pipe is an error like any other, so that the
/// demo still cleans up.
macro_rules! say {
    ($($what:tt)*) => { std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($what)*)))? };
}

mod cast;
mod chart;
mod clock;
mod daemon;
mod ground;

use std::process::ExitCode;
use std::time::Duration;

use cast::{Actor, Sample};
use clock::Clock;
use daemon::Daemon;
use ground::Ground;

/// The error is a text for the user who runs the demo.
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Maximum duration of the demo, without the build of the programs.
const AT_MOST: Duration = Duration::from_secs(19);

/// Time until all processes are at rest: a recheck follows 100 ms after a placement.
const REST: Duration = Duration::from_millis(600);

/// Number of processes that change their user one after another, and the time between two.
const LOGINS: u32 = 300;
const GAP_US: u32 = 4000;
/// Children of each process of the tree, and its levels: 1 + 5 + 25 + 125 + 625 processes.
const TREE: (u32, u32) = (5, 4);
/// Numbers of short-lived forks, and of the processes that create them; every 100th leaves a survivor.
const FORKS: u32 = 4000;
const WORKERS: u32 = 4;

fn main() -> ExitCode {
    match show() {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the number of misplaced processes.
fn show() -> Result<usize> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root: it creates cgroups and starts processes as another user".into());
    }
    let program = daemon::program()?;
    // Orphans of our children are reparented to this process, so that it can reap them.
    nix::sys::prctl::set_child_subreaper(true)?;
    let mut clock = Clock::start(AT_MOST)?;
    let ground = Ground::prepare()?;
    cast::compile(&ground)?;
    cast::write_script(&ground)?;
    announce(&ground)?;
    let mut daemon = Daemon::start(&program, &ground)?;
    daemon.wait_until_ready(&mut clock)?;
    let samples = programs(&ground, &mut daemon, &mut clock)?;
    logins(&ground, &mut clock)?;
    let misplaced = storm(&ground, &mut clock)?;
    drop(samples);
    chart::print(&daemon.end(&mut clock)?)?;
    say!("\n{misplaced} misplaced");
    Ok(misplaced)
}

fn announce(ground: &Ground) -> Result<()> {
    say!("This starts cgruled with three rules for the unused uid {}:\n", ground.uid);
    for line in ground.rules().lines().filter(|line| !line.is_empty()) {
        say!("    {line}");
    }
    say!("\nCgroups are created below {}", ground.top.display());
    say!("and removed at the end. Other processes are not affected.\n");
    Ok(())
}

fn programs(ground: &Ground, daemon: &mut Daemon, clock: &mut Clock) -> Result<Vec<Sample>> {
    say!("1. Programs. The time is from the event of the kernel to the end of the move.");
    say!("   The program is demo where a child of this program has just changed its user.\n");
    say!(
        "    {:<16} {:>8}   {:<14} {:<16} {:>9}",
        "program",
        "pid",
        "group",
        "by rule",
        "time, us"
    );
    let mut samples = Vec::new();
    for words in cast::samples(ground) {
        say!("  $ {}", words.join(" ").replace(&ground.work().display().to_string(), "."));
        samples.push(Sample::start(ground, &words)?);
        for placed in daemon.placements(clock)? {
            let daemon::Placement { pid, program, group, rule, us } = placed;
            say!("    {program:<16} {pid:>8}   {:<14} {rule:<16} {us:>9}", ground.leaf(&group));
        }
    }
    say!("\n   The first move after a pause waits milliseconds for the kernel, with any program;");
    say!("   the following moves do not (see fast_moves in cgruled.toml(5)).");
    Ok(samples)
}

fn logins(ground: &Ground, clock: &mut Clock) -> Result<()> {
    say!(
        "\n2. Logins: {LOGINS} processes become uid {}, one every {} ms.",
        ground.uid,
        GAP_US / 1000
    );
    let (uid, anywhere) = (ground.uid.to_string(), "-1".to_owned());
    let args = [uid, LOGINS.to_string(), GAP_US.to_string(), anywhere];
    let mut actor = Actor::start(ground, "pulse", &args)?;
    actor.done(clock)?;
    clock.pause(REST)?;
    report(ground)?;
    Ok(())
}

/// Returns the number of misplaced processes.
fn storm(ground: &Ground, clock: &mut Clock) -> Result<usize> {
    let (width, depth) = TREE;
    say!("\n3. Storm: a tree of 781 processes grows, beside {FORKS} forks that exit at once.");
    let uid = || ground.uid.to_string();
    let mut churn =
        Actor::start(ground, "churn", &[uid(), FORKS.to_string(), WORKERS.to_string()])?;
    let mut tree = Actor::start(ground, "tree", &[uid(), width.to_string(), depth.to_string()])?;
    tree.done(clock)?;
    churn.done(clock)?;
    clock.pause(REST)?;
    report(ground)
}

fn report(ground: &Ground) -> Result<usize> {
    let census = ground.census();
    say!("   {} processes of uid {} are alive.", census.living, ground.uid);
    say!("   {} of them are outside of their cgroup.", census.misplaced);
    Ok(census.misplaced)
}
