//! Tests arguments and exit codes.

use std::fs;
use std::process::{Command, Output};

use crate::harness::user::ALICE;
use crate::harness::{BASE, Live, Settings, Surroundings, cgruled, run};

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

/// Standard outputs that take nothing: a full disk, and a pipe that nobody reads.
const UNWRITABLE: [&str; 2] = ["exec \"$@\" > /dev/full", "exec \"$@\" > >(true)"];

#[test]
fn sigterm_is_0_where_the_counters_cannot_be_printed() {
    let Some(live) = Live::require() else { return };
    for redirection in UNWRITABLE {
        let launcher = ["bash", "-c", redirection, "bash"];
        let on = Surroundings { launcher: &launcher, ..Surroundings::default() };
        let daemon = live.daemon_on(GOOD, &Settings::default(), &on);
        live.expect(&live.hold(&format!("uid {ALICE} {ALICE}")), "a");
        // Asserts the status 0.
        let _counters = daemon.stop();
    }
}

/// Checks that an exit status does not depend on whether the text can be printed.
#[test]
fn exit_statuses_are_the_same_where_nothing_can_be_printed() {
    let Some(live) = Live::require() else { return };
    live.write_rules(BAD);
    let check = format!("--no-legacy --check --rules {BASE}/rules.d");
    for (arguments, code) in [(&*check, 65), ("--nonsense", 2), ("--help", 0)] {
        for redirection in UNWRITABLE {
            let output = Command::new("bash")
                .args(["-c", &format!("{redirection} 2>&1"), "bash", env!("CARGO_BIN_EXE_cgruled")])
                .args(arguments.split_whitespace())
                .output()
                .unwrap();
            assert_eq!(output.status.code(), Some(code), "{arguments}: {output:?}");
        }
    }
}
