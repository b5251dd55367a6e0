//! Compares the output of `cgrulectl` for directories of rule files, and of `cgrulectl test` if they
//! have tests, with the expected text.
//! `UPDATE_GOLDEN=1` writes the present output: review the difference before a commit.
//!
//! `asks.txt` of a case has one process per line for `explain`: `USER:GROUP EXE`. A live process has
//! `@ PATH COMM` after it, its v2 cgroup and its name, then `| OUTCOME DETAIL` for each entry of its
//! history, `| moved MILLISECONDS` for its last move, or `|` for a daemon without a history of it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::unwrap_used, clippy::panic)]

mod case;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use case::{Copy, unescaped};
use cgruled::cgroup::host::ManagedRoots;
use cgruled::cgroup::mounts::{Hierarchies, Hierarchy, Version};
use cgruled::cli::explain::{
    DaemonMemory, Explained, InspectedProcess, LiveProcess, OutputOptions, ParentProcess, judge,
    show, why,
};
use cgruled::cli::test::{self, TestRun};
use cgruled::cli::{cat, check, list};
use cgruled::control::protocol::{HistoryEntry, ProcessReport};
use cgruled::event::Pid;
use cgruled::kernel::process::ProcFs;
use cgruled::placement::assertions;
use cgruled::policy::rebuild::{LoadedConfig, PolicyBuilder};

#[test]
fn the_tool_prints_the_expected_output() {
    case::compare("tool", run);
}

fn run(cases: &Path, case: &Path) -> String {
    let copy = Copy::of(cases, case);
    let survey = survey(&copy);
    let mut out = b"$ list\n".to_vec();
    list::table(&survey, list::RowOptions::default(), &mut out).unwrap();
    out.extend(b"\n$ check\n");
    let diagnostics = check::all(&survey);
    check::show(&diagnostics, false, &mut out).unwrap();
    out.extend(format!("{}\n\n$ cat\n", check::summary(&survey, &diagnostics)).bytes());
    cat::show(&survey.loaded, &mut out).unwrap();
    let tests = tests(&survey);
    if !tests.results.is_empty() {
        out.extend(b"\n$ test\n");
        check::show(&tests.diagnostics(), false, &mut out).unwrap();
        out.extend(format!("{}\n\n$ test --tap\n", tests.summary()).bytes());
        test::tap(&tests, &mut out).unwrap();
    }
    let asks = fs::read(case.join("asks.txt")).unwrap_or_default();
    for line in String::from_utf8(asks).unwrap().lines() {
        out.extend(format!("\n$ explain {line}\n").bytes());
        let explained = ask(&survey, line);
        show(&survey, &explained, OutputOptions::default(), &mut out).unwrap();
    }
    let text = String::from_utf8(out).unwrap();
    let is_plain = |character: char| character == '\n' || !character.is_control();
    assert!(text.replace('\t', "").chars().all(is_plain), "{text:?}");
    copy.nameless(&text)
}

/// Loads the configuration for a host with cgroup v2 only.
fn survey(copy: &Copy) -> LoadedConfig {
    let unified = Hierarchy {
        version: Version::V2,
        mount_point: "/nonexistent/cgroup".into(),
        top: "/".into(),
        listed: String::new(),
        controllers: ["cpu", "io", "memory", "pids"].map(str::to_owned).to_vec(),
        favordynmods: false,
    };
    let hierarchies = Arc::new(Hierarchies::new(vec![unified]));
    let (sources, service) = (copy.sources.clone(), copy.service.clone());
    let builder = PolicyBuilder::new(sources, service, hierarchies, ManagedRoots::default());
    // The result must not depend on the kernel of the host.
    let builder = builder.with_gate_probe(|| Ok(()));
    builder.with_tests(assertions::report, false).survey()
}

/// Runs the tests in the TOML files.
fn tests(survey: &LoadedConfig) -> TestRun {
    let mut run = TestRun::default();
    for (path, bytes) in &survey.loaded.contents {
        if path.extension().is_some_and(|extension| extension == "toml") && !bytes.is_empty() {
            run.add_file(path, bytes);
        }
    }
    run
}

/// Explains the process in a line of `asks.txt`.
fn ask(survey: &LoadedConfig, line: &str) -> Explained {
    let mut parts = line.split(" | ");
    let head = parts.next().unwrap().trim_end_matches(" |");
    let (facts, place) = head.split_once(" @ ").unwrap_or((head, ""));
    let (who, exe) = facts.split_once(' ').unwrap_or((facts, ""));
    let (user, group) = who.split_once(':').unwrap();
    let names = &survey.names;
    let uid = user.parse().map_or_else(|_| names.uid(user).unwrap().unwrap(), cgruled::event::Uid);
    let gid =
        group.parse().map_or_else(|_| names.gid(group).unwrap().unwrap(), cgruled::event::Gid);
    let exe = (!exe.is_empty()).then(|| Path::new(exe));
    let mut subject = InspectedProcess::imagined(uid, gid, exe, names).unwrap();
    subject.life = place.split_once(' ').map(|(path, comm)| life(path, comm));
    let verdict = judge(survey, &subject, &mut ProcFs::open(Path::new("/proc")).unwrap());
    let (moves, parts): (Vec<&str>, Vec<&str>) = parts.partition(|part| part.starts_with("moved "));
    let moved_ago_ms = moves.first().map(|part| part["moved ".len()..].parse().unwrap());
    let history = parts.into_iter().map(entry).collect();
    let memory = match line.contains(" |") {
        true => DaemonMemory::Told(ProcessReport { pid: 4711, history, moved_ago_ms }, Vec::new()),
        false => DaemonMemory::NoDaemon("/run/cgruled/control.sock".into()),
    };
    let moved = memory.moved();
    let mut explained =
        Explained { subject, verdict, moved, external_move: None, reasons: Vec::new() };
    if explained.verdict.state.has_reasons() {
        explained.reasons = why(&explained.subject, &explained.verdict, &memory);
    }
    explained
}

fn life(path: &str, comm: &str) -> LiveProcess {
    let (child, comm) = comm.strip_prefix("child ").map_or((false, comm), |comm| (true, comm));
    LiveProcess {
        pid: Pid::new(4711).unwrap(),
        comm: unescaped(comm),
        cgroup: [b"0::", &*unescaped(path), b"\n"].concat(),
        age: Some(Duration::from_secs(150)),
        parent: Some(ParentProcess {
            pid: Pid::new(800).unwrap(),
            comm: b"sshd".to_vec(),
            is_alike: child,
        }),
        is_kernel_thread: comm.starts_with("kworker"),
        is_zombie: comm == "zombie",
    }
}

fn entry(text: &str) -> HistoryEntry {
    let (outcome, detail) = text.split_once(' ').unwrap();
    HistoryEntry {
        ago_ms: 12_400,
        outcome: outcome.to_owned(),
        rule: String::new(),
        cgroup: String::new(),
        detail: detail.to_owned(),
    }
}

/// Checks that of 10,000 rules only those with a criterion for the user are shown, and the others counted.
#[test]
fn of_many_rules_the_near_ones_are_shown() {
    let directory = tempfile::tempdir().unwrap();
    let rule = |n: usize| match n % 1000 {
        7 => "[[rule]]\nuser = 1000\nexe = \"/opt/x\"\ncgroup = \"a\"\n".to_owned(),
        _ => format!("[[rule]]\nuser = {}\ncgroup = \"a\"\n", 20_000 + n),
    };
    let rules: String = (0..10_000).map(rule).collect();
    let last = "[[rule]]\nname = \"the last\"\nuser = 1000\ncgroup = \"b\"\n";
    fs::write(directory.path().join("50-a.toml"), format!("version = 1\n{rules}{last}")).unwrap();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/tool");
    let mut copy = Copy::of(&cases, Path::new("/nonexistent"));
    copy.sources.directories = vec![directory.path().to_owned()];
    let survey = survey(&copy);
    assert_eq!(survey.loaded.rules.len(), 10_001, "{:?}", survey.loaded.diagnostics);

    let mut out = Vec::new();
    show(&survey, &ask(&survey, "alice:alice /opt/y"), OutputOptions::default(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() < 40 && lines.iter().all(|line| line.chars().count() <= 80), "{text}");
    assert!(text.contains("…  999 more rules for other users"), "{text}");
    assert_eq!(text.matches("needs exe /opt/x").count(), 10, "{text}");
    assert!(text.contains("> 10001  the last"), "{text}");

    let mut all = Vec::new();
    let options = OutputOptions { all: true, ..OutputOptions::default() };
    show(&survey, &ask(&survey, "alice:alice /opt/y"), options, &mut all).unwrap();
    assert_eq!(String::from_utf8(all).unwrap().matches("needs user").count(), 9990);
}

/// Checks the input of shell completion: one name per line and nothing else.
#[test]
fn names_are_listed_one_a_line() {
    let directory = tempfile::tempdir().unwrap();
    let rule = |name: &str| format!("[[rule]]\n{name}\nuser = 60001\ncgroup = \"a\"\n");
    let names =
        ["name = \"web\"", "", "name = \"é (b), 'c'\"", "name = \"web\"", "name = \"the last\""];
    let text = format!("version = 1\n{}", names.map(rule).concat());
    fs::write(directory.path().join("50-a.toml"), text).unwrap();
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/tool");
    let mut copy = Copy::of(&cases, Path::new("/nonexistent"));
    copy.sources.directories = vec![directory.path().to_owned()];
    let mut out = Vec::new();
    list::names(&survey(&copy), &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "web\né (b), 'c'\nthe last\n");
}

/// Checks the documented names of JSON fields, which programs rely on.
#[test]
fn json_has_stable_names() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/tool");
    let copy = Copy::of(&cases, &cases.join("01-people"));
    let survey = survey(&copy);
    let mut out = Vec::new();
    list::json(&survey, &mut out).unwrap();
    let listed: serde_json::Value = serde_json::from_slice(&out).unwrap();
    for name in ["number", "name", "file", "line", "when", "ignore", "cgroup", "never_matches"] {
        assert!(listed[0].get(name).is_some(), "{name}");
    }
    let mut out = Vec::new();
    check::json(&check::all(&survey), &mut out).unwrap();
    let said: serde_json::Value = serde_json::from_slice(&out).unwrap();
    for name in ["severity", "file", "line", "column", "message", "help"] {
        assert!(said[0].get(name).is_some(), "{name}");
    }
}

/// Checks that `explain` does not take a missing directory for one without rules.
#[test]
fn explain_needs_the_named_directories() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent");
    let mut command = Command::new(env!("CARGO_BIN_EXE_cgrulectl"));
    command.args(["explain", "--no-legacy", "--user", "0", "--rules"]).arg(&absent);
    let output = command.output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(65), "{errors}");
    assert!(errors.contains(absent.to_str().unwrap()), "{errors}");
}

/// Checks the exit codes and the output of `cgrulectl test`, which needs neither a daemon nor accounts.
#[test]
fn tests_end_as_documented() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, format!("version = 1\nrequires = \"0.2\"\n{text}")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rule = "[[rule]]\nname = \"no such user\"\nuser = \"cgt-nobody\"\ncgroup = \"a\"\n";
    let test = |expect: &str| {
        format!("[[test]]\nprocess = {{ user = \"cgt-nobody\" }}\nexpect = \"{expect}\"\n")
    };
    let good = file("50-good.toml", &format!("{rule}{}", test("a")));
    let bad = file("60-bad.toml", &format!("{rule}{}{}", test("a"), test("b")));
    let none = file("70-none.toml", rule);
    let broken = file("80-broken.toml", &format!("{rule}usr = 5\n{}", test("none")));
    let settings = file("cgruled.toml", "");
    let all = directory.path().to_str().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cgrulectl"));
        let output = command.arg("test").args(arguments).output().unwrap();
        let [out, errors] =
            [output.stdout, output.stderr].map(|own| String::from_utf8(own).unwrap());
        (output.status.code().unwrap(), out, errors)
    };
    let summary = |count: &str| format!("{count}\n");
    assert_eq!(run(&[&good]), (0, summary("1 test in 1 file: 1 passed, 0 failed"), String::new()));
    assert_eq!(run(&[&none]).0, 0);
    assert_eq!(run(&[&settings]).0, 2);
    assert_eq!(run(&["/nonexistent/50-a.toml"]).0, 1);
    assert_eq!(run(&["--tap", "--json"]).0, 2);
    let (code, out, errors) = run(&[&good, &bad]);
    assert_eq!((code, errors.as_str()), (65, ""));
    assert!(out.ends_with("\n3 tests in 2 files: 2 passed, 1 failed\n"), "{out}");
    assert!(out.starts_with(&format!("{bad}:12:10: error: test failed: \"b\" expected")), "{out}");
    let (code, out, _) = run(&[&broken]);
    assert_eq!(code, 65);
    assert!(out.ends_with("\n1 test in 1 file: 1 passed, 0 failed; 1 error\n"), "{out}");
    assert!(out.contains("unknown key \"usr\""), "{out}");
    let (code, out, _) = run(&["--json", all]);
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    let passed: Vec<bool> =
        found.as_array().unwrap().iter().map(|own| own["passed"].as_bool().unwrap()).collect();
    assert_eq!((code, passed), (65, vec![true, true, false, true]));
    assert_eq!(found[2]["cgroups"], serde_json::json!(["a"]));
    let (code, out, errors) = run(&["--tap", &good, &bad]);
    assert_eq!((code, errors.as_str()), (65, ""));
    let points = out.lines().filter(|line| line.contains("ok ")).count();
    assert!(out.starts_with("TAP version 13\n1..3\nok 1 - ") && points == 3, "{out}");
}

/// Checks that `cgrulectl test --all` lets the rules of other files decide, in their order.
#[test]
fn all_rules_of_a_host_decide_about_a_test() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: rule files must belong to root");
        return;
    }
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [etc, usr] = directories.each_ref().map(|own| own.path());
    let write = |path: &Path, user: &str, cgroup: &str, expect: &str| {
        let text = format!(
            "version = 1\nrequires = \"0.2\"\n[[rule]]\nuser = {user}\ncgroup = \"{cgroup}\"\n\
             [[test]]\nprocess = {{ user = \"cgt-a\" }}\nexpect = \"{expect}\"\n"
        );
        fs::write(path, text).unwrap();
    };
    write(&etc.join("50-a.toml"), "\"cgt-b\"", "etc", "none");
    write(&usr.join("40-b.toml"), "\"cgt-a\"", "usr", "usr");
    write(&usr.join("60-c.toml"), "\"*\"", "all", "all");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cgrulectl"));
        command.args(["test", "--no-legacy", "--rules"]).arg(etc).arg("--rules").arg(usr);
        let output = command.args(arguments).output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        (output.status.code().unwrap(), out.lines().last().unwrap_or_default().to_owned())
    };
    assert_eq!(run(&[]), (0, "3 tests in 3 files: 3 passed, 0 failed".to_owned()));
    // The account of the test in 40-b.toml is one also for the rules of other files.
    assert_eq!(run(&["--all"]), (65, "3 tests in 3 files: 1 passed, 2 failed".to_owned()));
    let new = tempfile::tempdir().unwrap();
    let [first, same] = ["45-new.toml", "40-b.toml"].map(|name| new.path().join(name));
    write(&first, "\"cgt-*\"", "new", "new");
    assert_eq!(run(&["--all", first.to_str().unwrap()]).0, 0, "in the first directory");
    write(&same, "\"cgt-c\"", "c", "all");
    assert_eq!(run(&["--all", same.to_str().unwrap()]).0, 0, "in place of the installed file");
}

/// Checks that files given by name are checked with any owner, and that the exit code reports the result.
#[test]
fn check_of_named_files_ends_as_documented() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let rule = |keys: &str| format!("version = 1\n[[rule]]\n{keys}\ncgroup = \"a\"\n");
    let good = file("50-good.toml", &rule("user = 60001"));
    let odd = file("60-odd.toml", &rule("user = 60001"));
    let bad = file("70-bad.toml", &rule("usr = 60001"));
    let settings = file("cgruled.toml", "recheck = \"5s\"\n");
    let legacy = file("cgrules.conf", "60001 cpu\n");
    let unknown = file("notes.txt", "");
    let both = [good.as_str(), &odd];
    let wide = file("80-wide.toml", &rule("user = \"*\"\nleave_units = true"));
    let directories = tempfile::tempdir().unwrap();
    let empty = directories.path().to_str().unwrap();
    let absent = directories.path().join("absent");
    let absent = absent.to_str().unwrap();
    let elsewhere = ["--no-legacy", "--rules", empty];
    let nowhere = ["--no-legacy", "--rules", absent];
    let unset = [&elsewhere[..], &["--config", absent]].concat();
    let table: [(&[&str], i32, &str); 13] = [
        (&elsewhere, 0, "0 errors, 0 warnings in 0 files"),
        (&nowhere, 65, "1 error, "),
        (&unset, 65, "1 error, "),
        (&["--strict", &wide], 65, "0 errors, 1 warning in 1 file"),
        (&[&good], 0, "0 errors, 0 warnings in 1 file; 1 rule"),
        (&both, 0, "0 errors, 1 warning in 2 files; 2 rules"),
        (&["--strict", &good, &odd], 65, "0 errors, 1 warning"),
        (&[&bad], 65, "error"),
        (&[&settings, &good], 0, "in 2 files"),
        (&[&legacy], 65, "1 error"),
        (&[directory.path().to_str().unwrap()], 65, "skipped, unknown kind of file"),
        (&[&unknown], 2, "notes.txt: unknown kind of file"),
        (&["/nonexistent/50-a.toml"], 1, "/nonexistent/50-a.toml: No such file"),
    ];
    for (arguments, code, said) in table {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cgrulectl"));
        let output = command.arg("check").args(arguments).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        let shown = format!("{arguments:?}: {errors}{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(output.status.code(), Some(code), "{shown}");
        assert!(errors.contains(said) || said == "error", "{shown}");
    }
}

/// Answers one request as a daemon of another version, without the fields that this one has added.
#[test]
fn another_version_of_the_daemon_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let daemon = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        BufReader::new(&stream).read_line(&mut String::new()).unwrap();
        writeln!(&stream, "{{\"version\":\"0.1.0\\n\",\"pid\":7,\"taken_back_by\":[]}}").unwrap();
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_cgrulectl"));
    let output = command.args(["status", "--json", "--socket"]).arg(&socket).output().unwrap();
    daemon.join().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let own = env!("CARGO_PKG_VERSION");
    let note = format!("the daemon has version 0.1.0\\u{{a}}, cgrulectl {own}: restart the daemon");
    assert!(errors.contains(&note), "{errors}");
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).unwrap().contains("\"pid\": 7"));
}
