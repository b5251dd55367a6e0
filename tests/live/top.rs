//! Tests `cgrulectl top` on real cgroups: printed, and in a terminal of 80 columns and 24 lines.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::user::CAROL;
use crate::harness::{Actor, BASE, Live, PATIENCE, eventually};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cgrulectl");
const RULES: &str = "[[rule]]\nname = \"people\"\nuser = \"cgt-carol\"\ncgroup = \"load/%u\"\n\
                     [cgroup.\"load/%u\"]\npids.max = 100\n";

/// Returns the arguments that make the tool read the rules of the test.
fn arguments(live: &Live) -> Vec<String> {
    let config = live.path("top.toml");
    fs::write(&config, format!("root = \"{}\"\n", live.ground.at("").trim_end_matches('/')))
        .unwrap();
    let config = config.to_str().unwrap().to_owned();
    let rules = format!("{BASE}/rules.d");
    ["top", "--no-legacy", "--rules", &rules, "--config", &config].map(str::to_owned).to_vec()
}

/// Starts a process in the cgroup of the rule.
fn placed(live: &Live) -> Actor {
    let _daemon = live.daemon(RULES);
    let actor = live.hold(&format!("uid {CAROL} {CAROL}"));
    live.expect(&actor, "load/cgt-carol");
    if live.ground.directory("pids", "").is_some() {
        live.expect_pid("pids", actor.subject, "load/cgt-carol");
    }
    actor
}

fn top(live: &Live, more: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments(live)).args(more).output().unwrap()
}

#[test]
fn a_group_is_shown_with_its_rule() {
    let Some(live) = Live::require() else { return };
    let _actor = placed(&live);
    let output = top(&live, &["--once", "--delay", "100ms"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.starts_with("cgroups 1  CPU "), "{output:?}");
    let row = text.lines().nth(2).unwrap();
    assert!(row.starts_with("load/cgt-carol ") && row.ends_with(" people"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    let output = top(&live, &["--json", "-n", "2", "-d", "100ms"]);
    let lines: Vec<Value> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{output:?}");
    let group = &lines[1]["groups"][0];
    assert_eq!(group["cgroup"], live.ground.at("load/cgt-carol"));
    assert_eq!((&group["rule"], &group["rules"]), (&Value::from("people"), &Value::from(1)));
    assert_eq!(group["tasks"], 1);
    assert!(group["cpu_percent"].is_number() && lines[1]["interval_ms"].as_u64() >= Some(100));
}

#[test]
fn wrong_options_are_usage() {
    let Some(live) = Live::require() else { return };
    for wrong in [["--delay", "soon"], ["--delay", "1ms"], ["-n", "0"], ["--sort", "x"]] {
        assert_eq!(top(&live, &wrong).status.code(), Some(2), "{wrong:?}");
    }
}

/// A terminal with the tool; stopped on drop.
struct Tmux {
    socket: String,
}

impl Tmux {
    /// Returns `None` if tmux is missing and the tests are optional.
    fn start(live: &Live, command: &str) -> Option<Self> {
        if Command::new("tmux").arg("-V").output().is_err() {
            assert!(std::env::var_os("CGRULED_LIVE").is_none(), "no tmux");
            println!("skipped: no tmux");
            return None;
        }
        let tmux = Self { socket: live.path("tmux").to_str().unwrap().to_owned() };
        let size = ["new-session", "-d", "-x", "80", "-y", "24", command];
        let output = tmux.run(&size);
        assert!(output.status.success(), "{output:?}");
        Some(tmux)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        command.env("LANG", "C.UTF-8").env_remove("LC_ALL").env_remove("TMUX");
        command.args(["-u", "-f", "/dev/null", "-S", &self.socket]).args(arguments);
        command.output().unwrap()
    }

    fn key(&self, key: &str) {
        assert!(self.run(&["send-keys", key]).status.success());
    }

    /// Returns the PID of the tool, a child of the shell of the terminal.
    fn tool(&self) -> Pid {
        let output = self.run(&["display-message", "-p", "#{pane_pid}"]);
        let mut pid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        while fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() != "cgrulectl\n" {
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
            pid = children.split_whitespace().next().unwrap().to_owned();
        }
        Pid::from_raw(pid.parse().unwrap())
    }

    /// Waits until the screen satisfies the condition.
    fn expect(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let mut screen = String::new();
        let came = eventually(PATIENCE, || {
            let output = self.run(&["capture-pane", "-p"]);
            screen = String::from_utf8_lossy(&output.stdout).into_owned();
            is_so(&screen)
        });
        assert!(came, "{what} never appeared:\n{screen}");
        screen
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

/// Checks that the terminal is restored when the tool is stopped by `end`.
fn ends_by(end: impl Fn(&Tmux)) {
    let Some(live) = Live::require() else { return };
    let _actor = placed(&live);
    let line = arguments(&live).join(" ");
    let command = format!(
        "sh -c 'trap : INT; {PROGRAM} {line} --delay 200ms; echo code $?; stty -a | tr \" \" \"\\n\" | grep canon; sleep 60'"
    );
    let Some(tmux) = Tmux::start(&live, &command) else { return };
    // The last line too: the screen may be captured while it is drawn.
    let screen = tmux.expect("the table", |screen| screen.contains("-  memory"));
    let lines: Vec<&str> = screen.lines().collect();
    assert!(lines[0].starts_with("cgroups 1  CPU "), "{screen}");
    assert!(lines[1].contains("c:*cpu") && lines[2].starts_with("CGROUP "), "{screen}");
    assert!(lines[3].starts_with("load/cgt-carol ") && lines[3].ends_with("people"), "{screen}");
    assert!(lines[4].starts_with("-  memory"), "the rule needs no controller: {screen}");
    assert!(lines[5..].iter().all(|line| line.is_empty()), "{screen}");
    tmux.key("m");
    tmux.expect("another order", |screen| screen.contains("m:*memory"));
    tmux.run(&["resize-window", "-x", "120", "-y", "10"]);
    tmux.expect("a wider table", |screen| {
        let header = screen.lines().nth(2).unwrap_or_default();
        header.find("RULE").is_some_and(|at| at > 70)
    });
    std::thread::sleep(Duration::from_millis(300));
    end(&tmux);
    let screen = tmux.expect("the end", |screen| screen.contains("canon"));
    assert!(screen.contains("code 0") && !screen.contains("CGROUP"), "{screen}");
    assert!(screen.lines().any(|line| line.trim() == "icanon"), "{screen}");
}

#[test]
fn a_terminal_is_given_back_by_q() {
    ends_by(|tmux| tmux.key("q"));
}

#[test]
fn a_terminal_is_given_back_by_an_interrupt() {
    ends_by(|tmux| tmux.key("C-c"));
}

#[test]
fn a_terminal_is_given_back_by_a_signal() {
    ends_by(|tmux| kill(tmux.tool(), Signal::SIGTERM).unwrap());
}

#[test]
fn a_terminal_is_given_back_while_it_is_stopped() {
    ends_by(|tmux| {
        let tool = tmux.tool();
        kill(tool, Signal::SIGTSTP).unwrap();
        tmux.expect("the other screen", |screen| !screen.contains("CGROUP"));
        kill(tool, Signal::SIGCONT).unwrap();
        tmux.expect("the table again", |screen| screen.contains("CGROUP"));
        tmux.key("q");
    });
}
