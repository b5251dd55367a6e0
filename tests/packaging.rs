//! What packages say must be so: the crates inside, their licenses, one version everywhere; what is
//! installed and where, and that uninstalling leaves nothing.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panic and reads its own files"
)]

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Licenses that ask for no more than to be named.
const ALLOWED: [&str; 5] = ["MIT", "Apache-2.0", "Zlib", "Unicode-3.0", "BSD-3-Clause"];
const LIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/THIRD-PARTY");

/// The crates that are linked into the programs, as `name version license` lines.
fn linked() -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--offline"])
        .args(["--filter-platform=x86_64-unknown-linux-gnu"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
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
    let line = |id: &&str| {
        let package = &packages[*id];
        let [name, version, license] =
            ["name", "version", "license"].map(|key| text(&package[key]));
        format!("{name} {version} {license}")
    };
    let mut lines: Vec<String> = seen.iter().map(line).collect();
    lines.retain(|line| !line.starts_with("cgruled "));
    lines.sort();
    lines
}

/// Whether an expression such as `(MIT OR Apache-2.0) AND Unicode-3.0` can be met by [`ALLOWED`].
fn is_allowed(license: &str) -> bool {
    let is_known = |name: &str| ALLOWED.contains(&name.trim());
    let plain = license.replace(['(', ')'], "");
    plain.split(" AND ").all(|part| part.split(" OR ").any(is_known))
}

#[test]
fn the_list_of_crates_is_complete() {
    let lines = linked();
    for line in &lines {
        let license = line.splitn(3, ' ').nth(2).unwrap();
        assert!(is_allowed(license), "{line}: not among the licenses {ALLOWED:?}");
    }
    let text = lines.join("\n") + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(LIST, &text).unwrap();
    }
    let written = std::fs::read_to_string(LIST).unwrap();
    assert_eq!(written, text, "write it with UPDATE_GOLDEN=1 cargo test --test packaging");
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

/// Standard output of a command that must succeed.
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

/// `make TARGET` with programs that are empty files, so that nothing has to be built.
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
            .arg(variable("DESTDIR", &directory.join("root"))),
    );
}

#[test]
fn what_is_installed_can_be_uninstalled() {
    if Command::new("make").arg("--version").output().is_err() {
        eprintln!("skipped: there is no make");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    make(&["install"], directory.path());
    let root = directory.path().join("root");
    let unit = root.join("usr/local/lib/systemd/system/cgruled.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    assert!(text.contains("ExecStart=/usr/local/sbin/cgruled\n"), "{text}");
    for name in [
        "usr/local/sbin/cgruled",
        "usr/local/bin/cgrulectl",
        "usr/local/lib/cgruled/rules.d/50-examples.toml",
        "usr/local/lib/sysusers.d/cgruled.conf",
        "usr/local/share/man/man8/cgruled.8",
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
    assert!(!unit.with_file_name("cgruled.service.d").exists(), "the drop-in was not asked for");

    make(&["install-cgrulesengd"], directory.path());
    let starter = std::fs::read_to_string(root.join("usr/local/lib/cgruled/cgred")).unwrap();
    assert!(starter.contains("exec /usr/local/sbin/cgrulesengd "), "{starter}");
    let written = root.join("etc/cgruled/rules.d/50-mine.toml");
    std::fs::write(&written, "").unwrap();
    make(&["uninstall"], directory.path());
    let find = ["-c", "find . ! -type d; find . -path '*cgruled*' -type d"];
    let left = output(Command::new("sh").args(find).current_dir(&root));
    let mine = "./etc/cgruled/rules.d/50-mine.toml\n./etc/cgruled\n./etc/cgruled/rules.d\n";
    assert_eq!(left, mine, "what is left");
}
