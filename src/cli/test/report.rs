//! Results of tests as JSON and in the Test Anything Protocol. Must not add anything that could control
//! a terminal or break a line.

use std::io::{self, Write};

use serde::Serialize;

use super::{TestResult, TestRun};
use crate::config::diagnostic::Diagnostic;
use crate::config::escape::{Escaped, EscapedBytes};
use crate::placement::assertions::TestDecision;

/// JSON object for a test. Fields are added, and must never be renamed.
#[derive(Serialize)]
struct TestElement<'r> {
    file: String,
    line: u32,
    name: Option<&'r str>,
    process: String,
    passed: bool,
    decision: &'static str,
    cgroups: &'r [String],
    rule: Option<&'r str>,
    rule_file: Option<String>,
    rule_line: Option<u32>,
    messages: Vec<&'r str>,
}

/// Writes one object for each test.
pub(super) fn json(run: &TestRun, out: &mut dyn Write) -> io::Result<()> {
    let elements: Vec<TestElement<'_>> = run.results.iter().map(element).collect();
    crate::cli::json::write(&elements, out)
}

fn element(result: &TestResult) -> TestElement<'_> {
    let (decision, cgroups) = match &result.verdict.decision {
        TestDecision::NoRule => ("none", &[][..]),
        TestDecision::Ignored => ("ignored", &[][..]),
        TestDecision::Stays(_) => ("stays", &[][..]),
        TestDecision::Moved(paths) => ("moved", &paths[..]),
    };
    let rule = result.rule.as_ref();
    TestElement {
        file: shown(&result.test.file),
        line: result.test.line,
        name: result.test.name.as_deref(),
        process: result.test.process.to_string(),
        passed: result.verdict.passed(),
        decision,
        cgroups,
        rule: rule.map(|rule| &*rule.name),
        rule_file: rule.map(|rule| shown(&rule.origin.file)),
        rule_line: rule.map(|rule| rule.origin.line),
        messages: result.failures.iter().map(|failure| &*failure.message).collect(),
    }
}

/// Writes the results in version 13 of the protocol. An error of a file counts as a failed test.
///
/// # Errors
/// The output cannot be written.
pub fn tap(run: &TestRun, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "TAP version 13\n1..{}", run.errors.len() + run.results.len())?;
    let mut number = 0;
    for error in &run.errors {
        number += 1;
        writeln!(out, "not ok {number} - {}", described(&error.current()))?;
        comment(error, out)?;
    }
    for result in &run.results {
        number += 1;
        let word = if result.verdict.passed() { "ok" } else { "not ok" };
        let name = result.test.name.clone().unwrap_or_else(|| result.test.process.to_string());
        let place = format!("{}:{}: {name}", shown(&result.test.file), result.test.line);
        writeln!(out, "{word} {number} - {}", described(&place))?;
        result.failures.iter().try_for_each(|failure| comment(failure, out))?;
    }
    Ok(())
}

/// Returns the description of a test, in which `#` would begin a directive.
fn described(text: &str) -> String {
    Escaped(&text.replace('#', "\\#")).to_string()
}

/// Writes a diagnostic as comments.
fn comment(diagnostic: &Diagnostic, out: &mut dyn Write) -> io::Result<()> {
    diagnostic.to_string().lines().try_for_each(|line| writeln!(out, "# {line}"))
}

fn shown(path: &std::path::Path) -> String {
    EscapedBytes(path.as_os_str().as_encoded_bytes()).to_string()
}
