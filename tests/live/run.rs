//! Tests `cgrulectl run`: a command that starts in a cgroup, also as another user.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::user::{ALICE, TEAM};
use crate::harness::{BASE, Live};
use crate::sticky::private_run;

const RULES: &str = "[[rule]]\nname = \"shells\"\nuser = \"cgt-alice\"\nexe = \"dash\"\ncgroup = \"shells/%u\"\n\
                     [[rule]]\nuser = \"cgt-alice\"\ncgroup = \"there\"\n\
                     [cgroup.\"shells/%u\"]\npids.max = 77\n";
const LOOK: &str = "cat /proc/self/cgroup; id -u; id -G; echo $HOME $USER; exit 7";

/// Returns `cgrulectl run` with the rules of the test.
fn cgrulectl(live: &Live) -> Command {
    let config = live.path("run.toml");
    fs::write(&config, format!("root = \"{}\"\n", live.ground.at("").trim_end_matches('/')))
        .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_cgrulectl"));
    command
        .args(["run", "--no-legacy", "--rules", &format!("{BASE}/rules.d"), "--config"])
        .arg(config);
    command
}

fn run(live: &Live, arguments: &[&str]) -> (Output, String) {
    let output = cgrulectl(live).args(arguments).output().unwrap();
    let all = [output.stdout.as_slice(), b"--\n", output.stderr.as_slice()].concat();
    let all = String::from_utf8_lossy(&all).into_owned();
    (output, all)
}

#[test]
fn a_command_starts_in_the_cgroup_of_its_rule_as_its_user() {
    let Some(live) = Live::require() else { return };
    live.write_rules(RULES);
    let (output, all) = run(&live, &["--user", "cgt-alice", "--", "sh", "-c", LOOK]);
    assert_eq!(output.status.code(), Some(7), "{all}");
    let group = live.ground.at("shells/cgt-alice");
    let lines: Vec<&str> = all.lines().collect();
    assert!(lines.contains(&format!("0::{group}").as_str()), "{all}");
    assert!(
        all.contains(&format!("\n{ALICE}\n{ALICE} {TEAM}\n/nonexistent cgt-alice\n--\n")),
        "{all}"
    );
    if let Some(pids) = live.ground.directory("pids", "shells/cgt-alice/pids.max") {
        assert!(lines.iter().any(|line| line.ends_with(&format!(":pids:{group}"))), "{all}");
        assert_eq!(fs::read_to_string(pids).unwrap(), "77\n");
    }
    let (_, all) = run(&live, &["--user", &ALICE.to_string(), "cat", "/proc/self/cgroup"]);
    assert!(all.contains(&format!("0::{}", live.ground.at("there"))), "{all}");
}

#[test]
fn a_chosen_cgroup_is_created() {
    let Some(live) = Live::require() else { return };
    live.write_rules(RULES);
    let choice =
        ["--cgroup", "mine/%u", "--group", "cgt-team", "--controllers", "pids", "id", "-g"];
    let (output, all) = run(&live, &choice);
    assert!(output.status.success(), "{all}");
    assert_eq!(all, format!("{TEAM}\n--\n"));
    assert!(live.ground.directory("", "mine/root").unwrap().is_dir());
    // The controllers come from the table of the cgroup, as the command line does not name any.
    let (_, all) = run(&live, &["--cgroup", "shells/%u", "cat", "/proc/self/cgroup"]);
    assert!(all.contains(&format!(":pids:{}", live.ground.at("shells/root"))), "{all}");
}

#[test]
fn failures_have_the_codes_of_env() {
    let Some(live) = Live::require() else { return };
    live.write_rules(RULES);
    let code = |arguments: &[&str], text: &str| {
        let (output, all) = run(&live, arguments);
        assert!(all.contains(text), "{text} is not in {all}");
        output.status.code()
    };
    let marker = live.path("ran");
    let touch = marker.to_str().unwrap();
    assert_eq!(code(&["no-such-program"], "command not found"), Some(127));
    assert_eq!(code(&["/etc/passwd"], "Permission denied"), Some(126));
    assert_eq!(code(&["--user", "no-such-user", "true"], "unknown user"), Some(125));
    let wrong = ["--cgroup", "x", "--controllers", "no_such", "touch", touch];
    assert_eq!(code(&wrong, "no cgroup hierarchy of this host has"), Some(125));
    assert_eq!(code(&["--cgroup", "../x", "touch", touch], "--cgroup ../x"), Some(2));
    assert_eq!(code(&["--controllers", "cpu", "touch", touch], "--cgroup"), Some(2));
    assert_eq!(code(&[], "missing COMMAND"), Some(2));
    assert!(!marker.exists(), "a command ran that could not be placed");
    let output = cgrulectl(&live).arg("true").uid(ALICE).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("root privileges are needed"));
}

#[test]
fn a_rule_that_would_move_it_is_reported_unless_the_daemon_keeps_it() {
    let Some(live) = Live::require() else { return };
    let _run = private_run();
    live.write_rules(RULES);
    let look = "echo begun; read go; cat /proc/$$/cgroup";
    let own = ["--user", "cgt-alice", "--cgroup", "mine", "--", "sh", "-c", look];
    let (_, all) = run(&live, &own);
    assert!(
        all.contains("the rule \"shells\"") && all.contains("/shells/cgt-alice: no daemon"),
        "{all}"
    );
    let daemon = live.legacy_daemon(RULES);
    let mut child = cgrulectl(&live)
        .args(own)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut begun = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut begun).unwrap();
    // The command has started, and the daemon has evaluated it.
    live.fence();
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let all = String::from_utf8_lossy(&output.stdout);
    assert!(Path::new("/run/cgred.socket").exists() && output.stderr.is_empty(), "{output:?}");
    assert!(all.contains(&format!("0::{}", live.ground.at("mine"))), "{all}");
    daemon.stop();
}
