//! Tests the conditions of rules: which facts they need, and which rule a process keeps.

use std::collections::BTreeSet;

use super::*;
use crate::cgroup::mounts::{Hierarchy, Version};
use crate::policy::test_policy;
use crate::rules::ignore::IgnoreWhen;

const ROOT: &str = "/pool";

/// Facts about a process, and which of them were read.
#[derive(Default)]
struct Facts {
    hierarchies: Hierarchies,
    text: String,
    login: Option<Uid>,
    /// Programs of ancestors, with whether root runs them.
    ancestors: Vec<(&'static str, bool)>,
    is_real_time: bool,
    /// Cgroups that a user can change.
    of_users: BTreeSet<&'static str>,
    placed_by: Option<RuleId>,
    /// `None` if no user was looked up yet.
    name: Option<&'static str>,
    /// `None` if they were not read yet.
    arguments: Option<&'static [u8]>,
    reads: Vec<&'static str>,
}

impl ConditionFacts for &mut Facts {
    fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    fn cgroup(&mut self) -> Option<&[u8]> {
        self.reads.push("cgroup");
        (!self.text.is_empty()).then_some(self.text.as_bytes())
    }

    fn is_real_time(&mut self) -> bool {
        self.reads.push("scheduling");
        self.is_real_time
    }

    fn login(&mut self) -> Option<Uid> {
        self.reads.push("login");
        self.login
    }

    fn ancestors(&mut self) -> Arc<[Ancestor]> {
        self.reads.push("ancestors");
        let all = self.ancestors.iter().map(|&(path, is_of_root)| Ancestor {
            path: path.as_bytes().into(),
            invoked: None,
            is_of_root,
        });
        all.collect()
    }

    fn user_name(&mut self, uid: Uid) -> Result<Option<String>, Missing> {
        self.name.map(|name| Some(name.to_owned())).ok_or(Missing::User(uid))
    }

    fn arguments(&mut self) -> Result<Option<&[u8]>, Missing> {
        self.reads.push("arguments");
        self.arguments.map(Some).ok_or(Missing::Arguments)
    }

    fn is_of_root(&self, _: usize, path: &[u8]) -> bool {
        let path = std::str::from_utf8(path).unwrap();
        path.starts_with("/pool/") && !self.of_users.contains(path)
    }

    fn placed_by(&mut self, _: usize, _: &[u8]) -> Option<RuleId> {
        self.placed_by
    }
}

fn unified() -> Hierarchies {
    Hierarchies::new(vec![Hierarchy::for_test(Version::V2, "/x", "", Vec::new())])
}

fn in_cgroup(path: &str) -> Facts {
    Facts { hierarchies: unified(), text: format!("0::{path}\n"), ..Facts::default() }
}

/// Returns the first failing condition of each rule for one process.
fn tested(rules: &str, facts: &mut Facts) -> Vec<Option<Mismatch>> {
    let policy = test_policy(rules, Vec::new());
    let context = ContextRules::new(policy.matcher.rules(), &facts.hierarchies, [ROOT, ""]);
    let mut conditions = Conditions::new(&context, facts);
    let rules = (0..).map(RuleId).zip(policy.matcher.rules());
    rules.map(|(id, rule)| conditions.test(id, rule).expect("no lookup")).collect()
}

/// As [`tested`] for one rule with these criteria.
fn one(criteria: &str, facts: &mut Facts) -> Option<Mismatch> {
    tested(&format!("[[rule]]\n{criteria}\ncgroup = \"a\"\n"), facts)[0]
}

fn miss(what: ContextMismatch) -> Option<Mismatch> {
    Some(Mismatch::Context(what))
}

#[test]
fn units_and_cgroups() {
    let cron = "/system.slice/cron.service";
    let own = "/user.slice/user-7.slice/user@7.service/app.slice/cron.service";
    for (criteria, path, expected) in [
        ("unit = \"cron.service\"", cron, None),
        ("unit = [\"a.service\", \"cron*\"]", cron, None),
        ("unit = \"cron.service\"", "/system.slice/cron.service/below", None),
        ("unit = \"ron.service\"", cron, miss(ContextMismatch::Unit)),
        // The units of the manager of a user do not count.
        ("unit = \"cron.service\"", own, miss(ContextMismatch::Unit)),
        ("unit = \"user@*.service\"", own, None),
        ("unit = \"*\"", "/", miss(ContextMismatch::Unit)),
        ("unit = \"*\"", "/pool/cron.service", miss(ContextMismatch::Unit)),
        ("from = \"/system.slice/**\"", cron, None),
        ("from = \"/system.slice/*\"", "/system.slice/a/b", miss(ContextMismatch::From)),
        ("from = \"/system.slice\"", cron, miss(ContextMismatch::From)),
        ("unit = \"cron.service\"\nfrom = \"/user.slice/**\"", cron, miss(ContextMismatch::From)),
        ("user = 7\nnot = { unit = \"cron.service\" }", cron, miss(ContextMismatch::NotUnit)),
        ("user = 7\nnot = { unit = \"cron.service\" }", "/", None),
        ("user = 7\nnot = { from = \"/system.slice/**\" }", cron, miss(ContextMismatch::NotFrom)),
        ("user = 7\nnot = { from = \"/user.slice/**\" }", cron, None),
    ] {
        assert_eq!(one(criteria, &mut in_cgroup(path)), expected, "{criteria} in {path}");
    }
}

#[test]
fn ancestors() {
    let sshd = ("/usr/sbin/sshd", true);
    let by_user = ("/usr/sbin/sshd", false);
    for (criteria, ancestors, expected) in [
        ("below = \"sshd\"", vec![("/bin/sh", true), sshd], None),
        ("below = \"/usr/sbin/sshd\"", vec![sshd], None),
        ("below = [\"cron\", \"ssh*\"]", vec![sshd], None),
        ("below = \"sshd\"", vec![], miss(ContextMismatch::Below)),
        ("below = \"sshd\"", vec![by_user], miss(ContextMismatch::Below)),
        ("below = \"sshd\"\nbelow_any_user = true", vec![by_user], None),
        ("user = 7\nnot = { below = \"sshd\" }", vec![sshd], miss(ContextMismatch::NotBelow)),
        ("user = 7\nnot = { below = \"sshd\" }", vec![by_user], None),
        (
            "user = 7\nnot = { below = \"sshd\" }\nbelow_any_user = true",
            vec![by_user],
            miss(ContextMismatch::NotBelow),
        ),
    ] {
        let mut facts = Facts { ancestors: ancestors.clone(), ..in_cgroup("/") };
        assert_eq!(one(criteria, &mut facts), expected, "{criteria}, {ancestors:?}");
    }
}

#[test]
fn a_process_in_the_cgroup_of_the_rule_counts_as_below_the_program() {
    let rules = "[[rule]]\nbelow = \"sshd\"\ncgroup = \"remote/%U\"\n\
                 [[rule]]\nbelow = \"cron\"\ncgroup = \"jobs\"\n";
    let other = miss(ContextMismatch::Below);
    assert_eq!(tested(rules, &mut in_cgroup("/pool/remote/7")), [None, other]);
    assert_eq!(tested(rules, &mut in_cgroup("/pool/jobs")), [other, None]);
    assert_eq!(tested(rules, &mut in_cgroup("/remote/7")), [other, other]);
    // A user can have moved it there.
    for own in ["/pool/remote", "/pool/remote/7"] {
        let mut facts = in_cgroup("/pool/remote/7");
        facts.of_users.insert(own);
        assert_eq!(tested(rules, &mut facts), [other, other], "{own}");
    }
    // Its ancestors are known there, unlike its unit.
    let cron = Facts { ancestors: vec![("/usr/sbin/cron", true)], ..in_cgroup("/pool/remote/7") };
    assert_eq!(tested(rules, &mut { cron }), [None, None]);
}

#[test]
fn logins() {
    for (criteria, login, expected) in [
        ("login = 7", Some(7), None),
        ("login = \"5-9\"", Some(7), None),
        ("login = \"ali*\"", Some(7), None),
        ("login = 7", Some(8), miss(ContextMismatch::Login)),
        ("login = \"bob*\"", Some(7), miss(ContextMismatch::Login)),
        ("login = \"*\"", None, miss(ContextMismatch::Login)),
        ("user = 0\nnot = { login = \"*\" }", Some(7), miss(ContextMismatch::NotLogin)),
        ("user = 0\nnot = { login = \"*\" }", None, None),
    ] {
        let login = login.map(Uid);
        let mut facts = Facts { login, name: Some("alice"), ..in_cgroup("/") };
        assert_eq!(one(criteria, &mut facts), expected, "{criteria}, {login:?}");
        assert_eq!(facts.reads, ["login"], "{criteria}");
    }
    let policy = test_policy("[[rule]]\nlogin = \"a*\"\ncgroup = \"a\"\n", Vec::new());
    let (rules, mut facts) =
        (ContextRules::default(), Facts { login: Some(Uid(7)), ..in_cgroup("/") });
    let rule = policy.matcher.rule(RuleId(0)).unwrap();
    let found = Conditions::new(&rules, &mut facts).test(RuleId(0), rule);
    assert_eq!(found, Err(Missing::User(Uid(7))));
}

#[test]
fn arguments() {
    let text: &[u8] = b"java\0-jar\0/opt/a/search.jar\0--port=80\0\0";
    let (needs, excludes) = (miss(ContextMismatch::Argument), miss(ContextMismatch::NotArgument));
    for (criteria, expected) in [
        ("argument = \"-jar\"", None),
        ("argument = [\"-x\", \"*/search.jar\"]", None),
        ("argument = \"*.jar\"", None),
        ("argument = \"--port=??\"", None),
        ("argument = \"-ja\"", needs),
        // The name of the program is no argument, unless it is meant.
        ("argument = \"java\"", needs),
        ("argument.0 = \"java\"", None),
        ("argument.1 = \"-jar\"\nargument.2 = \"*.jar\"", None),
        ("argument.1 = [\"-x\", \"-jar\"]\nargument.2 = \"*.war\"", needs),
        ("argument.4 = \"?*\"", needs),
        ("argument.5 = \"*\"", needs),
        ("user = 7\nnot = { argument = \"--port=80\" }", excludes),
        ("user = 7\nnot = { argument.1 = \"--port=80\" }", None),
    ] {
        let mut facts = Facts { arguments: Some(text), ..in_cgroup("/") };
        assert_eq!(one(criteria, &mut facts), expected, "{criteria}");
        let mut facts = Facts { arguments: Some(b""), ..in_cgroup("/") };
        let of_none = if criteria.contains("not") { None } else { needs };
        assert_eq!(one(criteria, &mut facts), of_none, "{criteria}");
    }
    let rules = "[[rule]]\nunit = \"x.service\"\nargument = \"a\"\ncgroup = \"a\"\n";
    let mut facts = in_cgroup("/");
    assert_eq!(tested(rules, &mut facts), [miss(ContextMismatch::Unit)], "not needed");
    let policy = test_policy("[[rule]]\nargument = \"a\"\ncgroup = \"a\"\n", Vec::new());
    let (rules, mut facts) = (ContextRules::default(), in_cgroup("/"));
    let found = Conditions::new(&rules, &mut facts).test(RuleId(0), &policy.matcher.rules()[0]);
    assert_eq!(found, Err(Missing::Arguments));
}

#[test]
fn nothing_is_read_twice_or_for_rules_without_conditions() {
    let rules = "[[rule]]\nunit = \"a.service\"\nlogin = 1\ncgroup = \"a\"\n\
                 [[rule]]\nunit = \"b.service\"\nlogin = 7\ncgroup = \"b\"\n\
                 [[rule]]\nunit = \"c.service\"\nlogin = 7\ncgroup = \"c\"\n";
    let mut facts = Facts { login: Some(Uid(7)), ..in_cgroup("/system.slice/c.service") };
    let expected = [miss(ContextMismatch::Login), miss(ContextMismatch::Unit), None];
    assert_eq!(tested(rules, &mut facts), expected);
    assert_eq!(facts.reads, ["login", "cgroup"]);
    let mut facts = in_cgroup("/a");
    assert_eq!(one("user = 7", &mut facts), None);
    assert_eq!(facts.reads, [""; 0]);
}

#[test]
fn a_rule_that_ignores_processes_has_conditions_on_their_cgroup_and_scheduling() {
    let policy = test_policy("[[rule]]\nuser = \"*\"\nignore = true\n", Vec::new());
    let rules = ContextRules::default();
    for (below, scheduling, text, is_real_time, is_met) in [
        (None, Scheduling::Any, "0::/", false, true),
        (Some("ct"), Scheduling::Any, "0::/ct/a", false, true),
        (Some("ct"), Scheduling::Any, "0::/x", false, false),
        (Some("ct"), Scheduling::RealTime, "0::/ct", true, true),
        (Some("ct"), Scheduling::RealTime, "0::/ct", false, false),
        (Some("ct"), Scheduling::RealTime, "0::/x", true, false),
        (None, Scheduling::NotRealTime, "0::/", false, true),
        (None, Scheduling::NotRealTime, "0::/", true, false),
    ] {
        let when = IgnoreWhen { below: below.map(str::to_owned), scheduling };
        let action = Action::Ignore(when.clone());
        let rule = Rule { action, ..policy.matcher.rules()[0].clone() };
        let mut facts = Facts { text: text.to_owned(), is_real_time, ..Facts::default() };
        let expected = (!is_met).then_some(Mismatch::Circumstances);
        let mut conditions = Conditions::new(&rules, &mut facts);
        assert_eq!(conditions.test(RuleId(0), &rule), Ok(expected), "{when:?} in {text}");
        assert!(!conditions.is_placed());
    }
}

/// Three rules of which the process meets the criteria of the second.
const THREE: &str = "[[rule]]\nuser = \"*\"\nnot = { unit = \"b.service\" }\ncgroup = \"first\"\n\
                     [[rule]]\nunit = \"b.service\"\ncgroup = \"jobs/%u\"\n\
                     [[rule]]\nunit = \"c.service\"\ncgroup = \"third\"\n";

#[test]
fn a_placed_process_keeps_its_rule() {
    let (not_unit, unit) = (miss(ContextMismatch::NotUnit), miss(ContextMismatch::Unit));
    let place = miss(ContextMismatch::Place);
    let mut before = in_cgroup("/system.slice/b.service");
    assert_eq!(tested(THREE, &mut before), [not_unit, None, unit]);
    for path in ["/pool/jobs/alice", "/pool/jobs/1000"] {
        assert_eq!(tested(THREE, &mut in_cgroup(path)), [place, None, place], "{path}");
    }
    assert_eq!(tested(THREE, &mut in_cgroup("/pool/third")), [place, place, None]);
    let policy = test_policy(THREE, Vec::new());
    let mut facts = in_cgroup("/pool/third");
    let context = ContextRules::new(policy.matcher.rules(), &facts.hierarchies.clone(), [ROOT, ""]);
    let mut conditions = Conditions::new(&context, &mut facts);
    let _ = conditions.test(RuleId(2), &policy.matcher.rules()[2]);
    assert!(conditions.is_placed());
    // No cgroup of such a rule: below one, above one, outside of the managed root, of another rule.
    for path in ["/pool/jobs/alice/x", "/pool/jobs", "/jobs/alice", "/pool/other", "/"] {
        assert_eq!(tested(THREE, &mut in_cgroup(path)), [None, unit, unit], "{path}");
    }
}

#[test]
fn a_cgroup_that_a_user_can_change_shows_nothing() {
    let unit = miss(ContextMismatch::Unit);
    for of_users in ["/pool/jobs", "/pool/jobs/alice"] {
        let mut facts = in_cgroup("/pool/jobs/alice");
        facts.of_users.insert(of_users);
        assert_eq!(tested(THREE, &mut facts), [None, unit, unit], "{of_users}");
    }
}

#[test]
fn a_process_that_was_moved_keeps_its_rule() {
    let place = miss(ContextMismatch::Place);
    let moved = "/user.slice/user-7.slice/user@7.service/app.slice/x.scope";
    let mut facts = Facts { placed_by: Some(RuleId(1)), ..in_cgroup(moved) };
    assert_eq!(tested(THREE, &mut facts), [place, None, miss(ContextMismatch::Unit)]);
    // If it does not match that rule any more, a later one tests where it is.
    let mut facts = Facts { placed_by: Some(RuleId(1)), ..in_cgroup("/system.slice/c.service") };
    assert_eq!(tested(THREE, &mut facts), [place, None, None]);
    // Where it is counts more than where it was.
    let mut facts = Facts { placed_by: Some(RuleId(1)), ..in_cgroup("/pool/third") };
    assert_eq!(tested(THREE, &mut facts), [place, place, None]);
}

#[test]
fn without_a_hierarchy_of_units_no_such_rule_matches() {
    let (place, unit) = (miss(ContextMismatch::Place), miss(ContextMismatch::Unit));
    let cpu = Hierarchy::for_test(Version::V1, "/x", "cpu", vec!["cpu".to_owned()]);
    for hierarchies in [Hierarchies::new(vec![cpu]), unified()] {
        let text = "2:cpu:/system.slice/b.service\n".to_owned();
        let mut facts = Facts { hierarchies, text, ..Facts::default() };
        assert_eq!(tested(THREE, &mut facts), [place, unit, unit]);
    }
}

#[test]
fn the_named_hierarchy_of_systemd_shows_units_on_hosts_without_v2() {
    let named = Hierarchy::for_test(Version::V1, "/x", "name=systemd", Vec::new());
    let cpu = Hierarchy::for_test(Version::V1, "/y", "cpu", vec!["cpu".to_owned()]);
    let text = "2:cpu:/pool/jobs/alice\n1:name=systemd:/system.slice/b.service\n".to_owned();
    let hierarchies = Hierarchies::new(vec![cpu, named]);
    let mut facts = Facts { hierarchies, text, ..Facts::default() };
    let (not_unit, unit) = (miss(ContextMismatch::NotUnit), miss(ContextMismatch::Unit));
    assert_eq!(tested(THREE, &mut facts), [not_unit, None, unit]);
}
