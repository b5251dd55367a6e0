//! Finds what no test checks: changes one expression of the sources at a time, and prints those changes with which all
//! tests pass. `tests/mutants/run` calls it with a copy of the tree.
//!
//! All changes are compiled into one program, each behind a check of `CGRULED_MUTANT`, because a build for each would
//! take 20 times as long as its tests. Not changed: `const` functions, macros and code of tests.

mod changes;
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use changes::Change;
use tests::{Programs, Verdict};

/// Module that the changed sources call.
const MODULE: &str = r#"
#[doc(hidden)]
pub mod mutant {
    use std::sync::OnceLock;
    pub fn is(number: u32) -> bool {
        static CHOSEN: OnceLock<Option<u32>> = OnceLock::new();
        *CHOSEN.get_or_init(|| std::env::var("CGRULED_MUTANT").ok()?.parse().ok()) == Some(number)
    }
}
"#;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(tree) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: mutants TREE FILE...");
        return ExitCode::from(64);
    };
    match run(&tree, &arguments.collect::<Vec<_>>()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the number of changes with which all tests pass.
fn run(tree: &Path, files: &[String]) -> Result<usize, String> {
    let root = tree.join("src/lib.rs");
    let library = read(&root)?;
    let sources = files
        .iter()
        .map(|file| Ok((file, read(&tree.join(file))?)))
        .collect::<Result<Vec<_>, String>>()?;
    let mut invalid = BTreeSet::new();
    let (changes, programs) = loop {
        let mut changes = Vec::new();
        for (file, source) in &sources {
            let changed = changes::apply(file, source, &invalid, &mut changes)?;
            write(&tree.join(file), &changed)?;
        }
        write(&root, &format!("{library}{MODULE}"))?;
        match tests::build(tree)? {
            Ok(programs) => break (changes, programs),
            // Some types have no such operator.
            Err(numbers) if numbers.is_subset(&invalid) => {
                return Err("the tree does not compile".into());
            }
            Err(numbers) => invalid.extend(numbers),
        }
    };
    programs.check_unchanged()?;
    println!("{} changes, {} do not compile", changes.len() - invalid.len(), invalid.len());
    let survivors = examine(&programs, changes.iter().filter(|one| !invalid.contains(&one.number)));
    println!("changes that no test notices: {survivors}");
    Ok(survivors)
}

fn examine<'c>(programs: &Programs, changes: impl Iterator<Item = &'c Change>) -> usize {
    let mut survivors = 0;
    for change in changes {
        if programs.verdict(change) == Verdict::Unnoticed {
            println!("{change}");
            survivors += 1;
        }
    }
    survivors
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
