//! Evaluates the tests of rule files: whether the rules decide about a process as a test expects. The
//! same functions decide as for a live process. Must not depend on the host: a test has the same
//! result everywhere.

mod accounts;
mod facts;
mod mismatch;
mod report;

use std::cmp::Reverse;
use std::sync::Arc;

use super::conditions::Conditions;
use super::stay::{MoveDecision, StaySubject, StayTarget, decide_move};
use super::{Choice, KnownExe, Missing, decide, render};
use crate::cgroup::container;
use crate::cgroup::host::{ManagedRoots, POOL_PATH};
use crate::cgroup::mounts::{Hierarchies, Hierarchy, Version};
use crate::cgroup::unit::usual_cgroup;
use crate::config::rules_toml::WrittenRule;
use crate::config::test_table::{ExpectedDecision, RuleTest, TestContainer};
use crate::event::{Gid, Nanos, Pid, Uid};
use crate::kernel::program::ExeInfo;
use crate::policy::{Policy, User};
use crate::rules::ancestry::Ancestor;
use crate::rules::destination::SpecifierValues;
use crate::rules::matcher::Matcher;
use crate::rules::names::{UserIdentity, resolve};
use crate::rules::{Action, ExeFacts, Rule, RuleId};
pub use accounts::{HostIds, TestAccounts};
use facts::{TestConditions, TestStays};
pub use report::{failures, report};

/// The user of a process for which a test gives none: that of nobody.
const NO_USER: Uid = Uid(65_534);
/// The PID of a process for which a test gives none: above all that the kernel uses.
const NO_PID: Pid = match Pid::new(4_194_305) {
    Some(pid) => pid,
    None => unreachable!(),
};

/// Returns the rules of a file in their effective order, with the names that the tests know. A rule
/// for other users matches no process of a test.
fn rules_of_file(written: &[WrittenRule], accounts: &TestAccounts) -> Vec<Rule> {
    let names = accounts.names();
    let mut rules: Vec<(i32, Rule)> = written
        .iter()
        .filter_map(|own| Some((own.priority, resolve(own.rule.clone(), &names).0?)))
        .collect();
    rules.sort_by_key(|&(priority, _)| Reverse(priority));
    rules.into_iter().map(|(_, rule)| rule).collect()
}

/// Decision of the rules about a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestDecision {
    /// No rule matches.
    NoRule,
    /// The rule ignores the process.
    Ignored,
    /// The rule leaves the process where it is, for this reason.
    Stays(String),
    /// The rule moves the process to these cgroups: paths from the managed root, without slashes at
    /// their ends.
    Moved(Vec<String>),
}

/// Result of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct TestVerdict {
    /// Decision of the rules.
    pub decision: TestDecision,
    /// Rule that matches first.
    pub rule: Option<RuleId>,
    /// True if `expect` of the test differs from the decision.
    pub wrong_decision: bool,
    /// True if `rule` of the test is not the name of the rule.
    pub wrong_rule: bool,
}

impl TestVerdict {
    /// Checks whether the rules decide as the test expects.
    pub const fn passed(&self) -> bool {
        !self.wrong_decision && !self.wrong_rule
    }
}

/// Compiled rules on which tests are evaluated.
#[derive(Debug)]
pub struct TestBench {
    /// Names of all rules, also of those for other users only, which are not compiled.
    names: Vec<Arc<str>>,
    policy: Policy,
    hierarchies: Hierarchies,
    accounts: TestAccounts,
}

/// Process of a test with the IDs of its accounts.
struct TestSubject {
    identity: UserIdentity,
    gid: Gid,
    group: Option<String>,
    pid: Pid,
    exe: String,
    invoked: Option<String>,
    /// Text of its `/proc/PID/cgroup`.
    cgroup: Vec<u8>,
    ancestors: Arc<[Ancestor]>,
    container: Option<SubjectContainer>,
    login: Option<(Uid, Option<String>)>,
    arguments: Vec<u8>,
}

/// Container of the process of a test.
struct SubjectContainer {
    owner: Uid,
    name: String,
}

impl TestBench {
    /// Compiles the rules of a file as written, with the accounts of its tests.
    pub fn of_file(written: &[WrittenRule], tests: &[RuleTest]) -> Self {
        let accounts = TestAccounts::of(tests);
        let names = written.iter().map(|own| Arc::clone(&own.rule.name)).collect();
        Self { names, ..Self::new(rules_of_file(written, &accounts), accounts) }
    }

    /// Compiles rules in their effective order, in which the names of `accounts` are resolved.
    pub fn new(rules: Vec<Rule>, accounts: TestAccounts) -> Self {
        let names = rules.iter().map(|rule| Arc::clone(&rule.name)).collect();
        let unified = Hierarchy {
            version: Version::V2,
            mount_point: "/sys/fs/cgroup".into(),
            top: "/".to_owned(),
            listed: String::new(),
            controllers: ["cpu", "io", "memory", "pids"].map(str::to_owned).to_vec(),
            favordynmods: false,
        };
        let hierarchies = Hierarchies::new(vec![unified]);
        let roots = ManagedRoots {
            rules: POOL_PATH.to_owned(),
            is_delegated: true,
            ..ManagedRoots::default()
        };
        let matcher = Arc::new(Matcher::compile(rules.into()));
        let policy = Policy::new(0, matcher, &hierarchies, &roots, [], []);
        Self { names, policy, hierarchies, accounts }
    }

    /// Returns a rule.
    pub fn rule(&self, id: RuleId) -> Option<&Rule> {
        self.policy.matcher.rule(id)
    }

    /// Returns the names of all rules.
    fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|name| &**name)
    }

    /// Returns the accounts of the tests.
    pub fn accounts(&self) -> &TestAccounts {
        &self.accounts
    }

    /// Evaluates a test.
    pub fn verdict(&mut self, test: &RuleTest) -> TestVerdict {
        let subject = self.subject(test);
        let rule = self.first_match(&subject);
        let decision = match rule {
            None => TestDecision::NoRule,
            Some(id) => self.decision(id, &subject),
        };
        let name = rule.and_then(|id| self.rule(id)).map(|rule| &*rule.name);
        let wrong_rule =
            test.rule.as_ref().is_some_and(|expected| Some(&*expected.expected) != name);
        let expected = test.decision.as_ref();
        let wrong_decision = expected.is_some_and(|own| !meets(&decision, &own.expected));
        TestVerdict { decision, rule, wrong_decision, wrong_rule }
    }

    fn subject(&self, test: &RuleTest) -> TestSubject {
        let process = &test.process;
        let (mut uid, name) = match &process.user {
            Some(user) => self.accounts.user(user),
            None => (NO_USER, None),
        };
        uid = process.uid.unwrap_or(uid);
        let account = name.as_ref().and_then(|name| test.users.get(name));
        let login_group = account.and_then(|own| own.group.as_ref());
        // As most hosts do, each user has a group of the same name and ID.
        let own_group = (Gid(uid.0), name.clone());
        let (login_gid, login_group) =
            login_group.map_or(own_group, |group| self.accounts.group(group));
        let (gid, group) = match &process.group {
            Some(group) => self.accounts.group(group),
            None => (login_gid, login_group),
        };
        let listed = account.into_iter().flat_map(|own| &own.groups).chain(&process.groups);
        let mut listed_in: Vec<Gid> = listed.map(|group| self.accounts.group(group).0).collect();
        listed_in.sort_unstable();
        listed_in.dedup();
        let unit = process.unit.as_deref().map(|unit| usual_cgroup(unit, uid));
        let container = process.container.as_ref().map(|own| self.container(own));
        let (of_container, container) = container.unzip();
        let cgroup = process.from.clone().or(unit).or(of_container);
        let ancestors = process.below.iter().map(|path| Ancestor {
            path: path.as_bytes().into(),
            invoked: None,
            is_of_root: true,
        });
        let exe = process.exe.clone().unwrap_or_default();
        let arguments = process.exe.as_ref().map_or_else(Vec::new, |exe| {
            let first = process.invoked.as_ref().unwrap_or(exe);
            let words = std::iter::once(first).chain(&process.arguments);
            words.flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect()
        });
        TestSubject {
            identity: UserIdentity { uid, name, listed_in, login_group: Some(login_gid) },
            gid,
            group,
            pid: process.pid.unwrap_or(NO_PID),
            exe,
            invoked: process.invoked.clone(),
            cgroup: cgroup.map(|path| format!("0::{path}\n").into_bytes()).unwrap_or_default(),
            ancestors: ancestors.collect(),
            container,
            login: process.login.as_ref().map(|login| self.accounts.user(login)),
            arguments,
        }
    }

    /// Returns the cgroup in which the engine of a container usually starts it, and the container.
    fn container(&self, given: &TestContainer) -> (String, SubjectContainer) {
        let owner = given.owner.as_ref().map_or(Uid(0), |owner| self.accounts.user(owner).0);
        let cgroup = container::usual_cgroup(given.engine, owner, &given.name);
        (cgroup, SubjectContainer { owner, name: given.name.clone() })
    }

    /// Returns the facts for the conditions of rules.
    fn conditions<'a>(&'a self, subject: &'a TestSubject) -> TestConditions<'a> {
        TestConditions { hierarchies: &self.hierarchies, accounts: &self.accounts, subject }
    }

    fn first_match(&self, subject: &TestSubject) -> Option<RuleId> {
        let matcher = &self.policy.matcher;
        let user = User::new(matcher, subject.identity.clone(), Nanos(0));
        let mut conditions = Conditions::new(&self.policy.context, self.conditions(subject));
        let ids = (subject.identity.uid, subject.gid);
        let choice = decide(matcher, &user, ids, subject.known_exe(), |id, rule| {
            conditions.test(id, rule).map(|mismatch| mismatch.is_none())
        });
        match choice {
            Choice::Rule(id) => Some(id),
            // Every fact of a test is known.
            Choice::NoRule | Choice::NeedsExe | Choice::NeedsExamination | Choice::Needs(_) => None,
        }
    }

    fn decision(&mut self, id: RuleId, subject: &TestSubject) -> TestDecision {
        let matcher = Arc::clone(&self.policy.matcher);
        let Some(rule) = matcher.rule(id) else { return TestDecision::NoRule };
        if let Action::Ignore(_) = rule.action {
            return TestDecision::Ignored;
        }
        if let Some(reason) = rule.action.inapplicable() {
            return TestDecision::Stays(reason.to_string());
        }
        let mut paths = Vec::new();
        for target in rule.action.targets() {
            let mut path = String::new();
            let base = self.policy.beginning(target.below).to_owned();
            render(&base, &target.destination, &subject.values(), &mut path);
            let span = self.hierarchies.span_of(target).0;
            let place = StayTarget { rule, span, target, path: &path };
            if let Some(reason) = self.stays(&place, subject) {
                return TestDecision::Stays(reason);
            }
            let path = path.strip_prefix(&*base).unwrap_or(&path);
            paths.push(path.trim_matches('/').to_owned());
        }
        TestDecision::Moved(paths)
    }

    /// Returns the reason for which the process is not moved to the cgroup of its rule.
    fn stays(&mut self, target: &StayTarget<'_>, subject: &TestSubject) -> Option<String> {
        let holds = |tree: &Hierarchy| tree.holds(target.path, &subject.cgroup);
        if self.hierarchies.iter().all(holds) {
            return None;
        }
        let process = StaySubject {
            pid: subject.pid,
            uid: subject.identity.uid,
            user: subject.identity.name.as_deref(),
            exe: subject.known_exe(),
            is_moved_thread: false,
            cgroup: &subject.cgroup,
        };
        loop {
            let mut facts = TestStays(self.conditions(subject));
            match decide_move(&self.policy, target, &process, &mut facts) {
                Ok(MoveDecision::Move(_)) => return None,
                Ok(MoveDecision::Stay(reason)) => return Some(facts::wording(&reason)),
                Err(Missing::User(owner)) => {
                    let name = self.accounts.name_of(owner).map(str::to_owned);
                    let identity = UserIdentity { name, ..UserIdentity::nameless(owner) };
                    self.policy.meet(User::new(&self.policy.matcher, identity, Nanos(0)));
                    self.policy.can_move(owner)?;
                }
                Err(
                    Missing::Exe
                    | Missing::Namespaces
                    | Missing::Arguments
                    | Missing::ContainerName(_),
                ) => return None,
            }
        }
    }
}

impl TestSubject {
    /// Returns the executable in the form that rules are matched with.
    fn known_exe(&self) -> KnownExe<'_> {
        if self.exe.is_empty() {
            return KnownExe::Unavailable;
        }
        let path = self.exe.as_bytes();
        KnownExe::Read(ExeInfo {
            raw: path,
            exe: ExeFacts { path, on_host: true },
            invoked: self.invoked.as_deref().map(str::as_bytes),
            is_unsure: false,
        })
    }

    fn values(&self) -> SpecifierValues<'_> {
        SpecifierValues {
            uid: self.identity.uid,
            user: self.identity.name.as_deref(),
            gid: self.gid,
            group: self.group.as_deref(),
            pid: self.pid,
            program: self.known_exe().raw(),
        }
    }
}

/// Checks whether a decision is the expected one.
fn meets(decision: &TestDecision, expected: &ExpectedDecision) -> bool {
    match (decision, expected) {
        (TestDecision::NoRule, ExpectedDecision::NoRule)
        | (TestDecision::Ignored, ExpectedDecision::Ignored)
        | (TestDecision::Stays(_), ExpectedDecision::Stays) => true,
        (TestDecision::Moved(paths), ExpectedDecision::Moved(test)) => {
            paths.iter().any(|path| test.accepts(path.as_bytes()))
        }
        (
            TestDecision::NoRule
            | TestDecision::Ignored
            | TestDecision::Stays(_)
            | TestDecision::Moved(_),
            _,
        ) => false,
    }
}

#[cfg(test)]
#[path = "assertions_tests.rs"]
mod tests;
