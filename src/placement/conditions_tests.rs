//! Tests the conditions of rules: which facts they need, and which rule a process keeps.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::cgroup::mounts::{Hierarchies, Hierarchy, Version};
use crate::kernel::container::Containment;
use crate::policy::test_policy;
use crate::rules::container::ContainerKey;
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
    /// Relation to containers by its namespaces; `None` if they were not read yet.
    containment: Option<Containment>,
    is_in_namespace_of_root: bool,
    /// Owners of cgroups other than root.
    owners: BTreeMap<&'static str, Uid>,
    /// The name in the files of its engine; `None` if they were not read yet.
    container: Option<&'static str>,
    reads: Vec<&'static str>,
}

impl ConditionFacts for &mut Facts {
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

    fn arguments(&mut self) -> Result<Option<&[u8]>, Missing> {
        self.reads.push("arguments");
        self.arguments.map(Some).ok_or(Missing::Arguments)
    }

    fn placed_by(&mut self, _: usize, _: &[u8]) -> Option<RuleId> {
        self.placed_by
    }
}

impl ContainerFacts for &mut Facts {
    fn hierarchies(&self) -> &Hierarchies {
        &self.hierarchies
    }

    fn sole_owner(&self, _: usize, path: &[u8]) -> Option<Uid> {
        let path = std::str::from_utf8(path).unwrap();
        let owner = self.owners.get(path).copied().unwrap_or(Uid(0));
        (!self.of_users.contains(path)).then_some(owner)
    }

    fn containment(&mut self) -> Result<Containment, Missing> {
        self.reads.push("namespaces");
        self.containment.ok_or(Missing::Namespaces)
    }

    fn is_in_namespace_of_root(&mut self) -> bool {
        self.is_in_namespace_of_root
    }

    fn accountable(&self, uid: Uid) -> Uid {
        // All subordinate UIDs are those of user 7.
        if uid.0 >= 100_000 { Uid(7) } else { uid }
    }

    fn user_name(&mut self, uid: Uid) -> Result<Option<String>, Missing> {
        self.name.map(|name| Some(name.to_owned())).ok_or(Missing::User(uid))
    }

    fn container_name(&mut self, key: ContainerKey) -> Result<Option<String>, Missing> {
        self.reads.push("name");
        self.container.map(|name| Some(name.to_owned())).ok_or(Missing::ContainerName(key))
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
fn a_process_at_the_root_may_not_be_linked_yet() {
    for (place, is_at_root) in [("/", true), ("/a", false)] {
        let mut facts = in_cgroup(place);
        let policy = test_policy(THREE, Vec::new());
        let context = ContextRules::new(policy.matcher.rules(), &facts.hierarchies, [ROOT, ""]);
        let mut conditions = Conditions::new(&context, &mut facts);
        assert!(!conditions.is_at_root(), "nothing was tested");
        let _result = conditions.test(RuleId(0), &policy.matcher.rules()[0]);
        assert_eq!(conditions.is_at_root(), is_at_root, "{place}");
    }
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

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[test]
fn containers_by_their_cgroup() {
    let docker = format!("/system.slice/docker-{ID}.scope");
    let rootless = format!("/user.slice/user-7.slice/user@7.service/user.slice/libpod-{ID}.scope");
    let (needs, excludes) = (miss(ContextMismatch::Container), miss(ContextMismatch::NotContainer));
    for (criteria, path, expected) in [
        ("container = true", &*docker, None),
        ("container = \"docker:web\"", &docker, None),
        ("container = [\"lxc:x\", \"docker:we*\"]", &docker, None),
        ("container = \"docker:0123456789ab\"", &docker, None),
        ("container = \"docker:db\"", &docker, needs),
        ("container = \"podman:*\"", &docker, needs),
        ("container = \"lxc:101\"", "/lxc/101/ns/init.scope", None),
        ("container = \"nspawn:box\"", "/machine.slice/systemd-nspawn@box.service/payload", None),
        ("container = true", &rootless, needs),
        ("container = \"podman:*\"", &rootless, needs),
        ("container = \"podman@alice:*\"", &rootless, needs),
        ("container = \"podman@ali?e:*\"", &rootless, None),
        ("container = \"podman@7:*\"", &rootless, None),
        ("container = \"podman@7:web\"", &rootless, needs),
        ("container = \"*@*:*\"", &rootless, None),
        ("user = 7\nnot = { container = true }", &docker, excludes),
        ("user = 7\nnot = { container = true }", &rootless, None),
        ("user = 7\nnot = { container = \"docker:db\" }", &docker, None),
        ("unit = \"x.service\"\ncontainer = true", &docker, miss(ContextMismatch::Unit)),
        // The names of cgroups of rules mean nothing.
        ("container = true", "/pool/lxc/x", needs),
    ] {
        // The names of users are resolved before, so that "alice" is one that does not exist.
        let (name, container) = (Some("alice"), Some("web"));
        let containment = Some(Containment::Host);
        let mut facts = Facts { name, container, containment, ..in_cgroup(path) };
        let criteria = criteria.replace("@alice", "@4000");
        assert_eq!(one(&criteria, &mut facts), expected, "{criteria} in {path}");
    }
}

#[test]
fn containers_by_their_namespaces() {
    let needs = miss(ContextMismatch::Container);
    let of_user = |uid| Some(Containment::OfUser(Uid(uid)));
    let root = Some(Containment::Container);
    for (criteria, path, containment, expected) in [
        ("container = true", "/box", root, None),
        ("container = \"*:*\"", "/system.slice/x.service/payload", root, None),
        ("container = true", "/box", Some(Containment::Host), needs),
        ("container = true", "/box", Some(Containment::Unknown), needs),
        ("container = \"docker:*\"", "/box", root, needs),
        ("container = \"*:web\"", "/box", root, needs),
        // A set-user-ID program creates these for any user.
        ("container = true", "/", root, needs),
        ("container = true", "/system.slice/cron.service", root, needs),
        ("container = true", "/user.slice/user-7.slice/session-1.scope", root, needs),
        ("container = \"*@*:*\"", "/user.slice/user-7.slice/session-1.scope", root, needs),
        ("container = true", "/box", of_user(7), needs),
        ("container = \"*@7:*\"", "/box", of_user(7), None),
        ("container = \"*@7:*\"", "/", of_user(100_000), None),
        ("container = \"*@8:*\"", "/box", of_user(7), needs),
    ] {
        let mut facts = Facts { containment, ..in_cgroup(path) };
        assert_eq!(one(criteria, &mut facts), expected, "{criteria} in {path}: {containment:?}");
    }
    let mut hidden = Facts { containment: Some(Containment::Unknown), ..in_cgroup("/box") };
    hidden.is_in_namespace_of_root = true;
    assert_eq!(one("container = true", &mut hidden), None);
}

#[test]
fn a_user_cannot_claim_a_container_of_root() {
    let needs = miss(ContextMismatch::Container);
    let docker = format!("/system.slice/x.service/libpod-payload-{ID}");
    for (above, criteria, expected) in [
        (None, "container = \"podman:*\"", None),
        (Some(7), "container = \"podman:*\"", needs),
        (Some(7), "container = \"podman@7:*\"", None),
        (Some(7), "container = true", needs),
        (Some(100_000), "container = \"podman@7:*\"", None),
    ] {
        let mut facts = Facts { containment: Some(Containment::Host), ..in_cgroup(&docker) };
        facts.owners.extend(above.map(|uid| ("/system.slice/x.service", Uid(uid))));
        assert_eq!(one(criteria, &mut facts), expected, "{criteria} {above:?}");
    }
    // Several users can move processes into the parent.
    let mut shared = Facts { containment: Some(Containment::Host), ..in_cgroup(&docker) };
    shared.of_users.insert("/system.slice/x.service");
    assert_eq!(one("container = \"*@*:*\"", &mut shared), needs);
    // The cgroup of an LXC container belongs to the root user of its user namespace, on v2.
    let mut mapped = in_cgroup("/lxc.payload.web/init.scope");
    mapped.owners.insert("/lxc.payload.web", Uid(100_000));
    assert_eq!(one("container = \"lxc:web\"", &mut mapped), None);
    // With namespaces of root, but in the delegated cgroup of a service of a user.
    let root = Some(Containment::Container);
    let mut own = Facts { containment: root, ..in_cgroup("/system.slice/x.service/a") };
    own.owners.insert("/system.slice/x.service", Uid(7));
    assert_eq!(one("container = true", &mut own), needs);
    assert_eq!(one("container = \"*@7:*\"", &mut own), None);
    // A rule creates cgroups at the top of the hierarchy.
    let rules = "[[rule]]\ncontainer = true\ncgroup = \"a\"\n                 [[rule]]\nuser = 7\ncgroup = \"lxc/%p\"\n";
    let policy = test_policy(rules, Vec::new());
    let mut facts = Facts { containment: root, ..in_cgroup("/lxc/sleep") };
    let context = ContextRules::new(policy.matcher.rules(), &facts.hierarchies, ["", ""]);
    let rule = policy.matcher.rule(RuleId(0)).unwrap();
    assert_eq!(Conditions::new(&context, &mut facts).test(RuleId(0), rule), Ok(needs));
}

#[test]
fn criteria_and_moves_depend_on_containers() {
    for (keys, needs) in [
        ("", false),
        ("containers = true", false),
        ("containers = \"lxc:1\"", true),
        ("container = true", true),
        ("not = { container = \"lxc:*\" }", true),
    ] {
        let rules = format!("[[rule]]\nuser = 7\n{keys}\ncgroup = \"a\"\n");
        let policy = test_policy(&rules, Vec::new());
        assert_eq!(policy.matcher.rules()[0].needs_container(), needs, "{keys}");
    }
}

#[test]
fn the_container_of_a_process_is_found_only_for_rules_that_need_it() {
    let docker = format!("/docker/{ID}");
    for (criteria, path, expected, reads) in [
        ("user = 7", &*docker, Ok(None), &[][..]),
        ("container = \"docker:*\"", &docker, Ok(None), &["cgroup"]),
        ("container = true", &docker, Ok(None), &["cgroup"]),
        ("container = \"docker:*\"", "/", Ok(miss(ContextMismatch::Container)), &["cgroup"]),
        ("container = true", "/", Err("namespaces"), &["cgroup", "namespaces"]),
        ("container = \"docker:web\"", &docker, Err("name"), &["cgroup", "name"]),
        (
            "unit = \"x.service\"\ncontainer = true",
            "/",
            Ok(miss(ContextMismatch::Unit)),
            &["cgroup"],
        ),
    ] {
        let rules = format!("[[rule]]\n{criteria}\ncgroup = \"a\"\n");
        let policy = test_policy(&rules, Vec::new());
        let mut facts = in_cgroup(path);
        let context = ContextRules::new(policy.matcher.rules(), &facts.hierarchies, [ROOT, ""]);
        let rule = policy.matcher.rule(RuleId(0)).unwrap();
        let found = Conditions::new(&context, &mut facts).test(RuleId(0), rule);
        let found = found.map_err(|missing| match missing {
            Missing::Namespaces => "namespaces",
            Missing::ContainerName(_) => "name",
            Missing::Exe | Missing::Arguments | Missing::User(_) => "other",
        });
        assert_eq!(found, expected, "{criteria} in {path}");
        assert_eq!(facts.reads, reads, "{criteria} in {path}");
    }
}

/// Returns whether a test accepts a container, written as `engine[@UID]:name`; an empty engine is an unknown one.
fn naive(test: &str, container: &str) -> bool {
    let parts = |text: &str| {
        let (kind, name) = text.split_once(':').unwrap();
        let (engine, owner) = kind.split_once('@').unwrap_or((kind, "0"));
        [engine, owner, name].map(str::to_owned)
    };
    let [engine, owner, name] = parts(test);
    let [own_engine, own_owner, own_name] = parts(container);
    let starts = |wanted: &str, own: &str| match wanted.strip_suffix('*') {
        Some(start) => own.starts_with(start),
        None => wanted == own,
    };
    (engine == "*" || engine == own_engine)
        && (owner == "*" || owner == own_owner)
        && starts(&name, &own_name)
}

proptest! {
    /// Compares with [`naive`] for any tests, below `not` too, and any container of root, of a user or none.
    #[test]
    fn containers_are_those_of_a_naive_reference(
        when in prop::collection::vec("(lxc|nspawn|docker|\\*)(@7|@8|@\\*)?:(web|db|w\\*|\\*)", 0..3),
        not in prop::collection::vec("(lxc|nspawn|\\*)(@7|@\\*)?:(web|d\\*|\\*)", 0..3),
        (place, container) in prop::sample::select(vec![
            ("/lxc/web", Some("lxc:web")),
            ("/lxc.payload.db/a", Some("lxc:db")),
            ("/machine.slice/machine-web.scope", Some("nspawn:web")),
            ("/user.slice/user-7.slice/user@7.service/a/lxc.payload.web", Some("lxc@7:web")),
            ("/user.slice/user-8.slice/user@8.service/a/lxc/db", Some("lxc@8:db")),
            ("/box", Some("?:")),
            ("/system.slice/a.service", None),
            ("/", None),
        ]),
    ) {
        let list = |tests: &[String]| {
            let unique: BTreeSet<String> = tests.iter().map(|test| format!("{test:?}")).collect();
            unique.into_iter().collect::<Vec<_>>().join(", ")
        };
        let mut criteria = "user = 7".to_owned();
        if !when.is_empty() {
            criteria += &format!("\ncontainer = [{}]", list(&when));
        }
        if !not.is_empty() {
            criteria += &format!("\nnot = {{ container = [{}] }}", list(&not));
        }
        let containment =
            Some(if place == "/box" { Containment::Container } else { Containment::Host });
        let mut facts = Facts { containment, name: Some("alice"), ..in_cgroup(place) };
        let accepts = |tests: &[String]| {
            container.is_some_and(|own| tests.iter().any(|test| naive(test, own)))
        };
        let expected = if !when.is_empty() && !accepts(&when) {
            miss(ContextMismatch::Container)
        } else if accepts(&not) {
            miss(ContextMismatch::NotContainer)
        } else {
            None
        };
        prop_assert_eq!(one(&criteria, &mut facts), expected, "{} in {}", criteria, place);
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
        let policy = test_policy(&format!("[[rule]]\n{criteria}\ncgroup = \"a\"\n"), Vec::new());
        let of_unknown = policy.matcher.rules()[0].argument_mismatch(None);
        assert_eq!(of_unknown, Some(ContextMismatch::UnknownArguments), "{criteria}");
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
fn a_process_that_was_moved_out_of_its_container_keeps_the_rule() {
    let rules = "[[rule]]\nuser = \"*\"\nnot = { container = true }\ncgroup = \"others\"\n                 [[rule]]\ncontainer = \"lxc:web\"\ncgroup = \"web\"\n";
    let host = Some(Containment::Host);
    let (place, needs) = (miss(ContextMismatch::Place), miss(ContextMismatch::Container));
    let mut inside = Facts { containment: host, ..in_cgroup("/lxc/web") };
    assert_eq!(tested(rules, &mut inside), [miss(ContextMismatch::NotContainer), None]);
    let mut placed = Facts { containment: host, ..in_cgroup("/pool/web") };
    assert_eq!(tested(rules, &mut placed), [place, None]);
    let mut elsewhere = Facts { containment: host, ..in_cgroup("/pool/x") };
    assert_eq!(tested(rules, &mut elsewhere), [None, needs]);
    let mut moved = Facts { placed_by: Some(RuleId(1)), ..in_cgroup("/user.slice/user-7.slice/x") };
    assert_eq!(tested(rules, &mut moved), [place, None]);
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
