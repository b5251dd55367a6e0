use std::path::Path;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::compat::convert::{Converted, HostFacts, SourceFile, SourceSyntax, convert};
use crate::config::rules_toml;

fn converted(text: &str) -> Converted {
    converted_files(&[("/etc/cgconfig.conf", text)])
}

fn converted_files(files: &[(&str, &str)]) -> Converted {
    let sources = files.iter().map(|(file, text)| SourceFile {
        file: Arc::from(Path::new(file)),
        syntax: SourceSyntax::Cgconfig,
        text: (*text).to_owned(),
    });
    let sources: Vec<SourceFile> = sources.collect();
    let knows = |_: rules_toml::NameKind, name: &str| name != "ghost";
    let made = convert(&sources, &HostFacts { controllers: Vec::new(), cpus: 4, knows: &knows });
    made.expect_valid()
}

fn errors(made: &Converted) -> Vec<String> {
    let shown = made
        .diagnostics
        .iter()
        .filter(|d| d.is_error())
        .map(|d| format!("{}: {}", d.place.as_ref().map_or(0, |place| place.line), d.message));
    shown.collect()
}

#[test]
fn sections_become_tables() {
    let text = "# shares\ntemplate ct/%u {\n\tcpu {\n\t\t# a third\n\t\tcpu.shares = 333;\n\t}\n\
                memory { memory.limit_in_bytes = 1G; }\n}\ngroup web/ { perm { task { uid = www; \
                gid = www; } admin { uid = www; gid = www; dperm = 750; } } }\n";
    let made = converted(text);
    let (_, body) = made.text.split_once("# /etc/cgconfig.conf\n\n").unwrap();
    assert_eq!(
        body,
        "# shares\n[cgroup.\"ct/%u\"]\n# a third\ncpu.shares = 333\nmemory.limit_in_bytes = \"1G\"\n\n\
         [cgroup.\"web\"]\nowner = \"www:www\"\n# line 9: the owner may place processes and create \
         cgroups; the limits stay owned by root\nmode = \"0750\"\n"
    );
    assert_eq!(errors(&made), [""; 0]);
}

#[test]
fn what_has_no_counterpart_is_said_with_its_line() {
    let text = "mount {\n cpu = /sys/fs/cgroup/cpu;\n}\ngroup . { cpu { cpu.shares = 1; } }\n\
                group a { cpu { cpu.shares = x; } }\ngroup a/ { cpu { cpu.shares = 2; } }\ngroup c { cpu { } }\n\
                group d { cpu { cpu.max = 5000; cpu.max.burst = 2; cpu.shares = 2; } }\nbroken\n";
    let made = converted(text);
    let said = errors(&made);
    let lines: Vec<&str> = said.iter().filter_map(|line| line.split(':').next()).collect();
    // A mount section, in line 2, is a warning as in `check`: the host mounts its hierarchies.
    // The section in line 6 adds to that in line 5.
    assert_eq!(lines, ["9", "4", "5"], "{said:?}");
    let is_warned = |d: &crate::config::diagnostic::Diagnostic| {
        !d.is_error() && d.message.contains("part of a mount section")
    };
    assert!(made.diagnostics.iter().any(is_warned), "{:?}", made.diagnostics);
    assert!(
        made.text.contains("# line 7: not converted: a cgroup without settings needs no table"),
        "{}",
        made.text
    );
}

#[test]
fn owners_that_differ_or_are_unknown_are_said() {
    let perm = |task: &str, admin: &str| {
        format!(
            "group a {{ perm {{ task {{ uid = {task}; }} admin {{ uid = {admin}; fperm = 644; }} }} }}\n"
        )
    };
    let differ = converted(&perm("www", "db"));
    let is_said = |d: &crate::config::diagnostic::Diagnostic| {
        !d.is_error() && d.message.contains("different owners for task and admin")
    };
    assert_eq!(differ.diagnostics.iter().filter(|d| is_said(d)).count(), 1);
    assert_eq!(errors(&differ), [""; 0]);
    assert_eq!(errors(&converted(&perm("ghost", "ghost"))), [""; 0]);
    assert!(!converted(&perm("root", "root")).text.contains("owner"));
    assert!(converted(&perm("root", "root")).text.contains("# line 1: fperm has no counterpart"));
}

#[test]
fn numbers_at_the_beginning_of_owners_are_ids() {
    let perm = |owner: &str| {
        let owner = format!("{{ uid = {owner}; gid = {owner}; }}");
        let made = converted(&format!("group a {{ perm {{ task {owner} admin {owner} }} }}\n"));
        assert_eq!(errors(&made), [""; 0]);
        let line = made.text.lines().find(|line| line.starts_with("owner"));
        line.map(str::to_owned)
    };
    assert_eq!(perm("7").as_deref(), Some("owner = \"7:7\""));
    assert_eq!(perm("98ghost").as_deref(), Some("owner = \"98:98\""));
    assert_eq!(perm("-1"), None);
}

/// Generates pieces of files, including invalid ones.
fn piece() -> impl Strategy<Value = &'static str> {
    select(vec![
        "group a {\n",
        "group \"a\\\"b\nc\" {",
        "template ct/%u {",
        "}\n",
        "} ",
        "cpu { cpu.shares = 10; }\n",
        "cpu { cpu.max = max; cpu.max.burst = 5; }",
        "memory { memory.limit_in_bytes = \"1G\"; }",
        "x { Y.z = \"a\nb\"; }",
        "perm { task { uid = www; } admin { uid = www; dperm = 4755; } }",
        "mount { cpu = /x; }",
        "default {",
        "# c\u{1b}\r\n",
        "* star\n",
        "group .. { cpu { } }",
        "\0",
        "é",
        "group tasks { cpu { cpu.shares = 5; } }",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// `converted` asserts that the output is a valid rule file for any input.
    #[test]
    fn any_text_becomes_a_rule_file(pieces in vec(piece(), 0..12)) {
        converted(&pieces.concat());
    }
}

#[test]
fn sections_of_a_snapshot_become_one_table() {
    let text = "group a { cpu { cpu.shares=\"512\"; } }\ngroup a/ { devices { devices.deny=\"a *:* rwm\";\n\
                devices.allow=\"c 1:3 rwm\nc 1:5 rwm\"; } cpuset { cpuset.cpus=\"\"; } }\ngroup a { memory \
                { memory.oom_control=\"oom_kill_disable 1\nunder_oom 0\"; memory.limit_in_bytes = \
                \"1G\n2G\"; }\ncpu { cpu.shares = 256; } }\n";
    let made = converted(text);
    assert_eq!(errors(&made), [""; 0]);
    let table = made.text.split_once("[cgroup.\"a\"]\n").unwrap().1;
    let settings: Vec<&str> = table.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        settings,
        [
            "devices.deny = \"a *:* rwm\"",
            "devices.allow = [\"c 1:3 rwm\", \"c 1:5 rwm\"]",
            "memory.oom_control = 1",
            "memory.limit_in_bytes = \"2G\"",
            "cpu.shares = 256",
        ]
    );
    assert!(table.contains("# line 4: not converted: an empty value sets nothing\n"), "{table}");
    assert!(table.contains("# line 1: not converted: set again later\n"), "{table}");
}

/// cgconfigparser applies the sections of all files one after the other.
#[test]
fn sections_of_several_files_become_one_table() {
    let made = converted_files(&[
        ("/etc/a.conf", "# one\ngroup web { cpu { cpu.shares = 100; } }\n# end\n"),
        (
            "/etc/b.conf",
            "# other\ngroup other { cpu { cpu.shares = 7; } }\n# two\n\
             group web {\ncpu { cpu.shares = 200; }\nmemory { memory.limit_in_bytes = 1k;\nmemory.soft_limit_in_bytes = much; }\n}\n",
        ),
    ]);
    let (_, body) = made.text.split_once("# /etc/a.conf\n\n").unwrap();
    assert_eq!(
        body,
        "# one\n[cgroup.\"web\"]\n# line 2: not converted: set again later\n\
         #   group web { cpu { cpu.shares = 100; } }\n# other\n# two\ncpu.shares = 200\n\
         memory.limit_in_bytes = \"1k\"\n# line 7: not converted: memory.soft_limit_in_bytes: invalid value \"much\"\n\
         #   memory.soft_limit_in_bytes = much; }\n# end\n\n# /etc/b.conf\n\n\
         [cgroup.\"other\"]\ncpu.shares = 7\n"
    );
    let told: Vec<String> = made.diagnostics.iter().map(ToString::to_string).collect();
    assert!(told[0].starts_with("/etc/b.conf:7:"), "{told:?}");
}

#[test]
fn a_mount_section_is_one_warning_and_an_empty_section_no_table() {
    let made = converted(
        "mount {\n cpu = /c;\n memory = /m;\n}\nnamespace { cpu = a; }\ngroup a { cpuset { cpuset.cpus = \"\"; } }\n",
    );
    let parts = made.diagnostics.iter().filter(|d| d.message.contains("part of"));
    let said: Vec<(u32, &str)> =
        parts.map(|d| (d.place.as_ref().unwrap().line, &*d.message)).collect();
    assert_eq!(
        said,
        [
            (2, "not converted: part of a mount section"),
            (5, "not converted: part of a namespace section"),
        ]
    );
    assert!(
        made.text.contains("# line 3: not converted: part of a mount section\n#   memory = /m;\n")
    );
    assert!(
        made.text.contains("# line 6: not converted: a cgroup without settings needs no table")
    );
    assert!(!made.text.contains("[cgroup."), "{}", made.text);
}
