//! Text form of rules: their criteria, by the names that the rule files use, and their action. Must not add
//! anything that could control a terminal or break a line.

use std::collections::BTreeMap;
use std::slice;

use crate::config::escape::{Escaped, EscapedBytes};
use crate::event::{Gid, Uid};
use crate::rules::container::{Container, ContainerEngine, ContainerTest};
use crate::rules::context::{ArgumentTest, ContextMismatch, TextTest};
use crate::rules::human::HUMAN;
use crate::rules::ignore::{IgnoreWhen, Scheduling};
use crate::rules::names::ResolvedNames;
use crate::rules::{Action, Criteria, ExeTest, GroupTest, PathBase, Rule, UserTest};

/// Maximum of alternatives shown per criterion; the others are counted. A group pattern can stand for
/// hundreds.
const SHOWN: usize = 4;

/// Names of the IDs in rules. All output is safe on one line of a terminal.
#[derive(Debug)]
pub(super) struct RuleWording {
    users: BTreeMap<Uid, String>,
    groups: BTreeMap<Gid, String>,
}

impl RuleWording {
    /// Creates the table from the names that rules mention.
    pub(super) fn new(names: &ResolvedNames) -> Self {
        Self {
            users: names.uids.iter().map(|(name, &uid)| (uid, name.clone())).collect(),
            groups: names.gids.iter().map(|(name, &gid)| (gid, name.clone())).collect(),
        }
    }

    /// Returns all criteria of a rule: `user alice; not exe vim`. `all processes` if there are none.
    pub(super) fn asked(&self, rule: &Rule) -> String {
        let mut parts = self.kinds(&rule.when);
        parts.extend(self.kinds(&rule.not).into_iter().map(|part| format!("not {part}")));
        if let Action::Ignore(when) = rule.action.intended() {
            parts.extend(circumstances(when));
        }
        if parts.is_empty() { "all processes".to_owned() } else { parts.join("; ") }
    }

    fn kinds(&self, criteria: &Criteria) -> Vec<String> {
        let kinds = [
            given("user", &self.users(criteria)),
            given("group", &self.groups(criteria)),
            given("exe", &Self::exes(criteria)),
        ];
        kinds.into_iter().chain(self.context_kinds(criteria)).flatten().collect()
    }

    /// Returns the criteria on the unit, cgroup, ancestors, container, login and arguments of a process; `None` for a
    /// kind that is not given.
    fn context_kinds(&self, criteria: &Criteria) -> [Option<String>; 6] {
        let Some(context) = criteria.context.as_deref() else { return Default::default() };
        [
            given("unit", &texts(&context.units)),
            given("from", &texts(&context.from)),
            given("below", &Self::programs(&context.below)),
            given("container", &self.containers(&context.containers)),
            given("login", &self.user_tests(&context.logins)),
            given("argument", &arguments(&context.arguments)),
        ]
    }

    /// Returns the criterion on its context that a process does not meet.
    pub(super) fn context_mismatch(&self, miss: ContextMismatch, rule: &Rule) -> String {
        let [unit, from, below, container, login, argument] = self.context_kinds(&rule.when);
        let [not_unit, not_from, not_below, not_container, not_login, not_argument] =
            self.context_kinds(&rule.not);
        let needs = |kind: Option<String>| format!("needs {}", kind.unwrap_or_default());
        let excludes = |kind: Option<String>| format!("excludes {}", kind.unwrap_or_default());
        match miss {
            ContextMismatch::Unit => needs(unit),
            ContextMismatch::From => needs(from),
            ContextMismatch::Below => needs(below),
            ContextMismatch::Container => needs(container),
            ContextMismatch::Login => needs(login),
            ContextMismatch::Argument => needs(argument),
            ContextMismatch::NotUnit => excludes(not_unit),
            ContextMismatch::NotFrom => excludes(not_from),
            ContextMismatch::NotBelow => excludes(not_below),
            ContextMismatch::NotContainer => excludes(not_container),
            ContextMismatch::NotLogin => excludes(not_login),
            ContextMismatch::NotArgument => excludes(not_argument),
            ContextMismatch::UnknownArguments => {
                let tested =
                    if argument.is_some() { needs(argument) } else { excludes(not_argument) };
                format!("arguments unknown, {tested}")
            }
            ContextMismatch::Place => "needs a known origin".to_owned(),
        }
    }

    /// Returns the containers that tests select, in the form of rule files.
    pub(super) fn containers(&self, tests: &[ContainerTest]) -> String {
        listed(tests, |test| {
            if test.is_any() {
                return "true".to_owned();
            }
            let engine = test.engine.map_or("*", ContainerEngine::name);
            let owner = test.owner.as_ref().map(|owner| self.user_tests(slice::from_ref(owner)));
            let owner = owner.map(|owner| format!("@{owner}")).unwrap_or_default();
            let name = EscapedBytes(test.name.as_bytes()).to_string();
            // As written: here a star means slashes, too.
            format!("{engine}{owner}:{}", name.replace("**", "*"))
        })
    }

    /// Returns the users that the criteria select.
    pub(super) fn users(&self, criteria: &Criteria) -> String {
        self.user_tests(&criteria.users)
    }

    fn user_tests(&self, tests: &[UserTest]) -> String {
        listed(tests, |test| match test {
            UserTest::Name(name) | UserTest::NameOrId(name, _) => Escaped(name).to_string(),
            UserTest::Human(_) => HUMAN.to_owned(),
            UserTest::Glob(glob) => EscapedBytes(glob.as_bytes()).to_string(),
            UserTest::Ids(first, last) if first == last => named(*first, &self.users),
            UserTest::Ids(first, last) => format!("{first}-{last}"),
        })
    }

    /// Returns the groups that the criteria select.
    pub(super) fn groups(&self, criteria: &Criteria) -> String {
        listed(&criteria.groups, |test| match test {
            GroupTest::Name(name) | GroupTest::NameOrId(name, _) => Escaped(name).to_string(),
            GroupTest::Glob(glob) => EscapedBytes(glob.as_bytes()).to_string(),
            GroupTest::Ids(first, last) if first == last => named(*first, &self.groups),
            GroupTest::Ids(first, last) => format!("{first}-{last}"),
        })
    }

    /// Returns the executables that the criteria select.
    pub(super) fn exes(criteria: &Criteria) -> String {
        Self::programs(&criteria.exes)
    }

    fn programs(tests: &[ExeTest]) -> String {
        listed(tests, |test| match test {
            ExeTest::Path(text) | ExeTest::Base(text) => EscapedBytes(text).to_string(),
            ExeTest::PathGlob(glob) | ExeTest::BaseGlob(glob) => {
                EscapedBytes(glob.as_bytes()).to_string()
            }
        })
    }
}

/// Returns the action of a rule, also of one that observes: the destinations as written in its file, those of legacy
/// rules with their controllers.
pub(super) fn done(rule: &Rule) -> String {
    let targets = match rule.action.intended() {
        Action::Ignore(_) => return "ignored".to_owned(),
        Action::Inapplicable(_) | Action::Observe(_) => return "cannot be applied".to_owned(),
        Action::Place(targets) => targets,
    };
    let targets = targets.iter().map(|target| {
        let path = Escaped(target.destination.as_str());
        match target.below {
            PathBase::Root => path.to_string(),
            PathBase::Top => format!("{}:{path}", Escaped(&target.controllers.join(","))),
        }
    });
    targets.collect::<Vec<_>>().join(" ")
}

/// Returns the name of a rule; `None` if the rule file gives it none.
pub(super) fn name(rule: &Rule) -> Option<String> {
    rule.given_name().map(|name| Escaped(name).to_string())
}

/// Returns file and line of a rule.
pub(super) fn origin(rule: &Rule) -> String {
    Escaped(&rule.origin.to_string()).to_string()
}

/// Returns the file name without its directory, and the line.
pub(super) fn short_origin(rule: &Rule) -> String {
    let file = rule.origin.file.file_name().unwrap_or(rule.origin.file.as_os_str());
    format!("{}:{}", EscapedBytes(file.as_encoded_bytes()), rule.origin.line)
}

/// Returns the conditions under which a rule ignores a process.
pub(super) fn circumstances(when: &IgnoreWhen) -> Vec<String> {
    let below = when.below.as_ref().map(|path| match path.as_str() {
        "/" => "only in the root of a hierarchy".to_owned(),
        path => format!("only below /{}", Escaped(path)),
    });
    let scheduling = match when.scheduling {
        Scheduling::Any => None,
        Scheduling::RealTime => Some("only with real-time scheduling".to_owned()),
        Scheduling::NotRealTime => Some("only without real-time scheduling".to_owned()),
    };
    below.into_iter().chain(scheduling).collect()
}

/// Returns a container in the form of rule files: `docker:web`, `podman@alice:0123456789ab`. `name` is that in the
/// files of its engine, `owner` the name of the user who created it.
pub(super) fn container(own: &Container, name: Option<&str>, owner: Option<&str>) -> String {
    let engine = own.engine.map_or("*", ContainerEngine::name);
    let owner = match (own.owner.0, owner) {
        (0, _) => String::new(),
        (_, Some(name)) => format!("@{}", Escaped(name)),
        (uid, None) => format!("@{uid}"),
    };
    let of_path = own.name.as_deref().map(|name| EscapedBytes(name).to_string());
    let name = name.map(|name| Escaped(name).to_string()).or(of_path);
    let id = || own.id.map_or_else(|| "*".to_owned(), |id| id.shown().to_owned());
    format!("{engine}{owner}:{}", name.unwrap_or_else(id))
}

/// Returns a criterion with its values; `None` without values.
fn given(word: &str, values: &str) -> Option<String> {
    (!values.is_empty()).then(|| format!("{word} {values}"))
}

fn arguments(tests: &[ArgumentTest]) -> String {
    let shown = tests.iter().map(|test| match test.position {
        Some(position) => format!("{position}: {}", texts(&test.tests)),
        None => texts(&test.tests),
    });
    // As written: here a star means slashes, too.
    shown.collect::<Vec<_>>().join("; ").replace("**", "*")
}

fn texts(tests: &[TextTest]) -> String {
    listed(tests, |test| EscapedBytes(test.as_bytes()).to_string())
}

fn listed<T>(tests: &[T], show: impl Fn(&T) -> String) -> String {
    let mut text = tests.iter().take(SHOWN).map(show).collect::<Vec<_>>().join(", ");
    if tests.len() > SHOWN {
        text += &format!(" and {} more", tests.len() - SHOWN);
    }
    text
}

fn named<N: Ord + ToString + Copy>(number: N, names: &BTreeMap<N, String>) -> String {
    names.get(&number).map_or_else(|| number.to_string(), |name| Escaped(name).to_string())
}
