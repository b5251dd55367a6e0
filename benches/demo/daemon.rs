//! Builds, starts and stops the daemon and reads its log.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Result;
use crate::clock::Clock;
use crate::ground::Ground;

/// Limits for a first placement, and for a further one after it.
const FIRST: Duration = Duration::from_millis(1500);
const NEXT: Duration = Duration::from_millis(200);
/// Interval between two checks of the log.
const TICK: Duration = Duration::from_millis(10);
/// Limit after which a daemon that does not exit is killed.
const END_WITHIN: Duration = Duration::from_secs(3);

/// Returns the program beside this one, built from the same sources.
pub(crate) fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let profile = own.ancestors().nth(2).ok_or("cannot find the directory of this program")?;
    let program = profile.join("cgruled");
    // `cargo run --example` does not build it, and an existing one may be out of date.
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--bin", "cgruled", "--manifest-path"]);
        build.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        build.arg("--target-dir").arg(profile.parent().unwrap_or(profile));
        if profile.ends_with("release") {
            build.arg("--release");
        }
        if !build.status()?.success() {
            return Err("cannot build cgruled".into());
        }
    }
    if program.exists() {
        return Ok(program);
    }
    Err(format!("{} is missing: run 'cargo build --release'", program.display()).into())
}

/// A log line that reports the move of a process.
pub(crate) struct Placement {
    pub(crate) pid: String,
    pub(crate) program: String,
    pub(crate) group: String,
    pub(crate) rule: String,
    pub(crate) us: String,
}

impl Placement {
    /// Parses a line such as
    /// `debug: moved process 7 of uid 1 (/bin/x) to /group by rule 'name', file:1 after exec, 9 us`.
    fn parse(line: &str) -> Option<Self> {
        let (who, rest) = line.strip_prefix("debug: moved process ")?.split_once(" to ")?;
        let (group, rest) = rest.split_once(" by rule '")?;
        let (rule, rest) = rest.split_once("', ")?;
        let us = rest.rsplit_once(", ")?.1.strip_suffix(" us")?;
        let path = who.split_once('(').map_or("", |(_, path)| path.trim_end_matches(')'));
        Some(Self {
            pid: who.split_once(' ')?.0.to_owned(),
            program: path.rsplit('/').next().unwrap_or_default().to_owned(),
            group: group.to_owned(),
            rule: rule.to_owned(),
            us: us.to_owned(),
        })
    }
}

/// The running daemon; stopped on drop.
pub(crate) struct Daemon {
    child: Child,
    lines: Receiver<String>,
}

impl Daemon {
    pub(crate) fn start(program: &Path, ground: &Ground) -> Result<Self> {
        let mut command = Command::new(ground.actors());
        // The daemon is killed when this process dies for any reason.
        command.arg("leash").arg(program).args([
            "--no-legacy",
            "--control",
            "off",
            "--log",
            "debug",
            "--config",
        ]);
        command
            .arg(ground.work().join("cgruled.toml"))
            .arg("--rules")
            .arg(ground.rules_directory());
        command.arg("--root").arg(ground.group()).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stderr = child.stderr.take().ok_or("the daemon has no standard error")?;
        let (send, lines) = channel();
        // In a thread of its own, so that a daemon with much output never blocks on the pipe.
        std::thread::spawn(move || {
            let mut read = BufReader::new(stderr).lines().map_while(std::result::Result::ok);
            read.all(|line| send.send(line).is_ok())
        });
        Ok(Self { child, lines })
    }

    pub(crate) fn wait_until_ready(&mut self, clock: &mut Clock) -> Result<()> {
        let mut last = String::new();
        loop {
            while let Ok(line) = self.lines.try_recv() {
                if line.starts_with("info: ready") {
                    return Ok(());
                }
                last = line;
            }
            if self.child.try_wait()?.is_some() {
                let sentence = last.strip_prefix("cgruled: ").unwrap_or(&last);
                return Err(format!("cgruled does not start: {sentence}").into());
            }
            clock.pause(TICK)?;
        }
    }

    /// Returns the placements until none follows for a moment.
    pub(crate) fn placements(&mut self, clock: &mut Clock) -> Result<Vec<Placement>> {
        let mut placed = Vec::new();
        let mut until = Instant::now() + FIRST;
        while Instant::now() < until {
            clock.pause(TICK)?;
            for placement in self.lines.try_iter().filter_map(|line| Placement::parse(&line)) {
                placed.push(placement);
                until = Instant::now() + NEXT;
            }
        }
        Ok(placed)
    }

    /// Stops the daemon and returns its counters.
    pub(crate) fn end(mut self, clock: &mut Clock) -> Result<String> {
        let mut stdout = self.child.stdout.take().ok_or("the daemon has no standard output")?;
        self.ask_to_end();
        let killed_at = Instant::now() + END_WITHIN;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > killed_at {
                return Err("cgruled does not exit".into());
            }
            clock.pause(TICK)?;
        }
        let mut counters = String::new();
        stdout.read_to_string(&mut counters)?;
        Ok(counters)
    }

    fn ask_to_end(&self) {
        let pid = i32::try_from(self.child.id()).map(Pid::from_raw);
        // The process may have exited by itself.
        let _gone = pid.map(|pid| kill(pid, Signal::SIGTERM));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let killed_at = Instant::now() + END_WITHIN;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < killed_at {
            self.ask_to_end();
            std::thread::sleep(TICK);
        }
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}
