//! Directories of rule files against what loading them must give. `UPDATE_GOLDEN=1` writes what it
//! gives now: read the difference before you commit it.
//!
//! `special.txt` of a case says what git cannot keep, one file a line: `text NAME CONTENT` (with
//! `\n`, `\\` and `\xHH`), `link NAME TARGET`, `fifo NAME`, `socket NAME`, `directory NAME [MODE]`,
//! `large NAME BYTES`, `mode NAME MODE`.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::unwrap_used, clippy::panic)]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use cgruled::cgroup::provision::{Gifts, Ownership, Perm, Setting};
use cgruled::event::Uid;
use cgruled::load::{Loaded, NameService, Original, Outcome, Sources, load};
use cgruled::rules::{Action, Rule};

const DIRECTORIES: [&str; 4] = ["etc", "run", "usr-local", "usr"];
/// Where `cgrules.conf` and the further legacy files are, if a case has any.
const LEGACY: [&str; 3] = ["legacy", "cgrules.d", "cgconfig.d"];

#[test]
fn loading_gives_what_is_expected() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/load");
    let mut wrong = Vec::new();
    for case in sorted_entries(&cases).into_iter().filter(|path| path.is_dir()) {
        let given = run(&cases, &case);
        let expected = case.join("expected.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, given).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != given {
            wrong.push(format!("{}:\n{given}", case.display()));
        }
    }
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 rewrites expected.txt", wrong.join("\n"));
}

/// Loads a copy of the case, with the modes that a checkout cannot promise.
fn run(cases: &Path, case: &Path) -> String {
    let copy = tempfile::tempdir().unwrap();
    let root = copy.path().canonicalize().unwrap();
    let directories = DIRECTORIES.iter().chain(&LEGACY).map(|name| case.join(name));
    for directory in directories.filter(|path| path.is_dir()) {
        copy_directory(&directory, &root);
    }
    let special = fs::read_to_string(case.join("special.txt")).unwrap_or_default();
    special.lines().for_each(|line| make(&root, line));
    let sources = Sources {
        directories: DIRECTORIES.map(|name| root.join(name)).to_vec(),
        legacy: LEGACY.iter().any(|name| root.join(name).exists()),
        cgrules_conf: root.join("legacy/cgrules.conf"),
        cgrules_d: root.join("cgrules.d"),
        cgconfig_conf: root.join("legacy/cgconfig.conf"),
        cgconfig_d: root.join("cgconfig.d"),
        owner: Uid(nix::unistd::geteuid().as_raw()),
    };
    let service =
        NameService { passwd: cases.join("passwd"), group: cases.join("group"), nss: false };
    let shown = show(&load(&sources, &service), &root);
    shown.replace(root.to_str().unwrap(), "CASE")
}

fn copy_directory(directory: &Path, root: &Path) {
    let target = root.join(directory.file_name().unwrap());
    fs::create_dir(&target).unwrap();
    set_mode(&target, 0o755);
    for file in sorted_entries(directory) {
        let copy = target.join(file.file_name().unwrap());
        fs::copy(&file, &copy).unwrap();
        set_mode(&copy, 0o644);
    }
}

/// Makes what one line of `special.txt` says.
fn make(root: &Path, line: &str) {
    let mut words = line.splitn(3, ' ');
    let (what, name) = (words.next().unwrap(), words.next().unwrap());
    let argument = words.next().unwrap_or_default();
    let path = root.join(OsStr::from_bytes(&unescaped(name)));
    let parent = path.parent().unwrap();
    if !parent.exists() {
        fs::create_dir(parent).unwrap();
        set_mode(parent, 0o755);
    }
    let octal = |text: &str| u32::from_str_radix(text, 8).unwrap();
    match what {
        "text" => {
            fs::write(&path, unescaped(argument)).unwrap();
            set_mode(&path, 0o644);
        }
        "link" => symlink(argument, &path).unwrap(),
        "fifo" => {
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        }
        "socket" => drop(UnixListener::bind(&path).unwrap()),
        "directory" => {
            fs::create_dir(&path).unwrap();
            set_mode(&path, if argument.is_empty() { 0o755 } else { octal(argument) });
        }
        "large" => {
            File::create(&path).unwrap().set_len(argument.parse().unwrap()).unwrap();
            set_mode(&path, 0o644);
        }
        "mode" => set_mode(&path, octal(argument)),
        other => panic!("{other} in special.txt"),
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let (byte, used) = match (first, after.first()) {
            (b'\\', Some(b'n')) => (b'\n', 2),
            (b'\\', Some(b'\\')) => (b'\\', 2),
            (b'\\', Some(b'x')) => {
                let digits = std::str::from_utf8(&after[1..3]).unwrap();
                (u8::from_str_radix(digits, 16).unwrap(), 4)
            }
            _ => (first, 1),
        };
        bytes.push(byte);
        rest = &rest[used..];
    }
    bytes
}

fn sorted_entries(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn show(loaded: &Loaded, root: &Path) -> String {
    let mut text = String::from("rules:\n");
    for rule in &*loaded.rules {
        writeln!(text, "  {}", show_rule(rule)).unwrap();
    }
    show_gifts(&loaded.gifts, &mut text);
    text.push_str("files:\n");
    for file in &loaded.files {
        let path = file.path.strip_prefix(root).unwrap();
        let outcome = match &file.outcome {
            Outcome::Loaded(rules) => format!("{rules} rules"),
            Outcome::Mask => "mask".to_owned(),
            Outcome::HiddenBy(first) => format!("hidden by {}", first.display()),
            Outcome::Skipped => "skipped".to_owned(),
            Outcome::Refused => "refused".to_owned(),
        };
        writeln!(text, "  {}: {outcome}", path.display().to_string().escape_debug()).unwrap();
    }
    match &loaded.original {
        Original::NotAsked => {}
        Original::Starts => text.push_str("original: starts\n"),
        Original::Misses(file) => writeln!(text, "original: misses {}", file.display()).unwrap(),
        Original::Refuses(line) => writeln!(text, "original: refuses {line}").unwrap(),
    }
    text.push_str("diagnostics:\n");
    for diagnostic in &loaded.diagnostics {
        writeln!(text, "{diagnostic}").unwrap();
    }
    text
}

/// What groups are given, if anything is.
fn show_gifts(gifts: &Gifts, text: &mut String) {
    let kinds =
        [("table", &gifts.tables), ("template", &gifts.templates), ("group", &gifts.groups)];
    for (kind, gift) in kinds.iter().flat_map(|(kind, list)| list.iter().map(move |g| (kind, g))) {
        writeln!(text, "{kind} {}:", gift.text).unwrap();
        for Setting { key, value, controller, .. } in &gift.settings {
            writeln!(text, "  {controller}: {key} = {value}").unwrap();
        }
        if gift.perm != Perm::default() {
            let Perm { directory, task, .. } = gift.perm;
            let one = |o: Ownership| {
                let mode = o.mode.map(|mode| format!("{mode:04o}"));
                format!("{:?} {:?} {mode:?}", o.uid.map(|id| id.0), o.gid.map(|id| id.0))
            };
            writeln!(text, "  owners: {}, of tasks {}", one(directory), one(task)).unwrap();
        }
        if gift.is_required {
            text.push_str("  required\n");
        }
        if let Some(after) = gift.remove_after {
            writeln!(text, "  removed after {after:?}").unwrap();
        }
    }
    for unit in &gifts.units {
        writeln!(text, "unit {}: {}", unit.name, unit.properties().join(" ")).unwrap();
    }
}

fn show_rule(rule: &Rule) -> String {
    let action = match &rule.action {
        Action::Ignore(_) => "ignore".to_owned(),
        Action::Place(targets) => {
            let target = &targets[0];
            format!("{} {:?}", target.destination.as_str(), target.controllers)
        }
    };
    let count = |name: &str, count: usize| match count {
        0 => String::new(),
        _ => format!(" {name}:{count}"),
    };
    let kinds = [
        count("user", rule.when.users.len()),
        count("group", rule.when.groups.len()),
        count("exe", rule.when.exes.len()),
        count("not-user", rule.not.users.len()),
        count("not-group", rule.not.groups.len()),
    ];
    format!("{} ({}) -> {action}", rule.name, kinds.concat().trim_start())
}
