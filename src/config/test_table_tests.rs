//! Tests the syntax of `[[test]]` and `requires`.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::config::diagnostic::Severity;
use crate::config::rules_toml::{ParsedRules, parse};
use crate::event::Pid;

const HEAD: &str = "version = 1\nrequires = \"0.2\"\n";

fn read(text: &str) -> ParsedRules {
    parse(&Arc::from(Path::new("/a.toml")), text)
}

/// Returns the diagnostics about one test with these lines, which begin in line 4, as
/// `line:column: message`.
fn complaints(lines: &str) -> Vec<String> {
    let parsed = read(&format!("{HEAD}[[test]]\n{lines}\n"));
    assert!(
        parsed.diagnostics.iter().all(|own| own.severity == Severity::Error)
            || parsed.tests.len() == 1
    );
    let placed = parsed.diagnostics.iter().filter_map(|d| d.place.as_ref().map(|place| (place, d)));
    placed.map(|(p, d)| format!("{}:{}: {}", p.line, p.column, d.message)).collect()
}

#[test]
fn a_full_test() {
    let text = format!(
        r#"{HEAD}
[[rule]]
user = 5
cgroup = "a"

[[test]]
name = "pool"
process = {{ user = "site-a", group = 33, groups = ["web", "7"], exe = "/usr/bin/php", invoked = "/bin/x",
  unit = "php.service", below = ["/usr/sbin/sshd", "/bin/sh"], login = 1000, argument = ["a", ""], pid = 12 }}
expect = "/sites/*/"
rule = "one"
[test.users]
site-a = {{ uid = 20001, groups = ["web"], group = "www" }}
"20231234" = {{}}
[test.users.other]
uid = 7

[cgroup.a]
cpu.weight = 5
"#
    );
    let parsed = read(&text);
    assert_eq!(parsed.diagnostics, []);
    assert_eq!((parsed.rules.len(), parsed.groups.len(), parsed.tests.len()), (1, 1, 1));
    let test = &parsed.tests[0];
    let name = |text: &str| AccountRef::Name(text.to_owned());
    assert_eq!((test.line, test.name.as_deref()), (8, Some("pool")));
    let process = TestProcess {
        user: Some(name("site-a")),
        uid: None,
        group: Some(AccountRef::Id(33)),
        groups: vec![name("web"), AccountRef::NameOrId("7".to_owned(), 7)],
        exe: Some("/usr/bin/php".to_owned()),
        invoked: Some("/bin/x".to_owned()),
        unit: Some("php.service".to_owned()),
        from: None,
        below: vec!["/usr/sbin/sshd".to_owned(), "/bin/sh".to_owned()],
        container: None,
        login: Some(AccountRef::Id(1000)),
        arguments: vec!["a".to_owned(), String::new()],
        pid: Pid::new(12),
    };
    assert_eq!(test.process, process);
    let expected = test.decision.as_ref().unwrap();
    assert_eq!((expected.place.line, expected.place.column), (12, 10));
    let ExpectedDecision::Moved(TextTest::Matches(_)) = expected.expected else {
        panic!("{expected:?}")
    };
    assert_eq!(test.rule.as_ref().unwrap().expected, "one");
    let account =
        TestAccount { uid: Some(Uid(20001)), group: Some(name("www")), groups: vec![name("web")] };
    assert_eq!(test.users["site-a"], account);
    assert_eq!(test.users["20231234"], TestAccount::default());
    assert_eq!(test.users["other"].uid, Some(Uid(7)));
}

#[test]
fn words_and_paths_of_expect() {
    let expected = |text: &str| {
        let parsed = read(&format!("{HEAD}[[test]]\nprocess = {{}}\nexpect = \"{text}\"\n"));
        (parsed.tests[0].decision.clone().unwrap().expected, parsed.diagnostics.len())
    };
    let path = |text: &str| ExpectedDecision::Moved(TextTest::Is(text.as_bytes().into()));
    assert_eq!(expected("none"), (ExpectedDecision::NoRule, 0));
    assert_eq!(expected("ignored"), (ExpectedDecision::Ignored, 0));
    assert_eq!(expected("stays"), (ExpectedDecision::Stays, 0));
    assert_eq!(expected("/none"), (path("none"), 0));
    assert_eq!(expected("a/b/"), (path("a/b"), 0));
    assert_eq!(expected("/"), (path(""), 0));
    assert_eq!(expected("sites/%u"), (path("sites/%u"), 1), "a warning: it never matches");
    assert_eq!(expected("sites/5%-x"), (path("sites/5%-x"), 0));
    assert_eq!(expected("ignore"), (path("ignore"), 1), "a warning: probably a mistake");
}

#[test]
fn faults_of_a_test() {
    for (lines, expected) in [
        ("expect = \"a\"", "3:1: test without process"),
        ("process = {}", "3:1: test without expect or rule"),
        ("process = 5\nexpect = \"a\"", "4:11: process must be a table, not an integer"),
        ("process = {}\nexpect = 5", "5:10: expect must be a string, not an integer"),
        ("process = {}\nexpect = \"[a\"", "5:10: "),
        ("process = {}\nexpct = \"a\"\nrule = \"x\"", "5:1: unknown key \"expct\""),
        ("process = { usr = 5 }\nrule = \"x\"", "4:13: unknown key \"usr\""),
        (
            "process = { from = \"/a\", container = \"lxc:a\" }\nrule = \"x\"",
            "4:38: process with both from and container",
        ),
        ("process = { container = \"lxc\" }\nrule = \"x\"", "4:25: \"lxc\" is not one container"),
        ("process = { container = \"x:a\" }\nrule = \"x\"", "4:25: \"x:a\" is not one container"),
        (
            "process = { container = \"lxc:a*\" }\nrule = \"x\"",
            "4:25: \"lxc:a*\" is not one container",
        ),
        (
            "process = { container = \"lxc@a*:a\" }\nrule = \"x\"",
            "4:25: \"lxc@a*:a\" is not one user",
        ),
        ("process = { below = \"sshd\" }\nrule = \"x\"", "4:21: below must be an absolute path"),
        ("process = { user = \"a*\" }\nrule = \"x\"", "4:20: \"a*\" is not one user"),
        ("process = { user = \"1-2\" }\nrule = \"x\"", "4:20: \"1-2\" is not one user"),
        ("process = { user = \"a:b\" }\nrule = \"x\"", "4:20: invalid user name \"a:b\""),
        ("process = { uid = -1 }\nrule = \"x\"", "4:19: uid must be between 0 and 4294967294"),
        (
            "process = { exe = \"make\" }\nrule = \"x\"",
            "4:19: exe must be an absolute path, as the kernel shows it",
        ),
        ("process = { invoked = \"/a\" }\nrule = \"x\"", "4:23: invoked needs exe"),
        ("process = { unit = \"a\" }\nrule = \"x\"", "4:20: \"a\" is not a unit with processes"),
        (
            "process = { unit = \"a.service\", from = \"/a\" }\nrule = \"x\"",
            "4:40: process with both unit and from",
        ),
        ("process = { pid = 0 }\nrule = \"x\"", "4:19: pid must be between 1 and 4194304"),
        (
            "process = { argument = 5 }\nrule = \"x\"",
            "4:24: argument must be a string or a list of strings, not an integer",
        ),
        ("process = {}\nrule = \"x\"\nusers = 5", "6:9: users must be a table, not an integer"),
        (
            "process = {}\nrule = \"x\"\nusers = { a = 5 }",
            "6:15: users.a must be a table, not an integer",
        ),
        ("process = {}\nrule = \"x\"\nusers.a.id = 5", "6:9: unknown key \"id\""),
        ("process = {}\nrule = \"x\"\nusers.root.uid = 5", "6:7: root has the UID 0"),
    ] {
        let found = complaints(lines);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{lines}: {found:?}");
    }
}

#[test]
fn an_invalid_test_disables_no_rule() {
    let rule = "[[rule]]\nname = \"a\"\nuser = 5\ncgroup = \"a\"\n";
    for test in [
        "[[test]]\nprocess = { usr = 5 }\nexpect = \"a\"\n",
        "[[test]]\nprocess = {\nexpect = \"a\"\n[test.users]\n",
        "[test]\nexpect = \"a\"\n",
    ] {
        let parsed = read(&format!("{HEAD}{rule}{test}{rule}"));
        assert_eq!((parsed.rules.len(), parsed.tests.len()), (2, 0), "{test}");
        let errors = parsed.diagnostics.iter().filter(|own| own.is_error());
        assert_eq!(errors.count(), 1, "{test}: {:?}", parsed.diagnostics);
    }
}

#[test]
fn a_user_has_one_uid_in_a_file() {
    let test =
        |uid: u32| format!("[[test]]\nprocess = {{ user = \"a\", uid = {uid} }}\nrule = \"x\"\n");
    let parsed = read(&format!("{HEAD}{}{}{}", test(5), test(5), test(6)));
    assert_eq!(parsed.tests.len(), 2);
    let message = "the user \"a\" has the UID 6 here and 5 in the test at line 3";
    assert_eq!(parsed.diagnostics[0].message, message);
}

/// Each combination of several values is a test.
#[test]
fn the_number_of_combinations_has_a_bound() {
    let list =
        |count: usize| (0..count).map(|n| format!("\"/a{n}\"")).collect::<Vec<_>>().join(", ");
    let table = |users: usize, exes: usize| {
        let users = list(users).replace('/', "");
        let exes = list(exes);
        let process = format!("user = [{users}], exe = [{exes}]");
        read(&format!("{HEAD}[[test]]\nprocess = {{ {process} }}\nexpect = \"none\"\n"))
    };
    let at_most = table(20, MAX_TESTS / 20);
    assert_eq!((at_most.tests.len(), at_most.diagnostics.len()), (MAX_TESTS, 0));
    let more = table(20, MAX_TESTS / 20 + 1);
    assert!(more.diagnostics[0].is_error(), "{:?}", more.diagnostics);
}

#[test]
fn the_root_directory_is_a_place_and_no_program() {
    let found = |key: &str, path: &str| {
        complaints(&format!("process = {{ {key} = \"{path}\" }}\nexpect = \"none\"")).is_empty()
    };
    assert!(found("from", "/") && found("from", "/a") && found("exe", "/a"));
    assert!(!found("exe", "/") && !found("from", "a") && !found("from", "//"));
}

#[test]
fn the_number_of_tests_has_a_bound() {
    let test = "[[test]]\nprocess = {}\nexpect = \"none\"\n";
    let at_most = read(&format!("{HEAD}{}", test.repeat(MAX_TESTS)));
    assert_eq!((at_most.tests.len(), at_most.diagnostics.len()), (MAX_TESTS, 0));
    let more = read(&format!("{HEAD}{}", test.repeat(MAX_TESTS + 5)));
    assert_eq!((more.tests.len(), more.diagnostics.len()), (MAX_TESTS, 1));
    assert!(more.diagnostics[0].is_error());
}

#[test]
fn a_file_for_a_later_version_is_not_loaded() {
    let rule = "[[rule]]\nuser = 5\ncgroup = \"a\"\nnew_key = 1\n";
    let parsed = read(&format!("version = 1\nrequires = \"9.1\"\n{rule}"));
    assert_eq!((parsed.rules.len(), parsed.diagnostics.len()), (0, 1));
    let own = env!("CARGO_PKG_VERSION").trim_end_matches(".0");
    let message = format!(
        "no rules of this file are loaded: it requires cgruled 9.1, and this is cgruled {own}"
    );
    assert_eq!(parsed.diagnostics[0].message, message);
    for (value, part) in [
        ("0.2", "must be a string"),
        ("\"x\"", "invalid version \"x\" in requires"),
        ("\"1\"", "invalid version \"1\" in requires"),
    ] {
        let parsed =
            read(&format!("version = 1\nrequires = {value}\n[[rule]]\nuser = 5\ncgroup = \"a\"\n"));
        assert_eq!((parsed.rules.len(), parsed.diagnostics.len()), (0, 1), "{value}");
        assert!(parsed.diagnostics[0].message.contains(part), "{value}");
    }
    let parsed =
        read(&format!("version = 1\nrequires = \"0.1\"\n{}", rule.replace("new_key = 1\n", "")));
    assert_eq!((parsed.rules.len(), parsed.diagnostics.len()), (1, 0));
}

#[test]
fn tests_without_requires_are_warned_about_once() {
    let test = "[[test]]\nprocess = {}\nexpect = \"none\"\n";
    for head in ["version = 1\n", "version = 1\nrequires = \"0.1\"\n"] {
        let parsed = read(&format!("{head}{test}{test}"));
        let [warning] = &parsed.diagnostics[..] else { panic!("{:?}", parsed.diagnostics) };
        assert_eq!(warning.severity, Severity::Warning);
        assert_eq!(warning.message, "[[test]] needs cgruled 0.2 or later");
        assert_eq!(parsed.tests.len(), 2);
    }
}

proptest! {
    #[test]
    fn any_text_like_a_test_is_survived(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "[[test]]\n", "[test.users]\n", "[test.process]\n", "[[rule]]\n", "process = ", "expect = ",
                "requires = \"0.2\"\n", "requires = ", "user", "exe", "argument", "=", "{", "}", "[", "]", "\n",
                "\"a\"", "\"/a/*\"", "\"none\"", "5", "-1", ",", ".", "\"", "'", "é", "#", "users", "uid",
            ]),
            0..40,
        )
    ) {
        let text = words.concat();
        let parsed = read(&text);
        for diagnostic in &parsed.diagnostics {
            prop_assert!(!diagnostic.to_string().is_empty());
        }
        for test in parsed.tests {
            prop_assert!(test.decision.is_some() || test.rule.is_some());
            prop_assert!(!test.process.to_string().is_empty());
        }
    }
}
