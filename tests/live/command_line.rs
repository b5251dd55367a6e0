//! Tests arguments and exit codes.

use std::fs;
use std::process::{Command, Output};

use crate::harness::user::ALICE;
use crate::harness::{BASE, Live, cgruled, run};

const GOOD: &str = "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"a\"\n";
const BAD: &str = "[[rule]]\nuser = \"cgt-alice\"\n";

/// Runs `cgruled --check` on one rule file.
fn check(rules: &str) -> Option<Output> {
    let live = Live::require()?;
    live.write_rules(rules);
    Some(run(&format!("--no-legacy --check --rules {BASE}/rules.d")))
}

fn text(output: &Output) -> String {
    let both = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&both).into_owned()
}

#[test]
fn check_of_good_rules_is_0() {
    let Some(output) = check(GOOD) else { return };
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn check_of_invalid_rules_is_65_with_the_location() {
    let Some(output) = check(&format!("{GOOD}{BAD}{BAD}")) else { return };
    let said = text(&output);
    assert_eq!(output.status.code(), Some(65), "{said}");
    for line in [5, 7] {
        assert!(said.contains(&format!("{BASE}/rules.d/50-test.toml:{line}:")), "{said}");
    }
}

#[test]
fn check_of_broken_toml_is_65() {
    let Some(output) = check("[[rule]\n") else { return };
    assert_eq!(output.status.code(), Some(65), "{}", text(&output));
}

#[test]
fn an_unknown_flag_is_2() {
    assert_eq!(run("--no-such-flag").status.code(), Some(2));
}

#[test]
fn a_missing_value_is_2() {
    assert_eq!(run("--rules").status.code(), Some(2));
}

#[test]
fn a_stray_argument_is_2() {
    assert_eq!(run("stray").status.code(), Some(2));
}

#[test]
fn sigterm_is_0_with_counters() {
    let Some(live) = Live::require() else { return };
    let daemon = live.daemon(GOOD);
    live.expect(&live.hold(&format!("uid {ALICE} {ALICE}")), "a");
    let counters = daemon.stop();
    assert_eq!(counters.get("placed"), 1, "{counters:?}");
    assert_eq!(counters.get("lost_events"), 0, "{counters:?}");
}

/// Checks an exit code after which a service manager must not restart the daemon.
#[test]
fn a_log_or_a_socket_that_cannot_be_created_is_65() {
    let Some(live) = Live::require() else { return };
    live.write_rules(GOOD);
    for setting in [
        "log = { file = \"/nonexistent/log\" }",
        "log.file = \"/proc\"",
        "control_socket = \"/proc/nowhere/control.sock\"",
    ] {
        fs::write(live.path("cgruled.toml"), setting).unwrap();
        let output =
            run(&format!("--no-legacy --config {BASE}/cgruled.toml --rules {BASE}/rules.d"));
        let said = text(&output);
        assert_eq!(output.status.code(), Some(65), "{setting}: {said}");
        assert!(said.contains("/nonexistent/log") || said.contains("/proc"), "{setting}: {said}");
    }
}

/// Runs the daemon in a namespace where the proc connector does not work. The alarm of the actor
/// stops it should it not detect this.
fn in_namespace(step: &str) {
    let Some(live) = Live::require() else { return };
    live.write_rules(GOOD);
    let program = cgruled().get_program().to_owned();
    let output = Command::new(live.path("bin/actors"))
        .args([step, "exec"])
        .arg(program)
        .args(["cgruled", "--no-legacy", "--rules"])
        .arg(live.path("rules.d"))
        .output()
        .unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(78), "{said}");
    assert!(!said.trim().is_empty() && !said.contains("panicked"), "{said}");
}

#[test]
fn a_foreign_network_namespace_is_78() {
    in_namespace("netns");
}

#[test]
fn a_foreign_user_namespace_is_78() {
    in_namespace("userns");
}
