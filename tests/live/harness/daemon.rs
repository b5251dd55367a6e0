//! Runs the daemon under test.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::wait::{PATIENCE, eventually, within};
use super::{BASE, Ground};

/// Options of a test besides its rules.
#[derive(Default)]
pub(crate) struct Settings<'a> {
    /// Text of `cgruled.toml`.
    pub(crate) config: &'a str,
    /// Additional command-line arguments. `--rules` replaces the rules of the test.
    pub(crate) arguments: &'a [&'a str],
}

/// Environment of the daemon of one test, in addition to that of all tests.
#[derive(Default)]
pub(crate) struct Surroundings<'a> {
    /// Additional environment variables.
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// A program with its arguments that executes the command line of the daemon, which follows.
    pub(crate) launcher: &'a [&'a str],
    /// True if cgroups begin at the default root and legacy rules are read: only for a launcher
    /// that hides those of the host.
    pub(crate) is_bare: bool,
}

/// A running daemon. Stopped on drop; its log is shown when the test fails.
pub(crate) struct Daemon {
    child: Child,
    log: Arc<Mutex<String>>,
}

/// Disables legacy files and the control socket, which several daemons cannot share.
const OWN: [&str; 3] = ["--no-legacy", "--control", "off"];

impl Daemon {
    /// Starts the daemon on the rules of the test and waits for `ready`.
    pub(super) fn start(ground: &Ground, settings: &Settings<'_>) -> Self {
        Self::launch(ground, settings, &OWN, &Surroundings::default())
    }

    /// Starts the daemon in another environment.
    pub(super) fn start_on(
        ground: &Ground,
        settings: &Settings<'_>,
        on: &Surroundings<'_>,
    ) -> Self {
        Self::launch(ground, settings, if on.is_bare { &OWN[1..] } else { &OWN }, on)
    }

    /// Starts the daemon with the features of cgrulesengd: legacy rules and the socket.
    pub(super) fn start_legacy(ground: &Ground, settings: &Settings<'_>) -> Self {
        Self::launch(ground, settings, &OWN[1..], &Surroundings::default())
    }

    /// Starts a daemon whose settings include the control socket.
    pub(super) fn start_second(ground: &Ground, settings: &Settings<'_>) -> Self {
        Self::launch(ground, settings, &OWN[..1], &Surroundings::default())
    }

    /// Starts the daemon without waiting for `ready`.
    pub(super) fn start_unready(ground: &Ground, settings: &Settings<'_>) -> Self {
        Self::spawn(ground, settings, &OWN, &Surroundings::default())
    }

    fn launch(
        ground: &Ground,
        settings: &Settings<'_>,
        first: &[&str],
        on: &Surroundings<'_>,
    ) -> Self {
        let mut daemon = Self::spawn(ground, settings, first, on);
        daemon.await_ready();
        daemon
    }

    fn spawn(
        ground: &Ground,
        settings: &Settings<'_>,
        first: &[&str],
        on: &Surroundings<'_>,
    ) -> Self {
        let config = format!("{BASE}/cgruled.toml");
        fs::write(&config, settings.config).unwrap();
        let root = ["--root".to_owned(), ground.root()];
        let rules = ["--rules".to_owned(), format!("{BASE}/rules.d")];
        let mut child = launched(on.launcher)
            .args(first)
            .args(["--config", &config])
            .args(if settings.arguments.contains(&"--rules") { &[][..] } else { &rules })
            .args(if on.is_bare { &[][..] } else { &root })
            .args(["--log", "debug"])
            .args(settings.arguments)
            .env("RUNTIME_DIRECTORY", format!("{BASE}/runtime"))
            .envs(on.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        collect(BufReader::new(child.stderr.take().unwrap()), Arc::clone(&log));
        Self { child, log }
    }

    fn await_ready(&mut self) {
        let ready = eventually(PATIENCE, || {
            self.log().contains("ready") || self.child.try_wait().unwrap().is_some()
        });
        let ended = self.child.try_wait().unwrap();
        assert!(ready && ended.is_none(), "the daemon did not start: {ended:?}");
    }

    /// Returns the time until the daemon is ready; `None` if this takes longer than `limit`.
    pub(crate) fn ready_within(&self, limit: Duration) -> Option<Duration> {
        within(limit, || self.log().contains("ready"))
    }

    /// Sends SIGTERM and returns the time until the daemon has exited; `None` if this
    /// takes longer than `limit`.
    pub(crate) fn exits_within(&mut self, limit: Duration) -> Option<Duration> {
        self.signal(Signal::SIGTERM);
        within(limit, || self.has_exited())
    }

    /// Returns the log so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log contains `text`.
    pub(crate) fn expect_log(&self, text: &str) {
        let said = eventually(PATIENCE, || self.log().contains(text));
        assert!(said, "the daemon never logged {text:?}");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Checks whether it has exited.
    pub(crate) fn has_exited(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Returns the resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        kib_of(self.pid(), "VmRSS:")
    }

    /// Returns the ports of its sockets of the proc connector.
    pub(crate) fn connector_ports(&self) -> Vec<u32> {
        let own = fs::read_dir(format!("/proc/{}/fd", self.pid())).unwrap();
        let links = own.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        let links: Vec<String> = links.map(|link| link.display().to_string()).collect();
        let table = fs::read_to_string("/proc/net/netlink").unwrap();
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        // Columns: sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode. 11 is NETLINK_CONNECTOR.
        let rows = rows.filter(|row| row.len() == 10 && row[1] == "11");
        let rows = rows.filter(|row| links.contains(&format!("socket:[{}]", row[9])));
        rows.filter_map(|row| row[2].parse().ok()).collect()
    }

    /// Returns the CPU time of all threads, from schedstat.
    pub(crate) fn cpu_time(&self) -> Duration {
        cpu_time_of(self.pid())
    }

    /// Sends a signal to the daemon.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Stops the daemon after the rechecks of all placements and asserts that it reported no external move.
    pub(crate) fn expect_no_external_moves(self, what: &str) -> Counters {
        std::thread::sleep(Duration::from_millis(400));
        let counters = self.stop();
        let (reverted, abandoned) =
            (counters.get("external_moves_found"), counters.get("abandoned"));
        println!("{what}: {reverted} external moves reported, {abandoned} abandoned");
        assert_eq!((reverted, abandoned), (0, 0), "{what}: no other process moved anything");
        counters
    }

    /// Stops the daemon with SIGTERM, asserts status 0, returns its counters.
    pub(crate) fn stop(mut self) -> Counters {
        self.signal(Signal::SIGTERM);
        let mut status = None;
        eventually(PATIENCE, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.expect("the daemon did not exit on SIGTERM");
        assert_eq!(status.code(), Some(0), "the daemon exited with {status}");
        let mut text = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        Counters(name_value_lines(&text))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.signal(Signal::SIGCONT);
            self.signal(Signal::SIGTERM);
            eventually(Duration::from_secs(5), || self.child.try_wait().unwrap().is_some());
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- the daemon's log\n{}---", self.log());
        }
    }
}

/// The counters that the daemon printed at its exit.
#[derive(Debug)]
pub(crate) struct Counters(HashMap<String, i64>);

impl Counters {
    /// Returns a counter, which must exist.
    pub(crate) fn get(&self, name: &str) -> i64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no counter {name} in {:?}", self.0))
    }
}

/// Returns the program without arguments.
pub(crate) fn cgruled() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cgruled"))
}

fn launched(launcher: &[&str]) -> Command {
    let [program, arguments @ ..] = launcher else { return cgruled() };
    let mut command = Command::new(program);
    command.args(arguments).arg(env!("CARGO_BIN_EXE_cgruled"));
    command
}

/// Runs the program to its end. The arguments are separated by blanks.
pub(crate) fn run(arguments: &str) -> Output {
    cgruled().args(arguments.split_whitespace()).stdin(Stdio::null()).output().unwrap()
}

/// Parses `name value` lines and skips all others.
pub(crate) fn name_value_lines(text: &str) -> HashMap<String, i64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// Reads to the end of the stream in a thread of its own, so that the daemon never blocks on the pipe.
fn collect(mut lines: impl BufRead + Send + 'static, log: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut line = String::new();
        while lines.read_line(&mut line).is_ok_and(|length| length > 0) {
            log.lock().unwrap().push_str(&line);
            line.clear();
        }
    });
}

/// Returns a size in the status of a process, as `VmRSS:`, in KiB.
pub(crate) fn kib_of(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    size.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Returns the CPU time of all threads of a process, from schedstat.
pub(crate) fn cpu_time_of(pid: u32) -> Duration {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let of_thread = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0)
    };
    Duration::from_nanos(threads.flatten().map(of_thread).sum())
}
