//! Builds the C programs once and runs them as the measured processes.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Result;
use crate::machine::Ground;

/// Names of the programs, and the flags of `cc` in addition to the common ones.
const SOURCES: [(&str, &[&str]); 4] =
    [("floor", &[]), ("actors", &["-pthread"]), ("tiny", &["-nostdlib"]), ("check", &[])];

/// Builds into WORK/bin, and copies the programs that a rule by executable matches to WORK/ruled.
pub(crate) fn compile(work: &Path) -> Result<()> {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/floor");
    fs::create_dir_all(work.join("bin"))?;
    fs::create_dir_all(ruled(work))?;
    for (name, flags) in SOURCES {
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-Wall", "-static"]).args(flags).arg("-o").arg(work.join("bin").join(name));
        if !cc.arg(sources.join(name).with_extension("c")).status()?.success() {
            return Err(format!("cc failed on {name}.c").into());
        }
    }
    for name in ["tiny", "check", "actors"] {
        fs::copy(work.join("bin").join(name), ruled(work).join(name))?;
    }
    Ok(())
}

pub(crate) fn program(work: &Path) -> PathBuf {
    work.join("bin/actors")
}

/// Returns the directory of the programs that the mixed rules match.
pub(crate) fn ruled(work: &Path) -> PathBuf {
    work.join("ruled")
}

/// The record that a sleeper wrote about itself.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    pub(crate) pid: i64,
    /// `CLOCK_MONOTONIC`, directly before the system call; 0 where it was not taken.
    pub(crate) ns: i64,
}

/// A running actor. On drop it kills and reaps its processes.
pub(crate) struct Actor {
    child: Child,
    records: PathBuf,
}

impl Actor {
    /// Starts `name`; RECORDS is added for those that keep sleepers.
    pub(crate) fn start(
        ground: &Ground,
        name: &str,
        args: &[String],
        keeps: Keeps,
    ) -> Result<Self> {
        let records = ground.work.join("records");
        let mut command = Command::new(program(&ground.work));
        command.arg(name).args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        match keeps {
            Keeps::Sleepers => {
                command.arg(&records);
            }
            Keeps::Nothing => {}
            Keeps::Verdicts(file) => {
                command.stderr(file);
            }
        }
        Ok(Self { child: command.spawn()?, records })
    }

    /// Waits for "done COUNT" and returns the count.
    pub(crate) fn done(&mut self) -> Result<u64> {
        let stdout = self.child.stdout.take().ok_or("asked twice")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let count = line.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        count.ok_or_else(|| format!("unexpected line of the actor: {line:?}").into())
    }

    /// Returns the sleepers; only valid after `done`.
    pub(crate) fn records(&self) -> Result<Vec<Record>> {
        let pairs = fs::read(&self.records)?;
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, i64::from_ne_bytes);
        let record = |pair: &[u8]| Record { pid: word(&pair[..8]), ns: word(&pair[8..]) };
        Ok(pairs.chunks_exact(16).map(record).filter(|record| record.pid > 0).collect())
    }

    /// Kills a storm that is still running.
    pub(crate) fn kill(&mut self) {
        // The process may have exited by itself.
        let _gone = self.child.kill();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _status = self.child.wait();
    }
}

/// Results that an actor leaves.
pub(crate) enum Keeps {
    Nothing,
    Sleepers,
    /// One byte by each checker, written to its standard error.
    Verdicts(File),
}

/// Converts arguments of any printable types to strings.
macro_rules! words {
    ($($word:expr),* $(,)?) => { [$($word.to_string()),*] };
}
pub(crate) use words;

/// A load that runs beside the measurement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storm {
    Forks,
    Execs,
    Threads,
    Comms,
    /// This number of processes that compute, on all CPUs.
    Busy(u32),
    /// A process that reads a file larger than the memory of its cgroup.
    Reclaim,
    /// The same with the daemon in that cgroup, as on a host that is short of memory.
    Short,
}

/// Memory of the cgroup of `Storm::Reclaim`, and the size of its file, in bytes.
const RECLAIM_LIMIT: u64 = 64 << 20;
const RECLAIM_FILE: u64 = 256 << 20;

impl Storm {
    /// Returns the `memory` cgroup for the daemon, if it is not the root.
    pub(crate) fn memory(self, ground: &Ground) -> Result<Option<PathBuf>> {
        (self == Storm::Short).then(|| ground.limited_memory(RECLAIM_LIMIT)).transpose()
    }

    /// Runs on `cpu` (-1: anywhere) as root for `ms` milliseconds.
    pub(crate) fn start(self, ground: &Ground, ms: u32, cpu: i32) -> Result<Actor> {
        let name = match self {
            Storm::Forks => "forks",
            Storm::Threads => "threads",
            Storm::Comms => "comms",
            Storm::Execs => {
                return execs(ground, &Execs { ms, cpu, ..Execs::default() }, Keeps::Nothing);
            }
            Storm::Busy(count) => {
                return Actor::start(ground, "busy", &words![ms, count], Keeps::Nothing);
            }
            Storm::Reclaim | Storm::Short => {
                let group = ground.limited_memory(RECLAIM_LIMIT)?.join("cgroup.procs");
                let file = ground.work.join("reclaimed");
                let words = words![ms, group.display(), file.display(), RECLAIM_FILE];
                return Actor::start(ground, "reclaim", &words, Keeps::Nothing);
            }
        };
        Actor::start(ground, name, &words![ms, 0, cpu], Keeps::Nothing)
    }
}

/// Parameters of an exec storm.
pub(crate) struct Execs<'a> {
    pub(crate) ms: u32,
    pub(crate) most: u64,
    /// Execs per second; 0 for the maximum.
    pub(crate) rate: u32,
    pub(crate) uid: u32,
    pub(crate) cpu: i32,
    /// Directory of `tiny` and `check`: `bin` or `ruled`.
    pub(crate) dir: &'static str,
    /// Interval between processes that check for `line` in their `/proc/self/cgroup`; 0 for none.
    pub(crate) every: u32,
    pub(crate) line: &'a str,
}

impl Default for Execs<'_> {
    fn default() -> Self {
        let most = 100_000_000;
        Self { ms: 1000, most, rate: 0, uid: 0, cpu: -1, dir: "bin", every: 0, line: "" }
    }
}

/// Delay before a checker reads its cgroup: longer than the recheck takes.
const CHECK_AFTER_MS: u32 = 300;

pub(crate) fn execs(ground: &Ground, storm: &Execs<'_>, keeps: Keeps) -> Result<Actor> {
    let Execs { ms, most, rate, uid, cpu, dir, every, line } = storm;
    let at = |name: &str| ground.work.join(dir).join(name).display().to_string();
    let args =
        words![ms, most, rate, uid, cpu, at("tiny"), every, at("check"), CHECK_AFTER_MS, 2, line];
    Actor::start(ground, "execs", &args, keeps)
}
