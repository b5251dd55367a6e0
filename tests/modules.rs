//! Compares the modules with the rules in CONTRIBUTING.md and with the path of an event in
//! docs/design.md.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Collects all files of a module, which is a file or a directory of `src`.
fn sources(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| sources(&entry.unwrap().path(), found));
    } else if path.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
        found.push(path.to_owned());
    }
}

/// Returns the text of a file without tests and comments.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Returns the paths in the code that begin with `start`, without it.
fn paths<'t>(code: &'t str, start: &'t str) -> impl Iterator<Item = &'t str> {
    let is_path = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':');
    code.split(start).skip(1).map(move |rest| rest.split(|c| !is_path(c)).next().unwrap())
}

#[test]
fn modules_use_those_before_them_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
    let list = text.split("**Directions**").nth(1).unwrap().split(". Every").next().unwrap();
    let order: Vec<&str> = list.split('`').skip(1).step_by(2).collect();
    let library = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let modules = library.lines().filter_map(|line| line.strip_prefix("pub mod "));
    let modules: BTreeSet<&str> = modules.map(|name| name.trim_end_matches(';')).collect();
    let listed: BTreeSet<&str> = order.iter().copied().chain(["sys"]).collect();
    assert_eq!(modules, listed);
    for (index, module) in order.iter().enumerate() {
        let mut files = Vec::new();
        sources(&root.join("src").join(module), &mut files);
        sources(&root.join("src").join(module).with_extension("rs"), &mut files);
        for file in files.iter().filter(|file| !file.to_str().unwrap().ends_with("tests.rs")) {
            let code = code(file);
            for other in paths(&code, "crate::").filter_map(|path| path.split(':').next()) {
                let is_after = order.iter().position(|name| *name == other) > Some(index);
                assert!(!is_after, "{} uses {other}", file.display());
            }
        }
    }
}

#[test]
fn the_engine_reaches_the_kernel_through_its_trait_alone() {
    const OTHER_WAYS: [&str; 10] = [
        "sys::",
        "libc::",
        "nix::",
        "procfs",
        "std::fs",
        "std::os",
        "std::process",
        "std::thread",
        "std::time",
        "\"/proc",
    ];
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine"), &mut files);
    for file in files.iter().filter(|file| !file.to_str().unwrap().ends_with("tests.rs")) {
        for line in code(file).lines() {
            // Error numbers are values.
            let line = line.replace("nix::errno::Errno", "");
            let way = OTHER_WAYS.iter().find(|way| line.contains(**way));
            assert!(way.is_none(), "{}: {line}", file.display());
        }
    }
}

/// Returns the modules below `src` by name, such as `cgroup::units`, each with the modules it uses
/// that are neither above nor below it.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    files.retain(|file| !file.starts_with(source.join("bin")));
    files.retain(|file| !file.file_stem().unwrap().to_str().unwrap().ends_with("tests"));
    let name = |file: &Path| {
        let name = file.strip_prefix(&source).unwrap().with_extension("");
        let name = name.to_str().unwrap().replace('/', "::");
        name.strip_suffix("::mod").unwrap_or(&name).to_owned()
    };
    let names: BTreeSet<String> = files.iter().map(|file| name(file)).collect();
    let module_of = |path: &str| {
        let mut ends = path.match_indices("::").map(|(end, _)| end).collect::<Vec<_>>();
        ends.push(path.len());
        ends.iter().rev().map(|&end| path[..end].to_owned()).find(|one| names.contains(one))
    };
    let is_kin = |one: &str, other: &str| {
        let is_below = |one: &str, other: &str| one.starts_with(&format!("{other}::"));
        one == other || is_below(one, other) || is_below(other, one)
    };
    let of_file = |file: &PathBuf| {
        let (own, code) = (name(file), code(file));
        let parent = own.rsplit_once("::").map_or(String::new(), |(parent, _)| parent.to_owned());
        let siblings = paths(&code, "use super::").map(|path| format!("{parent}::{path}"));
        let all = paths(&code, "crate::").map(str::to_owned).chain(siblings);
        let used = all.filter_map(|path| module_of(&path)).filter(|used| !is_kin(&own, used));
        let used = used.collect();
        (own, used)
    };
    files.iter().map(of_file).collect()
}

#[test]
fn no_two_modules_use_each_other() {
    let mut uses = uses();
    assert!(uses["rules::exe"].contains("rules::listed"), "uses are found: {uses:?}");
    // Modules that use only modules outside of all cycles are outside as well.
    loop {
        let remaining: BTreeSet<String> = uses.keys().cloned().collect();
        uses.retain(|_, used| used.iter().any(|one| remaining.contains(one)));
        if uses.len() == remaining.len() {
            break;
        }
    }
    // What is left is in a cycle, or uses one.
    assert!(uses.is_empty(), "{uses:#?}");
}

/// Checks that the files and functions on the path of an exec event, as docs/design.md lists them, exist.
#[test]
fn the_path_of_an_event_names_real_functions() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/design.md")).unwrap();
    let section = text.split("## Path of an exec event").nth(1).unwrap();
    let section = section.split("\n\nThe matcher").next().unwrap();
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let code: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let names: BTreeSet<&str> = section.split('`').skip(1).step_by(2).collect();
    let mut functions = 0;
    for name in names {
        let last = name.rsplit("::").next().unwrap();
        if name.ends_with(".rs") {
            assert!(root.join(name).exists(), "{name}");
        } else if last.starts_with(|first: char| first.is_lowercase()) && last != "cgroup.procs" {
            functions += 1;
            let is_there = ["(", "<"].iter().any(|next| code.contains(&format!("fn {last}{next}")));
            assert!(is_there, "there is no function {name}");
        }
    }
    assert!(functions >= 18, "{functions}");
}
