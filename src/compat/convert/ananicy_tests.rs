use std::path::Path;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::compat::convert::{Converted, HostFacts, SourceFile, SourceSyntax, convert};
use crate::config::diagnostic::Diagnostic;
use crate::config::rules_toml::NameKind;

const TYPES: &str = r#"# heavy
{"type": "BG_CPUIO", "nice": 16, "ioclass": "idle", "sched": "idle", "cgroup": "cpu80"}
{"type": "Game", "nice": -5, "latency_nice": -3}
"#;
const GROUPS: &str = r#"{"cgroup": "cpu80", "CPUQuota": 80}
{"cgroup": "a%b", "CPUQuota": 0}
"#;

fn converted(files: &[(&str, &str)]) -> Converted {
    let source = |(name, text): &(&str, &str)| SourceFile {
        file: Arc::from(Path::new("/etc/ananicy.d").join(name)),
        syntax: SourceSyntax::guess(Path::new(name), text),
        text: (*text).to_owned(),
    };
    let sources: Vec<SourceFile> = files.iter().map(source).collect();
    let knows = |_: NameKind, _: &str| true;
    let made = convert(&sources, &HostFacts { controllers: Vec::new(), cpus: 4, knows: &knows });
    made.expect_valid()
}

fn said(made: &Converted) -> Vec<String> {
    let said = |d: &Diagnostic| format!("{}: {}", d.severity, d.message);
    made.diagnostics.iter().filter(|d| !d.message.contains("no counterpart")).map(said).collect()
}

#[test]
fn the_head_speaks_of_ananicy_alone() {
    let made = converted(&[("c.cgroups", "{\"cgroup\": \"a\", \"CPUQuota\": 80}\n")]);
    assert!(made.text.contains("disable it first"), "{}", made.text);
    assert!(!made.text.contains("--no-legacy") && !made.text.contains("cgrulesengd"));
}

#[test]
fn types_are_not_changed_without_a_word() {
    let rules = "{\"name\": \"gcc\", \"type\": \"BG_CPUIO\"}\n{\"type\": \"BG_CPUIO\"}\n";
    let made = converted(&[("a.rules", rules), ("b.types", TYPES), ("c.cgroups", GROUPS)]);
    assert!(made.text.contains("exe = \"gcc\""), "{}", made.text);
    assert_eq!(
        said(&made),
        ["error: rule without a program name", "error: invalid CPUQuota: not a percentage"]
    );
    let again = "{\"type\": \"Game\", \"nice\": -5}\n{\"type\": \"Game\"}\n{\"type\": \"Game\"}\n";
    let made = converted(&[("b.types", again)]);
    assert_eq!(said(&made), ["warning: duplicate type \"Game\": this definition is used"]);
}

#[test]
fn a_group_that_is_not_described_is_said() {
    let rules = "{\"name\": \"ffmpeg\", \"cgroup\": \"nocg\"}\n";
    let made = converted(&[("a.rules", rules)]);
    assert!(made.text.contains("cgroup = \"nocg\""), "{}", made.text);
    assert_eq!(said(&made), ["warning: cgroup \"nocg\" is not defined"]);
}

/// A collection has some 360 files, and no rule with a cgroup.
#[test]
fn a_collection_without_cgroups_is_short() {
    let rules = |n: u32| {
        let name = format!("{{\"name\": \"doom{n}\", \"type\": \"Game\"}}");
        (format!("{n}.rules"), format!("# https://example.org\n\n{name}\n"))
    };
    let rules: Vec<(String, String)> = (0..20).map(rules).collect();
    let mut files: Vec<(&str, &str)> =
        rules.iter().map(|(name, text)| (&**name, &**text)).collect();
    files.push(("a.types", "# t\n{\"type\": \"Game\", \"nice\": -5}\n"));
    files.push(("a.cgroups", "# c\n{\"cgroup\": \"cpu80\", \"CPUQuota\": 80}\n"));
    let made = converted(&files);
    assert_eq!(said(&made), ["warning: none of 20 rules has a cgroup: nothing to convert"]);
    assert!(made.text.lines().count() < 10, "{}", made.text);
    assert!(made.text.contains("7.rules and 14 more files.\n"), "{}", made.text);
}

#[test]
fn names_that_match_no_executable_are_reported() {
    let rules = "{\"name\": \"Game.EXE\", \"cgroup\": \"a\"}\n{\"name\": \"Web Content\", \
                 \"cgroup\": \"a\"}\n{\"name\": \"gcc\", \"cgroup\": \"a\"}\n";
    let made = converted(&[("a.rules", rules), ("b.cgroups", "{\"cgroup\": \"a\"}\n")]);
    let unlikely = made.diagnostics.iter().filter(|d| d.message.contains("matches no process"));
    let lines: Vec<u32> = unlikely.map(|d| d.place.as_ref().unwrap().line).collect();
    assert_eq!(lines, [1, 2]);
}

#[test]
fn other_files_of_a_directory_have_no_syntax() {
    let listed = |name: &str, text: &str| SourceSyntax::of_listed(Path::new(name), text);
    for name in [".gitattributes", "LICENSE", "README.md", "ananicy.conf", "package.json"] {
        assert_eq!(listed(name, "* text eol=lf\n"), None, "{name}");
    }
    assert_eq!(listed("package.json", "{}"), None);
    assert_eq!(listed("a.rules", ""), Some(SourceSyntax::Ananicy));
    assert_eq!(listed("etc/cgrules.d/x", ""), Some(SourceSyntax::Cgrules));
    assert_eq!(listed("b.conf", "group a {\n"), Some(SourceSyntax::Cgconfig));
    // The name decides before the text.
    let guessed = SourceSyntax::guess(Path::new("cgrules.conf"), "{alice cpu a\n");
    assert_eq!(guessed, SourceSyntax::Cgrules);
}

#[test]
fn programs_with_a_group_become_rules() {
    let rules = "# compilers\n{\"name\": \"gcc\", \"type\": \"BG_CPUIO\"} # C\n\n# games\n\
                 {\"name\": \"doom\", \"type\": \"Game\"}\n{\"name\": \"x[\", \"cgroup\": \"a%b\"}\n";
    let made = converted(&[("a.rules", rules), ("b.types", TYPES), ("c.cgroups", GROUPS)]);
    let (_, body) = made.text.split_once("# /etc/ananicy.d/a.rules\n").unwrap();
    let expected = "# compilers\n\n# C\n[[rule]]\nname = \"a.rules:2\"\nexe = \"gcc\"\n\
                    exe_anywhere = true\ncgroup = \"cpu80\"\n\n# games\n\n[[rule]]\n\
                    name = \"a.rules:6\"\nexe = \"x\\\\[\"\nexe_anywhere = true\ncgroup = \"a%%b\"\n";
    assert!(body.starts_with(expected), "{body}");
    assert!(
        body.contains("[cgroup.\"cpu80\"]\n# 80 % of 4 CPUs\ncpu.max = \"320000 100000\"\n"),
        "{body}"
    );
    assert!(
        body.contains("# 1 rules of type \"Game\": no counterpart: latency_nice, nice\n"),
        "{body}"
    );
    assert!(!body.contains("doom"), "{body}");
    let errors: Vec<&str> =
        made.diagnostics.iter().filter(|d| d.is_error()).map(|d| &*d.message).collect();
    assert_eq!(errors, ["invalid CPUQuota: not a percentage"]);
}

#[test]
fn the_last_rule_for_a_program_counts() {
    let rule = |group: &str| format!("{{\"name\": \"x\", \"cgroup\": \"{group}\"}}\n");
    let groups = "{\"cgroup\": \"one\"}\n{\"cgroup\": \"two\"}\n";
    let (one, two) = (rule("one"), rule("two"));
    let made = converted(&[("a.rules", &one), ("b.rules", &two), ("c.cgroups", groups)]);
    assert!(made.text.contains("cgroup = \"two\"") && !made.text.contains("cgroup = \"one\""));
    assert_eq!(made.diagnostics.len(), 1);
}

#[test]
fn lines_that_are_no_objects_are_said() {
    let made =
        converted(&[("a.rules", "{\"name\": \n[1]\n{}\n{\"name\": \"x/y\", \"cgroup\": \"a\"}\n")]);
    let lines = made.diagnostics.iter().map(|d| d.place.as_ref().unwrap().line);
    assert_eq!(lines.collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(made.diagnostics.iter().all(|d| d.is_error()));
}

#[test]
fn a_sign_within_an_object_begins_no_comment() {
    let made =
        converted(&[("a.rules", "{\"name\": \"c#\", \"cgroup\": \"a\"}\n#{\"name\": \"d\"}\n")]);
    assert!(made.text.contains("exe = \"c#\"\n") && made.text.contains("#{\"name\": \"d\"}\n"));
}

const GROUP: (&str, &str) = ("z.cgroups", "{\"cgroup\": \"a\"}\n{\"cgroup\": \"b\"}\n");

/// Returns the text after the name of a file.
fn rules_of(made: &Converted) -> &str {
    let (_, body) = made.text.split_once("# /etc/ananicy.d/a.rules\n").unwrap();
    body.split("[cgroup").next().unwrap().trim()
}

#[test]
fn an_argument_becomes_a_criterion() {
    let rules = "{\"name\": \"java\", \"cmdlines\": [\"net.yacy.yacy*\"], \"cgroup\": \"a\"}\n";
    let made = converted(&[("a.rules", rules), GROUP]);
    assert!(said(&made).is_empty(), "{:?}", said(&made));
    assert!(made.text.contains("version = 1\nrequires = \"0.2\"\n"), "{}", made.text);
    let expected = "[[rule]]\nname = \"a.rules:1\"\nexe = \"java\"\nexe_anywhere = true\n\
                    argument = \"net.yacy.yacy\\\\*\"\ncgroup = \"a\"";
    assert_eq!(rules_of(&made), expected);
    let path = "{\"name\": \"java\", \"cmdlines\": [\"/opt/java\"], \"cgroup\": \"a\"}\n";
    let made = converted(&[("a.rules", path), GROUP]);
    assert!(made.text.contains("argument.0 = \"/opt/java\"\n"), "{}", made.text);
    assert_eq!(said(&made), ["warning: compares only the name by which the program was started"]);
    assert!(!converted(&[GROUP]).text.contains("requires"));
}

#[test]
fn rules_for_other_arguments_of_a_program_do_not_replace_each_other() {
    let rules = "{\"name\": \"java\", \"cmdlines\": [\"x\"], \"nice\": 1}\n\
                 {\"name\": \"java\", \"cmdlines\": [\"y\"], \"cgroup\": \"a\"}\n\
                 {\"name\": \"java\", \"cgroup\": \"b\"}\n\
                 {\"name\": \"java\", \"cmdlines\": [\"z\"], \"nice\": 1}\n";
    let made = converted(&[("a.rules", rules), GROUP]);
    assert!(said(&made).is_empty(), "{:?}", said(&made));
    let body = rules_of(&made);
    let lines: Vec<&str> = body
        .lines()
        .filter(|line| ["argument", "cgroup", "ignore"].iter().any(|key| line.starts_with(key)))
        .collect();
    let expected = [
        "argument = \"x\"",
        "ignore = true",
        "argument = \"y\"",
        "cgroup = \"a\"",
        "cgroup = \"b\"",
    ];
    assert_eq!(lines, expected, "{body}");
}

#[test]
fn arguments_that_no_rule_can_compare_are_errors_of_their_line() {
    let rules = "{\"name\": \"java\", \"cmdlines\": [\"-x\", \"y\"], \"cgroup\": \"a\"}\n\
                 {\"name\": \"java\", \"cmdlines\": \"y\", \"cgroup\": \"a\"}\n\
                 {\"name\": \"java\", \"cmdline\": [\"y\"], \"cgroup\": \"a\"}\n";
    let made = converted(&[("a.rules", rules), GROUP]);
    let lines = made.diagnostics.iter().filter(|d| d.is_error());
    let lines: Vec<u32> = lines.map(|d| d.place.as_ref().unwrap().line).collect();
    assert_eq!(lines, [1, 2, 3], "{:?}", said(&made));
    assert!(!made.text.contains("[[rule]]"), "{}", made.text);
    assert!(made.text.contains("# line 1: not converted: it requires several arguments"));
}

#[test]
fn regular_expressions_come_after_all_names() {
    let rules = "{\"name\": \"ghc\", \"name_regex\": \"^ghc-9\\\\.\", \"cgroup\": \"a\"}\n\
                 {\"name\": \"ghc-9.x\", \"nice\": 1}\n{\"name\": \"ghc-9.6\", \"cgroup\": \"b\"}\n\
                 {\"name\": \"\", \"name_regex\": \"[0-9]\", \"cgroup\": \"b\"}\n";
    let made = converted(&[("a.rules", rules), GROUP]);
    let errors: Vec<_> = said(&made);
    assert_eq!(errors, ["error: no pattern of exe can express \"[\" in name_regex"]);
    let body = rules_of(&made);
    let keys = body
        .lines()
        .filter(|line| ["exe =", "cgroup", "ignore"].iter().any(|key| line.starts_with(key)));
    let expected = [
        "exe = \"ghc\"",
        "cgroup = \"a\"",
        "exe = \"ghc-9.6\"",
        "cgroup = \"b\"",
        "exe = \"ghc-9.x\"",
        "ignore = true",
        "exe = \"ghc-9.*\"",
        "cgroup = \"a\"",
    ];
    assert_eq!(keys.collect::<Vec<_>>(), expected, "{body}");
}

/// Generates lines of files, including invalid ones.
fn line() -> impl Strategy<Value = &'static str> {
    select(vec![
        r#"{"name": "gcc", "type": "BG"}"#,
        r#"{"name": "a\n\u001b\"b", "cgroup": "c"}"#,
        r#"{"name": "", "cgroup": "c"}"#,
        r#"{"name": "x", "cgroup": "../c\n"}"#,
        r#"{"name": "x", "cgroup": "tasks"}"#,
        r#"{"name": "[*?\\", "cgroup": "a%u"}"#,
        r#"{"type": "BG", "cgroup": "cpu80", "nice\n": 1}"#,
        r#"{"type": "T\n[[rule]]", "nice": 1}"#,
        r#"{"name": "y", "type": "T\n[[rule]]"}"#,
        r#"{"cgroup": "cpu80", "CPUQuota": 80}"#,
        r#"{"cgroup": "a\nb", "CPUQuota": 80}"#,
        r#"{"cgroup": "cpu80", "CPUQuota": "x", "k\n": 2}"#,
        r#"{"name": "gcc", "cmdlines": ["a*\n"], "cgroup": "c"}"#,
        r#"{"name": "gcc", "cmdlines": [""], "cgroup": "c"}"#,
        r#"{"name": "gcc", "cmdlines": ["a", "gcc"], "type": "BG"}"#,
        r#"{"name": "gcc", "cmdlines": ["[", "["], "nice": 1}"#,
        r#"{"name": "", "name_regex": "^/x", "cgroup": "c"}"#,
        r#"{"name": "gcc", "name_regex": ".*", "cgroup": "c"}"#,
        r#"{"name": "x", "name_regex": "^\\[|y$|", "type": "BG"}"#,
        r#"{"name": 5}"#,
        "[]",
        "# c\u{1b}",
        "{",
        "",
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    /// `converted` asserts that the output is a valid rule file for any input.
    #[test]
    fn any_lines_become_a_rule_file(lines in vec(line(), 0..12)) {
        // Any line of a .rules file that is not a rule is an error.
        converted(&[("a.rules", &lines.join("\n")), ("a.types", &lines.join("\n"))]);
    }
}
