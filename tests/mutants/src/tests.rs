//! The tests that must notice a change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::changes::Change;

/// Integration tests without a kernel that run the code of the library in their own process.
const OTHERS: [&str; 4] = ["matcher", "golden", "tool", "convert"];
/// Time after which a program counts as failed: a change can make a loop endless.
const PATIENCE: Duration = Duration::from_secs(90);
/// Fewer cases of each property than usual: each change is tested with all of them.
const CASES: &str = "24";

#[derive(PartialEq, Eq)]
pub(crate) enum Verdict {
    Noticed,
    Unnoticed,
}

/// Programs of tests.
pub(crate) struct Programs {
    tree: PathBuf,
    library: PathBuf,
    others: Vec<PathBuf>,
}

/// Builds the tests. Returns the numbers of changes that do not compile, if any.
pub(crate) fn build(tree: &Path) -> Result<Result<Programs, BTreeSet<u32>>, String> {
    let mut command = Command::new("cargo");
    command.current_dir(tree).args(["test", "--no-run", "--message-format=json", "--lib"]);
    command.args(OTHERS.iter().flat_map(|name| ["--test", name]));
    // The changes cause warnings.
    command.env("RUSTFLAGS", "--cap-lints allow").env("CARGO_PROFILE_DEV_DEBUG", "none");
    let output =
        command.stderr(Stdio::null()).output().map_err(|error| format!("cargo: {error}"))?;
    let mut programs =
        Programs { tree: tree.to_owned(), library: PathBuf::new(), others: Vec::new() };
    let mut invalid = BTreeSet::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        if message["reason"] == "compiler-message" && message["message"]["level"] == "error" {
            invalid.extend(numbers(tree, &message["message"]));
        }
        if let Some(program) = message["executable"].as_str() {
            let is_library = message["target"]["kind"][0] == "lib";
            if is_library {
                programs.library = program.into();
            } else if message["target"]["kind"][0] == "test" {
                programs.others.push(program.into());
            }
        }
    }
    Ok(if output.status.success() { Ok(programs) } else { Err(invalid) })
}

/// Returns the numbers of the changes in the lines of an error.
fn numbers(tree: &Path, error: &Value) -> Vec<u32> {
    let mut found = Vec::new();
    for span in
        error["spans"].as_array().into_iter().flatten().filter(|span| span["is_primary"] == true)
    {
        let Some(file) = span["file_name"].as_str() else { continue };
        let Ok(text) = std::fs::read_to_string(tree.join(file)) else { continue };
        let number = |key: &str| span[key].as_u64().and_then(|number| usize::try_from(number).ok());
        let (Some(first), Some(last)) = (number("line_start"), number("line_end")) else {
            continue;
        };
        // The check of the change is in the same line or in one of the lines before.
        let lines: Vec<&str> = text.lines().take(last).collect();
        let own = lines.iter().skip(first - 1);
        let before = lines.iter().take(first).rev().find(|line| line.contains("mutant::is("));
        found.extend(own.chain(before).flat_map(|line| {
            line.split("mutant::is(")
                .skip(1)
                .filter_map(|rest| rest.split(')').next()?.trim().parse::<u32>().ok())
        }));
    }
    found
}

impl Programs {
    /// Checks that all tests pass without a change.
    pub(crate) fn check_unchanged(&self) -> Result<(), String> {
        let all = std::iter::once(&self.library).chain(&self.others);
        let failing = all.into_iter().find(|program| !self.passes(program, &[], None));
        failing
            .map_or(Ok(()), |program| Err(format!("fails without a change: {}", program.display())))
    }

    /// Runs the tests of the module first, which notice most changes.
    pub(crate) fn verdict(&self, change: &Change) -> Verdict {
        let module = change.file.trim_start_matches("src/").split('/').next().unwrap_or_default();
        let module = format!("{}::", module.trim_end_matches(".rs"));
        let passes =
            |program: &Path, filter: &[&str]| self.passes(program, filter, Some(change.number));
        let is_unnoticed = passes(&self.library, &[&module])
            && self.others.iter().all(|program| passes(program, &[]))
            && passes(&self.library, &["--skip", &module]);
        if is_unnoticed { Verdict::Unnoticed } else { Verdict::Noticed }
    }

    fn passes(&self, program: &Path, filter: &[&str], change: Option<u32>) -> bool {
        let mut command = Command::new(program);
        command.current_dir(&self.tree).args(filter).env("PROPTEST_CASES", CASES);
        command
            .env_remove("CGRULED_MUTANT")
            .envs(change.map(|number| ("CGRULED_MUTANT", number.to_string())));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut child) = command.spawn() else { return false };
        succeeds(&mut child)
    }
}

/// Waits for the end of a program, and kills it when it takes too long.
fn succeeds(child: &mut Child) -> bool {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => return false,
        }
    }
    let _gone = child.kill();
    let _status = child.wait();
    false
}
