//! Checks that examples can be copied: the example rules with the `#` removed, and every TOML block
//! of the README and the manual pages.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panic and reads its own files"
)]

use std::path::Path;
use std::sync::Arc;

use cgruled::cli::test::TestRun;
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

/// Returns the file with its examples uncommented: prose is `# text`, an example is `#text`.
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
        assert!(!parsed.tests.is_empty(), "{name} has no tests");
        assert_tests_pass(&name, &text);
    }
}

/// Runs the tests in a text as `cgrulectl test` does.
fn assert_tests_pass(name: &str, text: &str) {
    let mut run = TestRun::default();
    run.add_file(&Arc::from(Path::new(name)), text.as_bytes());
    assert!(run.passed(), "{}", shown(&run.diagnostics()));
}

/// Returns the TOML blocks of a Markdown file or of a manual page.
fn blocks(name: &str) -> Vec<String> {
    let text = read(name);
    let (begin, end) = match name.ends_with(".md") {
        true => ("```toml\n", "```"),
        false => (".nf\n", "\n.fi"),
    };
    let blocks = text.split(begin).skip(1).filter_map(|rest| rest.split(end).next());
    let plain = |block: &str| block.replace("\\-", "-").replace("\\&", "").replace("\\e", "\\");
    // A page has other blocks too: commands, and their output.
    let is_toml = |block: &String| name.ends_with(".md") || block.contains(" = ");
    blocks.map(plain).filter(is_toml).collect()
}

#[test]
fn toml_in_the_documents_is_right() {
    let names = [
        "README.md",
        "packaging/doc/packagers.md",
        "packaging/man/cgruled-rules.5",
        "packaging/man/cgruled.toml.5",
    ];
    for name in names {
        let (file, blocks) = (Arc::from(Path::new(name)), blocks(name));
        let mut shows_defaults = name.ends_with("rules.5") || name.ends_with("packagers.md");
        for block in &blocks {
            let headers = ["[[rule]]", "[cgroup.", "[unit."];
            let diagnostics = if headers.iter().any(|header| block.contains(header)) {
                let parsed = rules_toml::parse(&file, block);
                // A complete file, not a part of one.
                let is_complete = block.starts_with("version = 1") && !parsed.rules.is_empty();
                let has_tests = !parsed.tests.is_empty();
                assert!(!is_complete || has_tests, "{name}: no tests: {block}");
                assert_tests_pass(name, block);
                parsed.diagnostics
            } else {
                let (settings, diagnostics) = daemon_toml::parse(&file, block);
                let shows_all = block.contains("recheck");
                shows_defaults |= shows_all && settings == daemon_toml::Settings::default();
                diagnostics
            };
            let has_errors = diagnostics.iter().any(|one| one.severity == Severity::Error);
            assert!(!has_errors, "{name}: {block}\n{}", shown(&diagnostics));
        }
        let fewest = if name.ends_with("packagers.md") { 1 } else { 3 };
        assert!(blocks.len() >= fewest, "{name}: {blocks:?}");
        assert!(shows_defaults, "the settings in {name} are not the defaults");
    }
}
