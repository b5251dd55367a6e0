//! Tests the syntax of TOML rule files: what valid files mean. Invalid and damaged files are tested
//! in `rules_toml/`.

#[path = "rules_toml/damage_tests.rs"]
mod damage;
#[path = "rules_toml/fault_tests.rs"]
mod faults;
#[path = "rules_toml/observe_tests.rs"]
mod observe;

use super::*;
use crate::event::{Gid, Uid};
use crate::rules::glob::Glob;
use crate::rules::{Action, ExeTest, GroupTest, LeaveUnits, UserTest};
use crate::rules::{Criteria, Rule};

fn read(text: &str) -> ParsedRules {
    parse(&Arc::from(Path::new("/etc/cgruled/rules.d/50-a.toml")), text)
}

/// Returns the diagnostics as `line:column: message`, without the one about a missing version.
fn complaints(text: &str) -> Vec<String> {
    let diagnostics = read(text).diagnostics;
    let placed = diagnostics.iter().filter_map(|d| d.place.as_ref().map(|place| (place, d)));
    placed.map(|(p, d)| format!("{}:{}: {}", p.line, p.column, d.message)).collect()
}

/// Parses one rule with these lines. Returns it with its diagnostics.
fn rule_with(lines: &str) -> (Option<Rule>, Vec<String>) {
    let text = format!("[[rule]]\n{lines}\n");
    (read(&text).rules.pop().map(|written| written.rule), complaints(&text))
}

#[test]
fn a_full_rule() {
    let text = r#"
version = 1
[[rule]]
name = "pools"
user = ["site-*", "20000-29999", 7, "9", "bob"]
group = "web"
exe = ["/usr/sbin/php-fpm*", "/bin/sh", "cron", "nginx*"]
not = { user = "site-demo" }
cgroup = "sites/%u"
controllers = ["cpu", "name=systemd"]
priority = -3
exe_anywhere = true
leave_units = true
"#;
    let parsed = read(text);
    assert_eq!(parsed.diagnostics, []);
    let WrittenRule { rule, priority, mentions, .. } = &parsed.rules[0];
    assert_eq!((&*rule.name, *priority, rule.origin.line), ("pools", -3, 4));
    let glob = |text: &str| Glob::parse(text.as_bytes()).unwrap();
    let expected = Criteria {
        users: vec![
            UserTest::Glob(glob("site-*")),
            UserTest::Ids(Uid(20000), Uid(29999)),
            UserTest::Ids(Uid(7), Uid(7)),
            UserTest::NameOrId("9".to_owned(), Uid(9)),
            UserTest::Name("bob".to_owned()),
        ],
        groups: vec![GroupTest::Name("web".to_owned())],
        exes: vec![
            ExeTest::PathGlob(glob("/usr/sbin/php-fpm*")),
            ExeTest::Path(b"/bin/sh".to_vec()),
            ExeTest::Base(b"cron".to_vec()),
            ExeTest::BaseGlob(glob("nginx*")),
        ],
        context: None,
    };
    assert_eq!(rule.when, expected);
    assert_eq!(rule.not.users, [UserTest::Name("site-demo".to_owned())]);
    assert!(rule.exe_anywhere);
    assert_eq!(rule.leave_units, LeaveUnits::Yes);
    let Action::Place(targets) = &rule.action else { panic!("{:?}", rule.action) };
    assert_eq!(targets[0].destination.as_str(), "sites/%u");
    assert_eq!(targets[0].controllers, ["cpu", "name=systemd"]);
    let named: Vec<_> = mentions.iter().map(|m| (m.kind, &text[m.span.clone()])).collect();
    let expected = [
        (NameKind::User, "\"9\""),
        (NameKind::User, "\"bob\""),
        (NameKind::Group, "\"web\""),
        (NameKind::User, "\"site-demo\""),
    ];
    assert_eq!(named, expected);
}

#[test]
fn a_rule_without_a_name_is_called_by_its_place() {
    let (rule, wrong) = rule_with("group = 5\nignore = true");
    let rule = rule.unwrap();
    assert_eq!(wrong, [""; 0]);
    assert_eq!(&*rule.name, "50-a.toml:2");
    assert_eq!(rule.when.groups, [GroupTest::Ids(Gid(5), Gid(5))]);
    assert_eq!(rule.action, Action::ignore());
}

#[test]
fn backslash_alone_is_a_name() {
    let (rule, _) = rule_with("user = 'CORP\\bob'\ncgroup = \"x\"");
    assert_eq!(rule.unwrap().when.users, [UserTest::Name("CORP\\bob".to_owned())]);
}

#[test]
fn version_is_checked() {
    let rule = "[[rule]]\nuser = \"a\"\ncgroup = \"x\"\n";
    let missing = read(rule);
    assert_eq!((missing.rules.len(), missing.diagnostics.len()), (1, 1));
    assert!(!missing.diagnostics[0].is_error());
    assert!(read("# nothing\n").diagnostics.is_empty());
    let wrong = ["version = 2\n", "version = \"1\"\n", "version = \n", "version 1\n"];
    for (wrong, complaints) in wrong.into_iter().zip([1, 1, 2, 2]) {
        let parsed = read(&format!("{wrong}{rule}"));
        assert!(parsed.rules.is_empty(), "{wrong}");
        assert_eq!(parsed.diagnostics.len(), complaints, "{wrong} {:?}", parsed.diagnostics);
    }
    let elsewhere = read(&format!("version = 1\nfoo = \n{rule}"));
    assert_eq!((elsewhere.rules.len(), elsewhere.diagnostics.len()), (1, 1));
}

#[test]
fn names_are_unique_in_a_file() {
    let text = "version = 1\n[[rule]]\nname = \"n\"\nuser = 1\ncgroup = \"x\"\n\
                [[rule]]\nname = \"n\"\nuser = 2\ncgroup = \"x\"\n";
    assert_eq!(complaints(text), ["7:8: duplicate rule name, first used in line 3"]);
    assert_eq!(read(text).rules.len(), 2);
}

#[test]
fn group_tables_are_flattened() {
    let text = r#"
version = 1
[cgroup."sites/%u"]
cpu.weight = 50
memory.high = "1G"
"hugetlb.2MB.max" = 0
cgroup.freeze = false
io.weight = 1.5
remove_when_empty = "5m"
"#;
    let parsed = read(text);
    let group = &parsed.groups[0];
    assert_eq!((group.path.as_str(), group.origin.line), ("sites/%u", 3));
    let settings: Vec<_> =
        group.settings.iter().map(|s| (s.key.as_str(), &text[s.span.clone()])).collect();
    assert_eq!(
        settings,
        [
            ("cpu.weight", "50"),
            ("memory.high", "\"1G\""),
            ("hugetlb.2MB.max", "0"),
            ("cgroup.freeze", "false"),
            ("io.weight", "1.5"),
            ("remove_when_empty", "\"5m\""),
        ]
    );
    assert!(complaints(text).is_empty());
}

#[test]
fn a_text_of_digits_is_a_name_first_and_an_integer_an_id() {
    let (rule, wrong) =
        rule_with("user = [20231234, \"20231235\", \"20231234567\"]\nignore = true");
    assert_eq!(wrong, [""; 0]);
    let expected = [
        UserTest::Ids(Uid(20_231_234), Uid(20_231_234)),
        UserTest::NameOrId("20231235".to_owned(), Uid(20_231_235)),
        // Too large for an ID.
        UserTest::Name("20231234567".to_owned()),
    ];
    assert_eq!(rule.unwrap().when.users, expected);
}
