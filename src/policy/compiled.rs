//! The active policy: everything that the engine decides by, replaced as a whole. Built outside of
//! the hot thread: the compiled rules, the roots of their cgroups on this host, and the known
//! users. Pure.

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

use crate::cgroup::config::{GroupConfigs, ask_names};
use crate::cgroup::host::ManagedRoots;
use crate::cgroup::mounts::{Hierarchies, HierarchySet};
use crate::event::{Gid, Nanos, Uid};
use crate::policy::ancestor_programs::AncestorPrograms;
use crate::policy::context_rules::ContextRules;
use crate::policy::known_containers::KnownContainers;
use crate::policy::load::Subordinates;
use crate::policy::observer::DecisionObserver;
use crate::policy::rule_hits::RuleHitTable;
use crate::policy::settings_update::SettingsUpdate;
use crate::rules::destination::Specifier;
use crate::rules::matcher::{Matcher, SharedPlans, UserPlan};
use crate::rules::names::UserIdentity;
use crate::rules::{ExeTest, Facts, PathBase, Rule, RuleId, Target, Which};

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;

/// Compiled set of rules with everything needed to apply it.
#[derive(Debug)]
pub struct Policy {
    /// Sequence number of this policy; lookups requested under an older one are repeated.
    pub generation: u64,
    /// The rules in compiled form.
    pub matcher: Arc<Matcher>,
    /// Known users by effective UID.
    pub users: HashMap<Uid, User, FixedState>,
    /// Names of the users in rules, for log records where no rule needs a lookup of users.
    pub written_names: HashMap<Uid, Box<str>, FixedState>,
    /// Names of GIDs, looked up only when a destination contains one; `None` for a GID without a
    /// name.
    pub groups: HashMap<Gid, Option<Box<str>>, FixedState>,
    /// Names of containers, read only when a rule tests them.
    pub containers: KnownContainers,
    /// Counters of the rules.
    pub hits: RuleHitTable,
    /// Counts for status and log output.
    pub summary: Summary,
    /// Settings of cgroups, applied when they are created.
    pub configs: Arc<GroupConfigs>,
    /// Observer of the evaluations under these rules, if any.
    pub observer: Option<Box<dyn DecisionObserver>>,
    /// Settings of the daemon that take effect with this policy.
    pub settings: Option<SettingsUpdate>,
    /// Owners of subordinate UIDs, from `/etc/subuid`.
    pub subordinates: Subordinates,
    /// Plans of all users.
    plans: SharedPlans,
    /// Number of users in [`Self::users`] that were not looked up.
    nameless: usize,
    /// Set if a rule has the name of a user that does not exist.
    pub lacks_users: bool,
    /// Set if [`Self::configs`] depend on the names of users.
    asks_user_names: bool,
    /// Set if a rule tests groups.
    tests_groups: bool,
    /// Set if the path of a cgroup contains a group.
    renders_groups: bool,
    /// Hierarchies of each rule's first target; the others are computed when needed.
    spans: Box<[HierarchySet]>,
    root: Box<str>,
    legacy_root: Box<str>,
    /// Data for criteria on the place of processes.
    pub context: ContextRules,
    /// The programs of ancestors that rules test, if any do.
    pub ancestors: Option<AncestorPrograms>,
    /// First components of destinations at the root of a hierarchy.
    top_level: HashSet<String, FixedState>,
    /// Files of gated rules.
    gated_files: Box<[Box<[u8]>]>,
}

/// Summary of a set of rules for status and log output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of active rules in all files.
    pub rules: usize,
    /// Number of files that contain them.
    pub files: usize,
    /// Number of errors: each disables a rule or a setting, or keeps a file at its last valid
    /// version.
    pub errors: usize,
    /// Place of the first error as `FILE:LINE`.
    pub first_error: Option<Arc<str>>,
    /// Number of files or directories kept at their last valid version.
    pub kept: usize,
}

impl fmt::Display for Summary {
    /// Example: `213 rules from 14 files, 1 error: /etc/cgruled/rules.d/50-a.toml:4 (1 file kept at
    /// last valid version)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rules, files, errors, first_error, kept } = self;
        write!(f, "{rules} rule{} from {files} file{}, ", plural(*rules), plural(*files))?;
        write!(f, "{errors} error{}", plural(*errors))?;
        match (first_error, errors) {
            (Some(place), 1) => write!(f, ": {place}")?,
            (Some(place), _) => write!(f, ", the first: {place}")?,
            (None, _) => {}
        }
        match kept {
            0 => Ok(()),
            1 => f.write_str(" (1 file kept at last valid version)"),
            more => write!(f, " ({more} files kept at last valid version)"),
        }
    }
}

/// Lifetime of a name service reply for a user with a name, and for one without: a user that was
/// just created appears before the service knows it.
const BELIEVED_NS: [u64; 2] = [600_000_000_000, 30_000_000_000];

/// Specifiers of groups.
const GROUPS: [Specifier; 2] = [Specifier::GroupName, Specifier::GroupId];

/// Maximum number of known users that were not looked up. Beyond it they are forgotten, since it takes
/// little time to add them again.
const MOST_NAMELESS: usize = 16_384;

/// Maximum size of the plans of all users. Beyond it all users are looked up again: a host needs so much
/// only if users have different rules by the thousand.
const MOST_PLAN_BYTES: usize = if cfg!(test) { 1 << 20 } else { 64 << 20 };

/// Maximum number of known users; a range of subordinate UIDs has 65,536. Beyond it all are looked
/// up again.
const MOST_USERS: usize = 200_000;

/// Returns the ending of a noun after this number.
fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// Known user and the rules that can match it.
#[derive(Debug)]
pub struct User {
    /// The rules that can match this user.
    pub plan: UserPlan,
    /// Name and groups of the user.
    pub identity: UserIdentity,
    asked: Cell<Nanos>,
}

impl User {
    /// Creates a user from `identity`, which was read at `asked`, with the rules of `matcher` that
    /// can match.
    pub fn new(matcher: &Matcher, identity: UserIdentity, asked: Nanos) -> Self {
        Self { plan: matcher.plan(&identity), identity, asked: Cell::new(asked) }
    }

    /// Checks whether the user must be looked up again. Returns `true` once for each reply.
    pub fn take_stale(&self, now: Nanos) -> bool {
        let [named, nameless] = BELIEVED_NS;
        let believed = if self.identity.name.is_some() { named } else { nameless };
        let is_stale = now.since(self.asked.get()) > believed;
        if is_stale {
            self.asked.set(now);
        }
        is_stale
    }
}

impl Policy {
    /// Creates a policy. `roots` are the roots of cgroups: an empty path for the root of the
    /// hierarchy, else `/path`.
    pub fn new(
        generation: u64,
        matcher: Arc<Matcher>,
        hierarchies: &Hierarchies,
        roots: &ManagedRoots,
        users: impl IntoIterator<Item = User>,
        groups: impl IntoIterator<Item = (Gid, Option<Box<str>>)>,
    ) -> Self {
        let spans = matcher.rules().iter().map(|rule| {
            let first = rule.action.targets().first();
            first.map(|target| hierarchies.span_of(target).0).unwrap_or_default()
        });
        let spans = spans.collect();
        let mut plans = SharedPlans::default();
        let users = users.into_iter().map(|mut user| {
            plans.share(&mut user.plan);
            (user.identity.uid, user)
        });
        let users = users.collect();
        let root = roots.rules.trim_end_matches('/');
        let legacy_root = roots.legacy.trim_end_matches('/');
        let targets = matcher.rules().iter().flat_map(|rule| rule.action.targets());
        let at_top = targets.filter(|target| match target.below {
            PathBase::Root => root.is_empty(),
            PathBase::Top => legacy_root.is_empty(),
        });
        let top_level = at_top.map(first_component).collect();
        let ancestors = AncestorPrograms::new(matcher.rules());
        let context = ContextRules::new(matcher.rules(), hierarchies, [root, legacy_root]);
        Self {
            generation,
            users,
            written_names: HashMap::default(),
            groups: groups.into_iter().collect(),
            containers: KnownContainers::default(),
            hits: RuleHitTable::default(),
            summary: Summary::default(),
            configs: Arc::default(),
            plans,
            nameless: 0,
            asks_user_names: false,
            tests_groups: matcher.rules().iter().any(Rule::tests_groups),
            renders_groups: matcher.rules().iter().any(|rule| rule.renders(&GROUPS)),
            observer: None,
            settings: None,
            subordinates: Subordinates::default(),
            lacks_users: false,
            spans,
            root: root.into(),
            legacy_root: legacy_root.into(),
            context,
            ancestors,
            top_level,
            gated_files: gated_files(matcher.rules()),
            matcher,
        }
    }

    /// Sets the settings of cgroups and units.
    pub fn give(&mut self, configs: impl Into<Arc<GroupConfigs>>) {
        self.configs = configs.into();
        self.asks_user_names = ask_names(self.configs.user_slices());
    }

    /// Checks whether the change of a group can change a decision, or is reported by an observer. Any user
    /// can cause 160,000 such events a second.
    pub fn needs_gid_events(&self) -> bool {
        self.tests_groups || self.renders_groups || self.observer.is_some()
    }

    /// Checks whether `uid` is in [`Self::users`]. Adds it if no rule needs its identity; `false`
    /// means that it must be looked up first.
    pub fn knows(&mut self, uid: Uid) -> bool {
        if self.users.contains_key(&uid) {
            return true;
        }
        // A user can have processes with 65,536 subordinate UIDs, none of which has a name.
        if self.needs_identities() && self.subordinates.account_of(uid).is_none() {
            return false;
        }
        if self.nameless >= MOST_NAMELESS {
            self.users.retain(|_, user| user.asked.get() != Nanos(u64::MAX));
            self.nameless = 0;
        }
        self.nameless += 1;
        // A name that no lookup confirmed must not be part of a path.
        let name = self.written_names.get(&uid).filter(|_| !self.needs_identities());
        let nobody =
            UserIdentity { name: name.map(|name| (&**name).into()), ..UserIdentity::nameless(uid) };
        // Never stale: there was no lookup to repeat.
        self.meet(User::new(&self.matcher, nobody, Nanos(u64::MAX)));
        true
    }

    /// Checks whether a user must be looked up before a process of it is evaluated.
    pub fn needs_identities(&self) -> bool {
        self.matcher.asks_identity() || self.asks_user_names
    }

    /// Checks whether a user should be looked up although no rule needs its identity: no process of
    /// it was seen yet, and it may be one with a name that did not exist when rules were read.
    pub fn may_be_missing(&self, uid: Uid) -> bool {
        self.lacks_users
            && !self.needs_identities()
            && !self.users.contains_key(&uid)
            && self.subordinates.account_of(uid).is_none()
    }

    /// Checks whether the name of `gid` must be looked up before this rule can be applied.
    pub fn lacks_group(&self, rule: RuleId, gid: Gid) -> bool {
        let rule = self.matcher.rule(rule);
        rule.is_some_and(|rule| rule.renders(&[Specifier::GroupName]))
            && !self.groups.contains_key(&gid)
    }

    /// Adds the result of a user lookup. Returns whether it differs from the previous one.
    pub fn meet(&mut self, mut user: User) -> bool {
        if self.users.len() >= MOST_USERS || self.plans.bytes() >= MOST_PLAN_BYTES {
            self.users.clear();
            self.plans.clear();
            self.nameless = 0;
        }
        self.plans.share(&mut user.plan);
        let new = user.identity.clone();
        self.users.insert(new.uid, user).is_some_and(|old| old.identity != new)
    }

    /// Returns the user accountable for processes of `uid`: the owner of a subordinate UID, else
    /// `uid`.
    pub fn accountable(&self, uid: Uid) -> Uid {
        self.subordinates.account_of(uid).unwrap_or(uid)
    }

    /// Checks whether a rule can move a process of this user: one with the groups that the user
    /// logs in with, and any executable. `None` while the name service has not been asked for the
    /// user.
    pub fn can_move(&self, uid: Uid) -> Option<bool> {
        let user = self.users.get(&uid)?;
        // No process has this group; without a login group it is the only one that no rule can mean.
        let gid = user.identity.login_group.unwrap_or(Gid(u32::MAX));
        if user.identity.login_group.is_none() && self.tests_groups {
            return Some(true);
        }
        let facts = Facts { uid, gid, exe: None, invoked: None };
        let mut decision = self.matcher.decide(&user.plan, &facts);
        // Rules with conditions do not hold for all processes.
        while let Some((id, rule)) = decision.and_then(|id| Some((id, self.matcher.rule(id)?))) {
            if !rule.is_conditional() || !rule.action.targets().is_empty() {
                break;
            }
            decision = self.matcher.decide_after(&user.plan, &facts, id);
        }
        let rule = decision.and_then(|id| self.matcher.rule(id));
        let places = rule.is_some_and(|rule| !rule.action.targets().is_empty());
        Some(places || self.matcher.asks_exe(&user.plan, gid, decision, Which::All))
    }

    /// Returns the hierarchies that a target of a rule concerns.
    pub fn span(
        &self,
        hierarchies: &Hierarchies,
        rule: RuleId,
        index: usize,
        target: &Target,
    ) -> HierarchySet {
        match (index, self.spans.get(rule.0 as usize)) {
            (0, Some(&span)) => span,
            _ => hierarchies.span_of(target).0,
        }
    }

    /// Returns both roots: for paths of rule files, and for those of cgrules.conf.
    pub fn roots(&self) -> [&str; 2] {
        [&self.root, &self.legacy_root]
    }

    /// Returns the paths of the files whose executions wait for the placement, sorted. A file whose directory is a
    /// symbolic link has two: as written, and without links.
    pub fn gated_files(&self) -> &[Box<[u8]>] {
        &self.gated_files
    }

    /// Checks whether the top-level cgroup `name` can be one of a destination at the root of a
    /// hierarchy.
    pub fn is_top_level(&self, name: &str) -> bool {
        self.top_level.contains(name)
    }

    /// Returns the root for paths of this kind, without a trailing slash.
    pub fn beginning(&self, below: PathBase) -> &str {
        match below {
            PathBase::Root => &self.root,
            PathBase::Top => &self.legacy_root,
        }
    }
}

/// Creates the policy of these rules of a TOML file and users, on a host without hierarchies.
#[cfg(test)]
pub(crate) fn test_policy(rules: &str, users: Vec<UserIdentity>) -> Policy {
    let text = format!("version = 1\n{rules}");
    let file = Arc::from(std::path::Path::new("/a.toml"));
    let parsed = crate::config::rules_toml::parse(&file, &text);
    assert!(parsed.diagnostics.is_empty(), "{:?}", parsed.diagnostics);
    let names = crate::rules::names::ResolvedNames::default();
    let rules = parsed.rules.into_iter().map(|written| {
        crate::rules::names::resolve(written.rule, &names).0.expect("no unknown name")
    });
    tests::policy_of(rules, users)
}

/// Returns the files of the gated rules that place processes.
fn gated_files(rules: &[Rule]) -> Box<[Box<[u8]>]> {
    let gated = rules.iter().filter(|rule| rule.is_gated && !rule.action.targets().is_empty());
    let paths = gated.flat_map(|rule| &rule.when.exes).filter_map(|test| match test {
        ExeTest::Path(path) => Some(path.as_slice().into()),
        ExeTest::PathGlob(_) | ExeTest::Base(_) | ExeTest::BaseGlob(_) => None,
    });
    let mut paths: Vec<Box<[u8]>> = paths.collect();
    paths.sort_unstable();
    paths.dedup();
    paths.into()
}

/// Returns the first component of the path of a target.
fn first_component(target: &Target) -> String {
    let text = target.destination.as_str().trim_start_matches('/');
    text.split('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::test_policy as policy;
    use super::*;
    use crate::rules::Action;
    use crate::rules::ignore::{IgnoreWhen, Scheduling};

    pub(super) fn policy_of(rules: impl Iterator<Item = Rule>, users: Vec<UserIdentity>) -> Policy {
        let matcher = Arc::new(Matcher::compile(rules.collect()));
        let users: Vec<User> =
            users.into_iter().map(|identity| User::new(&matcher, identity, Nanos(0))).collect();
        let (hierarchies, roots) = (Hierarchies::default(), ManagedRoots::default());
        Policy::new(1, matcher, &hierarchies, &roots, users, [])
    }

    /// A user with login group 50 that group 60 lists.
    fn user() -> UserIdentity {
        UserIdentity {
            name: Some("flux".to_owned()),
            listed_in: vec![Gid(60)],
            login_group: Some(Gid(50)),
            ..UserIdentity::nameless(Uid(5))
        }
    }

    #[test]
    fn a_user_that_is_not_looked_up_has_the_name_in_the_rule() {
        for (rule, expected) in [("user = \"5\"", Some("flux")), ("user = \"f*\"", None)] {
            let mut policy = policy(&format!("[[rule]]\n{rule}\n{PLACE}"), Vec::new());
            policy.written_names.insert(Uid(5), "flux".into());
            assert_eq!(policy.knows(Uid(5)), expected.is_some(), "{rule}");
            let user = policy.users.get(&Uid(5));
            assert_eq!(user.and_then(|user| user.identity.name.as_deref()), expected, "{rule}");
        }
    }

    const PLACE: &str = "cgroup = \"a\"\n[[rule]]\nuser = \"7\"\ncgroup = \"b\"\n";

    #[test]
    fn a_user_whom_no_rule_moves() {
        for rule in [
            "user = \"6\"",
            "group = \"70\"",
            "user = \"*\"\nnot = { user = \"5\" }",
            "user = \"*\"\nnot = { group = \"50\" }",
            "user = \"*\"\nnot = { group = \"60\" }",
        ] {
            let policy = policy(&format!("[[rule]]\n{rule}\n{PLACE}"), vec![user()]);
            assert_eq!(policy.can_move(Uid(5)), Some(false), "{rule}");
        }
    }

    #[test]
    fn a_user_whom_a_rule_moves_by_user_or_any_group() {
        for rule in [
            "user = \"5\"",
            "group = \"50\"",
            "group = \"40-59\"",
            "group = \"60\"",
            "exe = \"/bin/sh\"",
            "group = \"50\"\nexe = \"/bin/sh\"",
            "user = \"*\"\nnot = { user = \"6\" }",
        ] {
            let policy = policy(&format!("[[rule]]\n{rule}\n{PLACE}"), vec![user()]);
            assert_eq!(policy.can_move(Uid(5)), Some(true), "{rule}");
        }
    }

    #[test]
    fn a_rule_that_ignores_some_processes_does_not_hide_a_later_one() {
        let rules =
            format!("[[rule]]\nuser = \"5\"\nignore = true\n[[rule]]\nuser = \"5\"\n{PLACE}");
        let always = policy(&rules, vec![user()]);
        assert_eq!(always.can_move(Uid(5)), Some(false));
        let when = IgnoreWhen { below: Some("a".to_owned()), scheduling: Scheduling::Any };
        let mut rules = always.matcher.rules().to_vec();
        rules[0].action = Action::Ignore(when);
        let sometimes = policy_of(rules.into_iter(), vec![user()]);
        assert_eq!(sometimes.can_move(Uid(5)), Some(true));
    }

    #[test]
    fn a_user_of_whom_nothing_is_known() {
        let rules = format!("[[rule]]\nuser = \"6\"\n{PLACE}");
        assert_eq!(policy(&rules, Vec::new()).can_move(Uid(5)), None);
        let nameless = vec![UserIdentity::nameless(Uid(5))];
        assert_eq!(policy(&rules, nameless.clone()).can_move(Uid(5)), Some(false));
        let rules = format!("{rules}[[rule]]\ngroup = \"50\"\n{PLACE}");
        assert_eq!(policy(&rules, nameless).can_move(Uid(5)), Some(true));
    }

    #[test]
    fn the_files_of_gated_rules_that_place_are_gated() {
        let rule = |exe: &str, more: &str| format!("[[rule]]\nexe = {exe}\n{more}\n");
        let rules = [
            rule("[\"/usr/bin/c\", \"/usr/bin/a\"]", "cgroup = \"x\"\ngate = true"),
            rule("\"/usr/bin/a\"", "user = 7\ncgroup = \"x\"\ngate = true"),
            rule("\"/usr/bin/d\"", "cgroup = \"x\"\ngate = false"),
            rule("\"/usr/bin/e\"", "cgroup = \"x\""),
        ];
        let gated = |policy: &Policy| {
            let paths = policy.gated_files().iter();
            paths.map(|path| String::from_utf8_lossy(path).into_owned()).collect::<Vec<_>>()
        };
        let all = policy(&rules.concat(), Vec::new());
        assert_eq!(gated(&all), ["/usr/bin/a", "/usr/bin/c"]);
        let mut rules = all.matcher.rules().to_vec();
        rules[0].action = rules[0].action.clone().observed();
        let rest = policy_of(rules.into_iter(), Vec::new());
        assert_eq!(gated(&rest), ["/usr/bin/a"]);
        assert_eq!(gated(&policy("", Vec::new())), [""; 0]);
    }

    /// 100 rules for a range of users, and 1,000 users in it: each set of rules is stored once.
    #[test]
    fn users_with_the_same_rules_share_their_plan() {
        let rules = (0..100).map(|n| {
            format!("[[rule]]\nuser = \"1000-99999\"\nexe = \"/opt/{n}\"\ncgroup = \"a{n}\"\n")
        });
        let rules: String = rules.collect();
        let one = policy(&rules, vec![UserIdentity::nameless(Uid(1000))]);
        let users = (0..1000).map(|uid| UserIdentity::nameless(Uid(1000 + uid))).collect();
        let mut many = policy(&rules, users);
        assert!(many.plans.bytes() > 0);
        assert_eq!(many.plans.bytes(), one.plans.bytes());
        // Users met later, and one outside of the range, who has no rule.
        for uid in [20_000, 5] {
            let user = User::new(&many.matcher, UserIdentity::nameless(Uid(uid)), Nanos(0));
            many.meet(user);
        }
        assert!(many.plans.bytes() < one.plans.bytes() + 1000);
    }

    /// Every user has other rules: the plans have a bound.
    #[test]
    fn the_size_of_all_plans_is_bounded() {
        let rules = (0..200).map(|n| {
            format!("[[rule]]\nuser = \"{n}-9000\"\nexe = \"/opt/{n}\"\ncgroup = \"a{n}\"\n")
        });
        let rules: String = rules.collect();
        let mut policy = policy(&rules, Vec::new());
        let mut has_shrunk = false;
        for uid in 0..200 {
            let before = policy.plans.bytes();
            let user = User::new(&policy.matcher, UserIdentity::nameless(Uid(uid)), Nanos(0));
            policy.meet(user);
            assert!(policy.plans.bytes() < MOST_PLAN_BYTES + (1 << 20));
            has_shrunk |= policy.plans.bytes() < before;
        }
        assert!(policy.users.len() < 200, "never reached the bound");
        assert!(has_shrunk, "the plans of forgotten users are forgotten");
    }
}
