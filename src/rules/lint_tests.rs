use std::path::Path;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::{EarlierRules, Unreachable, dead, id};
use crate::event::{Gid, Uid};
use crate::rules::glob::Glob;
use crate::rules::human::HumanUids;
use crate::rules::subsumption::{accepts_any_group, have_common_users, is_empty, subsumes};
use crate::rules::{
    Action, Criteria, ExeTest, GroupTest, LeaveUnits, Negated, Origin, Rule, RuleId, UserTest,
};

fn exe() -> impl Strategy<Value = ExeTest> {
    let glob = |text: &str| Glob::parse(text.as_bytes()).unwrap();
    select(vec![
        ExeTest::Path(b"/a/x".to_vec()),
        ExeTest::Path(b"/a/y".to_vec()),
        ExeTest::Base(b"x".to_vec()),
        ExeTest::PathGlob(glob("/a/**")),
        ExeTest::PathGlob(glob("/a/x*")),
        ExeTest::PathGlob(glob("/*/x")),
        ExeTest::PathGlob(glob("**")),
        ExeTest::BaseGlob(glob("*")),
        ExeTest::BaseGlob(glob("x*")),
        ExeTest::BaseGlob(glob("[xy]")),
    ])
}

/// Names are resolved before rules are compared.
fn user() -> impl Strategy<Value = UserTest> {
    let ids = |first, last| UserTest::Ids(Uid(first), Uid(last));
    select(vec![
        ids(1, 1),
        ids(2, 2),
        ids(1, 2),
        ids(0, u32::MAX),
        ids(0, 1),
        ids(2, u32::MAX),
        UserTest::Human(HumanUids::new(Uid(2), [])),
        UserTest::Glob(Glob::parse(b"*").unwrap()),
        UserTest::Glob(Glob::parse(b"a*").unwrap()),
    ])
}

fn group() -> impl Strategy<Value = GroupTest> {
    let ids = |first, last| GroupTest::Ids(Gid(first), Gid(last));
    select(vec![ids(1, 1), ids(1, 2), ids(0, 1), ids(2, u32::MAX)])
}

fn rule() -> impl Strategy<Value = Rule> {
    (vec(user(), 0..3), vec(group(), 0..3), vec(exe(), 0..3)).prop_map(|(users, groups, exes)| {
        let rule = with(users, exes);
        Rule { when: Criteria { groups, ..rule.when }, ..rule }
    })
}

/// Compares each rule with all earlier ones.
fn by_pairs(rules: &[Rule]) -> Vec<(RuleId, Unreachable)> {
    let mut found = Vec::new();
    for (at, narrow) in rules.iter().enumerate() {
        if is_empty(narrow) {
            found.push((id(at), Unreachable::HoldsForNobody));
        } else if let Some(n) = rules[..at].iter().position(|wide| subsumes(wide, narrow)) {
            found.push((id(at), Unreachable::ShadowedBy(id(n))));
        }
    }
    found
}

fn with(users: Vec<UserTest>, exes: Vec<ExeTest>) -> Rule {
    Rule {
        name: "r".into(),
        origin: Origin { file: Arc::from(Path::new("/r.toml")), line: 1 },
        when: Criteria { users, exes, ..Criteria::default() },
        not: Negated::default(),
        exe_anywhere: false,
        is_gated: false,
        leave_units: LeaveUnits::No,
        leave_containers: crate::rules::container::LeaveContainers::No,
        action: Action::ignore(),
    }
}

/// The rules of real hosts differ in one criterion; comparing all pairs takes minutes for 100,000.
#[test]
fn rules_are_compared_with_few_others() {
    const COUNT: u32 = 1000;
    let ids = |first, last| vec![UserTest::Ids(Uid(first), Uid(last))];
    let glob = |text: String| Glob::parse(text.as_bytes()).unwrap();
    let base = || vec![ExeTest::Base(b"bash".to_vec())];
    let rules = |of: &dyn Fn(u32) -> Rule| (0..COUNT).map(of).collect::<Vec<Rule>>();
    for (shape, rules) in [
        ("users", rules(&|n| with(ids(n, n), Vec::new()))),
        ("ranges", rules(&|n| with(ids(n * 10, n * 10 + 8), Vec::new()))),
        ("users of one program", rules(&|n| with(ids(n, n), base()))),
        (
            "programs of one user",
            rules(&|n| with(ids(1, 1), vec![ExeTest::Path(format!("/bin/{n}").into_bytes())])),
        ),
        (
            "patterns",
            rules(&|n| with(Vec::new(), vec![ExeTest::PathGlob(glob(format!("/opt/{n}/**")))])),
        ),
        (
            "ends of names",
            rules(&|n| with(Vec::new(), vec![ExeTest::BaseGlob(glob(format!("*-{n}")))])),
        ),
        (
            "patterns of users",
            rules(&|n| with(vec![UserTest::Glob(glob(format!("u{n}-*")))], Vec::new())),
        ),
    ] {
        let compared = std::cell::Cell::new(0);
        let mut index = EarlierRules::default();
        for (at, rule) in rules.iter().enumerate() {
            let count = |_| {
                compared.set(compared.get() + 1);
                false
            };
            index.first(rule, &count);
            index.insert(at, rule);
        }
        assert!(compared.get() < 3 * COUNT, "{shape}: {}", compared.get());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn the_index_misses_no_covering_rule(rules in vec(rule(), 0..8)) {
        prop_assert_eq!(dead(&rules), by_pairs(&rules));
    }
}

/// Two rules: what `wide` requires and excludes, and the same of `narrow`.
fn covers(wide: [&Criteria; 2], narrow: [&Criteria; 2]) -> bool {
    let rule = |[when, not]: [&Criteria; 2]| Rule {
        when: when.clone(),
        not: not.clone().into(),
        ..with(Vec::new(), Vec::new())
    };
    subsumes(&rule(wide), &rule(narrow))
}

#[test]
fn a_rule_covers_one_that_excludes_as_much() {
    let ids = |all: &[u32]| all.iter().map(|&n| UserTest::Ids(Uid(n), Uid(n))).collect();
    let users = |all: &[u32]| Criteria { users: ids(all), ..Criteria::default() };
    let groups = |all: &[u32]| Criteria {
        groups: all.iter().map(|&n| GroupTest::Ids(Gid(n), Gid(n))).collect(),
        ..Criteria::default()
    };
    let exes = |all: &[&str]| Criteria {
        exes: all.iter().map(|path| ExeTest::Path(path.as_bytes().to_vec())).collect(),
        ..Criteria::default()
    };
    let all = &Criteria::default();
    for (less, more) in [
        (users(&[5]), users(&[5, 6])),
        (groups(&[5]), groups(&[5, 6])),
        (exes(&["/a/x"]), exes(&["/a/x", "/a/y"])),
    ] {
        assert!(covers([all, &less], [all, &more]) && covers([all, all], [all, &more]));
        assert!(!covers([all, &more], [all, &less]) && !covers([all, &less], [all, all]));
    }
    for (one, other) in
        [(users(&[5]), users(&[6])), (groups(&[5]), groups(&[6])), (exes(&["/a/x"]), exes(&["/b"]))]
    {
        assert!(!covers([all, &one], [all, &other]));
        // Who is required is not excluded.
        let holds = |when: &Criteria, not: &Criteria| {
            let rule = with(Vec::new(), Vec::new());
            !is_empty(&Rule { when: when.clone(), not: not.clone().into(), ..rule })
        };
        assert!(!holds(&one, &one) && holds(&one, &other) && holds(&one, all) && holds(all, &one));
    }
    let excludes = |exe_anywhere: bool| Rule {
        not: exes(&["/a/x"]).into(),
        exe_anywhere,
        ..with(Vec::new(), Vec::new())
    };
    for (wide, narrow, expected) in
        [(false, false, true), (false, true, true), (true, true, true), (true, false, false)]
    {
        assert_eq!(subsumes(&excludes(wide), &excludes(narrow)), expected, "{wide} {narrow}");
    }
}

#[test]
fn patterns_of_executables_cover_themselves_and_longer_ones() {
    let path = |text: &str| ExeTest::PathGlob(Glob::parse(text.as_bytes()).unwrap());
    let base = |text: &str| ExeTest::BaseGlob(Glob::parse(text.as_bytes()).unwrap());
    let covers = |wide: &ExeTest, narrow: &ExeTest| {
        subsumes(&with(Vec::new(), vec![wide.clone()]), &with(Vec::new(), vec![narrow.clone()]))
    };
    let paths = [path("/a/*x"), path("/b/*y"), path("/a/**"), path("/a/x*z")];
    let bases = [base("*x"), base("*y"), base("a*"), base("ab*z")];
    for [one, other, wide, narrow] in [paths, bases] {
        assert!(covers(&one, &one) && covers(&wide, &narrow) && covers(&wide, &wide));
        assert!(!covers(&one, &other) && !covers(&narrow, &wide) && !covers(&one, &wide));
    }
}

#[test]
fn ranges_that_touch_have_a_common_user_and_groups_are_a_restriction() {
    let ids = |first, last| [UserTest::Ids(Uid(first), Uid(last))];
    for (one, other, expected) in [
        (ids(9, 12), ids(5, 9), true),
        (ids(5, 9), ids(9, 12), true),
        (ids(10, 12), ids(5, 9), false),
        (ids(5, 8), ids(9, 12), false),
    ] {
        assert_eq!(have_common_users(&one, &other), expected);
    }
    let groups = |groups: Vec<GroupTest>| Criteria { groups, ..Criteria::default() };
    assert!(accepts_any_group(&groups(Vec::new())));
    assert!(!accepts_any_group(&groups(vec![GroupTest::Ids(Gid(5), Gid(9))])));
}
