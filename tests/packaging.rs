//! Checks promises of the packages: the crates inside, their licenses, one version everywhere, the
//! installed files and their places, and that uninstalling removes all of them.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panic and reads its own files"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/THIRD-PARTY");
const RUST: &str = "The Rust standard library, MIT OR Apache-2.0; its components are listed in \
    share/doc/rust/COPYRIGHT-library.html of a toolchain\n";

/// A crate that is linked into the programs.
struct Crate {
    /// Name, version and license, separated by blanks.
    line: String,
    /// Root directory of the sources.
    directory: PathBuf,
}

/// Returns the crates of the programs, tests and benchmarks, and their dependencies.
fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform=x86_64-unknown-linux-gnu"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Returns the crates that are linked into the programs, by name.
fn linked() -> Vec<Crate> {
    let metadata = metadata();
    let by_id = |list: &Value| -> HashMap<String, Value> {
        let entries = list.as_array().unwrap().iter();
        entries.map(|entry| (entry["id"].as_str().unwrap().to_owned(), entry.clone())).collect()
    };
    let (packages, nodes) = (by_id(&metadata["packages"]), by_id(&metadata["resolve"]["nodes"]));
    let mut waiting = vec![metadata["resolve"]["root"].as_str().unwrap()];
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        if !seen.insert(id) {
            continue;
        }
        for dependency in nodes[id]["deps"].as_array().unwrap() {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            if kinds.iter().any(|kind| kind["kind"].is_null()) {
                waiting.push(dependency["pkg"].as_str().unwrap());
            }
        }
    }
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let linked = |id: &&str| {
        let package = &packages[*id];
        let [name, version, license] =
            ["name", "version", "license"].map(|key| text(&package[key]));
        let manifest = PathBuf::from(text(&package["manifest_path"]));
        let directory = manifest.parent().unwrap().to_owned();
        Crate { line: format!("{name} {version} {license}"), directory }
    };
    let mut crates: Vec<Crate> = seen.iter().map(linked).collect();
    crates.retain(|found| !found.line.starts_with("cgruled "));
    crates.sort_by(|a, b| a.line.cmp(&b.line));
    crates
}

/// Returns whether the licenses that deny.toml allows, which require only their text to be distributed, satisfy an
/// expression such as `(MIT OR Apache-2.0) AND Unicode-3.0`.
fn is_allowed(license: &str) -> bool {
    let rules: toml::Table = include_str!("../deny.toml").parse().unwrap();
    let allowed = rules["licenses"]["allow"].as_array().unwrap();
    let is_known = |name: &str| allowed.iter().any(|known| known.as_str() == Some(name.trim()));
    let plain = license.replace(['(', ')'], "");
    plain.split(" AND ").all(|part| part.split(" OR ").any(is_known))
}

/// Returns the license files of a crate, without those of the Apache license and the Unlicense,
/// which are alternatives to MIT in all crates that have them.
fn notices(directory: &Path) -> String {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let is_notice = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_ascii_uppercase();
        name.starts_with("LICENSE") && !name.contains("APACHE")
    };
    let mut files: Vec<PathBuf> = entries.filter(is_notice).collect();
    files.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).unwrap();
        text.trim_start_matches('\u{feff}')
            .lines()
            .map(|line| line.trim_end().to_owned() + "\n")
            .collect()
    };
    let texts: Vec<String> = files.iter().map(read).collect();
    texts.join("\n").trim_matches('\n').to_owned()
}

/// Returns the list of crates, then each license text once, below the names of the
/// crates that it belongs to.
fn third_party(crates: &[Crate]) -> String {
    let mut page: String = crates.iter().map(|found| found.line.clone() + "\n").collect();
    page += RUST;
    let mut by_text: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for found in crates {
        let name = found.line.split(' ').next().unwrap();
        let text = notices(&found.directory);
        assert!(text.len() > 500, "{name}: no license in {}", found.directory.display());
        by_text.entry(text).or_default().push(name);
    }
    let ours = include_str!("../LICENSE");
    let words = &ours[ours.find("Permission is").unwrap()..];
    let rust = format!("Copyright (c) The Rust Project Contributors\n\n{}", words.trim_end());
    by_text.entry(rust).or_default().push("the Rust standard library");
    let mut sections: Vec<(String, String)> =
        by_text.into_iter().map(|(text, names)| (names.join(", "), text)).collect();
    sections.sort();
    for (names, text) in sections {
        page += &format!("\n{}\n{names}\n\n{text}\n", "=".repeat(78));
    }
    page
}

#[test]
fn the_list_of_crates_and_their_notices_is_complete() {
    let crates = linked();
    for Crate { line, .. } in &crates {
        let license = line.splitn(3, ' ').nth(2).unwrap();
        assert!(is_allowed(license), "{line}: not among the licenses of deny.toml");
    }
    let text = third_party(&crates);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(LIST, &text).unwrap();
    }
    let written = std::fs::read_to_string(LIST).unwrap();
    assert_eq!(written, text, "write it with UPDATE_GOLDEN=1 cargo test --test packaging");
}

/// The part of `cargo deny check` that needs no network, also for crates of tests and of builds.
#[test]
fn all_crates_have_an_allowed_license_and_come_from_the_registry() {
    let metadata = metadata();
    let crates = metadata["packages"].as_array().unwrap();
    assert!(crates.len() > linked().len());
    for found in crates.iter().filter(|found| found["name"] != "cgruled") {
        let text = |key: &str| found[key].as_str().unwrap_or_default();
        let license = text("license");
        assert!(is_allowed(license), "{}: {license:?} is not allowed by deny.toml", text("name"));
        let source = text("source");
        let is_registry = source.starts_with("registry+");
        assert!(is_registry, "{}: from {source:?}", text("name"));
    }
}

#[test]
fn licenses_are_read_as_expressions() {
    assert!(is_allowed("(MIT OR GPL-3.0) AND Unicode-3.0"));
    assert!(!is_allowed("MIT AND GPL-3.0"));
    assert!(!is_allowed("GPL-3.0"));
}

#[test]
fn one_version_everywhere() {
    let version = env!("CARGO_PKG_VERSION");
    let changelog = include_str!("../packaging/debian/changelog");
    assert!(changelog.starts_with(&format!("cgruled ({version}) ")), "{changelog}");
    let spec = include_str!("../packaging/rpm/cgruled.spec");
    assert!(spec.contains(&format!("version_of_crate {version}}}")), "cgruled.spec");
    assert!(spec.contains(&format!("> - {version}-1\n")), "cgruled.spec, the changelog");
}

const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging");

/// Runs a command that must succeed and returns its standard output.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn scripts_have_no_syntax_error() {
    let first_lines = "grep -rlE '^#!(/bin/sh|/sbin/openrc-run|/usr/bin/env bash)' .";
    let found = output(Command::new("sh").args(["-c", first_lines]).current_dir(PACKAGING));
    let mut seen = 0;
    for name in found.lines() {
        let text = std::fs::read_to_string(Path::new(PACKAGING).join(name)).unwrap();
        let shell = if text.starts_with("#!/usr/bin/env bash") { "bash" } else { "sh" };
        output(Command::new(shell).args(["-n", name]).current_dir(PACKAGING));
        seen += 1;
    }
    assert!(seen >= 12, "{found}");
}

/// Runs `make TARGET` with empty files in place of the programs, so that nothing has to be built.
fn make(targets: &[&str], directory: &Path) {
    let built = directory.join("built");
    std::fs::create_dir_all(&built).unwrap();
    for program in ["cgruled", "cgrulectl", "cgrulesengd"] {
        std::fs::write(built.join(program), "").unwrap();
    }
    let variable = |name: &str, value: &Path| format!("{name}={}", value.display());
    output(
        Command::new("make")
            .args(["-s", "-C", PACKAGING])
            .args(targets)
            .arg(variable("BUILT", &built))
            .arg(variable("DESTDIR", &directory.join("the root"))),
    );
}

#[test]
fn what_is_installed_can_be_uninstalled() {
    if Command::new("make").arg("--version").output().is_err() {
        eprintln!("skipped: make is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    make(&["install"], directory.path());
    let root = directory.path().join("the root");
    let unit = root.join("usr/local/lib/systemd/system/cgruled.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    assert!(text.contains("ExecStart=/usr/local/sbin/cgruled\n"), "{text}");
    for name in [
        "usr/local/sbin/cgruled",
        "usr/local/bin/cgrulectl",
        "usr/local/lib/cgruled/rules.d/50-examples.toml",
        "usr/local/lib/sysusers.d/cgruled.conf",
        "usr/local/share/man/man8/cgruled.8",
        "usr/local/share/doc/cgruled/CHANGELOG.md",
        "usr/local/share/doc/cgruled/LICENSE",
        "usr/local/share/doc/cgruled/favordynmods.conf",
        "usr/local/share/doc/cgruled/gate.conf",
        "usr/local/share/doc/cgruled/openrc/cgruled",
        "usr/local/share/doc/cgruled/runit/cgruled/run",
        "etc/cgruled/rules.d",
    ] {
        assert!(root.join(name).exists(), "{name}");
    }
    let groups = std::fs::read_to_string(unit.with_file_name("cgruled-groups.service")).unwrap();
    assert!(groups.contains("ExecStart=/usr/local/bin/cgrulectl groups\n"), "{groups}");
    let is_enabled = |target: &str| unit.with_file_name(target).exists();
    assert!(!is_enabled("sysinit.target.wants") && !is_enabled("basic.target.wants"));
    assert!(!unit.with_file_name("cgruled.service.d").exists(), "the drop-in was installed too");

    make(&["install-cgrulesengd"], directory.path());
    let starter = std::fs::read_to_string(root.join("usr/local/lib/cgruled/cgred")).unwrap();
    assert!(starter.contains("exec /usr/local/sbin/cgrulesengd "), "{starter}");
    let written = root.join("etc/cgruled/rules.d/50-mine.toml");
    std::fs::write(&written, "").unwrap();
    make(&["uninstall"], directory.path());
    let find = ["-c", "find . ! -type d; find . -path '*cgruled*' -type d"];
    let left = output(Command::new("sh").args(find).current_dir(&root));
    let mine = "./etc/cgruled/rules.d/50-mine.toml\n./etc/cgruled\n./etc/cgruled/rules.d\n";
    assert_eq!(left, mine, "remaining files");
}

#[test]
fn uninstalling_ends_the_service_of_this_host_alone() {
    if Command::new("make").arg("--version").output().is_err() {
        eprintln!("skipped: make is not installed");
        return;
    }
    let would_run = |destination: &str| {
        let arguments = ["-n", "-C", PACKAGING, "stop", destination];
        output(Command::new("make").args(arguments))
    };
    let here = would_run("DESTDIR=");
    assert!(here.contains("systemctl disable --now cgruled.service"), "{here}");
    let elsewhere = would_run("DESTDIR=/nowhere");
    assert!(!elsewhere.contains("systemctl"), "{elsewhere}");
}

/// Returns `packaging/cgred/cgred` with stand-ins below `directory`: its files, and a
/// daemon that prints its arguments.
fn starter(directory: &Path) -> Command {
    let script = std::fs::read_to_string(format!("{PACKAGING}/cgred/cgred")).unwrap();
    let etc = format!("{}/etc/", directory.display());
    let script = script.replace("/etc/", &etc).replace("/usr/sbin/cgrulesengd", "echo");
    let mut command = Command::new("sh");
    command.args(["-c", &script, "cgred"]).env_clear().env("PATH", "/usr/bin:/bin");
    command
}

#[test]
fn service_managers_without_option_files_have_the_options_of_cgrulesengd() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("sysconfig/cgred.conf", "LOG_FILE=\"/var/log/a b\"\nSOCKET_GROUP=\"staff\"\nLOG=\"-v\"\n"),
        ("sysconfig/cgred", "OPTIONS=\"-n\"\n"),
        ("default/cgred", "OPTIONS=\"-s -g x\"\n"),
    ] {
        let path = directory.path().join("etc").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let read = output(starter(directory.path()).arg("--read-files"));
    assert_eq!(read, "--nodaemon --logfile=/var/log/a b --socket-group=staff -v -s -g x\n");
    let given = output(starter(directory.path()).env("OPTIONS", "-q"));
    assert_eq!(given, "--nodaemon -q\n");
}

/// Calls one function of `packaging/openrc/cgruled` with a daemon that prints its arguments.
fn openrc(before: &str, function: &str) -> String {
    let script = std::fs::read_to_string(format!("{PACKAGING}/openrc/cgruled")).unwrap();
    let script =
        script.replace("/usr/sbin/cgruled", "echo").replace("/usr/lib/cgruled", "/nowhere");
    let script = format!("checkpath() {{ :; }}\n{before}\n{script}\n{function}");
    output(Command::new("sh").args(["-c", &script]))
}

#[test]
fn openrc_starts_nothing_that_its_settings_would_end() {
    let said = openrc("command_args='--log debug'", "start_pre");
    assert_eq!(said, "--check --no-legacy --rules /run/cgruled/none --log debug\n");
    assert_eq!(openrc("", "check"), "--check\n");
}
