//! Tests `cgrulectl convert` on configuration files of a host: the daemon must accept the output.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test fails by panic and does its own input and output"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn run(program: &str, arguments: &[&Path]) -> Output {
    Command::new(program).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const FILES: &[(&str, &str)] = &[
    (
        "cgrules.conf",
        "# people\nroot:/usr/bin/vim cpu,memory ct/%u # editors\n@root * all/\n% pids all\n\
         no-such-user cpu x\nroot cpu a\n% memory b\n* cpu ct ignore\nbroken\n",
    ),
    (
        "cgconfig.conf",
        "mount { cpu = /x; }\ntemplate ct/%u { perm { task { uid = root; } admin { uid = root; } } \
         cpu { cpu.shares = 10; } }\n",
    ),
    ("ananicy.d/00-types.types", "{\"type\": \"BG\", \"nice\": 10, \"cgroup\": \"cpu80\"}\n"),
    ("ananicy.d/a/b.rules", "{\"name\": \"gcc\", \"type\": \"BG\"}\n"),
    ("ananicy.d/c.cgroups", "{\"cgroup\": \"cpu80\", \"CPUQuota\": 80}\n"),
    ("ananicy.d/c.cgroups~", "garbage\n"),
    ("ananicy.d/README.md", "not for a user\n"),
    ("ananicy.d/.gitattributes", "* text eol=lf\n"),
    ("ananicy.d/.git/info/a.rules", "garbage\n"),
];

#[test]
fn the_daemon_takes_what_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = |below: &str| directory.path().join(below);
    for (name, content) in FILES {
        fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        fs::write(path(name), content).unwrap();
    }
    let (rules, groups, ananicy) = (path("cgrules.conf"), path("cgconfig.conf"), path("ananicy.d"));
    let arguments = [Path::new("convert"), &rules, &groups, &ananicy];
    let made = run(env!("CARGO_BIN_EXE_cgrulectl"), &arguments);
    let said = text(&made.stderr);
    assert_eq!(made.status.code(), Some(1), "{said}");
    for lost in [
        "cgrules.conf:7:1: error",
        "cgrules.conf:8:1: error",
        "cgrules.conf:9:1: error",
        "cgconfig.conf:1:1: warning",
        "README.md: warning: skipped",
        "c.cgroups~: warning",
    ] {
        assert!(said.contains(lost), "{lost} is not in {said}");
    }
    assert_eq!(said.matches(": error:").count(), 3, "{said}");
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: not root: the daemon rejects rule files of other users");
        return;
    }
    let target = path("rules.d");
    fs::create_dir(&target).unwrap();
    fs::set_permissions(&target, PermissionsExt::from_mode(0o755)).unwrap();
    fs::write(target.join("10-legacy.toml"), &made.stdout).unwrap();
    let settings = path("settings.toml");
    fs::write(&settings, "").unwrap();
    let arguments = ["--check", "--no-legacy", "--rules"].map(Path::new);
    let arguments = [&arguments[..], &[&target, Path::new("--config"), &settings]].concat();
    let checked = run(env!("CARGO_BIN_EXE_cgruled"), &arguments);
    assert_eq!(checked.status.code(), Some(0), "{}\n{}", text(&checked.stderr), text(&made.stdout));
}

#[test]
fn exit_codes() {
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good.conf");
    fs::write(&good, "root cpu a\n").unwrap();
    let code = |arguments: &[&Path]| {
        let all = [&[Path::new("convert")], arguments].concat();
        run(env!("CARGO_BIN_EXE_cgrulectl"), &all).status.code()
    };
    assert_eq!(code(&[&good]), Some(0));
    assert_eq!(code(&[Path::new("--from"), Path::new("cgconfig"), &good]), Some(1));
    assert_eq!(code(&[Path::new("--from"), Path::new("x"), &good]), Some(2));
    assert_eq!(code(&[&directory.path().join("none")]), Some(1));
}

#[test]
fn input_that_cannot_be_converted_is_reported_without_blocking() {
    let directory = tempfile::tempdir().unwrap();
    let empty = directory.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("50-new.toml"), "version = 1\n").unwrap();
    let pipe = directory.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let cases: [(&str, &Path, &str); 4] = [
        ("convert", &empty, "50-new.toml: warning: skipped"),
        ("convert", &empty, "no file to convert in the given paths"),
        ("convert", &pipe, "pipe: is not a regular file"),
        ("groups", &pipe, "pipe: is not a regular file"),
    ];
    for (command, path, expected) in cases {
        let output = run(env!("CARGO_BIN_EXE_cgrulectl"), &[Path::new(command), path]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

/// Checks that a user who may run the command by sudo does not read the files of root with it.
#[test]
fn a_file_of_root_is_not_shown_by_sudo() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("shadow");
    fs::write(&secret, "root:$y$secret:20000:0:99999:7:::\n").unwrap();
    let convert = |sudo: Option<&str>, mode: u32| {
        for (path, mode) in [(&*secret, mode), (directory.path(), 0o755)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_cgrulectl"));
        command.args(["convert", "--from", "cgrules"]).arg(&secret).env_remove("SUDO_UID");
        let output = command.envs(sudo.map(|uid| ("SUDO_UID", uid))).output().unwrap();
        (text(&output.stdout) + &text(&output.stderr)).contains("$y$secret")
    };
    assert!(!convert(Some("1000"), 0o600));
    assert!(convert(Some("1000"), 0o644) && convert(None, 0o600) && convert(Some("0"), 0o600));
}
