//! Wording of failed tests. Must name the assertion, the decision and the rule that caused it.

use super::{TestBench, TestDecision, TestVerdict};
use crate::config::diagnostic::{Diagnostic, Severity, TextPosition};
use crate::config::misspelled;
use crate::config::test_table::{ExpectedDecision, RuleTest};
use crate::policy::load::TestedFile;

/// The number of failed tests of one file that a load reports.
const REPORTED: usize = 20;

/// Evaluates the tests of each file with the rules of that file alone, and reports those that fail.
pub fn report(files: &[TestedFile], severity: Severity) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| !file.tests.is_empty()) {
        let mut bench = TestBench::of_file(&file.rules, &file.tests);
        let mut failed = 0;
        for test in &file.tests {
            let verdict = bench.verdict(test);
            failed += usize::from(!verdict.passed());
            if failed <= REPORTED {
                found.extend(failures(&bench, test, &verdict, severity));
            }
        }
        if let (Some(test), true) = (file.tests.first(), failed > REPORTED) {
            let message = format!("{} more tests fail", failed - REPORTED);
            let help = "run 'cgrulectl test' to see all of them";
            found.push(Diagnostic::about(&test.file, severity, message).with_help(help));
        }
    }
    found
}

/// Returns a diagnostic for each assertion of a test that is not met.
pub fn failures(
    bench: &TestBench,
    test: &RuleTest,
    verdict: &TestVerdict,
    severity: Severity,
) -> Vec<Diagnostic> {
    let failed = |place: &TextPosition, message: String, help: String| {
        let about = Diagnostic::about(&test.file, severity, message).with_help(help);
        Diagnostic { place: Some(place.clone()), ..about }
    };
    let actual = verdict.wording();
    let mut found = Vec::new();
    if let Some(wrong) = test.decision.as_ref().filter(|_| verdict.wrong_decision) {
        let expected = wording(&wrong.expected);
        let message = format!("test failed: {expected} expected, but {actual}");
        found.push(failed(&wrong.place, message, winner(bench, test, verdict)));
    }
    if let Some(wrong) = test.rule.as_ref().filter(|_| verdict.wrong_rule) {
        let expected = &wrong.expected;
        let message = format!("test failed: rule \"{expected}\" expected, but {actual}");
        let help = match misspelled(expected, bench.names()) {
            _ if bench.names().any(|name| name == expected) => winner(bench, test, verdict),
            Some(near) => format!("no rule is named \"{expected}\", did you mean \"{near}\"?"),
            None => format!("no rule is named \"{expected}\"; {}", winner(bench, test, verdict)),
        };
        found.push(failed(&wrong.place, message, help));
    }
    found
}

/// Returns the rule that decided, with its position, and the process.
fn winner(bench: &TestBench, test: &RuleTest, verdict: &TestVerdict) -> String {
    let process = &test.process;
    let Some(rule) = verdict.rule.and_then(|id| bench.rule(id)) else {
        return format!("no rule matches a process with {process}");
    };
    let name = rule.given_name().map(|name| format!("\"{name}\" at ")).unwrap_or_default();
    format!("the first match is the rule {name}{}; the process has {process}", rule.origin)
}

impl TestVerdict {
    /// Returns the decision in words.
    pub fn wording(&self) -> String {
        match &self.decision {
            TestDecision::NoRule => "no rule matches".to_owned(),
            TestDecision::Ignored => "the process is ignored".to_owned(),
            TestDecision::Stays(reason) => format!("the process stays where it is: {reason}"),
            TestDecision::Moved(paths) => {
                let paths = paths.iter().map(|path| format!("\"{}\"", shown(path)));
                format!("the process is moved to {}", paths.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

fn wording(expected: &ExpectedDecision) -> String {
    match expected {
        ExpectedDecision::NoRule => "no match".to_owned(),
        ExpectedDecision::Ignored => "an ignored process".to_owned(),
        ExpectedDecision::Stays => "a process that stays".to_owned(),
        ExpectedDecision::Moved(test) => {
            format!("\"{}\"", shown(&String::from_utf8_lossy(test.as_bytes())))
        }
    }
}

/// Returns a path for a message; that of the managed root is `/`.
fn shown(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}
