//! Tests which decision a test of a rule file sees, and how a failure is reported.

use std::path::Path;

use super::*;
use crate::config::diagnostic::Severity;
use crate::config::rules_toml::{ParsedRules, parse};
use crate::policy::load::TestedFile;
use crate::rules::context::ContextMismatch;
use crate::rules::explain::Mismatch;

const HEAD: &str = "version = 1\nrequires = \"0.2\"\n";

fn parsed(text: &str) -> ParsedRules {
    let parsed = parse(&Arc::from(Path::new("/etc/cgruled/rules.d/50-a.toml")), text);
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    parsed
}

/// Returns the decisions about the processes of tests, which need not be as expected.
fn decisions(rules: &str, processes: &[&str]) -> Vec<TestDecision> {
    let tests = processes.iter().map(|process| {
        let (process, users) = process.split_once(" with ").unwrap_or((process, ""));
        format!("[[test]]\nprocess = {{ {process} }}\nexpect = \"x\"\nusers = {{ {users} }}\n")
    });
    let ParsedRules { rules, tests, .. } =
        parsed(&format!("{HEAD}{rules}{}", tests.collect::<String>()));
    let mut bench = TestBench::of_file(&rules, &tests);
    tests.iter().map(|test| bench.verdict(test).decision).collect()
}

/// Checks the decision about each process: a path, or `none`, `ignored` or `stays`.
fn check(rules: &str, expected: &[(&str, &str)]) {
    let processes: Vec<&str> = expected.iter().map(|(process, _)| *process).collect();
    for (found, (process, expected)) in decisions(rules, &processes).into_iter().zip(expected) {
        let found = match found {
            TestDecision::NoRule => "none".to_owned(),
            TestDecision::Ignored => "ignored".to_owned(),
            TestDecision::Stays(_) => "stays".to_owned(),
            TestDecision::Moved(paths) => paths.join(" "),
        };
        assert_eq!(found, *expected, "{process}");
    }
}

fn rule(keys: &str) -> String {
    format!("[[rule]]\n{keys}\n")
}

#[test]
fn users_need_not_exist() {
    check(
        &[
            rule("user = \"alice\"\ncgroup = \"a/%U\""),
            rule("user = \"site-*\"\nnot = { user = \"site-x\" }\ncgroup = \"s/%u\""),
            rule("user = [\"30000-30009\", 40000]\ncgroup = \"n/%u\""),
            rule("user = \"20231234\"\ncgroup = \"d/%u\""),
            rule("user = \"root\"\ncgroup = \"r/%u\""),
            rule("user = \"@human\"\ncgroup = \"h/%u\""),
        ]
        .concat(),
        &[
            ("user = \"alice\"", "a/1234"),
            ("user = 1234 with alice.uid = 1234", "a/1234"),
            ("user = \"site-a\"", "s/site-a"),
            ("user = \"site-x\", uid = 999", "none"),
            ("user = \"m\", uid = 30009", "n/m"),
            ("uid = 30010, user = \"o\"", "h/o"),
            ("user = 40000", "n/40000"),
            ("user = \"40000\"", "n/40000"),
            ("user = \"20231234\"", "d/20231234"),
            ("user = \"root\"", "r/root"),
            ("user = 0", "r/0"),
            ("user = \"bob\"", "h/bob"),
            ("user = \"daemon\", uid = 1", "none"),
            ("", "none"),
        ],
    );
}

#[test]
fn ancestors_and_containers_are_facts() {
    check(
        &[
            rule("below = \"sshd\"\ncgroup = \"ssh\""),
            rule("container = [\"docker:web\", \"podman@alice:*\"]\ncgroup = \"c\"\ncontainers = true\nleave_units = true"),
            rule("container = true\ncgroup = \"d\""),
        ]
        .concat(),
        &[
            ("user = \"a\", below = [\"/bin/sh\", \"/usr/sbin/sshd\"]", "ssh"),
            ("user = \"a\", below = \"/usr/sbin/cron\"", "none"),
            ("user = \"a\", exe = \"/usr/sbin/sshd\"", "none"),
            ("user = \"a\", container = \"docker:web\"", "c"),
            ("user = \"alice\", container = \"podman@alice:x\"", "c"),
            ("user = \"bob\", container = \"podman@bob:x\"", "none"),
            ("user = \"a\", container = \"lxc:web\"", "stays"),
        ],
    );
}

#[test]
fn a_user_of_digits_has_the_uid_of_its_account() {
    let rules = rule("user = \"2023\"\ncgroup = \"d/%U\"");
    let account = "user = \"2023\" with 2023.uid = 70000";
    check(&rules, &[(account, "d/70000"), ("user = 2023", "none")]);
}

#[test]
fn groups_are_effective_or_list_the_user() {
    check(
        &[
            rule("group = \"staff\"\nignore = true"),
            rule("group = [\"web*\", \"70-79\"]\ncgroup = \"g/%g\""),
        ]
        .concat(),
        &[
            ("user = \"a\", group = \"staff\"", "ignored"),
            ("user = \"a\", groups = \"staff\"", "ignored"),
            ("user = \"a\"", "none"),
            ("user = \"b\", group = 75", "g/75"),
            ("user = \"b\", groups = [\"web1\"]", "g/b"),
            ("user = \"c\" with c = { uid = 5, group = \"web2\" }", "g/web2"),
            ("user = \"d\" with d.groups = [79]", "g/d"),
        ],
    );
}

#[test]
fn executables_and_arguments() {
    check(
        &[
            rule("exe = \"java\"\nargument = \"*/search*.jar\"\ncgroup = \"j\""),
            rule("exe = \"tool\"\nargument.2 = \"b\"\ncgroup = \"t\""),
            rule("exe = \"/usr/bin/report\"\ncgroup = \"p/%p\""),
        ]
        .concat(),
        &[
            ("exe = \"/opt/java\", argument = [\"-jar\", \"/a/search-1.jar\"]", "j"),
            ("exe = \"/opt/java\", argument = \"/a/other.jar\"", "none"),
            ("exe = \"/opt/java\"", "none"),
            ("exe = \"/bin/tool\", argument = [\"a\", \"b\"]", "t"),
            ("exe = \"/bin/tool\", argument = [\"b\", \"a\"]", "none"),
            ("exe = \"/usr/bin/python3\", invoked = \"/usr/bin/report\"", "p/python3"),
            ("exe = \"/usr/bin/python3\"", "none"),
            ("user = \"a\"", "none"),
        ],
    );
}

#[test]
fn the_origin_of_a_process() {
    check(
        &[
            rule("user = \"a\"\nunit = \"cron.service\"\ncgroup = \"cron/%u\""),
            rule("from = \"/system.slice/slurm.service/**\"\nignore = true"),
            rule("login = [\"bob\", \"site-*\"]\nuser = \"root\"\ncgroup = \"sudo\""),
        ]
        .concat(),
        &[
            ("user = \"a\", unit = \"cron.service\"", "cron/a"),
            ("user = \"a\"", "none"),
            // A process in the cgroup of the rule keeps it.
            ("user = \"a\", from = \"/cgruled.slice/cgruled-pool.service/cron/a\"", "cron/a"),
            ("user = \"b\", from = \"/system.slice/slurm.service/job1\"", "ignored"),
            ("user = \"root\", login = \"bob\"", "sudo"),
            ("user = \"root\", login = \"site-9\"", "sudo"),
            ("user = \"root\", login = \"carol\"", "none"),
            ("user = \"root\"", "none"),
        ],
    );
}

#[test]
fn a_process_may_stay_where_it_is() {
    let place = "[[rule]]\nuser = \"*\"\ncgroup = \"x\"\n";
    check(
        &[rule("user = \"web\"\ncgroup = \"w\"\nleave_units = \"web*\""), place.to_owned()]
            .concat(),
        &[
            ("user = \"web\", unit = \"web1.service\"", "w"),
            ("user = \"web\", unit = \"db.service\"", "stays"),
            ("user = \"web\", unit = \"cron.service\"", "w"),
            ("user = \"web\", unit = \"session-3.scope\"", "w"),
            ("user = \"web\"", "w"),
            ("user = \"root\", exe = \"/usr/lib/systemd/systemd-journald\"", "stays"),
            ("user = \"root\", exe = \"/usr/bin/make\", pid = 1", "stays"),
            ("user = \"a\", unit = \"user@4000000009.service\"", "x"),
        ],
    );
}

#[test]
fn the_job_of_another_user_stays() {
    let rules = rule("user = [\"site-*\", \"www\"]\ncgroup = \"x\"");
    check(
        &rules,
        &[
            ("user = \"www\", unit = \"user@500.service\" with bob.uid = 500", "stays"),
            // No limit of that user is evaded: it is moved as well.
            ("user = \"www\", unit = \"user@501.service\" with site-a.uid = 501", "x"),
            ("user = \"site-b\", uid = 502, unit = \"user@502.service\"", "x"),
            (
                "user = \"site-b\", unit = \"user@502.service\", exe = \"/usr/lib/systemd/systemd\"",
                "stays",
            ),
        ],
    );
}

#[test]
fn legacy_rules_decide_too() {
    let file = Arc::from(Path::new("/etc/cgrules.conf"));
    let text = "alice:make cpu build/%u\n@staff cpu,memory staff/\nbob memory one\n% cpu two\n";
    let legacy = crate::config::cgrules_conf::parse(&file, text);
    let tests = [
        ("user = \"alice\", exe = \"/usr/bin/make\"", "build/alice"),
        ("user = \"alice\", group = \"staff\"", "staff"),
        ("user = \"bob\", unit = \"web.service\"", "two"),
        ("user = \"root\", exe = \"/usr/lib/systemd/systemd-udevd\"", "none"),
    ];
    let text = tests.map(|(process, path)| {
        format!("[[test]]\nprocess = {{ {process} }}\nexpect = \"{path}\"\n")
    });
    let ParsedRules { tests, .. } = parsed(&format!("{HEAD}{}", text.concat()));
    let mut bench = TestBench::of_file(&legacy.rules, &tests);
    for test in &tests {
        let verdict = bench.verdict(test);
        assert!(verdict.passed(), "{}: {}", test.process, verdict.wording());
    }
}

#[test]
fn the_priority_orders_rules_and_a_pid_is_rendered() {
    let rules = [
        rule("user = \"*\"\ncgroup = \"late\""),
        rule("user = \"a\"\ncgroup = \"p/%P\"\npriority = 5"),
    ];
    check(&rules.concat(), &[("user = \"a\", pid = 77", "p/77"), ("user = \"b\"", "late")]);
}

#[test]
fn a_failure_names_the_decision_and_the_rule() {
    let text = format!(
        "{HEAD}[[rule]]\nname = \"web\"\nuser = \"*\"\ncgroup = \"w\"\n\
         [[test]]\nprocess = {{ user = \"a\" }}\nexpect = \"x\"\nrule = \"wbe\"\n\
         [[test]]\nprocess = {{ user = \"a\" }}\nexpect = \"w\"\nrule = \"web\"\n"
    );
    let ParsedRules { rules, tests, .. } = parsed(&text);
    let found = report(&[TestedFile { rules, tests }], Severity::Warning);
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    let expected = [
        "/etc/cgruled/rules.d/50-a.toml:9:10: warning: test failed: \"x\" expected, but the process is \
         moved to \"w\"\n    9 | expect = \"x\"\n      |          ^^^\n      = help: the first match is \
         the rule \"web\" at /etc/cgruled/rules.d/50-a.toml:4; the process has user a",
        "/etc/cgruled/rules.d/50-a.toml:10:8: warning: test failed: rule \"wbe\" expected, but the process \
         is moved to \"w\"\n   10 | rule = \"wbe\"\n      |        ^^^^^\n      = help: no rule is named \
         \"wbe\", did you mean \"web\"?",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_rule_for_other_users_has_a_name_nevertheless() {
    let text = format!(
        "{HEAD}[[rule]]\nname = \"bob\"\nuser = \"bob\"\ncgroup = \"b\"\n\
         [[test]]\nprocess = {{ user = \"bbo\" }}\nrule = \"bob\"\n"
    );
    let ParsedRules { rules, tests, .. } = parsed(&text);
    let found = report(&[TestedFile { rules, tests }], Severity::Warning);
    assert_eq!(found[0].help.as_deref(), Some("no rule matches a process with user bbo"));
}

#[test]
fn of_many_failures_the_first_are_reported() {
    let test = "[[test]]\nprocess = {}\nexpect = \"x\"\n";
    let reported = |count| {
        let ParsedRules { rules, tests, .. } = parsed(&format!("{HEAD}{}", test.repeat(count)));
        report(&[TestedFile { rules, tests }], Severity::Error)
    };
    let found = reported(50);
    assert_eq!(found.len(), 21);
    assert!(found.iter().all(|own| own.is_error()));
    assert_eq!(found[20].message, "30 more tests fail");
    assert_eq!(reported(20).len(), 20);
}

#[test]
fn the_mismatch_of_the_expected_rule_is_known() {
    let rules = [
        rule("name = \"a\"\nuser = \"site-*\"\nexe = \"/usr/bin/php\"\ncgroup = \"s/%u\""),
        rule(
            "name = \"b\"\nuser = \"*\"\nunit = \"cron.service\"\nnot = { group = \"ci\" }\ncgroup = \"c\"",
        ),
    ];
    for (process, assertion, expected) in [
        ("user = \"site-a\"", "rule = \"a\"", Some(("a", Mismatch::UnknownExe))),
        ("user = \"x\"", "expect = \"s/x\"", Some(("a", Mismatch::User))),
        ("user = \"site-a\", exe = \"/usr/bin/php\"", "expect = \"s/site-a\"", None),
        ("user = \"x\"", "rule = \"b\"", Some(("b", Mismatch::Context(ContextMismatch::Unit)))),
        (
            "user = \"x\", groups = \"ci\", unit = \"cron.service\"",
            "rule = \"b\"",
            Some(("b", Mismatch::NotGroup)),
        ),
        ("user = \"x\"", "rule = \"c\"", None),
        ("user = \"x\"", "expect = \"none\"", None),
    ] {
        let test = format!("[[test]]\nprocess = {{ {process} }}\n{assertion}\n");
        let ParsedRules { rules, tests, .. } = parsed(&format!("{HEAD}{}{test}", rules.concat()));
        let bench = TestBench::of_file(&rules, &tests);
        let found = bench.mismatch(&tests[0]).map(|(rule, miss)| (rule.name.to_string(), miss));
        let expected = expected.map(|(name, miss): (&str, _)| (name.to_owned(), miss));
        assert_eq!(found, expected, "{process} {assertion}");
    }
}

/// A value of one of the facts that [`CRITERIA`] test.
const FACTS: [&str; 12] = [
    "user = \"a\"",
    "user = \"site-b\"",
    "user = \"root\"",
    "user = 5",
    "group = \"web\"",
    "groups = [\"web\", 7]",
    "exe = \"/usr/bin/x\"",
    "exe = \"/usr/bin/y\"",
    "unit = \"cron.service\"",
    "from = \"/cgruled.slice/cgruled-pool.service/c3\"",
    "login = \"a\"",
    "argument = [\"p\", \"q\"]",
];
const CRITERIA: [&str; 10] = [
    "user = \"a\"",
    "user = [\"site-*\", 5]",
    "user = \"@human\"",
    "group = \"web\"",
    "group = 7",
    "exe = \"x\"",
    "exe = \"/usr/bin/*\"",
    "unit = \"cron.service\"",
    "login = \"a\"",
    "argument = \"q\"",
];

proptest::proptest! {
    /// The functions of the daemon find the same rule as the explanation, which tries them one by one.
    #[test]
    fn the_first_rule_without_a_mismatch_decides(
        rules in proptest::collection::vec(
            (proptest::sample::subsequence(CRITERIA.to_vec(), 1..4), proptest::sample::select(CRITERIA.to_vec())),
            1..6,
        ),
        facts in proptest::sample::subsequence(FACTS.to_vec(), 0..5),
    ) {
        let key = |text: &str| text.split(' ').next().unwrap().to_owned();
        let unique = |texts: &[&str]| {
            let mut seen = std::collections::BTreeSet::new();
            let kept = texts.iter().filter(|text| seen.insert(key(text))).map(|text| (*text).to_owned());
            kept.collect::<Vec<String>>()
        };
        let mut text = HEAD.to_owned();
        for (index, (when, not)) in rules.iter().enumerate() {
            let when = unique(when).join("\n");
            text += &rule(&format!(
                "name = \"r{index}\"\n{when}\nnot = {{ {not} }}\ncgroup = \"c{index}\"\nleave_units = true"
            ));
        }
        let facts: Vec<String> = unique(&facts);
        let is_both = facts.iter().any(|fact| fact.starts_with("unit"));
        let facts = facts.iter().filter(|fact| !is_both || !fact.starts_with("from"));
        let process = facts.cloned().collect::<Vec<_>>().join(", ");
        for index in 0..rules.len() {
            text += &format!("[[test]]\nprocess = {{ {process} }}\nrule = \"r{index}\"\n");
        }
        let ParsedRules { rules: written, tests, .. } = parsed(&text);
        let mut bench = TestBench::of_file(&written, &tests);
        for test in &tests {
            let verdict = bench.verdict(test);
            let winner = verdict.rule.and_then(|id| bench.rule(id)).map(|rule| rule.name.to_string());
            let first = tests.iter().find(|own| {
                let name = &own.rule.as_ref().unwrap().expected;
                let is_compiled = bench.policy.matcher.rules().iter().any(|rule| *rule.name == **name);
                is_compiled && bench.mismatch(own).is_none()
            });
            let first = first.map(|own| own.rule.clone().unwrap().expected);
            proptest::prop_assert_eq!(&winner, &first, "{}", text);
            proptest::prop_assert_eq!(verdict.passed(), winner == Some(test.rule.clone().unwrap().expected));
        }
    }
}
