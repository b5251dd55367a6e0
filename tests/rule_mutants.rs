//! Changes each criterion and destination of the rules that we ship, one at a time, and checks that the
//! tests in the same file find the change. A file that is invalid after a change is not counted:
//! `cgrulectl check` reports it.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use cgruled::cli::test::TestRun;

/// The share of the changes that the tests must find, in percent.
const CAUGHT: usize = 95;
/// The keys of a rule whose values decide about a process. The priority is not among them: it orders
/// rules of several files.
const KEYS: [&str; 12] = [
    "user",
    "group",
    "exe",
    "unit",
    "from",
    "below",
    "container",
    "login",
    "argument",
    "not",
    "leave_units",
    "containers",
];

/// A change of one line.
#[derive(Debug)]
struct Mutant {
    line: usize,
    /// The line after the change; `None` if it is removed.
    text: Option<String>,
}

/// Returns a sample with its rules and tests uncommented, as an administrator would use it.
fn uncommented(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let is_example = |line: &str| line.strip_prefix('#').is_some_and(|rest| !rest.starts_with(' '));
    let lines = text.lines().map(|line| if is_example(line) { &line[1..] } else { line });
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn run(text: &str) -> TestRun {
    let mut run = TestRun::default();
    run.add_file(&Arc::from(Path::new("/50-mutant.toml")), text.as_bytes());
    run
}

/// Returns the ranges of the strings and numbers in the value of a line, strings with their quotes.
fn literals(line: &str) -> Vec<Range<usize>> {
    let start = line.find('=').unwrap() + 1;
    let bytes = line.as_bytes();
    let mut found = Vec::new();
    let mut at = start;
    while at < bytes.len() {
        let length = match bytes[at] {
            b'"' => line[at + 1..].find('"').unwrap() + 2,
            b'0'..=b'9' => bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count(),
            b'#' => break,
            _ => {
                at += 1;
                continue;
            }
        };
        found.push(at..at + length);
        at += length;
    }
    found
}

/// Returns the other values for a literal: one changed character, and wider patterns.
fn other_values(literal: &str) -> Vec<String> {
    let text = literal.trim_matches('"');
    if text.starts_with('@') {
        return vec!["\"*\"".to_owned()];
    }
    let mut texts = Vec::new();
    // The last digit of a range or a UID, or a letter in the middle of a name.
    let is_number = text.chars().all(|c| c.is_ascii_digit() || c == '-');
    let middle = text.len() / 2;
    let order = (0..text.len()).rev().chain([0]);
    let near = |at: &usize| if is_number { text.len() - at } else { middle.abs_diff(*at) };
    let place = order.filter(|&at| text.as_bytes()[at].is_ascii_alphanumeric()).min_by_key(near);
    if let Some(at) = place {
        let new = match text.as_bytes()[at] {
            b'0' => '1',
            b'1'..=b'9' => char::from(text.as_bytes()[at] - 1),
            b'q' => 'k',
            _ => 'q',
        };
        texts.push(format!("{}{new}{}", &text[..at], &text[at + 1..]));
    }
    if let Some(star) = text.find('*') {
        if star > 0 {
            texts.push(format!("{}{}", &text[..star - 1], &text[star..]));
        }
        if text.starts_with('/') && !text.contains("**") {
            texts.push(text.replacen('*', "**", 1));
        }
        texts.push(if text.starts_with('/') { "/**" } else { "*" }.to_owned());
    }
    let quote = if literal.starts_with('"') { "\"" } else { "" };
    texts.iter().map(|text| format!("{quote}{text}{quote}")).collect()
}

/// Returns the line without one of several alternatives.
fn without(line: &str, literals: &[Range<usize>], index: usize) -> Option<String> {
    let is_list = line.contains("= [") && literals.len() > 1;
    let kept = literals.iter().enumerate().filter(|(other, _)| *other != index);
    let kept: Vec<&str> = kept.map(|(_, range)| &line[range.clone()]).collect();
    let key = line.split('=').next().unwrap().trim();
    is_list.then(|| format!("{key} = [{}]", kept.join(", ")))
}

/// Returns all changes of the rules of a file.
fn mutants(text: &str) -> Vec<Mutant> {
    let mut found = Vec::new();
    let mut is_rule = false;
    for (line, own) in text.lines().enumerate() {
        if own.starts_with('[') {
            is_rule = own.starts_with("[[rule]]");
        }
        let Some((key, value)) = own.split_once('=').filter(|_| is_rule) else { continue };
        let mut change = |text: Option<String>| found.push(Mutant { line, text });
        match key.trim() {
            "ignore" => change(Some("cgroup = \"mutant\"".to_owned())),
            "cgroup" => {
                let path = value.trim().trim_end_matches('"');
                change(Some(format!("cgroup = {path}x\"")));
                change(Some(format!("cgroup = \"x{}\"", path.trim_start_matches('"'))));
            }
            key if KEYS.contains(&key) => {
                change(None);
                let literals = literals(own);
                for (index, range) in literals.iter().enumerate() {
                    without(own, &literals, index).into_iter().for_each(|text| change(Some(text)));
                    for new in other_values(&own[range.clone()]) {
                        let (before, after) = (&own[..range.start], &own[range.end..]);
                        change(Some(format!("{before}{new}{after}")));
                    }
                }
            }
            _ => {}
        }
    }
    found
}

#[test]
fn the_tests_of_samples_find_changes_of_their_rules() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("rules.d");
    let (mut all, mut survivors) = (0, Vec::new());
    let mut paths: Vec<_> =
        fs::read_dir(directory).unwrap().map(|own| own.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|own| own == "toml")) {
        let text = uncommented(path);
        let original = run(&text);
        assert!(original.passed() && !original.results.is_empty(), "{:?}", original.diagnostics());
        for mutant in mutants(&text) {
            let lines = text.lines().enumerate().filter_map(|(line, own)| match &mutant.text {
                None if line == mutant.line => None,
                Some(text) if line == mutant.line => Some(text.as_str()),
                _ => Some(own),
            });
            let changed = run(&lines.collect::<Vec<_>>().join("\n"));
            if !changed.errors.is_empty() {
                continue;
            }
            all += 1;
            if changed.passed() {
                let name = path.file_name().unwrap().to_str().unwrap();
                let line = text.lines().nth(mutant.line).unwrap();
                let new = mutant.text.as_deref().unwrap_or("");
                survivors.push(format!("{name}:{}: {line} -> {new}", mutant.line + 1));
            }
        }
    }
    let caught = all - survivors.len();
    println!("{caught} of {all} changes were found; not these:\n{}", survivors.join("\n"));
    assert!(all > 200, "{all}");
    assert!(
        caught * 100 >= all * CAUGHT,
        "{caught} of {all}; not these:\n{}",
        survivors.join("\n")
    );
}
