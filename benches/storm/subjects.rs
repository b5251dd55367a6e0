//! Defines the measured subjects: no daemon, the floor, cgrulesengd, cgruled in each of its modes,
//! and another build of it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::Result;
use crate::actors;
use crate::machine::{Ground, Hierarchy, RCU_EXPEDITED, RcuExpedited};
use crate::rules::{HIT, Rules};

const ORIGINAL: &str = "/usr/sbin/cgrulesengd";
const ORIGINAL_SOCKET: &str = "/run/cgred.socket";

/// Limit for a start: cgrulesengd took 50 s to load 10,000 rules with their names on an idle machine.
const READY_WITHIN: Duration = Duration::from_secs(300);
const END_WITHIN: Duration = Duration::from_secs(10);

/// The `fast_moves` setting of cgruled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moves {
    Off,
    Auto,
    Warm,
    Expedited,
}

impl Moves {
    fn name(self) -> &'static str {
        match self {
            Moves::Off => "off",
            Moves::Auto => "auto",
            Moves::Warm => "warm",
            Moves::Expedited => "expedited",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Nobody,
    Floor,
    /// The floor with expedited grace periods during each move.
    FastFloor,
    Cgrulesengd,
    Cgruled(Moves),
    /// cgruled with its default mode and real-time scheduling.
    Realtime,
    /// cgruled with its control socket.
    Controlled,
    /// cgruled with its control socket, with or without a history.
    Recording(bool),
    /// The build in `CGRULED_BASELINE`.
    Baseline(Moves),
}

/// A program, the hierarchy that it places into and its rules.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    pub(crate) hierarchy: Hierarchy,
    pub(crate) rules: Rules,
}

impl Subject {
    pub(crate) const fn new(kind: Kind, hierarchy: Hierarchy) -> Self {
        Self { kind, hierarchy, rules: Rules::One }
    }

    pub(crate) fn with(self, rules: Rules) -> Self {
        Self { rules, ..self }
    }

    /// Returns the divisor of its results: the floor in the same hierarchy, by the same technique where that is
    /// one of the `measured` subjects.
    pub(crate) fn floor(self, measured: &[Self]) -> Self {
        let fast = Self::new(Kind::FastFloor, self.hierarchy);
        let is_fast = matches!(self.kind, Kind::FastFloor | Kind::Cgruled(Moves::Auto));
        if is_fast && measured.contains(&fast) {
            fast
        } else {
            Self::new(Kind::Floor, self.hierarchy)
        }
    }

    pub(crate) fn name(self) -> String {
        let tree = self.hierarchy.name();
        match self.kind {
            Kind::Nobody => "no daemon".into(),
            Kind::Floor => format!("floor {tree}"),
            Kind::FastFloor => format!("floor, expedited {tree}"),
            Kind::Cgrulesengd => format!("cgrulesengd {tree}"),
            Kind::Cgruled(moves) => format!("cgruled {} {tree}", moves.name()),
            Kind::Realtime => format!("cgruled auto, real-time {tree}"),
            Kind::Controlled => format!("cgruled {tree}"),
            Kind::Recording(true) => format!("history on {tree}"),
            Kind::Recording(false) => format!("history off {tree}"),
            Kind::Baseline(moves) => format!("baseline {} {tree}", moves.name()),
        }
    }

    /// Returns the reason why it cannot be measured here, if any.
    pub(crate) fn missing(self) -> Option<&'static str> {
        if self.kind != Kind::Nobody && self.hierarchy.mount().is_none() {
            return Some("hierarchy not mounted");
        }
        let there = match self.kind {
            Kind::Nobody | Kind::Floor | Kind::FastFloor => true,
            Kind::Cgrulesengd => Path::new(ORIGINAL).exists(),
            Kind::Cgruled(_) | Kind::Realtime | Kind::Controlled | Kind::Recording(_) => {
                version(&cgruled_path()).is_some()
            }
            Kind::Baseline(_) => baseline_path().is_some_and(|path| version(&path).is_some()),
        };
        (!there).then_some("not installed")
    }

    /// Starts it and waits until it classifies processes.
    pub(crate) fn start(self, ground: &Ground) -> Result<Running> {
        self.start_in(ground, None)
    }

    /// Starts it in a `memory` cgroup, which is charged for the pages of its program, and waits until it classifies
    /// processes.
    pub(crate) fn start_in(self, ground: &Ground, memory: Option<&Path>) -> Result<Running> {
        write_accounts(ground, self.rules)?;
        let Some((command, ready)) = self.command(ground)? else {
            return Ok(Running { started: None, ready_after: Duration::ZERO });
        };
        match memory {
            Some(group) => start(ground, &charged(ground, group, command), ready),
            None => start(ground, &command, ready),
        }
    }

    fn command(self, ground: &Ground) -> Result<Option<(Vec<String>, Ready)>> {
        let command = match self.kind {
            Kind::Nobody => return Ok(None),
            Kind::Floor => self.floor_command(ground)?,
            Kind::FastFloor => [self.floor_command(ground)?, vec![RCU_EXPEDITED.into()]].concat(),
            Kind::Cgrulesengd => {
                return Ok(Some((self.original_command(ground)?, Ready::Socket)));
            }
            Kind::Cgruled(moves) => self.our_command(ground, &cgruled_path(), moves)?,
            Kind::Recording(_) => self.our_command(ground, &cgruled_path(), Moves::Warm)?,
            Kind::Realtime | Kind::Controlled => {
                self.our_command(ground, &cgruled_path(), Moves::Auto)?
            }
            Kind::Baseline(moves) => {
                let path = baseline_path().ok_or("no CGRULED_BASELINE")?;
                self.our_command(ground, &path, moves)?
            }
        };
        Ok(Some((command, Ready::Line)))
    }

    fn floor_command(self, ground: &Ground) -> Result<Vec<String>> {
        let procs = ground
            .group(self.hierarchy, "one")
            .ok_or("hierarchy not mounted")?
            .join("cgroup.procs");
        let floor = ground.work.join("bin/floor").display().to_string();
        Ok(vec![floor, HIT.to_string(), procs.display().to_string()])
    }

    fn original_command(self, ground: &Ground) -> Result<Vec<String>> {
        let rules = self.rules.cgrules_conf(&ground.name, &actors::ruled(&ground.work));
        fs::write("/etc/cgrules.conf", rules)?;
        fs::write("/etc/cgconfig.conf", "")?;
        fs::create_dir_all("/etc/cgconfig.d")?;
        // It does not remove its socket at exit, and the socket is how we detect that it is ready.
        let _absent = fs::remove_file(ORIGINAL_SOCKET);
        // /dev/null as the log file: by default it would write to syslog for each event.
        Ok([ORIGINAL, "-n", "-Q", "-f", "/dev/null"].map(String::from).to_vec())
    }

    fn our_command(self, ground: &Ground, program: &Path, moves: Moves) -> Result<Vec<String>> {
        let (config, rules) = (ground.work.join("cgruled.toml"), ground.work.join("rules.d"));
        fs::create_dir_all(&rules)?;
        let text = self.rules.toml(self.hierarchy, &actors::ruled(&ground.work));
        write_trusted(&rules.join("10-bench.toml"), &text)?;
        let scheduling = if self.kind == Kind::Realtime { "realtime" } else { "auto" };
        // Others have the default: an older build does not have the key.
        let history = if self.kind == Kind::Recording(false) { "history.size = 0\n" } else { "" };
        let settings =
            format!("fast_moves = \"{}\"\nscheduling = \"{scheduling}\"\n{history}", moves.name());
        write_trusted(&config, &settings)?;
        let has_control = matches!(self.kind, Kind::Controlled | Kind::Recording(_));
        let control = if has_control { control_socket(ground) } else { "off".into() };
        let mut words = vec![program.display().to_string(), "--no-legacy".into()];
        for (flag, value) in [
            ("--config", config.display().to_string()),
            ("--rules", rules.display().to_string()),
            ("--root", format!("/{}", ground.name)),
            ("--control", control),
            ("--log", "info".into()),
            ("--stats-every", "1h".into()),
        ] {
            words.extend([flag.into(), value]);
        }
        Ok(words)
    }
}

/// Returns a command that executes a copy of the program of `command` in a cgroup. The copy is made there, because the
/// kernel charges the pages of a file to the cgroup of the process that reads or writes them first.
fn charged(ground: &Ground, group: &Path, command: Vec<String>) -> Vec<String> {
    const SCRIPT: &str =
        r#"echo $$ >"$1" && cp "$3" "$2" && program=$2 && shift 3 && exec "$program" "$@""#;
    let (procs, copy) = (group.join("cgroup.procs"), ground.work.join("charged"));
    let shell = ["/bin/sh", "-c", SCRIPT, "sh"].map(String::from);
    let paths = [procs, copy].map(|path| path.display().to_string());
    [shell.to_vec(), paths.to_vec(), command].concat()
}

pub(crate) fn control_socket(ground: &Ground) -> String {
    ground.work.join("control.sock").display().to_string()
}

/// Writes a file with a fixed mode: the daemon rejects files that others may write,
/// which the umask could allow.
pub(crate) fn write_trusted(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o644))?)
}

/// Adds the users and groups of the rules to the private /etc, and no others: lookups read whole files.
fn write_accounts(ground: &Ground, rules: Rules) -> Result<()> {
    for (name, ours) in [("passwd", rules.passwd()), ("group", rules.group())] {
        let upstream = ground.work.join(format!("{name}.original"));
        let path = Path::new("/etc").join(name);
        if !upstream.exists() {
            fs::copy(&path, &upstream)?;
        }
        fs::write(path, fs::read_to_string(upstream)? + &ours)?;
    }
    Ok(fs::write("/etc/nsswitch.conf", "passwd: files\ngroup: files\n")?)
}

pub(crate) fn cgruled_path() -> PathBuf {
    std::env::var_os("CGRULED").map_or_else(|| env!("CARGO_BIN_EXE_cgruled").into(), PathBuf::from)
}

/// Returns the build in `CGRULED_BASELINE`.
pub(crate) fn baseline_path() -> Option<PathBuf> {
    std::env::var_os("CGRULED_BASELINE").map(PathBuf::from)
}

/// Returns the path and the version of a build: two builds can have the same version.
pub(crate) fn describe(program: &Path) -> String {
    let version = version(program).unwrap_or_else(|| "not installed".into());
    format!("{version} ({})", program.display())
}

/// Returns the output of `cgruled --version`, if it succeeds.
fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && text.starts_with("cgruled")).then(|| text.trim().to_owned())
}

#[derive(Clone, Copy)]
enum Ready {
    /// It prints `ready` on standard error.
    Line,
    /// It creates its socket last.
    Socket,
}

struct Started {
    child: Child,
    /// State before the daemon was started: the next subject must run on the same kernel mode.
    rcu_expedited: RcuExpedited,
    lines: Receiver<String>,
}

/// A running subject; stopped on drop.
pub(crate) struct Running {
    started: Option<Started>,
    pub(crate) ready_after: Duration,
}

fn start(ground: &Ground, words: &[String], ready: Ready) -> Result<Running> {
    let rcu_expedited = RcuExpedited::remember();
    let begin = Instant::now();
    let mut command = Command::new(actors::program(&ground.work));
    command
        .arg("leash")
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let (send, lines) = channel();
    // Statistics may be on either stream.
    read_lines(child.stderr.take(), send.clone());
    read_lines(child.stdout.take(), send);
    let mut running = Running {
        started: Some(Started { child, rcu_expedited, lines }),
        ready_after: Duration::ZERO,
    };
    match ready {
        Ready::Line => running.wait_for_line(begin + READY_WITHIN)?,
        Ready::Socket => running.wait_for_socket(begin + READY_WITHIN)?,
    }
    running.ready_after = begin.elapsed();
    Ok(running)
}

/// Reads in a thread of its own, so that a daemon with much output never blocks on the pipe.
fn read_lines(stream: Option<impl Read + Send + 'static>, send: Sender<String>) {
    let Some(stream) = stream else { return };
    std::thread::spawn(move || {
        BufReader::new(stream)
            .lines()
            .map_while(std::result::Result::ok)
            .all(|line| send.send(line).is_ok())
    });
}

impl Running {
    fn wait_for_line(&self, until: Instant) -> Result<()> {
        let Some(started) = &self.started else { return Ok(()) };
        let mut said = Vec::new();
        loop {
            match started.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains("ready") => return Ok(()),
                Ok(line) => said.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(format!("not ready; its output: {}", said.join("; ")).into());
                }
            }
        }
    }

    fn wait_for_socket(&mut self, until: Instant) -> Result<()> {
        let Some(started) = &mut self.started else { return Ok(()) };
        while !Path::new(ORIGINAL_SOCKET).exists() {
            if let Some(status) = started.child.try_wait()? {
                return Err(format!("{ORIGINAL} exited: {status}").into());
            }
            if Instant::now() > until {
                return Err(format!("{ORIGINAL} is not ready").into());
            }
            sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Returns `None` for the subject without a daemon.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.started.as_ref().map(|started| started.child.id())
    }

    /// Stops it and returns its last output. It must still be running: a result of a dead daemon is invalid.
    pub(crate) fn stop(mut self) -> Result<Vec<String>> {
        let Some(mut started) = self.started.take() else { return Ok(Vec::new()) };
        if let Some(status) = started.child.try_wait()? {
            return Err(format!("the daemon exited unexpectedly: {status}").into());
        }
        end(&mut started)?;
        Ok(started.lines.iter().collect())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(started) = &mut self.started {
            let _ended = end(started);
        }
    }
}

/// Stops it, and restores the mode of the kernel.
fn end(started: &mut Started) -> Result<()> {
    let child = &mut started.child;
    let until = Instant::now() + END_WITHIN;
    kill(Pid::from_raw(child.id().try_into()?), Signal::SIGTERM)?;
    while child.try_wait()?.is_none() {
        if Instant::now() > until {
            eprintln!("storm: the subject did not exit on SIGTERM; killing it");
            child.kill()?;
        }
        sleep(Duration::from_millis(2));
    }
    started.rcu_expedited.restore();
    Ok(())
}
