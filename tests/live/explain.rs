//! Tests `cgrulectl explain` with and without a daemon.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::harness::user::{ALICE, BOB};
use crate::harness::{BASE, Daemon, Live, Settings};

const ALICE_THERE: &str =
    "[[rule]]\nname = \"alice's\"\nuser = \"cgt-alice\"\ncgroup = \"there/%u\"\n";

/// Starts a daemon with a control socket.
fn daemon(live: &Live, rules: &str, config: &str) -> Daemon {
    let socket = format!("{BASE}/control.sock");
    live.daemon_with(rules, &Settings { config, arguments: &["--control", &socket] })
}

fn explain(arguments: &[&str]) -> Output {
    explain_command(arguments).output().unwrap()
}

fn explain_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cgrulectl"));
    command
        .args(["explain", "--no-legacy", "--config", &format!("{BASE}/cgruled.toml")])
        .args(["--rules", &format!("{BASE}/rules.d"), "--socket", &format!("{BASE}/control.sock")])
        .args(arguments)
        .stdin(Stdio::null());
    command
}

/// Returns standard output; the exit code must be `code`.
fn said(output: &Output, code: i32) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}{errors}");
    text
}

fn expect(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn the_mover_of_a_process_that_was_moved_back_is_named() {
    let Some(live) = Live::require() else { return };
    let daemon = daemon(&live, ALICE_THERE, "");
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&alice, "there/cgt-alice");
    std::thread::sleep(std::time::Duration::from_millis(1200));
    live.ground.take_away(alice.subject);
    daemon.expect_log("it is moved back");
    live.expect(&alice, "there/cgt-alice");
    let text = said(&explain(&[&alice.subject.to_string()]), 0);
    let mover = format!("(process {} of", std::process::id());
    expect(
        &text,
        &["is in the cgroup of its rule", "last     external move ", "ago: it was moved to /"],
    );
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    expect(&words, &[&mover, "and moved back"]);
    let text = said(&explain(&["--json", &alice.subject.to_string()]), 0);
    expect(&text, &["\"external_move\"", &mover]);
}

#[test]
fn a_process_in_place_and_one_without_a_rule() {
    let Some(live) = Live::require() else { return };
    let _daemon = daemon(&live, ALICE_THERE, "");
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&alice, "there/cgt-alice");
    let bob = live.hold(&format!("uid {BOB} {BOB}"));
    let text = said(&explain(&[&alice.subject.to_string()]), 0);
    let place = format!("actual   {}", live.ground.at("there/cgt-alice"));
    expect(&text, &["is in the cgroup of its rule", "\"alice's\", ", &place, "cgt-alice (61701)"]);
    expect(&text, &["since    ", " ago, when the daemon moved it there"]);
    // The base of cgroups was given to the daemon on the command line, not in a file.
    let imagined = said(&explain(&["--user", "cgt-alice"]), 0);
    expect(&imagined, &[&format!("expected {}", live.ground.at("there/cgt-alice"))]);
    let text = said(&explain(&[&bob.subject.to_string()]), 0);
    expect(&text, &["no rule matches", "needs user cgt-alice"]);
}

/// Checks that paths have a single leading slash when the base is the hierarchy root,
/// as it is without systemd.
#[test]
fn at_the_hierarchy_root_a_process_is_in_place() {
    let Some(live) = Live::require() else { return };
    let group = live.ground.at("there/%u");
    let rules = format!("[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"{group}\"\n");
    let socket = format!("{BASE}/control.sock");
    let arguments = &["--control", &socket, "--root", "/"];
    let _daemon = live.daemon_with(&rules, &Settings { config: "", arguments });
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&alice, "there/cgt-alice");
    let text = said(&explain(&[&alice.subject.to_string()]), 0);
    let place = format!("actual   {}", live.ground.at("there/cgt-alice"));
    expect(&text, &["is in the cgroup of its rule", &place]);
}

#[test]
fn a_process_moved_away_is_misplaced_and_its_mover_is_named() {
    let Some(live) = Live::require() else { return };
    let daemon = daemon(&live, ALICE_THERE, "recheck = \"1s\"\n");
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    for _ in 0..2 {
        live.expect(&alice, "there/cgt-alice");
        live.ground.take_away(alice.subject);
    }
    daemon.expect_log("is left there");
    let output = explain(&[&alice.subject.to_string()]);
    let wanted = format!("expected {}", live.ground.at("there/cgt-alice"));
    expect(
        &said(&output, 1),
        &["is NOT in the cgroup of its rule", &wanted, "external move: it was moved to", "is left"],
    );
}

#[test]
fn a_move_after_the_recheck_is_distinguished_from_no_move() {
    let Some(live) = Live::require() else { return };
    let daemon = daemon(&live, ALICE_THERE, "recheck = \"off\"\n");
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&alice, "there/cgt-alice");
    live.ground.take_away(alice.subject);
    let text = said(&explain(&[&alice.subject.to_string()]), 1);
    expect(&text, &["is NOT in the cgroup of its rule", "ago: the daemon moved it last"]);
    assert_eq!(daemon.stop().get("external_moves_found"), 0);
}

#[test]
fn without_a_daemon_the_files_are_enough() {
    let Some(live) = Live::require() else { return };
    live.write_rules(ALICE_THERE);
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    let text = said(&explain(&[&alice.subject.to_string()]), 1);
    expect(
        &text,
        &[
            "is NOT in the cgroup of its rule",
            "expected /there/cgt-alice",
            "the daemon is not running",
        ],
    );
    let text = said(&explain(&["--user", "cgt-alice", "--exe", "/bin/sh"]), 0);
    expect(&text, &["would be moved by a rule", "expected /there/cgt-alice"]);
}

/// Returns the output of `cgrulectl` for the files of the test.
fn ctl(command: &str, flag: &str) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_cgrulectl"))
        .args([command, "--no-legacy", "--config", &format!("{BASE}/cgruled.toml"), "--rules"])
        .args([&format!("{BASE}/rules.d"), "--socket", &format!("{BASE}/control.sock")])
        .args((!flag.is_empty()).then_some(flag))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_file_kept_at_its_last_valid_version_is_explained_as_active() {
    let Some(live) = Live::require() else { return };
    let daemon = daemon(&live, ALICE_THERE, "");
    // A file with new errors keeps its last valid version.
    live.write_rules("[[rule]]\nuser = \"cgt-bob\"\ncgroup = \"b\"\n[[rule]]\nuser = 7\n");
    daemon.expect_log("the last valid version stays active");
    live.rule_file("70-new.toml", "[[rule]]\nuser = \"cgt-carol\"\ncgroup = \"c\"\n");
    daemon.expect_log("active: 3 rules");
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&alice, "there/cgt-alice");
    let output = explain(&[&alice.subject.to_string()]);
    expect(&said(&output, 0), &["is in the cgroup of its rule", "50-test.toml"]);
    let note = "50-test.toml kept at last valid version, read ";
    assert!(String::from_utf8_lossy(&output.stderr).contains(note), "{output:?}");
    let bob = live.hold(&format!("uid {BOB} {BOB}"));
    expect(&said(&explain(&[&bob.subject.to_string()]), 0), &["no rule matches"]);
    let (list, last_decision) = ctl("list", "--json");
    assert!(
        list.contains("there/%u") && !list.contains("\"b\"") && list.contains("\"c\""),
        "{list}"
    );
    assert!(last_decision.contains(note), "{last_decision}");
    let (files, _) = ctl("cat", "");
    assert!(files.contains("there/%u") && !files.contains("cgt-bob"), "{files}");
    let (table, _) = ctl("top", "--once");
    assert!(table.contains("there/cgt-alice"), "{table}");
    live.write_rules(ALICE_THERE);
    daemon.expect_log("active: 3 rules from 3 files, 0 errors\n");
    assert_eq!(ctl("list", "").1, "");
}

#[test]
fn without_the_rules_of_the_daemon_no_process_is_evaluated() {
    let Some(live) = Live::require() else { return };
    let other = live.path("other.d");
    fs::create_dir_all(&other).unwrap();
    let bob = "version = 1\n[[rule]]\nuser = \"cgt-bob\"\ncgroup = \"b\"\n";
    fs::write(other.join("10-bob.toml"), bob).unwrap();
    let (socket, other) = (format!("{BASE}/control.sock"), other.display().to_string());
    let arguments = &["--control", &socket, "--rules", &other];
    let daemon = live.daemon_with(ALICE_THERE, &Settings { config: "", arguments });
    let bob = live.hold(&format!("uid {BOB} {BOB}"));
    live.expect(&bob, "b");
    let pid = bob.subject.to_string();
    let output = explain(&[&pid]);
    expect(&said(&output, 0), &["cannot be evaluated: the daemon's active rules differ"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("omit the options"), "{output:?}");
    expect(&said(&explain(&["--json", &pid]), 0), &["\"state\": \"unsure\""]);
    // Without options that name files: by the rules that the daemon has active, wherever they are.
    let of_daemon = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cgrulectl"));
        command.args(["explain", &pid, "--socket", &socket]).stdin(Stdio::null()).output().unwrap()
    };
    let output = of_daemon();
    expect(&said(&output, 0), &["is in the cgroup of its rule", "10-bob.toml:3"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    // A file that the daemon cannot use changes nothing.
    fs::write(Path::new(&other).join("20-carol.toml"), "version = 1\n[[rule]\n").unwrap();
    daemon.expect_log("20-carol.toml");
    expect(&said(&of_daemon(), 0), &["is in the cgroup of its rule", "10-bob.toml:3"]);
}

#[test]
fn a_process_in_the_cgroup_of_a_removed_rule_is_explained() {
    let Some(live) = Live::require() else { return };
    let daemon = daemon(&live, ALICE_THERE, "");
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect(&alice, "there/cgt-alice");
    live.write_rules("");
    daemon.expect_log("active: 1 rule from 1 file");
    let text = said(&explain(&[&alice.subject.to_string()]), 0);
    let expected = [
        "is not moved: no rule matches",
        "reason   it is in a cgroup of a rule that no longer exists",
        "\"there/%u\"",
    ];
    expect(&text, &expected);
}

#[test]
fn a_kernel_thread_is_protected() {
    let Some(live) = Live::require() else { return };
    // No daemon has loaded this rule.
    live.write_rules("[[rule]]\nuser = \"root\"\ncgroup = \"never\"\n");
    let text = said(&explain(&["2"]), 0);
    expect(&text, &["is protected", "exe      none", "/never"]);
    // The daemon moves the threads that a rule names.
    live.write_rules(
        "[[rule]]\nexe = \"kthreadd\"\nexe_anywhere = true\ncgroup = \"threads/%p\"\n",
    );
    let text = said(&explain(&["2"]), 1);
    expect(&text, &["is NOT in the cgroup of its rule", "/threads/kthreadd"]);
}

/// Checks that a hypothetical process has the executable that the daemon will see.
#[test]
fn a_script_is_explained_by_the_last_interpreter() {
    let Some(live) = Live::require() else { return };
    let shell = fs::canonicalize("/bin/sh").unwrap();
    live.write_rules(&format!(
        "[[rule]]\nuser = \"cgt-alice\"\nexe = {shell:?}\ncgroup = \"there\"\n"
    ));
    let script = format!("{BASE}/by-env");
    fs::write(&script, "#!/usr/bin/env sh\n").unwrap();
    set_mode(Path::new(&script), 0o755);
    let text = said(&explain(&["--user", "cgt-alice", "--exe", &script]), 0);
    expect(&text, &["would be moved by a rule", &script]);
}

/// Checks that a link found in PATH does not match by its name: the daemon finds no file of that
/// name in the arguments.
#[test]
fn a_link_in_the_path_is_explained_by_its_target() {
    let Some(live) = Live::require() else { return };
    live.write_rules("[[rule]]\nuser = \"cgt-alice\"\nexe = \"cgt-link\"\ncgroup = \"there\"\n");
    let directory = format!("{BASE}/bin");
    fs::create_dir_all(&directory).unwrap();
    let link = format!("{directory}/cgt-link");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink("/bin/sleep", &link).unwrap();
    let imagine = |exe: &str| {
        let mut command = explain_command(&["--user", "cgt-alice", "--exe", exe]);
        command.env("PATH", &directory).output().unwrap()
    };
    expect(&said(&imagine("cgt-link"), 0), &["no rule matches"]);
    expect(&said(&imagine(&link), 0), &["would be moved by a rule"]);
}

#[test]
fn a_process_cannot_forge_a_line() {
    let Some(live) = Live::require() else { return };
    live.write_rules(ALICE_THERE);
    let program = live.program("bin/a\n\u{1b}[31mb");
    let mut command = Command::new(program);
    command.arg("hold").uid(ALICE).gid(ALICE).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().unwrap();
    let output = explain(&[&child.id().to_string()]);
    drop(child.stdin.take());
    child.wait().unwrap();
    let text = said(&output, 1);
    expect(&text, &["(a\\u{a}\\u{1b}[31mb)", "bin/a\\u{a}\\u{1b}[31mb"]);
    assert!(text.chars().all(|character| character == '\n' || !character.is_control()), "{text:?}");
}

#[test]
fn a_missing_process_is_reported() {
    let Some(live) = Live::require() else { return };
    live.write_rules(ALICE_THERE);
    let output = explain(&["4000000"]);
    assert_eq!(said(&output, 1), "");
    expect(&String::from_utf8_lossy(&output.stderr), &["process 4000000 does not exist"]);
    for wrong in [&[][..], &["x"], &["0"], &["--user", "cgt-nobody"], &["1", "--user", "root"]] {
        said(&explain(wrong), 2);
    }
}

#[test]
fn an_unprivileged_user_gets_the_reason_for_missing_facts() {
    let Some(live) = Live::require() else { return };
    let rules = "[[rule]]\nuser = \"cgt-alice\"\nexe = \"/x\"\ncgroup = \"there\"\n";
    live.write_rules(rules);
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    let tool = live.path("bin/cgrulectl");
    fs::copy(env!("CARGO_BIN_EXE_cgrulectl"), &tool).unwrap();
    let mut command = Command::new(tool);
    command.uid(BOB).gid(BOB).args(["explain", "--no-legacy", "--rules"]);
    let output = command.arg(live.path("rules.d")).arg(alice.subject.to_string()).output().unwrap();
    let text = said(&output, 0);
    expect(
        &text,
        &[
            "cannot be evaluated",
            "only root can read it",
            "a rule needs its executable, which is unknown",
        ],
    );
}

/// Runs `explain` without root privileges, from a copy of the tool that bob may execute.
fn explain_as_bob(live: &Live, arguments: &[&str]) -> Output {
    let tool = live.path("bin/cgrulectl");
    fs::copy(env!("CARGO_BIN_EXE_cgrulectl"), &tool).unwrap();
    let mut command = Command::new(tool);
    command.uid(BOB).gid(BOB).args(arguments).args(["--no-legacy", "--rules"]);
    command.arg(live.path("rules.d")).args(["--config", "/nonexistent"]).output().unwrap()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn a_user_without_access_to_the_rules_gets_no_verdict() {
    let Some(live) = Live::require() else { return };
    live.write_rules(ALICE_THERE);
    let directory = live.path("rules.d");
    let file = fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
    let bob = live.hold(&format!("uid {BOB} {BOB}"));
    let pid = bob.subject.to_string();
    let text = said(&explain_as_bob(&live, &["explain", &pid]), 0);
    expect(&text, &["no rule matches"]);
    for (path, mode) in [(&file, 0o600), (&directory, 0o700), (&directory, 0o711)] {
        set_mode(path, mode);
        let text = said(&explain_as_bob(&live, &["explain", &pid]), 0);
        expect(&text, &["cannot be evaluated", path.to_str().unwrap(), "cgrulectl as root"]);
        let text = said(&explain_as_bob(&live, &["explain", "--json", &pid]), 0);
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer[0]["state"], "unsure", "{text}");
        assert!(answer[0]["caveats"][0].as_str().unwrap().contains("cgrulectl as root"), "{text}");
        let text = said(&explain_as_bob(&live, &["explain", "--user", "cgt-bob"]), 0);
        expect(&text, &["The hypothetical process cannot be evaluated", path.to_str().unwrap()]);
        let top = explain_as_bob(&live, &["top", "--once"]);
        let text = said(&top, 0);
        assert!(path == &file || text.contains("No rules found"), "{text}");
        expect(&String::from_utf8_lossy(&top.stderr), &[path.to_str().unwrap()]);
        set_mode(path, 0o755);
    }
}

#[test]
fn a_hypothetical_process_without_a_program_is_evaluated_where_no_rule_needs_one() {
    let Some(live) = Live::require() else { return };
    live.write_rules("[[rule]]\nuser = \"cgt-alice\"\nexe = \"/x/sleep\"\ncgroup = \"there\"\n");
    let text = said(&explain(&["--json", "--user", "cgt-alice"]), 0);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer[0]["state"], "unsure", "{text}");
    assert_eq!(answer[0]["caveats"].as_array().unwrap().len(), 1, "{text}");
    let text = said(&explain(&["--json", "--user", "cgt-bob"]), 0);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&answer[0]["state"], &answer[0]["caveats"]),
        (&"no-rule".into(), &serde_json::json!([]))
    );
}

#[test]
fn a_program_is_found_in_the_path_as_by_a_shell() {
    let Some(live) = Live::require() else { return };
    let shell = fs::canonicalize("/bin/sh").unwrap();
    live.write_rules(&format!(
        "[[rule]]\nuser = \"cgt-alice\"\nexe = {shell:?}\ncgroup = \"there\"\n"
    ));
    let imagine = |exe: &str| explain(&["--user", "cgt-alice", "--exe", exe]);
    for exe in ["sh", "/bin/sh", "/bin/../bin/sh"] {
        expect(&said(&imagine(exe), 0), &["would be moved by a rule"]);
    }
    for wrong in ["", "no-such-program"] {
        said(&imagine(wrong), 2);
    }
    let output = imagine("/nonexistent/sh");
    expect(&said(&output, 0), &["no rule matches", "/nonexistent/sh"]);
    expect(
        &String::from_utf8_lossy(&output.stderr),
        &["/nonexistent/sh does not exist on this host"],
    );
}

#[test]
fn an_exited_process_is_in_the_array() {
    let Some(live) = Live::require() else { return };
    live.write_rules(ALICE_THERE);
    let bob = live.hold(&format!("uid {BOB} {BOB}"));
    let text = said(&explain(&["--json", "4000000", &bob.subject.to_string()]), 1);
    let answer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&answer[0]["pid"], &answer[0]["state"]), (&4_000_000.into(), &"gone".into()));
    assert_eq!(answer[0]["reasons"][0], "process 4000000 does not exist");
    assert_eq!((answer.as_array().unwrap().len(), &answer[1]["state"]), (2, &"no-rule".into()));
}

/// Checks that the settings apply and that their errors are reported.
#[test]
fn settings_without_a_socket_are_reported() {
    let Some(live) = Live::require() else { return };
    live.write_rules(ALICE_THERE);
    let config = format!("{BASE}/cgruled.toml");
    let actor = live.hold(&format!("uid {ALICE} {ALICE}"));
    let alice = actor.subject.to_string();
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cgrulectl"));
        command.args(arguments).args(["--config", &config]).output().unwrap()
    };
    let rules = format!("{BASE}/rules.d");
    let explain = ["explain", &alice, "--no-legacy", "--rules", &rules];
    fs::write(&config, "control_socket = \"off\"\n").unwrap();
    let off = format!("the control socket is disabled in {config}");
    for line in ["status", "watch", "reload", "metrics"] {
        let output = ask(&[line]);
        said(&output, 69);
        expect(&String::from_utf8_lossy(&output.stderr), &[&off]);
    }
    said(&ask(&["place", "1"]), 69);
    let text = said(&ask(&explain), 1).split_whitespace().collect::<Vec<_>>().join(" ");
    expect(&text, &["is NOT in the cgroup of its rule", &off]);
    assert!(!text.contains("the daemon is not running"), "{text}");
    for broken in ["control_socket = [\n", "control_socket = 7\n"] {
        fs::write(&config, broken).unwrap();
        let errors = String::from_utf8(ask(&["status"]).stderr).unwrap();
        expect(&errors, &[&format!("{config}:1:")]);
        assert_eq!(errors.matches(": error: ").count(), 1, "{errors}");
    }
}
