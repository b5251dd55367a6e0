//! Tests the daemon under the name cgrulesengd: command line, exit codes, log and runtime
//! behaviour. Each check that applies to cgrulesengd of libcgroup runs on it too, where
//! `/usr/sbin/cgrulesengd` is the real one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test fails by panic and does its own input and output"
)]

#[allow(dead_code, unused_imports, reason = "shared with the live tests")]
#[path = "live/harness/mod.rs"]
mod harness;
#[path = "cgrulesengd/private.rs"]
mod private;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use harness::user::{ALICE, BOB, CAROL, NAMELESS, TEAM};
use harness::{BASE, Live, PATIENCE, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use private::Private;

const OURS: &str = env!("CARGO_BIN_EXE_cgrulesengd");
const ORIGINAL: &str = "/usr/sbin/cgrulesengd";

/// Files without which cgrulesengd does not start.
const FILES: [(&str, &str); 3] = [("cgrules.conf", ""), ("cgconfig.conf", ""), ("cgconfig.d/", "")];

/// Returns the programs under test, each with the option that makes ours as strict as cgrulesengd.
fn programs() -> Vec<(&'static str, &'static [&'static str])> {
    let mut programs: Vec<(&str, &[&str])> = vec![(OURS, &["--strict"])];
    if is_original() {
        programs.push((ORIGINAL, &[]));
    }
    programs
}

/// Returns whether the real cgrulesengd is installed: a package of ours installs a program of the same name.
fn is_original() -> bool {
    let text = fs::read(ORIGINAL).unwrap_or_default();
    text.windows(12).any(|part| part == b"libcgroup.so")
}

fn run(program: &str, words: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(words).env_remove("CGROUP_LOGLEVEL").stdin(Stdio::null());
    command.output().unwrap()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// Command lines with their exit codes. A line that would start the daemon fails with 1, because
/// `/etc/cgconfig.d` is missing.
const LINES: [(&str, i32); 42] = [
    ("-h", 0),
    ("--help", 0),
    ("--he", 0),
    ("-vqh", 0),
    ("word -h", 0),
    ("-", 1),
    ("word", 1),
    ("-- -h", 1),
    ("-x", 2),
    ("-vx", 2),
    ("-hx", 0),
    ("--config /etc/cgrules.conf", 2),
    ("--strictly", 2),
    ("--stric", 2),
    ("--s", 2),
    ("--no", 2),
    ("--nol", 1),
    ("--verbose=1", 2),
    ("--=", 2),
    ("-s9 -h", 2),
    ("-h -s9", 0),
    ("-s", 1),
    ("-s0", 1),
    ("-s7", 1),
    ("-s8", 2),
    ("-sD", 1),
    ("-sd", 2),
    ("-s 9", 1),
    ("--syslog", 1),
    ("--syslog=3", 1),
    ("--syslog=x", 2),
    ("-f", 2),
    ("--logfile", 2),
    ("-f -h", 1),
    ("-f- -h", 0),
    ("--log -h", 1),
    ("--socket-user=61701", 3),
    ("-u nobody-here -x", 3),
    ("-x -u nobody-here", 2),
    ("-g nobody-here -h", 3),
    ("-u cgt-alice -g cgt-team", 1),
    ("-vvvvvvqqqqqqqqQQdnQ", 1),
];

#[test]
fn the_command_line_is_parsed_as_by_cgrulesengd() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&[]);
    let mut wrong = Vec::new();
    for (program, first) in programs() {
        for (line, expected) in LINES {
            let words: Vec<&str> = first.iter().copied().chain(line.split(' ')).collect();
            let output = run(program, &words);
            let is_help = code(&output) == Some(0);
            if code(&output) != Some(expected) || output.stdout.is_empty() == is_help {
                wrong.push(format!("{program} {line}: {output:?}, not {expected}"));
            }
            if output.stderr.is_empty() != is_help {
                wrong.push(format!("{program} {line}: {output:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn only_root_may_start_it_and_that_is_checked_first() {
    let Some(live) = Live::require() else { return };
    let _private = Private::enter(&live);
    let ours = format!("{BASE}/cgrulesengd");
    fs::copy(OURS, &ours).unwrap();
    for program in
        programs().iter().map(|&(program, _)| if program == OURS { &ours } else { program })
    {
        for word in ["-h", "-x", "-n"] {
            let mut command = Command::new(program);
            let output = command.arg(word).uid(ALICE).gid(ALICE).output().unwrap();
            assert_eq!(code(&output), Some(1), "{program} {word}: {output:?}");
            assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{output:?}");
        }
    }
}

const GOOD: &str = "* cpu t1\n";
const BAD: &str = "* cpu\n";

#[test]
fn a_strict_start_fails_as_cgrulesengd_does() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    let rules = |text: &'static str| ("cgrules.conf", text);
    let conf = |text: &'static str| ("cgconfig.conf", text);
    let (rules_d, config_d) = (("cgrules.d/", ""), ("cgconfig.d/", ""));
    let last = ("cgconfig.d/z", "group {");
    let cases: [(&[(&str, &str)], i32); 18] = [
        (&[], 1),
        (&[rules(BAD), conf("group")], 1),
        (&[config_d], 99),
        (&[config_d, conf("group")], 99),
        (&[config_d, rules(BAD), conf("")], 99),
        (&[config_d, rules(GOOD), conf(""), rules_d, ("cgrules.d/README", BAD)], 99),
        (&[config_d, rules(GOOD)], 96),
        (&[config_d, rules(GOOD), conf("group")], 104),
        (&[config_d, rules(GOOD), conf("group a {")], 104),
        (&[config_d, rules(GOOD), conf(""), ("cgconfig.d/a.conf", "template {")], 104),
        // cgrulesengd also reads backup files of editors.
        (&[config_d, rules(GOOD), conf(""), rules_d, ("cgrules.d/x~", BAD)], 99),
        (&[config_d, rules(GOOD), conf(""), ("cgconfig.d/z~", "group {")], 104),
        (&[config_d, rules(GOOD), rules_d, ("cgrules.d/x~", "nobody-here cpu x\n")], 96),
        (&[config_d, rules(GOOD), ("cgconfig.conf/", "")], 104),
        (&[config_d, rules(GOOD), conf(""), ("cgconfig.d/a/", ""), last], 104),
        // A directory in place of a file is read as an empty file, and a file in place of a
        // directory as an empty directory.
        (&[config_d, ("cgrules.conf/", ""), conf(""), last], 104),
        (&[config_d, rules(GOOD), conf(""), ("cgrules.d", BAD), last], 104),
        (&[rules(GOOD), conf(""), ("cgconfig.d", "")], 1),
    ];
    let mut wrong = Vec::new();
    for (files, expected) in cases {
        private.files(files);
        for (program, first) in programs() {
            let output = run(program, first);
            if code(&output) != Some(expected) {
                wrong.push(format!("{program} with {files:?}: {output:?}, not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A daemon that detached into the background; stopped on drop.
struct Background {
    pid: i32,
    log: String,
}

impl Background {
    /// Starts our daemon with a log file and waits for its first line.
    fn start(words: &[&str]) -> Self {
        let log = format!("{BASE}/log");
        // The log is opened for appending: the PID of an earlier daemon of the test
        // would be read as that of this one.
        let _absent = fs::remove_file(&log);
        let began = Instant::now();
        let mut command = Command::new(OURS);
        command.args(["-f", &log]).args(words).current_dir(BASE);
        let output = command.output().unwrap();
        assert_eq!(code(&output), Some(0), "{output:?}");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "the caller waited {:?}",
            began.elapsed()
        );
        Self::with_log(log)
    }

    /// Returns the daemon that writes to this log file and was just started.
    fn with_log(log: String) -> Self {
        let mut background = Self { pid: 0, log };
        background.expect("Proceeding with PID ");
        let text = background.text();
        let after = text.split("Proceeding with PID ").nth(1).unwrap();
        background.pid = after.lines().next().unwrap().parse().unwrap();
        background.expect("Started the CGroup Rules Engine Daemon.");
        background
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn expect(&self, line: &str) {
        let said = eventually(PATIENCE, || self.text().contains(line));
        assert!(said, "{line:?} was not logged: {}", self.text());
    }

    fn expect_times(&self, line: &str, times: usize) {
        let said = eventually(PATIENCE, || self.text().matches(line).count() >= times);
        assert!(said, "{line:?} was not logged {times} times: {}", self.text());
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).unwrap();
    }

    fn of_proc(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap_or_default()
    }

    /// Returns whether the daemon runs; a zombie does not.
    fn is_alive(&self) -> bool {
        let stat = self.of_proc("stat");
        stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.pid > 0 && self.is_alive() {
            self.signal(Signal::SIGTERM);
            if !eventually(Duration::from_secs(5), || !self.is_alive()) {
                self.signal(Signal::SIGKILL);
            }
        }
        if std::thread::panicking() {
            eprintln!("--- {}\n{}---", self.log, self.text());
        }
    }
}

/// A daemon in the foreground. Killed on drop, also when the test fails: a daemon that is left over
/// would move the processes of the next test.
struct Foreground(Child);

impl Foreground {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    fn end(&mut self) -> ExitStatus {
        kill(Pid::from_raw(self.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// Returns a rule that moves alice into the test cgroup.
fn alice(live: &Live) -> String {
    format!("cgt-alice pids {}\n", live.ground.at("%u").trim_start_matches('/'))
}

fn with_rules(rules: &str) -> [(&str, &str); 3] {
    let [_, conf, directory] = FILES;
    [("cgrules.conf", rules), conf, directory]
}

#[test]
fn it_detaches_and_places_by_legacy_rules() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    let rules = alice(&live);
    private.files(&with_rules(&rules));
    let daemon = Background::start(&["-vv", "--strict"]);
    let process = format!("/proc/{}", daemon.pid);
    let stat = daemon.of_proc("stat");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!(fields[3], daemon.pid.to_string(), "session in {stat}");
    assert_ne!(fields[1], std::process::id().to_string(), "parent in {stat}");
    assert_eq!(fs::read_link(format!("{process}/cwd")).unwrap(), Path::new("/"));
    for number in 0..3 {
        let target = fs::read_link(format!("{process}/fd/{number}")).unwrap();
        assert_eq!(target, Path::new("/dev/null"), "descriptor {number}");
    }
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("pids", actor.subject, "cgt-alice");
}

#[test]
fn signals_make_it_read_the_rules_and_do_not_end_it() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules("# none yet\n"));
    let daemon = Background::start(&["-vv"]);
    for (times, signal) in
        [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2].into_iter().enumerate()
    {
        daemon.signal(signal);
        daemon.expect_times("Reloading rules configuration", times + 1);
        daemon.expect_times("Reloading templates configuration.", times + 1);
    }
    daemon.signal(Signal::SIGPIPE);
    private.files(&with_rules(&alice(&live)));
    daemon.signal(Signal::SIGUSR2);
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("pids", actor.subject, "cgt-alice");
    daemon.expect("Rule: cgt-alice");
    daemon.signal(Signal::SIGTERM);
    daemon.expect("Stopped CGroup Rules Engine Daemon at ");
    assert!(eventually(PATIENCE, || !daemon.is_alive()));
}

#[test]
fn the_socket_has_the_configured_owner() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules("# none\n"));
    let daemon = Background::start(&["-vv", "-u", "cgt-alice", "--socket-group=cgt-team"]);
    let socket = fs::metadata("/run/cgred.socket").unwrap();
    assert_eq!((socket.uid(), socket.gid(), socket.mode() & 0o7777), (ALICE, TEAM, 0o660));
    assert!(daemon.is_alive());
}

#[test]
fn cgrulectl_can_query_it_and_it_runs_without_a_control_socket() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules(&alice(&live)));
    let status = || {
        let words = ["status", "--json"];
        Command::new(env!("CARGO_BIN_EXE_cgrulectl")).args(words).output().unwrap()
    };
    let daemon = Background::start(&["-vv"]);
    let said = String::from_utf8(status().stdout).unwrap();
    assert!(said.contains(&format!("\"pid\": {}", daemon.pid)), "{said}");
    drop(daemon);
    assert_eq!(code(&status()), Some(69));
    fs::remove_dir_all("/run/cgruled").unwrap();
    fs::write("/run/cgruled", "no directory").unwrap();
    let daemon = Background::start(&["-vv"]);
    daemon.expect("continuing without it");
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("pids", actor.subject, "cgt-alice");
}

#[test]
fn a_change_right_after_the_start_counts() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    for _ in 0..5 {
        private.files(&with_rules("# none yet\n"));
        let log = format!("{BASE}/log");
        let _absent = fs::remove_file(&log);
        let output = run(OURS, &["-vv", "-f", &log]);
        private.files(&with_rules(&alice(&live)));
        assert_eq!(code(&output), Some(0), "{output:?}");
        let daemon = Background::with_log(log);
        daemon.expect("Rule: cgt-alice");
    }
}

#[test]
fn a_bad_file_keeps_its_rules_and_one_that_is_gone_is_missed() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules(&alice(&live)));
    let daemon = Background::start(&["-vv"]);
    private.files(&[("cgrules.conf", BAD)]);
    daemon.signal(Signal::SIGHUP);
    daemon.expect("/etc/cgrules.conf: 1 new error: the last valid version stays active");
    assert!(!daemon.text().contains("no such file"), "{}", daemon.text());
    fs::remove_file("/etc/cgrules.conf").unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.expect("/etc/cgrules.conf: no such file");
}

#[test]
fn a_second_one_fails_while_its_caller_waits_for_the_status() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules(&alice(&live)));
    let daemon = Background::start(&["-vv"]);
    daemon.expect("Started the");
    let second = run(OURS, &[]);
    assert_eq!(code(&second), Some(255), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains("/run/cgred.socket: another daemon serves this socket"), "{said}");
    assert!(said.contains("(served by cgrulesengd, PID "), "{said}");
    // The unit has 78 in RestartPreventExitStatus=, so systemd does not restart the service.
    let third = Command::new(OURS).arg("-n").env("NOTIFY_SOCKET", "/nowhere").output().unwrap();
    assert_eq!(code(&third), Some(78), "{third:?}");
    assert!(Path::new("/run/cgred.socket").exists() && daemon.is_alive());
}

#[test]
fn an_untrusted_file_is_reported_as_such() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules(&alice(&live)));
    fs::set_permissions("/etc/cgrules.conf", Permissions::from_mode(0o664)).unwrap();
    let log = format!("{BASE}/log");
    let output = run(OURS, &["-vv", "-f", &log]);
    let said = String::from_utf8(output.stderr).unwrap();
    let daemon = Background::with_log(log);
    daemon.expect("Started the");
    for text in [&said, &daemon.text()] {
        assert!(text.contains("/etc/cgrules.conf: error: is writable by its group"), "{text}");
        assert!(!text.contains("no such file"), "{text}");
    }
    assert_eq!(code(&run(OURS, &["--strict"])), Some(99));
}

#[test]
fn an_invalid_line_is_reported_and_skipped() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    let rules = format!("{BAD}{}", alice(&live));
    private.files(&[("cgrules.conf", &rules)]);
    let mut command = Command::new(OURS);
    let log = format!("{BASE}/log");
    let command = command.args(["-n", "-f", &log]).stderr(Stdio::piped());
    let mut child = Foreground::start(command);
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("pids", actor.subject, "cgt-alice");
    kill(Pid::from_raw(child.0.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let said = io::read_to_string(child.0.stderr.take().unwrap()).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(0), "{said}");
    let log = fs::read_to_string(log).unwrap();
    for text in [said, log] {
        assert!(text.contains("/etc/cgrules.conf:1:"), "{text}");
    }
}

#[test]
fn reinterpreted_lines_are_reported_at_every_verbosity() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    let at = |name: &str| live.ground.at(name).trim_start_matches('/').to_owned();
    let rules = format!(
        "cgt-alice pids {}\n% pids {}\nnobody-here pids x\ncgt-bob memroy y\n",
        at("a"),
        at("b")
    );
    let sections = "mount {\n  cpu = /sys/fs/cgroup/cpu;\n}\n";
    private.files(&[FILES[2], ("cgrules.conf", &rules), ("cgconfig.conf", sections)]);
    let expected = [
        "/etc/cgrules.conf:1: warning: conflicting destinations ",
        "/etc/cgrules.conf:3:1: warning: no user is named \"nobody-here\"",
        "/etc/cgrules.conf:4: warning: no cgroup hierarchy of this host has the controller \"memroy\"",
        "/etc/cgconfig.conf:2: warning: mount sections are ignored",
    ];
    let log = format!("{BASE}/log");
    for (words, is_said) in [(&["-n"][..], true), (&["-n", "-q"], false)] {
        let _absent = fs::remove_file(&log);
        let mut command = Command::new(OURS);
        let command = command.args(words).args(["-f", &log]).stderr(Stdio::piped());
        let mut child = Foreground::start(command);
        let socket = Path::new("/run/cgred.socket");
        assert!(eventually(PATIENCE, || socket.exists()));
        let text = || fs::read_to_string(&log).unwrap_or_default();
        let said =
            eventually(PATIENCE, || !is_said || expected.iter().all(|line| text().contains(line)));
        let ended = child.end().code();
        let text = text();
        assert!(said && ended == Some(0), "{text}");
        // The rules are active before the daemon exits, so nothing that it would log is missing.
        assert_eq!(text.is_empty(), !is_said, "{text}");
        assert!(!text.contains("Started the") && !text.contains("moved"), "{text}");
        let error = io::read_to_string(child.0.stderr.take().unwrap()).unwrap();
        for line in [expected[1], expected[3]] {
            assert_eq!(error.contains(line), is_said, "{error}");
        }
    }
}

/// Runs a program in the foreground until its log contains `line`, stops it and returns the log.
fn foreground(program: &str, words: &[&str], line: &str) -> String {
    let log = format!("{BASE}/log");
    let _absent = fs::remove_file(&log);
    let mut command = Command::new(program);
    command.args(words).args(["-n", "-f", &log]).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = Foreground::start(&mut command);
    let text = || fs::read_to_string(&log).unwrap_or_default();
    let said = eventually(PATIENCE, || text().contains(line));
    let status = child.end();
    assert!(said && status.code() == Some(0), "{program}: {status}: {}", text());
    text()
}

const EVERY_KIND: &str = "\
cgt-alice:/opt/x/* cpu,memory cgt/t1
% pids cgt/t2
@cgt-team:sh pids cgt/t/%u
cgt-bob:/bin/x * cgt/t3
nobody-here cpu cgt/t4
@cgt-bob pids cgt/t5
cgt-carol cpuacct,io cgt/t6
";

/// Returns the lines of the rule table in a log.
fn table(log: &str) -> Vec<&str> {
    let starts = ["Rule:", "  UID:", "  GID:", "  DEST:", "  CONTROLLERS:", "    ", "  OPTIONS:"];
    let mut lines = log.lines().skip_while(|line| !line.starts_with("Rule:"));
    // Further lines of a diagnostic have a deeper indentation.
    let is_further_in = |line: &&str| line.starts_with("     ");
    let is_table = |line: &&str| starts.iter().any(|start| line.starts_with(start));
    lines.by_ref().filter(|line| is_table(line) && !is_further_in(line)).collect()
}

#[test]
fn the_table_and_the_lines_are_those_of_cgrulesengd() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules(EVERY_KIND));
    let wait = "Started the CGroup Rules Engine Daemon.";
    let ours = foreground(OURS, &["-vvv"], wait);
    assert_eq!(table(&ours).iter().filter(|line| line.starts_with("Rule:")).count(), 6, "{ours}");
    // The controller is shown as written in the file, not as it is named on this host.
    assert!(table(&ours).contains(&"    io"), "{ours}");
    for line in [
        "CGroup Rules Engine Daemon log started",
        "Current time: ",
        "Proceeding with PID ",
        "Stopped CGroup Rules Engine Daemon at ",
    ] {
        assert!(ours.lines().any(|one| one.starts_with(line)), "{line}: {ours}");
    }
    if is_original() {
        let upstream = foreground(ORIGINAL, &["-vvv"], wait);
        assert_eq!(table(&ours), table(&upstream), "{ours}\n{upstream}");
        let opening = |log: &str| -> Vec<String> {
            let log = log.replace(char::is_numeric, "");
            log.lines()
                .take_while(|line| !line.starts_with("Proceeding"))
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(opening(&ours), opening(&upstream));
    }
}

/// Returns the lines that a daemon logs about processes, with `N` in place of each PID. An actor
/// changes its identity, then waits: alice is moved, the cgroup of bob is missing, the rule of
/// carol ignores the process, and dave has no rule.
fn said_of_actors(live: &Live, program: &str) -> Vec<String> {
    let log = format!("{BASE}/log");
    let _absent = fs::remove_file(&log);
    let mut command = Command::new(program);
    let mut child = Foreground::start(command.args(["-n", "-vvv", "-f", &log]));
    let text = || fs::read_to_string(&log).unwrap_or_default();
    assert!(eventually(PATIENCE, || text().contains("Started the")), "{program}: {}", text());
    let mut said = Vec::new();
    for steps in [
        format!("gid {TEAM} {TEAM} uid {ALICE} {ALICE}"),
        format!("uid {BOB} {BOB}"),
        format!("uid {CAROL} {CAROL}"),
        format!("uid {NAMELESS} {NAMELESS}"),
    ] {
        let actor = live.hold(&steps);
        let result = format!("Cgroup change for PID: {}, UID: 61", actor.subject);
        assert!(eventually(PATIENCE, || text().contains(&result)), "{program}: {}", text());
        let number = actor.subject.to_string();
        let texts =
            ["Event: PID", "matching rule", "to match PID", "Executing rule", "Cgroup change"];
        let text = text();
        let mut last = "";
        for line in text.lines() {
            let is_of_actor = line.split(|c: char| !c.is_ascii_digit()).any(|part| part == number);
            let is_ignored = line == "Matching rule is an ignore rule" && !last.is_empty();
            if is_ignored || is_of_actor && texts.iter().any(|text| line.contains(text)) {
                said.push(line.replace(&number, "N"));
            }
            last = if is_of_actor { line } else { "" };
        }
    }
    assert_eq!(child.end().code(), Some(0));
    said
}

#[test]
fn processes_are_logged_as_by_cgrulesengd() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    let at = |name: &str| live.ground.at(name).trim_start_matches('/').to_owned();
    let (own, missing) = (at("%u"), at("missing"));
    let program = format!("{BASE}/bin/actors");
    private.files(&with_rules(&format!(
        "cgt-alice pids {own}\ncgt-bob pids {missing}\ncgt-carol:{program} pids / ignore\n"
    )));
    let ours = said_of_actors(&live, OURS);
    let change = |ids: &str, end: &str| {
        format!("Cgroup change for PID: N, UID: {ids}, PROCNAME: {program} {end}")
    };
    let found =
        |user: &str, ids: &str| format!("Found matching rule {user} for PID: N, UID: {ids}");
    let alice = format!("{ALICE}, GID: {TEAM}");
    let bob = format!("{BOB}, GID: 0");
    let expected = [
        "EXEC Event: PID = N, tGID = N".to_owned(),
        format!("GID Event: PID = N, tGID = N, rGID = {TEAM}, eGID = {TEAM}"),
        format!("UID Event: PID = N, tGID = N, rUID = {ALICE}, eUID = {ALICE}"),
        found("cgt-alice", &alice),
        "Executing rule cgt-alice for PID N... OK!".to_owned(),
        change(&alice, "OK"),
        found("cgt-bob", &bob),
        "Executing rule cgt-bob for PID N... FAILED! (Error Code: 50002)".to_owned(),
        change(&bob, "FAILED! (Error Code: 50002)"),
        found("cgt-carol", &format!("{CAROL}, GID: 0")),
        "Matching rule is an ignore rule".to_owned(),
        change(&format!("{CAROL}, GID: 0"), "OK"),
        format!("No rule found to match PID: N, UID: {NAMELESS}, GID: 0"),
        change(&format!("{NAMELESS}, GID: 0"), "OK"),
    ];
    for line in &expected {
        assert!(ours.contains(line), "{line} is not in {ours:#?}");
    }
    if is_original() {
        let upstream = said_of_actors(&live, ORIGINAL);
        // libcgroup continues this line after it has applied the rule.
        let is_whole = |line: &&String| !line.starts_with("Executing rule");
        for line in expected.iter().filter(is_whole) {
            assert!(upstream.contains(line), "{line} is not in {upstream:#?}");
        }
    }
}

/// Returns the name that a daemon logs for the program of a script of alice that her rule matches.
fn said_of_script(live: &Live, program: &str, script: &str) -> String {
    let log = format!("{BASE}/log");
    let _absent = fs::remove_file(&log);
    let mut command = Command::new(program);
    let mut child = Foreground::start(command.args(["-n", "-vvv", "-f", &log]));
    let text = || fs::read_to_string(&log).unwrap_or_default();
    assert!(eventually(PATIENCE, || text().contains("Started the")), "{program}: {}", text());
    let mut actor = live.actor(&format!("uid {ALICE} {ALICE} exec {script} {script}"));
    let pid = actor.said("pid");
    let head = format!("Cgroup change for PID: {pid}, UID: {ALICE}, GID: 0, PROCNAME: ");
    let last = || {
        let text = text();
        let mut names = text.lines().rev().filter_map(|line| line.strip_prefix(&*head));
        names.next().unwrap_or_default().to_owned()
    };
    eventually(PATIENCE, || last().starts_with(script));
    assert_eq!(child.end().code(), Some(0));
    last()
}

#[test]
fn a_script_is_called_as_it_was_invoked() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    let text = "#!/bin/sh\necho \"pid $$\"\nwhile read -r line; do :; done\n";
    let script = live.script("bin/scr.sh", text);
    let own = live.ground.at("%u");
    let own = own.trim_start_matches('/');
    private.files(&with_rules(&format!("cgt-alice:{script} pids {own}\n")));
    let expected = format!("{script} OK");
    assert_eq!(said_of_script(&live, OURS, &script), expected);
    if is_original() {
        assert_eq!(said_of_script(&live, ORIGINAL, &script), expected);
    }
}

#[test]
fn lost_events_are_logged_as_by_cgrulesengd_at_every_verbosity() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules(&alice(&live)));
    private.toml("version = 1\n");
    fs::write("/etc/cgruled/cgruled.toml", "receive_buffer = \"64K\"\n").unwrap();
    fs::set_permissions("/etc/cgruled/cgruled.toml", Permissions::from_mode(0o644)).unwrap();
    let log = format!("{BASE}/log");
    let mut command = Command::new(OURS);
    let mut child = Foreground::start(command.args(["-n", "-f", &log]));
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("pids", actor.subject, "cgt-alice");
    let pid = Pid::from_raw(child.0.id().try_into().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    for _ in 0..1000 {
        Command::new("/bin/true").status().unwrap();
    }
    kill(pid, Signal::SIGCONT).unwrap();
    let text = || fs::read_to_string(&log).unwrap_or_default();
    let line = "ERROR: NETLINK BUFFER FULL, MESSAGE DROPPED!\n";
    let is_said = eventually(PATIENCE, || text().contains(line));
    assert_eq!(child.end().code(), Some(0));
    assert!(is_said && text().matches(line).count() == 1, "{}", text());
}

#[test]
fn of_two_lines_for_one_hierarchy_the_last_counts() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    let at = |name: &str| live.ground.at(name).trim_start_matches('/').to_owned();
    private.files(&with_rules(&format!(
        "cgt-alice pids {}\n% pids {}\n",
        at("first-%u"),
        at("last-%u")
    )));
    let daemon = Background::start(&["-vv"]);
    daemon.expect("/etc/cgrules.conf:1: warning: conflicting destinations ");
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("pids", actor.subject, "last-cgt-alice");
    // Longer than the recheck delay: the recheck would treat the move by its own rule as an external one.
    std::thread::sleep(Duration::from_millis(300));
    live.expect_pid("pids", actor.subject, "last-cgt-alice");
    assert!(!daemon.text().contains("moved back"), "{}", daemon.text());
    if is_original() {
        drop(daemon);
        let log = format!("{BASE}/log");
        let _absent = fs::remove_file(&log);
        let mut command = Command::new(ORIGINAL);
        let mut child = Foreground::start(command.args(["-n", "-vv", "-f", &log]));
        let text = || fs::read_to_string(&log).unwrap_or_default();
        assert!(eventually(PATIENCE, || text().contains("Started the")), "{}", text());
        let other = live.hold(&format!("uid {ALICE} {ALICE}"));
        live.expect_pid("pids", other.subject, "last-cgt-alice");
        child.end();
    }
}

#[test]
fn a_missing_cgroup_is_reported_with_the_section_to_add() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    let path = live.ground.at("plain");
    let rules = format!("cgt-alice pids {}\n", path.trim_start_matches('/'));
    private.files(&with_rules(&rules));
    let daemon = Background::start(&["-vv"]);
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    let section = format!("group {} {{ pids {{ }} }}", path.trim_start_matches('/'));
    daemon.expect(&format!(
        "create the cgroup, or add a group section to /etc/cgconfig.conf: {section}; "
    ));
    // The advice in the message is correct.
    private.files(&[FILES[2], ("cgrules.conf", &rules), ("cgconfig.conf", &section)]);
    daemon.signal(Signal::SIGUSR2);
    live.expect_pid("pids", actor.subject, "plain");
}

#[test]
fn a_name_cannot_write_lines_of_its_own() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules(&alice(&live)));
    let program = live.program("bin/x\nFAILED! \u{1b}[2J");
    let daemon = Background::start(&["-vv"]);
    let id = ALICE.to_string();
    let mut command = Command::new(&program);
    command.args(["uid", &id, &id, "hold"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut actor = command.spawn().unwrap();
    daemon.expect(&format!("PROCNAME: {BASE}/bin/x\\nFAILED! \\x1b[2J OK\n"));
    actor.kill().unwrap();
    actor.wait().unwrap();
    assert!(!daemon.text().lines().any(|line| line.starts_with("FAILED!")));
}

#[test]
fn without_an_option_processes_are_not_logged() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    let missing = live.ground.at("missing");
    let rules = format!("{}cgt-bob pids {}\n", alice(&live), missing.trim_start_matches('/'));
    private.files(&with_rules(&rules));
    for (words, said) in [(&["-n"][..], false), (&["-n", "-v"], true)] {
        let log = format!("{BASE}/log");
        let _absent = fs::remove_file(&log);
        let mut command = Command::new(OURS);
        let mut child = Foreground::start(command.args(words).args(["-f", &log]));
        let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
        live.expect_pid("pids", alice.subject, "cgt-alice");
        // The daemon receives events by now, so the initial scan does not find this process.
        let bob = live.hold(&format!("uid {BOB} {BOB}"));
        let failed = format!("Cgroup change for PID: {}, UID: {BOB}, GID: 0", bob.subject);
        // Evaluated after bob: every line about that process is logged by then, and
        // written before the daemon exits.
        let fence = live.hold(&format!("uid {ALICE} {ALICE}"));
        live.expect_pid("pids", fence.subject, "cgt-alice");
        let has = |text: &str| fs::read_to_string(&log).unwrap_or_default().contains(text);
        let is_said = said && eventually(PATIENCE, || has(&failed));
        assert_eq!(child.end().code(), Some(0));
        assert_eq!((is_said, has("Cgroup change"), has("Event")), (said, said, false));
        assert!(!has(&format!("PID: {}", alice.subject)));
    }
}

#[test]
fn debugging_goes_to_standard_output() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules(&alice(&live)));
    let output = fs::File::create(format!("{BASE}/log")).unwrap();
    let mut command = Command::new(OURS);
    let mut child = Foreground::start(command.arg("-d").stdout(output));
    let text = || fs::read_to_string(format!("{BASE}/log")).unwrap();
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("pids", actor.subject, "cgt-alice");
    let moved = format!("moved process {}", actor.subject);
    let said = eventually(PATIENCE, || text().contains(&moved));
    assert_eq!(child.end().code(), Some(0));
    assert!(said, "{}", text());
    assert!(text().starts_with("CGroup Rules Engine Daemon log started\nCurrent time: "));
    assert!(text().contains("\nOpened log file: -, log facility: 0,log level: 7\n"));
}

/// Starts our daemon in the background with standard output, which receives the log, redirected to
/// a file. Returns the text that it wrote to standard error, too.
fn background_on_stdout(words: &[&str], level: &str) -> (Background, String) {
    let log = format!("{BASE}/log");
    let mut command = Command::new(OURS);
    command.args(words).env("CGROUP_LOGLEVEL", level).stdout(fs::File::create(&log).unwrap());
    let output = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
    assert_eq!(code(&output), Some(0), "{output:?}");
    (Background::with_log(log), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_environment_enables_debugging_in_the_background() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules("# none\n"));
    let (daemon, diagnostic) = background_on_stdout(&[], "debug");
    assert_eq!(diagnostic, "");
    daemon.expect("CGroup Rules Engine Daemon log started");
    daemon.expect("The rules table is empty.");
}

#[test]
fn a_log_file_that_cannot_be_opened_is_reported_and_replaced() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules("# none\n"));
    let (_daemon, diagnostic) = background_on_stdout(&["-vv", "-f", "/nonexistent/log"], "");
    assert!(diagnostic.contains("/nonexistent/log: "), "{diagnostic}");
}

#[test]
fn invalid_settings_are_reported_before_it_starts() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules(&alice(&live)));
    private.toml("version = 1\n");
    fs::write("/etc/cgruled/cgruled.toml", "rot = 1\n").unwrap();
    let output = run(OURS, &[]);
    assert_eq!(code(&output), Some(65), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("cgruled.toml:1:"), "{output:?}");
}

#[test]
fn rules_of_toml_files_come_after_legacy_rules() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules(&alice(&live)));
    let toml = |user: &str, place: &str| {
        format!("[[rule]]\nuser = \"{user}\"\ncgroup = \"{}\"\n", live.ground.at(place))
    };
    let text = format!("version = 1\n{}{}", toml("cgt-alice", "late"), toml("cgt-bob", "toml"));
    private.toml(&text);
    let daemon = Background::start(&["-vv"]);
    daemon.expect("And 2 rules of TOML files.");
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("pids", actor.subject, "cgt-alice");
    let actor = live.hold(&format!("uid {BOB} {BOB}"));
    live.expect_pid("", actor.subject, "toml");
}

#[test]
fn syslog_gets_lines_with_name_and_facility() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules(&alice(&live)));
    let syslog = UnixDatagram::bind("/dev/log").unwrap();
    syslog.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(OURS);
    let mut child = Foreground::start(command.args(["-n", "-vv", "-s3"]));
    let mut lines = Vec::new();
    while !lines.iter().any(|line: &String| line.contains("Started the CGroup")) {
        let mut bytes = [0; 4096];
        let length = syslog.recv(&mut bytes).unwrap();
        lines.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
    }
    assert_eq!(child.end().code(), Some(0));
    let first = lines.iter().find(|line| line.contains("Proceeding with PID")).unwrap();
    // Facility local3 is 19, severity informational is 6: 19 * 8 + 6 = 158.
    assert!(first.starts_with("<158>"), "{first}");
    assert!(first.contains(&format!(" CGRE[{}]: Proceeding", child.0.id())), "{first}");
    assert!(!lines.iter().any(|line| line.contains("Rule: ")), "{lines:?}");
}

#[test]
fn a_syslog_that_stands_still_stops_nothing() {
    let Some(live) = Live::require() else { return };
    let private = Private::enter(&live);
    private.files(&with_rules(&alice(&live)));
    // Never read from.
    let _syslog = UnixDatagram::bind("/dev/log").unwrap();
    let mut command = Command::new(OURS);
    let mut child = Foreground::start(command.args(["-n", "-vvv"]));
    let first = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("pids", first.subject, "cgt-alice");
    // The queue is full when this loop ends, so the next line of the daemon blocks.
    let other = UnixDatagram::unbound().unwrap();
    other.connect("/dev/log").unwrap();
    other.set_nonblocking(true).unwrap();
    let full = (0..100_000).find_map(|_| other.send(b"x").err()).expect("the queue has an end");
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock, "{full}");
    for _ in 0..40 {
        let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
        live.expect_pid("pids", actor.subject, "cgt-alice");
    }
    kill(Pid::from_raw(child.0.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert!(eventually(PATIENCE, || child.0.try_wait().unwrap().is_some()));
}

#[test]
fn every_option_stands_in_the_manual_page() {
    let page = include_str!("../packaging/man/cgrulesengd.8").replace('\\', "");
    for name in ["help", "verbose", "quiet", "nolog", "logfile", "syslog", "nodaemon", "debug"]
        .into_iter()
        .chain(["socket-user", "socket-group", "strict"])
    {
        assert!(page.contains(&format!("--{name}")), "--{name}");
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man/cgrulesengd.8");
    let Ok(output) = Command::new("man").args(["--warnings", "-l"]).arg(page).output() else {
        return;
    };
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(!warnings.contains("warning"), "{warnings}");
}

#[test]
fn the_migration_page_quotes_real_messages() {
    let page = include_str!("../packaging/doc/migration.md");
    let sources = [
        include_str!("../src/config/cgrules_conf.rs"),
        include_str!("../src/policy/load/trust.rs"),
        include_str!("../src/policy/load/resolver.rs"),
        include_str!("../src/policy/rebuild.rs"),
        include_str!("../src/policy/rebuild/controllers.rs"),
        include_str!("../src/engine/placer.rs"),
        include_str!("../src/engine/placer/attach.rs"),
        include_str!("../src/compat/cgrulesengd/legacy_log.rs"),
    ];
    for quote in [
        "cgrulesengd would refuse the whole file",
        "is owned by",
        "is writable by",
        "rule ignored: none of its users or groups exist",
        "on this host",
        "no cgroup hierarchy of this host has the controller",
        "using the last line",
        "stays where it is",
        "FAILED!",
    ] {
        assert!(page.contains(quote), "{quote} is not on the page");
        assert!(sources.iter().any(|source| source.contains(quote)), "no message contains {quote}");
    }
    // The migration guide must be reachable from the README.
    assert!(include_str!("../README.md").contains("packaging/doc/migration.md"));
}
