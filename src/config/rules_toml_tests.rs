//! Tests the syntax of TOML rule files.

use proptest::prelude::*;

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

fn lone_complaint(lines: &str) -> String {
    let (rule, mut wrong) = rule_with(lines);
    assert!(rule.is_none(), "{lines}");
    assert_eq!(wrong.len(), 1, "{lines}: {wrong:?}");
    wrong.remove(0)
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
    let WrittenRule { rule, priority, mentions } = &parsed.rules[0];
    assert_eq!((&*rule.name, *priority, rule.origin.line), ("pools", -3, 4));
    let glob = |text: &str| Glob::parse(text.as_bytes()).unwrap();
    let expected = Criteria {
        users: vec![
            UserTest::Glob(glob("site-*")),
            UserTest::Ids(Uid(20000), Uid(29999)),
            UserTest::Ids(Uid(7), Uid(7)),
            UserTest::Ids(Uid(9), Uid(9)),
            UserTest::Name("bob".to_owned()),
        ],
        groups: vec![GroupTest::Name("web".to_owned())],
        exes: vec![
            ExeTest::PathGlob(glob("/usr/sbin/php-fpm*")),
            ExeTest::Path(b"/bin/sh".to_vec()),
            ExeTest::Base(b"cron".to_vec()),
            ExeTest::BaseGlob(glob("nginx*")),
        ],
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

/// The lines of a rule below its header, and its only diagnostic.
const FAULTS: &[(&str, &str)] = &[
    ("user = \"a\"", "1:1: rule without cgroup or ignore = true"),
    ("user = \"a\"\nignore = false", "1:1: rule without cgroup or ignore = true"),
    (
        "user = \"a\"\ncgroup = \"x\"\nignore = true",
        "3:10: rule with both cgroup and ignore = true",
    ),
    ("cgroup = \"x\"", "1:1: rule without user, group or exe"),
    ("not.user = \"a\"\ncgroup = \"x\"", "1:1: rule without user, group or exe"),
    ("user = \"a\"\ncgroup = \"x\"\nusr = \"b\"", "4:1: unknown key \"usr\""),
    ("user = \"a\"\ncgroup = \"x\"\nnot = { name = \"b\" }", "4:9: unknown key \"name\""),
    ("user = \"a\"\ncgroup = \"x\"\nnot = {}", "4:7: not is empty"),
    ("user = \"a\"\ncgroup = \"x\"\nnot = 1", "4:7: not must be a table, not an integer"),
    (
        "user = true\ncgroup = \"x\"",
        "2:8: user must be a name, a number or a list of these, not a boolean",
    ),
    (
        "exe = 5\ncgroup = \"x\"",
        "2:7: exe must be a path, a name or a list of these, not an integer",
    ),
    ("user = \"\"\ncgroup = \"x\"", "2:8: user is empty"),
    ("user = []\ncgroup = \"x\"", "2:8: user is an empty list"),
    (
        "user = [[\"a\"]]\ncgroup = \"x\"",
        "2:9: user must be a name, a number or a list of these, not an array",
    ),
    ("user = [\"a\", \"b\\tc\"]\ncgroup = \"x\"", "2:14: user contains a control character"),
    ("user = \"30-20\"\ncgroup = \"x\"", "2:8: invalid ID range: the first ID is above the last"),
    ("user = \"30-\"\ncgroup = \"x\"", "2:8: invalid ID range \"30-\""),
    ("user = \"1-2-3\"\ncgroup = \"x\"", "2:8: invalid ID range \"1-2-3\""),
    ("user = \"30 - 40\"\ncgroup = \"x\"", "2:8: invalid ID range \"30 - 40\""),
    ("user = \"4294967296\"\ncgroup = \"x\"", "2:8: user ID must be between 0 and 4294967294"),
    ("user = -1\ncgroup = \"x\"", "2:8: user ID must be between 0 and 4294967294"),
    (
        "group = 4294967295\ncgroup = \"x\"",
        "2:9: invalid group ID 4294967295: the kernel reads it as -1",
    ),
    (
        "group = \"0-4294967295\"\ncgroup = \"x\"",
        "2:9: invalid group ID 4294967295: the kernel reads it as -1",
    ),
    ("user = \"@web\"\ncgroup = \"x\"", "2:8: invalid user name \"@web\""),
    ("user = \"a:b\"\ncgroup = \"x\"", "2:8: invalid user name \"a:b\""),
    ("exe = \"bin/a\"\ncgroup = \"x\"", "2:7: exe is a relative path"),
    ("exe = \"/bin/\"\ncgroup = \"x\"", "2:7: exe is a directory"),
    ("exe = \"/a/../b\"\ncgroup = \"x\"", "2:7: exe contains /../"),
    ("exe = \"/a//b\"\ncgroup = \"x\"", "2:7: exe contains //"),
    ("exe = \"..\"\ncgroup = \"x\"", "2:7: exe is a directory"),
    ("user = \"a\"\ncgroup = 5", "3:10: cgroup must be a string, not an integer"),
    ("user = \"a\"\ncgroup = \"\"", "3:10: cgroup is empty"),
    ("user = \"a\"\nignore = 1", "3:10: ignore must be true or false, not an integer"),
    (
        "user = \"a\"\nignore = true\ncontrollers = \"cpu\"",
        "4:15: controllers cannot be combined with ignore = true",
    ),
    ("user = \"a\"\ncgroup = \"x\"\ncontrollers = \"CPU\"", "4:15: invalid controller \"CPU\""),
    (
        "user = \"a\"\ncgroup = \"x\"\ncontrollers = [\"cpu\", \"../x\"]",
        "4:23: invalid controller \"../x\"",
    ),
    (
        "user = \"a\"\ncgroup = \"x\"\npriority = 3000000000",
        "4:12: priority must be between -2147483648 and 2147483647",
    ),
    (
        "user = \"a\"\ncgroup = \"x\"\npriority = \"1\"",
        "4:12: priority must be an integer, not a string",
    ),
    ("user = \"a\"\ncgroup = \"x\"\nname = \"\"", "4:8: name is empty"),
    (
        "user = \"a\"\ncgroup = \"x\"\nexe_anywhere = 1",
        "4:16: exe_anywhere must be true or false, not an integer",
    ),
    (
        "user = \"a\"\ncgroup = \"x\"\nleave_units = \"yes\"",
        "4:15: leave_units must be true or false, not a string",
    ),
    ("user = \"a\"\ncgroup = \"x\"\nuser = \"b\"", "4:1: duplicate key"),
    (
        "user = \"a\"\ncgroup = \"x\"\nuser.x = \"b\"",
        "4:1: cannot extend value of type string with a dotted key",
    ),
];

#[test]
fn each_fault_costs_its_rule_and_is_named() {
    for (lines, expected) in FAULTS {
        assert_eq!(lone_complaint(lines), *expected, "{lines}");
    }
}

#[test]
fn all_faults_of_a_rule_are_found_at_once() {
    let (rule, wrong) =
        rule_with("usr = \"a\"\nuser = [\"\", -1]\nexe = \"a/b\"\npriority = \"x\"");
    assert!(rule.is_none());
    assert_eq!(wrong.len(), 6, "{wrong:#?}");
}

#[test]
fn warnings_keep_the_rule() {
    let (rule, wrong) = rule_with("user = [5, \"a\", \"5\"]\ncgroup = \"x\"\nexe_anywhere = true");
    assert_eq!(rule.unwrap().when.users.len(), 2);
    assert_eq!(
        wrong,
        ["2:17: duplicate entry in user", "4:16: exe_anywhere has no effect without exe"]
    );
    let (rule, wrong) = rule_with("user = 5\nignore = true\nleave_units = true");
    assert!(rule.is_some());
    assert_eq!(wrong, ["4:15: leave_units has no effect without cgroup"]);
}

#[test]
fn backslash_alone_is_a_name() {
    let (rule, _) = rule_with("user = 'CORP\\bob'\ncgroup = \"x\"");
    assert_eq!(rule.unwrap().when.users, [UserTest::Name("CORP\\bob".to_owned())]);
}

#[test]
fn fault_in_a_pattern_is_pointed_at() {
    let diagnostics = read("[[rule]]\nuser = \"ab[\"\ncgroup = \"x\"\n").diagnostics;
    let place = diagnostics.iter().find_map(|d| d.place.as_ref()).unwrap();
    assert_eq!((place.line, place.column, place.width), (2, 11, 1));
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
fn an_error_in_a_part_of_a_group_costs_no_rule() {
    for part in ["[cgroup.a.cpu]\nweight = 1\nweight = 2\n", "[cgroup]\nb.c.d = 1\nb.c.d = 2\n"] {
        let text = "[[rule]]\nuser = 1\ncgroup = \"a\"\n[cgroup.a]\npids.max = 1\n";
        let parsed = read(&format!("version = 1\n{text}{part}"));
        let said: Vec<&str> = parsed.diagnostics.iter().map(|d| &*d.message).collect();
        assert_eq!((parsed.rules.len(), said[0]), (1, "duplicate key"), "{part}");
        assert!(!said.iter().any(|said| said.contains("may belong")), "{said:?}");
    }
}

#[test]
fn a_syntax_error_costs_its_rule_and_no_other() {
    let rule = |body: &str| format!("[[rule]]\n{body}\ncgroup = \"x\"\n");
    let faults = [
        "user = \"b\nexe = \"c\"",
        "user \"b\"\nexe = \"c\"",
        "user = [\"b\",\nexe = \"c\"",
        "user = \nexe = \"c\"",
        "user = \"b\"\nexe = \"c\" \"d\"",
        "user = \"b\\q\"\nexe = \"c\"",
        "user = b\nexe = \"c\"",
        "= \"b\"\nexe = \"c\"",
        "not = { user = \"b\"\nexe = \"c\"",
        "[rule.not\nuser = \"b\"",
        "]\nexe = \"c\"",
        "\u{1}\nexe = \"c\"",
    ];
    for fault in faults {
        let text = format!(
            "version = 1\n{}{}{}",
            rule("user = \"a\""),
            rule(fault),
            rule("user = \"c\"\nexe = \"d\"")
        );
        let parsed = read(&text);
        let lines: Vec<u32> = parsed.rules.iter().map(|w| w.rule.origin.line).collect();
        let third = u32::try_from(text.lines().count()).unwrap() - 2;
        assert_eq!(lines, [3, third], "{fault}: {:#?}", parsed.diagnostics);
        let last = parsed.rules.last().unwrap();
        assert_eq!((last.rule.when.users.len(), last.rule.when.exes.len()), (1, 1));
        assert!(super::super::diagnostic::has_errors(&parsed.diagnostics), "{fault}");
    }
}

#[test]
fn a_rule_continued_elsewhere_is_not_loaded_without_that_part() {
    let rule = "version = 1\n[[rule]]\nuser = 1\ncgroup = \"x\"\n";
    let first = format!("{rule}[[rule]]\nuser = \"*\"\ncgroup = \"y\"\n");
    for elsewhere in [
        "[cgroup.y]\npids.max = 1\n[rule.not]\nuser = \"root\"\n",
        "[cgroup.y]\npids.max =\n[rule.not]\nuser = \"root\"\n",
        "[cgroup.y]\npids.max =\n['rule'.not]\nuser = \"root\"\n",
        "[[other]]\n[\"\\u0072ule\".not]\nuser = \"root\"\n",
    ] {
        let parsed = read(&format!("{first}{elsewhere}"));
        assert_eq!(parsed.rules.len(), 1, "{elsewhere}");
        assert_eq!(parsed.rules[0].rule.origin.line, 3);
        assert!(super::super::diagnostic::has_errors(&parsed.diagnostics), "{elsewhere}");
    }
    let refused = format!("{rule}[[rule]]\nuser = 5\n[cgroup.y]\n[rule.not]\nuser = \"root\"\n");
    assert_eq!(read(&refused).rules.len(), 1);
    assert_eq!(read(&format!("{rule}[rule]\nuser = 5\n")).rules.len(), 1);
}

#[test]
fn an_unclosed_text_hides_the_rest() {
    let text = "version = 1\n[[rule]]\nuser = \"\"\"a\ncgroup = \"x\"\n[[rule]]\nuser=\"b\"\ncgroup=\"y\"\n";
    let parsed = read(text);
    assert!(parsed.rules.is_empty());
    assert_eq!(parsed.diagnostics.len(), 1);
}

#[test]
fn names_are_unique_in_a_file() {
    let text = "version = 1\n[[rule]]\nname = \"n\"\nuser = 1\ncgroup = \"x\"\n\
                [[rule]]\nname = \"n\"\nuser = 2\ncgroup = \"x\"\n";
    assert_eq!(complaints(text), ["7:8: duplicate rule name, first used in line 3"]);
    assert_eq!(read(text).rules.len(), 2);
}

#[test]
fn mistyped_tables_are_named() {
    assert_eq!(complaints("version = 1\n[rule]\nuser = 1\n"), ["2:1: rule must be a list"]);
    assert_eq!(complaints("version = 1\n[[rules]]\nuser = 1\n"), ["2:3: unknown key \"rules\""]);
    assert_eq!(complaints("version = 1\nuser = 1\n"), ["2:1: unknown key \"user\""]);
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
fn group_tables_are_checked() {
    let cases = [
        (
            "[cgroup.a]\ncpu.weight = [1]\n",
            "3:14: cpu.weight must be a string, a number, true or false, not an array",
        ),
        ("[cgroup.a]\n\"../x\" = 1\n", "3:1: invalid setting name"),
        (
            "[cgroup.a]\ncpu.weight = 99999999999999999999\n",
            "3:14: cpu.weight must be between -9223372036854775808 and 9223372036854775807",
        ),
        ("cgroup = 1\n", "2:10: cgroup must be a table, not an integer"),
        ("[cgroup]\na = 1\n", "3:1: cgroup must have a table for each path"),
    ];
    for (text, expected) in cases {
        let text = format!("version = 1\n{text}");
        assert_eq!(complaints(&text), [expected], "{text}");
        assert!(read(&text).groups.iter().all(|group| group.settings.is_empty()));
    }
    let partly = "version = 1\n[cgroup.a]\ncpu.weight = [1]\npids.max = 5\n";
    assert_eq!(read(partly).groups[0].settings[0].key, "pids.max");
    let twice = "version = 1\n[cgroup.a]\npids.max = 1\n[cgroup.a]\npids.max = 2\n";
    assert_eq!(read(twice).groups.len(), 1);
    assert!(
        complaints(twice)
            .contains(&"4:9: duplicate table for this cgroup, first in line 2".to_owned())
    );
}

#[test]
fn bytes_that_are_not_text_are_refused_with_their_place() {
    let file = Arc::from(Path::new("/a.toml"));
    for (bytes, message) in [
        (&b"version = 1\nx = \"\xff\""[..], "invalid UTF-8: byte 0xff"),
        (&b"version = 1\nx = \"\0\""[..], "invalid text: contains a NUL byte"),
    ] {
        let parsed = parse_bytes(&file, bytes);
        assert_eq!(parsed.diagnostics[0].message, message);
        let place = parsed.diagnostics[0].place.as_ref().unwrap();
        assert_eq!((place.line, place.column), (2, 6));
    }
}

const VALID: &str = r#"version = 1
[[rule]]
name = "one"
user = ["alice", "site-*"]
group = "web"
exe = "/bin/sh"
cgroup = "a/%u"
[rule.not]
user = "bob"
[[rule]]
user = """carol"""
exe = ['/bin/x',
  "y"]
cgroup = "b"
[cgroup."a/%u"]
cpu.weight = 50
[[rule]]
user = 7
group = "1-2"
exe = "z"
ignore = true
"#;

/// Counts the criteria of a rule of `VALID`.
fn kinds(criteria: &Criteria) -> usize {
    [criteria.users.is_empty(), criteria.groups.is_empty(), criteria.exes.is_empty()]
        .iter()
        .filter(|&&empty| !empty)
        .count()
}

#[test]
fn sections_read_as_the_whole_file_would() {
    let (whole, errors) = DeTable::parse_recoverable(VALID);
    assert!(errors.is_empty());
    let rules = whole.get_ref().get("rule").and_then(|rule| rule.get_ref().as_array()).unwrap();
    let parsed = read(VALID);
    assert_eq!((parsed.rules.len(), parsed.groups.len()), (rules.len(), 1));
    assert_eq!(parsed.rules[0].rule.not.users.len(), 1);
}

proptest! {
    #[test]
    fn any_text_is_survived(text in any::<String>()) {
        read(&text);
    }

    #[test]
    fn any_bytes_are_survived(bytes in any::<Vec<u8>>()) {
        let file = Arc::from(Path::new("/a.toml"));
        parse_bytes(&file, &bytes);
        super::super::daemon_toml::parse_bytes(&file, &bytes);
    }

    #[test]
    fn any_toml_like_text_is_survived(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "[[rule]]\n", "[cgroup.a]\n", "[", "]", "{", "}", "=", "\n", "\"", "'", "\"\"\"",
                "user", "not", ".", ",", "exe = \"a\"\n", "cgroup = \"x\"\n", "1", "-", "\\", "#",
                "version = 1\n", "é", " ",
            ]),
            0..40,
        )
    ) {
        let text = words.concat();
        for diagnostic in read(&text).diagnostics {
            prop_assert!(!diagnostic.to_string().is_empty());
        }
    }

    #[test]
    fn a_damaged_line_never_makes_a_rule_wider(
        line in 1usize..21,
        at in 0usize..40,
        put in prop::sample::select(vec![
            "", "\"", "'", "[", "]", "=", "#", "\n", "\"\"\"", "'''", "{", "}", ",", "\\", ".", " x",
            "\u{0}", "[[rule]]", "\n[[rule]]\n",
        ]),
        cut in 0usize..3,
    ) {
        let mut lines: Vec<String> = VALID.lines().map(str::to_owned).collect();
        let target = &mut lines[line];
        let at = at.min(target.len());
        let end = (at + cut).min(target.len());
        target.replace_range(at..end, put);
        let text = lines.join("\n");
        for written in read(&text).rules {
            // The text of the rule, line by line, up to the next header.
            let begin = written.rule.origin.line as usize - 1;
            let body: Vec<&str> = text.lines().skip(begin)
                .take_while(|line| !line.starts_with("[["))
                .take_while(|line| !line.starts_with("[cgroup") && !line.starts_with("[rule.not]"))
                .collect();
            let says = |key: &str| body.iter().any(|line| {
                line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
            });
            let said = ["user", "group", "exe"].into_iter().filter(|key| says(key)).count();
            prop_assert!(kinds(&written.rule.when) >= said, "{text}\n{written:?}");
        }
    }
}

#[test]
fn fault_in_a_destination_is_pointed_at() {
    let text = "[[rule]]\nuser = \"a\"\ncgroup = \"a/../b\"\n[cgroup.\"x/%z\"]\npids.max = 1\n";
    let parsed = read(text);
    let places = parsed.diagnostics.iter().filter_map(|d| d.place.as_ref());
    let spans: Vec<_> = places.map(|p| (p.line, p.column, p.width)).collect();
    assert_eq!(spans, [(3, 13, 2), (4, 12, 2)]);
}

proptest! {
    /// Damage outside of a rule's text never changes the rule; it may only disable it.
    #[test]
    fn damage_elsewhere_never_changes_a_rule(
        pieces in prop::collection::vec(piece(), 1..6),
        at in any::<prop::sample::Index>(),
        cut in prop_oneof![Just(0), 0usize..12],
        at_line in any::<bool>(),
        put in damage(),
    ) {
        let (text, ranges) = assemble(&pieces);
        let whole = read(&text);
        prop_assert!(!super::super::diagnostic::has_errors(&whole.diagnostics), "{text}");
        let begin = at.index(text.len() + 1);
        // Most damage inside of a line is a syntax error; whole lines produce other valid files.
        let line = text[..begin].rfind('\n').map_or(0, |end| end + 1);
        let begin = if at_line { line } else { begin };
        let end = (begin + cut).min(text.len());
        let damaged = format!("{}{put}{}", &text[..begin], &text[end..]);
        prop_assert!(reads_as_toml_does(&damaged), "{}", damaged);
        for WrittenRule { rule, .. } in read(&damaged).rules {
            let Some((_, range)) = ranges.iter().find(|(name, _)| **name == *rule.name) else {
                continue;
            };
            // A rule may be continued directly after its end.
            if begin > range.end || end <= range.start {
                let upstream = whole.rules.iter().find(|w| w.rule.name == rule.name).unwrap();
                prop_assert_eq!(&rule.when, &upstream.rule.when, "{}", damaged);
                prop_assert_eq!(&rule.not, &upstream.rule.not, "{}", damaged);
                prop_assert_eq!(&rule.action, &upstream.rule.action, "{}", damaged);
            }
        }
    }
}

/// Checks whether each loaded rule has the criteria that a parse of the whole text gives it, if
/// that finds no error.
fn reads_as_toml_does(text: &str) -> bool {
    let (whole, errors) = DeTable::parse_recoverable(text);
    let list = whole.get_ref().get("rule").and_then(|rule| rule.get_ref().as_array());
    let (true, Some(list)) = (errors.is_empty(), list) else { return true };
    let given = |table: &DeTable<'_>| {
        ["user", "group", "exe"].iter().filter(|&&key| table.contains_key(key)).count()
    };
    let tables = list.iter().filter_map(|item| item.get_ref().as_table());
    let toml: Vec<(Option<&str>, usize, usize)> = tables
        .map(|table| {
            let name = table.get("name").and_then(|name| name.get_ref().as_str());
            let not = table.get("not").and_then(|not| not.get_ref().as_table());
            (name, given(table), not.map_or(0, given))
        })
        .collect();
    read(text).rules.iter().all(|WrittenRule { rule, .. }| {
        let has_name = toml.iter().any(|(name, ..)| *name == Some(&rule.name));
        let ours = (has_name.then_some(&*rule.name), kinds(&rule.when), kinds(&rule.not));
        toml.contains(&ours)
    })
}

/// Generates text that damages a file.
fn damage() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "",
        "\"",
        "'",
        "[",
        "]",
        "[[",
        "=",
        "#",
        "\n",
        "\"\"\"",
        "'''",
        "{",
        "}",
        ",",
        "\\",
        "x",
        "\u{0}",
        "\n[[rule]]\n",
        "\n[rule]\n",
        "\n[rule.not]\n",
        "\n[rule.not]\nuser = 9\n",
        "\n[cgroup.z]\n",
        "\n[[other]]\n",
        "\nuser = 1\n",
    ])
}

/// Generates a rule or a cgroup table, with `%` for its number.
fn piece() -> impl Strategy<Value = String> {
    let criteria = prop::sample::subsequence(
        vec![
            "user = [\"a%\",\n  'b*', # [[rule]]\n]\n",
            "group = \"\"\"\ng%\"\"\"\n",
            "not.user = \"c\"\n",
        ],
        0..=3,
    );
    let rule = (criteria, any::<bool>()).prop_map(|(criteria, has_table)| {
        let criteria = criteria.concat();
        let table = match has_table && !criteria.contains("not") {
            true => "[rule.not]\ngroup = 7\n",
            false => "",
        };
        format!("[[rule]]\nname = \"n%\"\n{criteria}exe = '/bin/x%'\ncgroup = \"d%\"\n{table}")
    });
    prop_oneof![
        4 => rule,
        1 => Just("[cgroup.\"d%\"]\ncpu.weight = 5\n".to_owned()),
    ]
}

/// Returns the text of a file, and the names and ranges of its rules.
fn assemble(pieces: &[String]) -> (String, Vec<(String, Range<usize>)>) {
    let mut text = "version = 1\n".to_owned();
    let mut ranges = Vec::new();
    for (number, piece) in pieces.iter().enumerate() {
        let begin = text.len();
        text.push_str(&piece.replace('%', &number.to_string()));
        if piece.starts_with("[[rule]]") {
            ranges.push((format!("n{number}"), begin..text.len()));
        }
    }
    (text, ranges)
}
