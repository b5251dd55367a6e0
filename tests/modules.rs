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

/// Returns the paths in the code that begin with `start`, without it, and each path of a list in
/// braces after `start`.
fn listed_paths(code: &str, start: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in code.split(start).skip(1) {
        let Some(list) = rest.strip_prefix('{') else {
            found.extend(paths(&format!("{start}{rest}"), start).map(str::to_owned));
            continue;
        };
        let mut depth = 1;
        let mut path = String::new();
        for c in list.chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => found.push(std::mem::take(&mut path)),
                c if depth == 1 && !c.is_whitespace() => path.push(c),
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
        found.push(path);
    }
    found
}

/// Returns the name of a module, such as `cgroup::units`, from its file in the crate at `root`.
fn module_name(root: &Path, file: &Path) -> String {
    let name = file.strip_prefix(root).unwrap().with_extension("");
    let name = name.to_str().unwrap().replace('/', "::");
    name.strip_suffix("::mod").unwrap_or(&name).to_owned()
}

/// Returns the module with the longest name with which a path begins.
fn module_of(path: &str, names: &BTreeSet<String>) -> Option<String> {
    let ends = path.match_indices("::").map(|(end, _)| end).chain([path.len()]);
    ends.filter_map(|end| names.get(&path[..end])).last().cloned()
}

/// Checks whether two modules are the same, or one is above the other.
fn are_kin(one: &str, other: &str) -> bool {
    let [shorter, longer] = if one.len() < other.len() { [one, other] } else { [other, one] };
    let rest = longer.strip_prefix(shorter);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Returns the modules of the crate at `root` by name, each with the modules it uses that are
/// neither above nor below it.
fn uses(root: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut files = Vec::new();
    sources(root, &mut files);
    files.retain(|file| !file.starts_with(root.join("bin")));
    files.retain(|file| !file.file_stem().unwrap().to_str().unwrap().ends_with("tests"));
    let names: BTreeSet<String> = files.iter().map(|file| module_name(root, file)).collect();
    let mut uses = BTreeMap::new();
    for file in files {
        let own = module_name(root, &file);
        let code = code(&file);
        let parent = own.rfind("::").map_or("", |end| &own[..end + 2]);
        let siblings = listed_paths(&code, "use super::");
        let siblings = siblings.into_iter().map(|path| format!("{parent}{path}"));
        let all = listed_paths(&code, "crate::").into_iter().chain(siblings);
        let used = all.filter_map(|path| module_of(&path, &names));
        let used: BTreeSet<String> = used.filter(|used| !are_kin(&own, used)).collect();
        uses.insert(own, used);
    }
    uses
}

#[test]
fn no_two_modules_use_each_other() {
    let mut uses = uses(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    // It lists the commands, which take their common flags and their error from it.
    assert!(uses.remove("cli::command").is_some());
    assert!(uses["rules::exe"].contains("rules::listed"), "uses are found: {uses:?}");
    assert_no_cycle(uses);
}

#[test]
fn no_two_files_of_a_benchmark_use_each_other() {
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let entries = fs::read_dir(benches).unwrap().map(|entry| entry.unwrap().path());
    let crates: Vec<PathBuf> = entries.filter(|path| path.join("main.rs").is_file()).collect();
    assert!(crates.len() >= 4, "{crates:?}");
    for root in crates {
        let uses = uses(&root);
        let is_found = uses.values().any(|used| !used.is_empty());
        assert!(is_found, "uses are found in {}: {uses:?}", root.display());
        assert_no_cycle(uses);
    }
}

fn assert_no_cycle(mut uses: BTreeMap<String, BTreeSet<String>>) {
    loop {
        let before = uses.len();
        // A module that uses only modules outside of all cycles, or that only such modules use, is
        // outside as well.
        let names: BTreeSet<String> = uses.keys().cloned().collect();
        uses.values_mut().for_each(|used| used.retain(|one| names.contains(one)));
        let used: BTreeSet<String> = uses.values().flatten().cloned().collect();
        uses.retain(|name, uses| !uses.is_empty() && used.contains(name));
        if uses.len() == before {
            break;
        }
    }
    // What is left is in a cycle, or between two.
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

/// Returns the files of the library whose code contains `what`.
fn files_with(what: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.retain(|file| code(file).contains(what));
    let names = files.iter().map(|file| file.strip_prefix(&root).unwrap().display().to_string());
    let sorted: BTreeSet<String> = names.collect();
    sorted.into_iter().collect()
}

/// Lists the places that write text chosen by a user or the name service, each of which escapes it: JSON
/// of the tools and of the control socket (whose texts are escaped where they are created), files of
/// state, which the daemon alone reads, and the log, which passes all records through one
/// function.
#[test]
fn text_from_outside_has_few_writers() {
    let stored =
        ["cgroup/reaper/journal.rs", "cgroup/units/state_file.rs", "policy/rebuild/stored.rs"];
    let mut json = [&stored[..], &["cli/json.rs", "control/protocol.rs"]].concat();
    json.sort_unstable();
    assert_eq!(files_with("serde_json::to_"), json);
    assert_eq!(files_with("set_boxed_logger"), ["telemetry/log/mod.rs"]);
    assert_eq!(files_with(".args()"), ["telemetry/log/mod.rs"]);
}
