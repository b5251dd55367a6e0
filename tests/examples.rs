//! What we ship and show to copy is right: the example rules once the `#` is taken away, and every
//! TOML block of the README.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panic and reads its own files"
)]

use std::path::Path;
use std::sync::Arc;

use cgruled::config::diagnostic::{Diagnostic, Severity};
use cgruled::config::{daemon_toml, rules_toml};

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn rule_files() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules.d");
    let entries = std::fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".toml")).map(|name| format!("rules.d/{name}")).collect()
}

/// Prose is `# text`, an example is `#text`.
fn uncommented(text: &str) -> String {
    let is_example = |line: &str| line.strip_prefix('#').is_some_and(|rest| !rest.starts_with(' '));
    text.lines()
        .map(|line| if is_example(line) { &line[1..] } else { line }.to_owned() + "\n")
        .collect()
}

fn shown(diagnostics: &[Diagnostic]) -> String {
    diagnostics.iter().map(|diagnostic| format!("{diagnostic}\n")).collect()
}

#[test]
fn shipped_rules_move_nothing() {
    for name in rule_files() {
        let parsed = rules_toml::parse(&Arc::from(Path::new(&name)), &read(&name));
        assert!(parsed.diagnostics.is_empty(), "{}", shown(&parsed.diagnostics));
        assert!(parsed.rules.is_empty() && parsed.groups.is_empty(), "{name}");
    }
}

#[test]
fn examples_are_right_once_uncommented() {
    for name in rule_files() {
        let text = uncommented(&read(&name));
        let parsed = rules_toml::parse(&Arc::from(Path::new(&name)), &text);
        assert!(parsed.diagnostics.is_empty(), "{}", shown(&parsed.diagnostics));
        assert_eq!(parsed.rules.len(), text.matches("[[rule]]").count(), "{name}");
        assert!(!parsed.rules.is_empty(), "{name}");
    }
}

#[test]
fn toml_in_the_readme_is_right() {
    let readme = read("README.md");
    let blocks = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let file = Arc::from(Path::new("README.md"));
    let mut shows_defaults = false;
    for block in blocks {
        shows_defaults |= block.contains("recheck") && {
            daemon_toml::parse(&file, block).0 == daemon_toml::Settings::default()
        };
        let headers = ["[[rule]]", "[cgroup.", "[unit."];
        let diagnostics = match headers.iter().any(|header| block.contains(header)) {
            true => rules_toml::parse(&file, block).diagnostics,
            false => daemon_toml::parse(&file, block).1,
        };
        let has_errors = diagnostics.iter().any(|one| one.severity == Severity::Error);
        assert!(!has_errors, "{block}\n{}", shown(&diagnostics));
    }
    assert!(shows_defaults, "the README's settings are not the defaults");
}

#[test]
fn the_readme_names_every_counter() {
    let readme = include_str!("../README.md");
    let counters = cgruled::metrics::Metrics::default().counters();
    let missing: Vec<_> =
        counters.iter().filter(|(name, _)| !readme.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
