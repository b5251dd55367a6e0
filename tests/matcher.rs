//! Tests the compiled matcher against the reference, and the meaning of each criterion.
#![allow(clippy::unwrap_used)]

mod reference;

use std::path::Path;
use std::sync::Arc;

use cgruled::event::{Gid, Nanos, Uid};
use cgruled::kernel::program::ExeInfo;
use cgruled::placement::{Choice, KnownExe, Missing, decide, observe_before};
use cgruled::policy::User;
use cgruled::rules::Which;
use cgruled::rules::context::{ContextCriteria, TextTest};
use cgruled::rules::explain::{Mismatch, walk};
use cgruled::rules::glob::Glob;
use cgruled::rules::ignore::IgnoreWhen;
use cgruled::rules::lint::{self, Unreachable};
use cgruled::rules::matcher::Matcher;
use cgruled::rules::names::UserIdentity;
use cgruled::rules::{
    Action, Criteria, ExeFacts, ExeTest, Facts, GroupTest, LeaveUnits, Origin, Rule, RuleId,
    UserTest,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

fn rule(when: Criteria, not: Criteria, exe_anywhere: bool) -> Rule {
    let origin =
        Origin { file: Arc::from(Path::new("/etc/cgruled/rules.d/50-test.toml")), line: 1 };
    Rule {
        name: Arc::from("test"),
        origin,
        when,
        not: not.into(),
        exe_anywhere,
        is_gated: false,
        leave_units: LeaveUnits::No,
        leave_containers: cgruled::rules::container::LeaveContainers::No,
        action: Action::ignore(),
    }
}

fn glob(text: &str) -> Glob {
    Glob::parse(text.as_bytes()).unwrap()
}

// The alphabets are small so that rules collide: same IDs, same paths, same first letters.

fn user_test() -> impl Strategy<Value = UserTest> {
    prop_oneof![
        3 => (0..6u32).prop_map(|uid| UserTest::Ids(Uid(uid), Uid(uid))),
        2 => (0..6u32, 0..40u32).prop_map(|(uid, width)| UserTest::Ids(Uid(uid), Uid(uid + width))),
        2 => select(vec!["*", "**", "u*", "u1", "u[23]", "?4", "*5"])
            .prop_map(|text| UserTest::Glob(glob(text))),
        1 => Just(UserTest::Name("u1".to_owned())),
    ]
}

fn group_test() -> impl Strategy<Value = GroupTest> {
    prop_oneof![
        3 => (0..5u32).prop_map(|gid| GroupTest::Ids(Gid(gid), Gid(gid))),
        3 => (0..5u32, select(vec![0, 1, 3, 15, 16, 40, u32::MAX - 8]))
            .prop_map(|(gid, width)| GroupTest::Ids(Gid(gid), Gid(gid + width))),
        1 => Just(GroupTest::Ids(Gid(3), Gid(2))),
    ]
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    vec(select(vec!["a", "b", "ab", "aa", "usr", "ba.so"]), 1..4)
        .prop_map(|parts| format!("/{}", parts.join("/")).into_bytes())
}

fn exe_test() -> impl Strategy<Value = ExeTest> {
    let part = || select(vec!["a", "b", "*", "**", "?", "[ab]", "/", "usr/", "\\a", "*b", ".so"]);
    let text = move || vec(part(), 1..5).prop_map(|parts| glob(&parts.concat()));
    let below = move || vec(part(), 0..5).prop_map(|parts| glob(&format!("/{}", parts.concat())));
    prop_oneof![
        path().prop_map(ExeTest::Path),
        below().prop_map(ExeTest::PathGlob),
        text().prop_map(ExeTest::PathGlob),
        select(vec!["a", "b", "ab", "aa"]).prop_map(|base| ExeTest::Base(base.into())),
        text().prop_map(ExeTest::BaseGlob),
    ]
}

/// Generates criteria. Each kind is present in `weight` of 10 cases.
fn criteria(weight: u32) -> impl Strategy<Value = Criteria> {
    fn list<T: std::fmt::Debug + 'static>(
        weight: u32,
        test: impl Strategy<Value = T> + 'static,
    ) -> BoxedStrategy<Vec<T>> {
        prop_oneof![
            10 - weight => Just(()).prop_map(|()| Vec::new()),
            weight => vec(test, 1..3),
        ]
        .boxed()
    }
    (list(weight, user_test()), list(weight, group_test()), list(weight + 2, exe_test()))
        .prop_map(|(users, groups, exes)| Criteria { users, groups, exes, context: None })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let conditions = prop_oneof![4 => Just(Condition::None), 1 => Just(Condition::Ignore), 1 => Just(Condition::Context)];
    (criteria(4), criteria(1), prop::bool::weighted(0.3), conditions).prop_map(
        |(when, mut not, anywhere, condition)| {
            // A rule for all users in every set would leave few processes for the other rules.
            if when.is_empty() {
                not.users.push(UserTest::Ids(Uid(0), Uid(4)));
            }
            let rule = rule(when, not, anywhere);
            match condition {
                Condition::None => rule,
                Condition::Ignore => conditional(rule),
                Condition::Context => in_unit(rule),
            }
        },
    )
}

/// A condition that only the caller of the matcher can test.
#[derive(Clone, Debug)]
enum Condition {
    None,
    Ignore,
    Context,
}

/// Lets a rule require a unit.
fn in_unit(mut rule: Rule) -> Rule {
    let units = vec![TextTest::Is(b"cron.service"[..].into())];
    rule.when.context = Some(Box::new(ContextCriteria { units, ..ContextCriteria::default() }));
    rule
}

fn conditional(rule: Rule) -> Rule {
    let when = IgnoreWhen { below: Some("ct".to_owned()), ..IgnoreWhen::default() };
    Rule { action: Action::Ignore(when), ..rule }
}

#[derive(Clone, Debug)]
struct Process {
    who: UserIdentity,
    gid: Gid,
    exe: Option<(Vec<u8>, bool)>,
    invoked: Option<Vec<u8>>,
}

impl Process {
    fn facts(&self) -> Facts<'_> {
        Facts {
            uid: self.who.uid,
            gid: self.gid,
            exe: self.exe.as_ref().map(|(path, on_host)| ExeFacts { path, on_host: *on_host }),
            invoked: self.invoked.as_deref(),
        }
    }
}

fn process() -> impl Strategy<Value = Process> {
    let listed = vec((0..5u32).prop_map(Gid), 0..3).prop_map(|mut gids| {
        gids.sort();
        gids.dedup();
        gids
    });
    let who = (0..7u32, any::<bool>(), listed).prop_map(|(uid, named, listed_in)| UserIdentity {
        uid: Uid(uid),
        name: named.then(|| format!("u{uid}")),
        listed_in,
        login_group: None,
    });
    let exe = prop::option::weighted(0.9, (path(), prop::bool::weighted(0.7)));
    (who, 0..6u32, exe, prop::option::weighted(0.3, path()))
        .prop_map(|(who, gid, exe, invoked)| Process { who, gid: Gid(gid), exe, invoked })
}

/// Evaluates a process as the engine does: what a decision needs is read before it is made again. Returns
/// the index of the rule that decides, and those of the rules that observe and would match. Conditions of
/// a rule are met unless it is in `fails`.
fn evaluate(
    rules: Vec<(usize, Rule)>,
    fails: &[bool],
    process: &Process,
    is_unsure: bool,
) -> (Option<usize>, Vec<usize>) {
    let (indexes, rules): (Vec<usize>, Vec<Rule>) = rules.into_iter().unzip();
    let matcher = Matcher::compile(Arc::from(rules));
    let user = User::new(&matcher, process.who.clone(), Nanos(0));
    let facts = process.facts();
    let seen =
        facts.exe.map(|exe| ExeInfo { raw: exe.path, exe, invoked: facts.invoked, is_unsure });
    let unexamined = ExeInfo {
        invoked: facts.invoked.filter(|_| !is_unsure),
        ..seen.unwrap_or_else(|| ExeInfo::kernel_thread(b""))
    };
    let (mut exe, mut has_arguments) = (KnownExe::Unread, false);
    loop {
        let mut observed = Vec::new();
        let ids = (process.who.uid, process.gid);
        let index = |id: RuleId| indexes[id.0 as usize];
        let condition = |id, rule: &Rule| {
            let acting = Rule { action: rule.action.intended().clone(), ..rule.clone() };
            match (acting.is_conditional(), has_arguments) {
                (false, _) => Ok(true),
                (true, true) => Ok(!fails[index(id)]),
                (true, false) => Err(Missing::Arguments),
            }
        };
        let mut choice = decide(&matcher, &user, ids, exe, condition);
        if let Some(decided) = choice.decided() {
            let observe = |id| observed.push(index(id));
            let facts = (&user, process.gid, exe);
            if let Err(needed) = observe_before(&matcher, facts, decided, false, condition, observe)
            {
                choice = needed;
            }
        }
        match choice {
            Choice::Rule(id) => return (Some(index(id)), observed),
            Choice::NoRule => return (None, observed),
            Choice::NeedsExe if seen.is_none() => exe = KnownExe::Unavailable,
            Choice::NeedsExe => exe = KnownExe::Read(unexamined),
            Choice::NeedsExamination => exe = KnownExe::Read(seen.unwrap()).as_final(),
            Choice::Needs(_) => has_arguments = true,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn decides_as_the_reference_does(
        rules in vec(any_rule(), 0..40),
        processes in vec(process(), 1..12),
    ) {
        let matcher = Matcher::compile(Arc::from(rules));
        for process in &processes {
            let plan = matcher.plan(&process.who);
            let expected =
                reference::first_match(matcher.rules(), &process.who, &process.facts(), 0);
            prop_assert_eq!(matcher.decide(&plan, &process.facts()), expected, "{:?}", process);
        }
    }

    /// Checks the protocol for conditional rules: decide, test the circumstances, continue after the rule.
    #[test]
    fn goes_on_behind_conditional_rules_as_the_reference_does(
        rules in vec(any_rule(), 0..40),
        process in process(),
        fails in vec(any::<bool>(), 40),
    ) {
        let matcher = Matcher::compile(Arc::from(rules));
        let (plan, facts) = (matcher.plan(&process.who), process.facts());
        let fails = |id: RuleId| {
            fails[id.0 as usize] && matcher.rule(id).unwrap().is_conditional()
        };
        let mut decision = matcher.decide(&plan, &facts);
        let mut expected = reference::first_match(matcher.rules(), &process.who, &facts, 0);
        prop_assert_eq!(decision, expected);
        while let Some(id) = decision.filter(|&id| fails(id)) {
            decision = matcher.decide_after(&plan, &facts, id);
            expected =
                reference::first_match(matcher.rules(), &process.who, &facts, id.0 + 1);
            prop_assert_eq!(decision, expected, "{:?}", process);
        }
    }

    /// Checks that the explanation is true: the same deciding rule, and a mismatch for each rule before it.
    #[test]
    fn explains_what_it_decides(
        rules in vec(any_rule(), 0..40),
        process in process(),
        fails in vec(any::<bool>(), 40),
    ) {
        let matcher = Matcher::compile(Arc::from(rules));
        let (plan, facts) = (matcher.plan(&process.who), process.facts());
        let mut decision = matcher.decide(&plan, &facts);
        while let Some(id) = decision {
            if !fails[id.0 as usize] || !matcher.rule(id).unwrap().is_conditional() {
                break;
            }
            decision = matcher.decide_after(&plan, &facts, id);
        }
        let rules = matcher.rules();
        let walked = walk(rules, &process.who, &facts, |id, _| {
            fails[id.0 as usize].then_some(Mismatch::Circumstances)
        });
        prop_assert_eq!(walked.winner, decision, "{:?}", process);
        let before = decision.map_or(rules.len(), |id| id.0 as usize);
        prop_assert_eq!(walked.misses.len(), before);
    }

    /// Checks that rules which observe change no decision, and that each is counted exactly if it decides in
    /// the set in which it acts and the others that observe are absent.
    #[test]
    fn rules_that_observe_are_counted_as_if_they_alone_acted_and_decide_nothing(
        rules in vec((any_rule(), prop::bool::weighted(0.4), any::<bool>()), 0..24),
        process in process(),
        is_unsure in any::<bool>(),
    ) {
        let fails: Vec<bool> = rules.iter().map(|(_, _, fails)| *fails).collect();
        let rules: Vec<(Rule, bool)> =
            rules.into_iter().map(|(rule, observes, _)| (rule, observes)).collect();
        let all = |acting: Option<usize>, with_others: bool| -> Vec<(usize, Rule)> {
            let kept = rules.iter().enumerate().filter(|&(at, (_, observes))| {
                !observes || with_others || acting == Some(at)
            });
            let rules = kept.map(|(at, (rule, observes))| {
                let observes = *observes && acting != Some(at);
                let action = if observes { rule.action.clone().observed() } else { rule.action.clone() };
                (at, Rule { action, ..rule.clone() })
            });
            rules.collect()
        };
        let (decision, observed) = evaluate(all(None, true), &fails, &process, is_unsure);
        let (without, none) = evaluate(all(None, false), &fails, &process, is_unsure);
        prop_assert_eq!((decision, none), (without, Vec::new()));
        for (at, (_, observes)) in rules.iter().enumerate().filter(|(_, (_, observes))| *observes) {
            let (alone, _) = evaluate(all(Some(at), false), &fails, &process, is_unsure);
            prop_assert_eq!(observed.contains(&at), alone == Some(at), "rule {} {}", at, observes);
            // Neither does it depend on the others that observe.
            let (beside, _) = evaluate(all(Some(at), true), &fails, &process, is_unsure);
            prop_assert_eq!(beside, alone);
        }
    }

    /// Checks that a rule reported as dead never decides, whatever the circumstances are.
    #[test]
    fn dead_rules_never_decide(
        rules in vec(any_rule(), 0..20),
        processes in vec(process(), 1..12),
    ) {
        let dead: Vec<RuleId> = lint::dead(&rules).into_iter().map(|(id, _)| id).collect();
        for process in &processes {
            let facts = process.facts();
            let mut from = 0;
            while let Some(id) = reference::first_match(&rules, &process.who, &facts, from) {
                prop_assert!(!dead.contains(&id), "{:?} decides for {:?}", rules[id.0 as usize], process);
                if !rules[id.0 as usize].is_conditional() {
                    break;
                }
                from = id.0 + 1;
            }
        }
    }

    /// Checks the protocol of the engine: decide on few facts, read further facts only
    /// if the matcher needs them.
    #[test]
    fn unneeded_facts_change_nothing(
        rules in vec(any_rule(), 0..12),
        process in process(),
    ) {
        let matcher = Matcher::compile(Arc::from(rules));
        let plan = matcher.plan(&process.who);
        let all = process.facts();
        let decision = matcher.decide(&plan, &all);
        for less in [Facts { exe: None, ..all }, Facts { invoked: None, ..all }] {
            let early = matcher.decide(&plan, &less);
            if !matcher.asks_exe(&plan, all.gid, early, Which::All) {
                prop_assert_eq!(early, decision);
            }
        }
    }

    #[test]
    fn without_name_criteria_an_identity_is_its_uid(
        rules in vec(any_rule(), 0..3),
        process in process(),
    ) {
        let matcher = Matcher::compile(Arc::from(rules));
        let bare = UserIdentity::nameless(process.who.uid);
        if !matcher.asks_identity() {
            let (full, bare) = (matcher.plan(&process.who), matcher.plan(&bare));
            let facts = process.facts();
            prop_assert_eq!(matcher.decide(&full, &facts), matcher.decide(&bare, &facts));
        }
    }
}

/// One line of a table of cases: a process and the expected rule.
struct Case<'a> {
    uid: u32,
    gid: u32,
    exe: Option<(&'a str, bool)>,
    invoked: Option<&'a str>,
    rule: Option<u32>,
}

/// Decides each case by both implementations. UID 1 has the name `alice` and is a member of group 7.
fn check(rules: Vec<Rule>, cases: &[Case<'_>]) {
    let matcher = Matcher::compile(Arc::from(rules));
    for (n, case) in cases.iter().enumerate() {
        let alice = case.uid == 1;
        let who = UserIdentity {
            uid: Uid(case.uid),
            name: alice.then(|| "alice".to_owned()),
            listed_in: if alice { vec![Gid(7)] } else { Vec::new() },
            login_group: None,
        };
        let facts = Facts {
            uid: who.uid,
            gid: Gid(case.gid),
            exe: case.exe.map(|(path, on_host)| ExeFacts { path: path.as_bytes(), on_host }),
            invoked: case.invoked.map(str::as_bytes),
        };
        let rule = case.rule.map(RuleId);
        assert_eq!(reference::first_match(matcher.rules(), &who, &facts, 0), rule, "reference {n}");
        assert_eq!(matcher.decide(&matcher.plan(&who), &facts), rule, "matcher {n}");
    }
}

const NOBODY: Case<'_> = Case { uid: 9, gid: 9, exe: None, invoked: None, rule: None };

fn users(tests: &[UserTest]) -> Criteria {
    Criteria { users: tests.to_vec(), ..Criteria::default() }
}

fn groups(first: u32, last: u32) -> Criteria {
    Criteria { groups: vec![GroupTest::Ids(Gid(first), Gid(last))], ..Criteria::default() }
}

fn exes(tests: &[ExeTest]) -> Criteria {
    Criteria { exes: tests.to_vec(), ..Criteria::default() }
}

fn base(name: &str) -> ExeTest {
    ExeTest::Base(name.into())
}

fn nothing() -> Criteria {
    Criteria::default()
}

#[test]
fn the_first_rule_wins_whatever_it_needs() {
    let everything = Criteria {
        users: vec![UserTest::Ids(Uid(1), Uid(1))],
        groups: vec![GroupTest::Ids(Gid(5), Gid(5))],
        exes: vec![base("vim")],
        context: None,
    };
    let rules = vec![
        rule(everything, nothing(), false),
        rule(exes(&[base("vim")]), nothing(), false),
        rule(groups(5, 5), nothing(), false),
        rule(users(&[UserTest::Ids(Uid(1), Uid(3))]), nothing(), false),
        rule(nothing(), nothing(), false),
        rule(nothing(), nothing(), false),
    ];
    let vim = Some(("/usr/bin/vim", true));
    check(
        rules,
        &[
            Case { uid: 1, gid: 5, exe: vim, rule: Some(0), ..NOBODY },
            Case { uid: 1, gid: 6, exe: vim, rule: Some(1), ..NOBODY },
            Case { uid: 1, gid: 5, rule: Some(2), ..NOBODY },
            Case { uid: 3, gid: 6, rule: Some(3), ..NOBODY },
            Case { rule: Some(4), ..NOBODY },
        ],
    );
}

#[test]
fn a_user_without_a_name_is_matched_by_stars_alone() {
    let rules = vec![
        rule(users(&[UserTest::Glob(glob("a*"))]), nothing(), false),
        rule(users(&[UserTest::Glob(glob("?*"))]), nothing(), false),
        rule(users(&[UserTest::Glob(glob("*"))]), nothing(), false),
    ];
    check(
        rules,
        &[Case { uid: 1, rule: Some(0), ..NOBODY }, Case { uid: 2, rule: Some(2), ..NOBODY }],
    );
}

#[test]
fn a_group_is_the_process_s_or_one_that_lists_the_user() {
    let rules =
        vec![rule(groups(7, 7), nothing(), false), rule(groups(100, 5000), nothing(), false)];
    check(
        rules,
        &[
            Case { uid: 1, rule: Some(0), ..NOBODY },
            Case { uid: 2, gid: 7, rule: Some(0), ..NOBODY },
            Case { uid: 2, gid: 99, ..NOBODY },
            Case { uid: 2, gid: 100, rule: Some(1), ..NOBODY },
            Case { uid: 2, gid: 5000, rule: Some(1), ..NOBODY },
            Case { uid: 2, gid: 5001, ..NOBODY },
        ],
    );
}

#[test]
fn an_executable_counts_on_the_host_or_where_the_rule_says_anywhere() {
    let rules = vec![
        rule(exes(&[ExeTest::Path(b"/usr/bin/vim".into())]), nothing(), false),
        rule(exes(&[ExeTest::Path(b"/usr/bin/vim".into())]), nothing(), true),
        rule(exes(&[base("run.py")]), nothing(), false),
    ];
    let (here, there) = (Some(("/usr/bin/vim", true)), Some(("/usr/bin/vim", false)));
    let python = |on_host| Some(("/usr/bin/python3", on_host));
    let script = Some("/opt/run.py");
    check(
        rules,
        &[
            Case { exe: here, rule: Some(0), ..NOBODY },
            Case { exe: there, rule: Some(1), ..NOBODY },
            Case { exe: python(true), invoked: script, rule: Some(2), ..NOBODY },
            Case { exe: python(false), invoked: script, ..NOBODY },
            Case { exe: None, invoked: script, ..NOBODY },
        ],
    );
}

#[test]
fn an_excluded_path_of_another_namespace_excludes_nothing() {
    let rules = vec![rule(users(&[UserTest::Ids(Uid(2), Uid(2))]), exes(&[base("backup")]), false)];
    let backup = |on_host| Some(("/usr/sbin/backup", on_host));
    check(
        rules,
        &[
            Case { uid: 2, exe: backup(true), ..NOBODY },
            Case { uid: 2, exe: backup(false), rule: Some(0), ..NOBODY },
            Case { uid: 2, exe: None, rule: Some(0), ..NOBODY },
        ],
    );
}

#[test]
fn any_excluded_kind_is_enough() {
    let not = Criteria {
        users: vec![UserTest::Ids(Uid(3), Uid(3))],
        groups: vec![GroupTest::Ids(Gid(7), Gid(7))],
        exes: vec![base("vim")],
        context: None,
    };
    let rules = vec![rule(nothing(), not, false)];
    check(
        rules,
        &[
            Case { rule: Some(0), ..NOBODY },
            Case { uid: 3, ..NOBODY },
            Case { uid: 1, ..NOBODY },
            Case { gid: 7, ..NOBODY },
            Case { exe: Some(("/vim", true)), ..NOBODY },
        ],
    );
}

#[test]
fn executables_are_not_read_when_no_rule_can_need_them() {
    let one = |uid| users(&[UserTest::Ids(Uid(uid), Uid(uid))]);
    let vim = Criteria { exes: vec![base("vim")], ..one(2) };
    let rules = vec![rule(one(1), nothing(), false), rule(vim, nothing(), false)];
    let matcher = Matcher::compile(Arc::from(rules));
    assert!(!matcher.asks_identity());
    let plan = |uid| matcher.plan(&UserIdentity::nameless(Uid(uid)));
    assert!(!matcher.asks_exe(&plan(1), Gid(0), Some(RuleId(0)), Which::All));
    assert!(!matcher.asks_exe(&plan(3), Gid(0), None, Which::All));
    assert!(matcher.asks_exe(&plan(2), Gid(0), None, Which::All));
}

#[test]
fn executables_are_not_read_after_a_rule_that_matches_anyway() {
    let rules = vec![
        rule(groups(5, 5), nothing(), false),
        rule(exes(&[base("vim")]), nothing(), false),
        rule(nothing(), nothing(), false),
    ];
    let matcher = Matcher::compile(Arc::from(rules));
    let plan = matcher.plan(&UserIdentity::nameless(Uid(1)));
    assert!(!matcher.asks_exe(&plan, Gid(5), Some(RuleId(0)), Which::All));
    assert!(matcher.asks_exe(&plan, Gid(6), Some(RuleId(2)), Which::All));
}

#[test]
fn rules_for_all_users_are_stored_once_and_not_in_every_plan() {
    let all = Criteria { exes: vec![base("vim")], ..users(&[UserTest::Glob(glob("*"))]) };
    let rules = vec![rule(all, nothing(), false); 100];
    let matcher = Matcher::compile(Arc::from(rules));
    let plan = matcher.plan(&UserIdentity::nameless(Uid(1)));
    assert!(plan.size() <= size_of::<[usize; 8]>());
}

#[test]
fn a_plan_for_a_user_without_a_rule_is_a_few_words() {
    let rules = (0..1000).map(|n| rule(groups(n, n), nothing(), false)).collect::<Vec<_>>();
    let matcher = Matcher::compile(Arc::from(rules));
    let who = UserIdentity { name: Some("eve".to_owned()), ..UserIdentity::nameless(Uid(5)) };
    assert!(matcher.plan(&who).size() <= size_of::<[usize; 8]>());
}

/// Returns which of two rules is dead, if any.
fn dead_of(first: Rule, second: Rule) -> Vec<(RuleId, Unreachable)> {
    lint::dead(&[first, second])
}

#[test]
fn what_an_earlier_rule_accepts_never_reaches_a_later_one() {
    let ids = |first, last| users(&[UserTest::Ids(Uid(first), Uid(last))]);
    let pattern = |text| users(&[UserTest::Glob(glob(text))]);
    let path = |text: &str| exes(&[ExeTest::Path(text.into())]);
    let pairs = [
        (ids(1, 9), ids(3, 3)),
        (pattern("*"), ids(3, 3)),
        (nothing(), pattern("web-*")),
        (pattern("web-*"), pattern("web-*")),
        (groups(1, 9), groups(2, 3)),
        (exes(&[base("vim")]), path("/usr/bin/vim")),
        (exes(&[ExeTest::PathGlob(glob("/usr/**"))]), path("/usr/bin/vim")),
        (
            exes(&[ExeTest::PathGlob(glob("/usr/**"))]),
            exes(&[ExeTest::PathGlob(glob("/usr/b*/v"))]),
        ),
    ];
    let shadowed = [(RuleId(1), Unreachable::ShadowedBy(RuleId(0)))];
    for (wide, narrow) in pairs {
        let (first, second) = (rule(wide, nothing(), false), rule(narrow, nothing(), false));
        assert_eq!(dead_of(first.clone(), second.clone()), shadowed, "{first:?} {second:?}");
        assert!(dead_of(conditional(first.clone()), second.clone()).is_empty());
        if first.when != second.when {
            assert!(dead_of(second, first).is_empty());
        }
    }
    let others = rule(nothing(), ids(0, 4), false);
    assert_eq!(dead_of(others.clone(), rule(ids(5, 6), nothing(), false)), shadowed);
    assert!(dead_of(others, rule(ids(4, 6), nothing(), false)).is_empty());
    let nobody = rule(ids(3, 4), ids(0, 9), false);
    assert_eq!(lint::dead(&[nobody]), [(RuleId(0), Unreachable::HoldsForNobody)]);
}

#[test]
fn a_matcher_can_be_built_on_one_thread_and_used_on_another() {
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<Matcher>();
    is_shared::<cgruled::rules::matcher::UserPlan>();
}

#[test]
fn a_range_up_to_the_last_uid_is_not_for_all() {
    for (first, last, others) in [(1000, u32::MAX, [0, 999]), (0, 999, [1000, u32::MAX - 1])] {
        let users = vec![UserTest::Ids(Uid(first), Uid(last))];
        let when = Criteria { users, ..Criteria::default() };
        let matcher = Matcher::compile(Arc::from([rule(when, Criteria::default(), false)]));
        let decide = |uid: u32| {
            let plan = matcher.plan(&UserIdentity::nameless(Uid(uid)));
            let facts = Facts { uid: Uid(uid), gid: Gid(7), exe: None, invoked: None };
            matcher.decide(&plan, &facts)
        };
        assert_eq!([first, last - 1].map(decide), [Some(RuleId(0)); 2]);
        assert_eq!(others.map(decide), [None; 2]);
    }
}
