//! Runs test cases that are directories of files. `UPDATE_GOLDEN=1` writes the present
//! results as the expected ones.
//!
//! `special.txt` of a case describes the files that git cannot store, one per line:
//! `text NAME CONTENT` (with `\n`, `\\` and `\xHH`), `link NAME TARGET`, `fifo NAME`,
//! `socket NAME`, `directory NAME [MODE]`, `large NAME BYTES`, `mode NAME MODE`.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use cgruled::event::Uid;
use cgruled::policy::load::{NameService, Sources};

const DIRECTORIES: [&str; 4] = ["etc", "run", "usr-local", "usr"];
/// Places of `cgrules.conf` and of the further legacy files in a case.
const LEGACY: [&str; 3] = ["legacy", "cgrules.d", "cgconfig.d"];

/// Runs every case of `tests/cases/NAME` and compares the result with its `expected.txt`. `run`
/// gets the directory of all cases and that of the case.
pub(crate) fn compare(name: &str, run: impl Fn(&Path, &Path) -> String) {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name);
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

/// A copy of a case, with modes that a git checkout does not preserve.
pub(crate) struct Copy {
    _directory: tempfile::TempDir,
    pub(crate) root: PathBuf,
    pub(crate) sources: Sources,
    pub(crate) service: NameService,
}

impl Copy {
    pub(crate) fn of(cases: &Path, case: &Path) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
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
        let service = NameService::of_files(cases);
        Self { _directory: directory, root, sources, service }
    }

    /// Removes the path of the copy from a text.
    pub(crate) fn nameless(&self, text: &str) -> String {
        text.replace(self.root.to_str().unwrap(), "CASE")
    }
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

/// Creates the file that one line of `special.txt` describes.
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

pub(crate) fn unescaped(text: &str) -> Vec<u8> {
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
