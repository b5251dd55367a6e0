//! Tests `cgrulectl doctor` on this host.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use serde_json::Value;

use crate::harness::Live;
use crate::harness::user::ALICE;

const PROGRAM: &str = env!("CARGO_BIN_EXE_cgrulectl");

/// Runs the command with the settings of the test, so that cgroups begin below the test cgroup.
fn doctor(live: &Live, mut command: Command) -> Output {
    let config = live.path("doctor.toml");
    fs::write(&config, format!("root = \"{}\"\n", live.ground.at("").trim_end_matches('/')))
        .unwrap();
    command.args(["doctor", "--json", "--config"]).arg(config).output().unwrap()
}

/// Returns state and text of the findings on a topic.
fn about(output: &Output, topic: &str) -> Vec<(String, String)> {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let of = findings.filter(|finding| finding["topic"] == topic);
    of.map(|finding| (text(finding, "state"), text(finding, "text"))).collect()
}

#[test]
fn this_host_is_well_and_nothing_is_left() {
    let Some(live) = Live::require() else { return };
    let output = doctor(&live, Command::new(PROGRAM));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(about(&output, "events")[0].0, "ok");
    let (state, text) = &about(&output, "latency")[0];
    assert!(state == "ok" && text.starts_with("a move takes "), "{text}");
    assert!(text.contains("after a pause of 2 s"), "{text}");
    let ground = fs::read_dir(live.ground.directory("", "").unwrap()).unwrap().flatten();
    assert_eq!(ground.filter(|entry| entry.path().is_dir()).count(), 0, "groups are left");
}

#[test]
fn a_host_without_events_is_wrong() {
    let Some(live) = Live::require() else { return };
    let mut command = Command::new("unshare");
    command.args(["--net", "--", PROGRAM]);
    let output = doctor(&live, command);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (state, text) = &about(&output, "events")[0];
    assert!(state == "wrong" && text.contains("network namespace"), "{text}");
}

#[test]
fn without_root_it_reports_the_skipped_tests() {
    let Some(live) = Live::require() else { return };
    let mut command = Command::new(PROGRAM);
    command.uid(ALICE);
    let output = doctor(&live, command);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(about(&output, "events")[0].1, "not tested");
    assert_eq!(about(&output, "latency")[0].1, "not measured");
}
