//! `cgrulectl test`: evaluates the tests of rule files. Must not need privileges, a daemon or accounts
//! of the host.

mod files;
mod report;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check;
use super::command::{DaemonFlags, ToolError};
use super::explain;
use super::locale;
use super::rule_wording::{self, RuleWording};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::config::rules_toml::{self, ParsedRules};
use crate::config::test_table::RuleTest;
use crate::daemon;
use crate::placement::assertions::{TestAccounts, TestBench, TestVerdict, failures};
use crate::policy::load::{NameService, load_given_with};
use crate::rules::Rule;
use files::HostFiles;
pub use report::tap;

#[derive(clap::Args)]
#[command(
    about = "Run the tests in rule files; exit status 65 if one fails",
    after_help = "\
Examples:
  cgrulectl test ./50-web.toml
      run the tests of one file with its own rules; needs no root
  cgrulectl test --all
      run all tests with all rules of this host"
)]
pub(super) struct TestArgs {
    /// run the tests with the rules of all files of this host
    #[arg(long)]
    all: bool,
    /// an array with one object per test
    #[arg(long, conflicts_with = "tap")]
    json: bool,
    /// print the results in the Test Anything Protocol
    #[arg(long)]
    tap: bool,
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    daemon: DaemonFlags,
}

/// Exit code for a failing test, `EX_DATAERR` of sysexits.h.
const INVALID_DATA: u8 = 65;

/// Result of one test.
#[derive(Debug)]
pub struct TestResult {
    /// Test as written.
    pub test: RuleTest,
    /// Decision of the rules.
    pub verdict: TestVerdict,
    /// Rule that matches first.
    pub rule: Option<Rule>,
    /// One diagnostic for each assertion that is not met.
    pub failures: Vec<Diagnostic>,
}

/// Results of the tests of all files.
#[derive(Debug, Default)]
pub struct TestRun {
    /// Results in the order of files and lines.
    pub results: Vec<TestResult>,
    /// Errors of the files. With an error some rules or tests are missing.
    pub errors: Vec<Diagnostic>,
    /// Number of files that were read.
    pub files: usize,
}

pub(super) fn run(given: &TestArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let options = given.daemon.options();
    let absent = daemon::missing_rules(&options);
    if !absent.is_empty() {
        absent.iter().for_each(|error| eprintln!("{error}"));
        return Ok(INVALID_DATA);
    }
    let needs_host = given.all || given.paths.is_empty();
    let mut host = needs_host.then(|| HostFiles::read(&daemon::sources(&options)));
    let files = match &host {
        Some(host) if given.paths.is_empty() => host.rule_files(),
        Some(_) | None => files::given(&given.paths)?,
    };
    if let Some(host) = host.as_mut().filter(|_| given.all) {
        files.iter().for_each(|(path, bytes)| host.install(path, bytes));
    }
    let mut done = TestRun::default();
    for (path, bytes) in &files {
        done.add(path, bytes, host.as_ref().filter(|_| given.all));
    }
    if given.tap {
        tap(&done, out)?;
    } else if given.json {
        report::json(&done, out)?;
        done.errors.iter().for_each(|error| eprintln!("{error}"));
    } else {
        check::show(&done.diagnostics(), locale::is_colored(), out)?;
        // Not on standard error: autopkgtest(1) takes any output there for a failure.
        writeln!(out, "{}", done.summary())?;
    }
    out.flush()?;
    Ok(if done.passed() { 0 } else { INVALID_DATA })
}

impl TestRun {
    /// Evaluates the tests of one file: with the rules of that file, or with those of the host.
    fn add(&mut self, path: &Arc<Path>, bytes: &[u8], host: Option<&HostFiles>) {
        let ParsedRules { rules, tests, diagnostics, .. } = rules_toml::parse_bytes(path, bytes);
        self.files += 1;
        self.errors.extend(diagnostics.into_iter().filter(Diagnostic::is_error));
        if tests.is_empty() {
            return;
        }
        let mut bench = match host {
            None => TestBench::of_file(&rules, &tests),
            Some(host) => bench_of_host(&tests, host),
        };
        for test in tests {
            let verdict = bench.verdict(&test);
            let mut failures = failures(&bench, &test, &verdict, Severity::Error);
            if let (Some(failure), Some(reason)) = (failures.first_mut(), mismatch(&bench, &test)) {
                let help = failure.help.take().unwrap_or_default();
                failure.help = Some(format!("{help}; {reason}"));
            }
            let rule = verdict.rule.and_then(|id| bench.rule(id)).cloned();
            self.results.push(TestResult { test, verdict, rule, failures });
        }
    }

    /// Adds a file with its own rules only.
    pub fn add_file(&mut self, path: &Arc<Path>, bytes: &[u8]) {
        self.add(path, bytes, None);
    }

    /// Returns the errors of files and the failures of tests.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        let failures = self.results.iter().flat_map(|result| &result.failures);
        self.errors.iter().chain(failures).cloned().collect()
    }

    /// Checks whether all tests passed and no file has errors.
    pub fn passed(&self) -> bool {
        self.errors.is_empty() && self.results.iter().all(|result| result.verdict.passed())
    }

    /// Returns the summary: `12 tests in 3 files: 11 passed, 1 failed`.
    pub fn summary(&self) -> String {
        let all = self.results.len();
        let passed = self.results.iter().filter(|result| result.verdict.passed()).count();
        let count = |count: usize, what: &str| match count {
            1 => format!("1 {what}"),
            more => format!("{more} {what}s"),
        };
        let mut text = format!(
            "{} in {}: {passed} passed, {} failed",
            count(all, "test"),
            count(self.files, "file"),
            all - passed
        );
        if !self.errors.is_empty() {
            text += &format!("; {}", count(self.errors.len(), "error"));
        }
        text
    }
}

/// Returns the reason for which the rule that a test expects does not match its process.
fn mismatch(bench: &TestBench, test: &RuleTest) -> Option<String> {
    let (rule, miss) = bench.mismatch(test)?;
    let words = RuleWording::new(&bench.accounts().names());
    let name = rule_wording::name(rule).map(|name| format!("\"{name}\" at ")).unwrap_or_default();
    let origin = rule_wording::origin(rule);
    Some(format!("the rule {name}{origin} {}", explain::failed(miss, rule, &words)))
}

/// Compiles all rules of the host. Accounts that the tests describe precede those of the host.
fn bench_of_host(tests: &[RuleTest], host: &HostFiles) -> TestBench {
    let service = NameService::default();
    let accounts =
        TestAccounts::on_host(tests, &mut |name| service.uid(name).ok().flatten(), &mut |name| {
            service.gid(name).ok().flatten()
        });
    let loaded = load_given_with(host.files(), &service, &accounts.names());
    TestBench::new(loaded.rules.to_vec(), accounts)
}
