use std::path::Path;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::compat::convert::{Converted, HostFacts, SourceFile, SourceSyntax, convert};
use crate::config::rules_toml;

fn converted(text: &str) -> Converted {
    let file = Arc::from(Path::new("/etc/cgconfig.conf"));
    let source = SourceFile { file, syntax: SourceSyntax::Cgconfig, text: text.to_owned() };
    let knows = |_: rules_toml::NameKind, name: &str| name != "ghost";
    let made = convert(&[source], &HostFacts { controllers: Vec::new(), cpus: 4, knows: &knows });
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
    assert_eq!(lines, ["9", "2", "4", "5", "6"], "{said:?}");
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
    assert_eq!(errors(&converted(&perm("www", "db"))).len(), 1);
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
