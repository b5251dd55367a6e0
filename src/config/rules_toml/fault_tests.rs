//! Tests the diagnostics about invalid TOML rule files, and which rules stay.

use super::*;

fn lone_complaint(lines: &str) -> String {
    let (rule, mut wrong) = rule_with(lines);
    assert!(rule.is_none(), "{lines}");
    assert_eq!(wrong.len(), 1, "{lines}: {wrong:?}");
    wrong.remove(0)
}

/// The lines of a rule below its header, and its only diagnostic.
const FAULTS: &[(&str, &str)] = &[
    ("user = \"a\"", "1:1: rule without cgroup or ignore = true"),
    ("user = \"a\"\nignore = false", "1:1: rule without cgroup or ignore = true"),
    (
        "user = \"a\"\ncgroup = \"x\"\nignore = true",
        "3:10: rule with both cgroup and ignore = true",
    ),
    ("cgroup = \"x\"", "1:1: rule without criteria"),
    ("not.user = \"a\"\ncgroup = \"x\"", "1:1: rule without criteria"),
    ("unit = \"a/b\"\ncgroup = \"x\"", "2:8: \"a/b\" is not a unit with processes"),
    ("unit = \"x.slice\"\ncgroup = \"x\"", "2:8: \"x.slice\" is not a unit with processes"),
    ("unit = \"cron\"\ncgroup = \"x\"", "2:8: \"cron\" is not a unit with processes"),
    (
        "unit = [\"a.scope\", 7]\ncgroup = \"x\"",
        "2:20: unit must be the name of a systemd unit, a pattern or a list of these, not an integer",
    ),
    ("unit = \"a[.service\"\ncgroup = \"x\"", "2:10: `[` without a closing `]`"),
    ("from = \"a\"\ncgroup = \"x\"", "2:8: \"a\" is not the path of a cgroup"),
    ("from = \"/a/\"\ncgroup = \"x\"", "2:8: \"/a/\" is not the path of a cgroup"),
    ("from = \"/a/../b\"\ncgroup = \"x\"", "2:8: \"/a/../b\" is not the path of a cgroup"),
    ("argument = {}\ncgroup = \"x\"", "2:12: argument is empty"),
    ("argument.x = \"a\"\ncgroup = \"x\"", "2:10: \"x\" is not the position of an argument"),
    (
        "argument.1 = 5\ncgroup = \"x\"",
        "2:14: argument must be an argument, a pattern or a list of these, not an integer",
    ),
    ("from = []\ncgroup = \"x\"", "2:8: from is an empty list"),
    ("login = \"@x\"\ncgroup = \"x\"", "2:9: invalid login name \"@x\""),
    ("login = 4294967296\ncgroup = \"x\"", "2:9: login ID must be between 0 and 4294967294"),
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
    ("user = \"1-4294967296\"\ncgroup = \"x\"", "2:8: user ID must be between 0 and 4294967294"),
    ("user = 4294967296\ncgroup = \"x\"", "2:8: user ID must be between 0 and 4294967294"),
    (
        "user = \"4294967295\"\ncgroup = \"x\"",
        "2:8: invalid user ID 4294967295: the kernel reads it as -1",
    ),
    ("group = \"@human\"\ncgroup = \"x\"", "2:9: invalid group name \"@human\""),
    ("user = \"@humans\"\ncgroup = \"x\"", "2:8: invalid user name \"@humans\""),
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
        "4:15: \"yes\" is not a unit with processes",
    ),
    ("container = false\ncgroup = \"x\"", "2:13: container = false is no criterion"),
    ("container = []\ncgroup = \"x\"", "2:13: container is an empty list"),
    ("container = \"\"\ncgroup = \"x\"", "2:13: container is empty"),
    (
        "container = [true]\ncgroup = \"x\"",
        "2:14: container must be true, a pattern such as \"docker:web-*\" or a list of patterns, not a boolean",
    ),
    ("container = \"web\"\ncgroup = \"x\"", "2:13: \"web\" is not a container"),
    ("container = \"docker\"\ncgroup = \"x\"", "2:13: \"docker\" is not a container"),
    ("container = \"dokcer:web\"\ncgroup = \"x\"", "2:14: unknown container engine \"dokcer\""),
    ("container = \"docker:\"\ncgroup = \"x\"", "2:13: no name after the engine"),
    ("container = \"podman@:x\"\ncgroup = \"x\"", "2:13: no user after @"),
    ("container = \"podman@%u:x\"\ncgroup = \"x\"", "2:13: invalid user name \"%u\""),
    ("container = \"docker:[a\"\ncgroup = \"x\"", "2:13: `[` without a closing `]`"),
    ("user = 7\nnot = { container = \"x\" }\ncgroup = \"x\"", "3:21: \"x\" is not a container"),
    ("user = 7\ncgroup = \"x\"\ncontainers = \"x\"", "4:14: \"x\" is not a container"),
    (
        "user = 7\ncgroup = \"x\"\ncontainers = 1",
        "4:14: containers must be true, false, a pattern such as \"docker:web-*\" or a list of patterns, not an integer",
    ),
    ("user = 7\ncgroup = \"x\"\ncontainers = []", "4:14: containers is an empty list"),
    ("user = \"a\"\ncgroup = \"x\"\ngate = true", "4:8: gate without exe"),
    (
        "user = \"a\"\nnot = { exe = \"/bin/x\" }\ncgroup = \"x\"\ngate = true",
        "5:8: gate without exe",
    ),
    (
        "exe = [\"/bin/a\", \"b\"]\ncgroup = \"x\"\ngate = true",
        "2:18: gate with a base name: \"b\"",
    ),
    ("exe = \"/bin/a*\"\ncgroup = \"x\"\ngate = true", "2:7: gate with a pattern: \"/bin/a*\""),
    ("exe = \"bin/a\"\ncgroup = \"x\"\ngate = true", "2:7: exe is a relative path"),
    ("exe = []\ncgroup = \"x\"\ngate = true", "2:7: exe is an empty list"),
    ("exe = \"\"\ncgroup = \"x\"\ngate = true", "2:7: exe is empty"),
    (
        "exe = \"/bin/a\"\nignore = true\ngate = true",
        "4:8: gate cannot be combined with ignore = true",
    ),
    (
        "exe = \"/bin/a\"\ncgroup = \"x\"\nexe_anywhere = true\ngate = true",
        "5:8: gate cannot be combined with exe_anywhere = true",
    ),
    (
        "exe = \"/bin/a\"\ncgroup = \"x\"\ngate = 1",
        "4:8: gate must be true or false, not an integer",
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
    let (rule, wrong) = rule_with("user = 5\nignore = true\ncontainers = \"lxc:*\"");
    assert!(rule.is_some());
    assert_eq!(wrong, ["4:14: containers has no effect without cgroup"]);
}

#[test]
fn a_gated_rule_has_files() {
    let lines = "exe = [\"/bin/a\", \"/bin/b\"]\nnot = { exe = \"c*\" }\ncgroup = \"x\"\n";
    let gated = |more: &str| {
        let parsed = read(&format!("version = 1\nrequires = \"0.2\"\n[[rule]]\n{lines}{more}"));
        let said: Vec<String> = parsed.diagnostics.iter().map(|d| d.message.clone()).collect();
        let [WrittenRule { rule, gated, .. }] = &*parsed.rules else { panic!("{said:?}") };
        let paths = gated.iter().map(|file| String::from_utf8(file.path.clone()).unwrap());
        (rule.is_gated, paths.collect::<Vec<_>>(), said)
    };
    let files = ["/bin/a", "/bin/b"].map(str::to_owned).to_vec();
    assert_eq!(gated("gate = true"), (true, files, Vec::new()));
    assert_eq!(gated("gate = false"), (false, Vec::new(), Vec::new()));
    assert_eq!(gated("gate = false\nexe_anywhere = true"), (false, Vec::new(), Vec::new()));
    let warning = "gate has no effect while the rule observes".to_owned();
    assert_eq!(gated("gate = true\nobserve = true"), (true, Vec::new(), vec![warning]));
}

#[test]
fn fault_in_a_pattern_is_pointed_at() {
    let diagnostics = read("[[rule]]\nuser = \"ab[\"\ncgroup = \"x\"\n").diagnostics;
    let place = diagnostics.iter().find_map(|d| d.place.as_ref()).unwrap();
    assert_eq!((place.line, place.column, place.width), (2, 11, 1));
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
        assert!(crate::config::diagnostic::has_errors(&parsed.diagnostics), "{fault}");
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
        assert!(crate::config::diagnostic::has_errors(&parsed.diagnostics), "{elsewhere}");
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
fn mistyped_tables_are_named() {
    assert_eq!(complaints("version = 1\n[rule]\nuser = 1\n"), ["2:1: rule must be a list"]);
    assert_eq!(complaints("version = 1\n[[rules]]\nuser = 1\n"), ["2:3: unknown key \"rules\""]);
    assert_eq!(complaints("version = 1\nuser = 1\n"), ["2:1: unknown key \"user\""]);
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
    let empty = "version = 1\n[cgroup.a]\n";
    assert_eq!(complaints(empty), ["2:9: table without settings"]);
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

#[test]
fn fault_in_a_destination_is_pointed_at() {
    let text = "[[rule]]\nuser = \"a\"\ncgroup = \"a/../b\"\n[cgroup.\"x/%z\"]\npids.max = 1\n";
    let parsed = read(text);
    let places = parsed.diagnostics.iter().filter_map(|d| d.place.as_ref());
    let spans: Vec<_> = places.map(|p| (p.line, p.column, p.width)).collect();
    assert_eq!(spans, [(3, 13, 2), (4, 12, 2)]);
}

#[test]
fn an_escaped_wildcard_in_a_name_is_reported() {
    for (value, meant) in [
        (r"'CORP\*'", Some(r"CORP\\*")),
        (r"'CORP\\\*'", Some(r"CORP\\\\*")),
        (r"'site-\?'", Some(r"site-\\?")),
        (r"'CORP\\*'", None),
        (r"'CORP\alice'", None),
        (r"'host$'", None),
        (r"'site-*'", None),
    ] {
        for key in ["user", "group"] {
            let (rule, wrong) = rule_with(&format!("{key} = {value}\nignore = true"));
            assert!(rule.is_some(), "{value}");
            assert_eq!(wrong.len(), usize::from(meant.is_some()), "{value}: {wrong:?}");
            if let Some(meant) = meant {
                let text = format!("version = 1\n[[rule]]\n{key} = {value}\nignore = true");
                let help = read(&text).diagnostics[0].help.clone().unwrap();
                assert!(help.starts_with(&format!("write '{meant}', ")), "{help}");
            }
        }
    }
}

#[test]
fn only_the_first_syntax_error_of_a_section_is_reported_with_help() {
    let table = [
        ("[[rule]\nname = \"a\"\n[foo\nbar\n", 2, "[[rule]]"),
        ("[cgroup.\"a\"\npids.max = 5\n", 2, "[cgroup.\"people\"]"),
        ("[[rule]]\nuser = alice\nexe = b\n", 3, "in quotes"),
        ("[[rule]]\nuser\ngroup\n", 3, "key = value"),
        ("[[rule]]\nuser = \"a\"\nuser = \"b\"\n", 4, "remove one"),
    ];
    for (text, line, help) in table {
        let file = Arc::from(Path::new("/a.toml"));
        let found = parse(&file, &format!("version = 1\n{text}")).diagnostics;
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].place.as_ref().unwrap().line, line, "{text}");
        assert!(found[0].help.as_ref().is_some_and(|own| own.contains(help)), "{found:?}");
    }
}

#[test]
fn below_any_user_without_below_is_a_warning() {
    let with = |more: &str| {
        let (rule, told) =
            rule_with(&format!("user = \"a\"\ncgroup = \"x\"\nbelow_any_user = true\n{more}"));
        let is_any = |criteria: &Criteria| {
            criteria.context.as_ref().is_some_and(|context| context.below_any_user)
        };
        (rule.is_some_and(|rule| is_any(&rule.when) || is_any(&rule.not)), told)
    };
    let none = "4:18: below_any_user has no effect without below".to_owned();
    assert_eq!(with(""), (false, vec![none]));
    for below in ["below = \"sshd\"", "not.below = \"sshd\""] {
        assert_eq!(with(below), (true, Vec::new()), "{below}");
    }
    // The invalid value has an error of its own.
    assert_eq!(with("below = 5").1.len(), 1);
}

#[test]
fn a_range_can_have_one_id() {
    let (rule, told) = rule_with("user = \"1000-1000\"\ncgroup = \"x\"");
    assert_eq!(
        (rule.unwrap().when.users, told.len()),
        (vec![UserTest::Ids(Uid(1000), Uid(1000))], 0)
    );
}
