//! Lints about rules with criteria on the origin of a process. Must not report a rule that has its effect on
//! this host.

use std::path::Path;

use super::container_engines::ContainerEngines;
use super::lints::Pages;
use crate::cgroup::config::GroupSpecs;
use crate::cgroup::host::Host;
use crate::cgroup::mounts::Hierarchies;
use crate::cgroup::unit::Unit;
use crate::cli::rule_wording::RuleWording;
use crate::config::diagnostic::Diagnostic;
use crate::config::escape::{Escaped, EscapedBytes};
use crate::rules::container::{ContainerTest, LeaveContainers};
use crate::rules::context::TextTest;
use crate::rules::destination::prefixes;
use crate::rules::names::ResolvedNames;
use crate::rules::{Action, LeaveUnits, PathBase, Rule, UserTest};

/// Directories of unit files.
const UNIT_FILES: [&str; 8] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/transient",
    "/run/systemd/generator",
    "/run/systemd/generator.late",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Returns all diagnostics in the order of the rules.
pub(super) fn all(rules: &[Rule], specs: &GroupSpecs, trees: &Hierarchies) -> Vec<Diagnostic> {
    let mut pages = Pages::default();
    let mut found = Vec::new();
    let mut engines = ContainerEngines::new(Path::new("/"));
    let directories = if Host::default().runs_systemd() { &UNIT_FILES[..] } else { &[] };
    for rule in rules {
        let lints = [
            unplaced(rule, trees),
            staying(rule),
            costly(rule),
            staying_in_container(rule),
            exempting(rule),
            delegated(rule, specs),
            arranged(rule),
            absent(rule, directories.iter().map(Path::new)),
        ];
        let of_containers = engines.lints(rule);
        for (message, help) in lints.into_iter().flatten().chain(of_containers) {
            found.push(pages.warning(&rule.origin, message, help));
        }
    }
    found
}

/// A rule that can match only where a hierarchy shows units.
fn unplaced(rule: &Rule, trees: &Hierarchies) -> Option<(String, String)> {
    let is_void = rule.tests_place() && trees.of_units().is_none();
    is_void.then(|| {
        let message =
            "the rule matches no process on this host: unit, from and container need cgroup v2, or systemd";
        (message.to_owned(), "mount cgroup v2, or select by user, group or exe".to_owned())
    })
}

/// A rule that leaves processes in the service that it names.
fn staying(rule: &Rule) -> Option<(String, String)> {
    let units = &rule.when.context.as_ref()?.units;
    let moves = !rule.action.targets().is_empty() && rule.leave_units != LeaveUnits::AsTheOriginal;
    let stays = |test: &&TextTest| {
        let TextTest::Is(name) = test else { return false };
        let name = String::from_utf8_lossy(name);
        let path = format!("/system.slice/{name}");
        matches!(Unit::of(&path, &[]), Unit::Other(_)) && !rule.leave_units.allows(&name)
    };
    let unit = units.iter().find(stays).filter(|_| moves)?;
    let name = EscapedBytes(unit.as_bytes());
    Some((
        format!("processes of {name} are matched, but stay in it: the rule does not leave units"),
        format!("add leave_units = \"{name}\" to move them"),
    ))
}

/// A rule that leaves processes alone whose users arrange it.
fn arranged(rule: &Rule) -> Option<(String, String)> {
    let context = rule.when.context.as_ref()?;
    let is_ignored = matches!(rule.action, Action::Ignore(_));
    (context.below_any_user && is_ignored).then(|| {
        let message = "any user can start a program of this name, and so exempt own processes";
        (message.to_owned(), "remove below_any_user: then only ancestors of root count".to_owned())
    })
}

/// A rule that leaves processes in the container of root that it names.
fn staying_in_container(rule: &Rule) -> Option<(String, String)> {
    let containers = &rule.when.context.as_ref()?.containers;
    let moves = !rule.action.targets().is_empty();
    let stays = |test: &&ContainerTest| {
        test.owner.is_none()
            && match &rule.leave_containers {
                LeaveContainers::No => true,
                LeaveContainers::Yes => false,
                LeaveContainers::Of(tests) => !tests.iter().any(|own| may_overlap(own, test)),
            }
    };
    let test = containers.iter().find(stays).filter(|_| moves)?;
    let (what, key) = match test.is_any() {
        true => ("containers".to_owned(), "true".to_owned()),
        false => {
            let name = container_text(test);
            (format!("the container {name}"), format!("\"{name}\""))
        }
    };
    Some((
        format!(
            "processes of {what} are matched, but stay there: the rule does not leave containers"
        ),
        format!("add containers = {key} to move them"),
    ))
}

/// A rule that leaves processes in any container that a user creates.
fn exempting(rule: &Rule) -> Option<(String, String)> {
    let Action::Ignore(_) = &rule.action else { return None };
    let containers = &rule.when.context.as_ref()?.containers;
    let is_of_users = |test: &&ContainerTest| match &test.owner {
        None => false,
        Some(UserTest::Ids(first, last)) => last.0 > 0 || first.0 > 0,
        Some(_) => true,
    };
    let text = container_text(containers.iter().find(is_of_users)?);
    Some((
        format!("users can avoid all later rules: any user can create a container, as {text}"),
        "move the processes of these containers to a cgroup with limits".to_owned(),
    ))
}

/// Checks whether a container can meet both tests, as far as engine and literal names tell.
fn may_overlap(one: &ContainerTest, other: &ContainerTest) -> bool {
    let has_engine = one.engine.is_none() || other.engine.is_none() || one.engine == other.engine;
    has_engine
        && one.owner.is_none()
        && match (&one.name, &other.name) {
            (TextTest::Is(own), TextTest::Is(name)) => own == name,
            (TextTest::Matches(glob), TextTest::Is(name))
            | (TextTest::Is(name), TextTest::Matches(glob)) => glob.matches(name),
            (TextTest::Matches(_), TextTest::Matches(_)) => true,
        }
}

fn container_text(test: &ContainerTest) -> String {
    RuleWording::new(&ResolvedNames::default()).containers(std::slice::from_ref(test))
}

/// A rule for which the arguments of all processes are read.
fn costly(rule: &Rule) -> Option<(String, String)> {
    let when = &rule.when;
    let is_for_all = when.users.is_empty() && when.groups.is_empty() && when.exes.is_empty();
    (rule.tests_arguments() && is_for_all && !rule.tests_place()).then(|| {
        let message = "the arguments of every process of this host are read".to_owned();
        (message, "add exe or user".to_owned())
    })
}

/// A rule whose cgroup a user can change, so that processes in it do not keep the rule.
fn delegated(rule: &Rule, specs: &GroupSpecs) -> Option<(String, String)> {
    let targets = rule.action.targets().iter().filter(|target| target.below == PathBase::Root);
    let mut texts = targets.map(|target| target.destination.as_str()).flat_map(prefixes);
    let has_owner = |text: &&str| {
        let mut tables = specs.tables.iter().filter(|table| table.text.trim_matches('/') == *text);
        tables.any(|table| table.perm.has_owner())
    };
    let text = texts.find(has_owner).filter(|_| rule.tests_place())?;
    let text = Escaped(text);
    Some((
        format!("processes lose the rule once they are moved: a user owns {text}"),
        "a user could claim any origin there; remove owner from its table, or unit, from and container"
            .to_owned(),
    ))
}

/// A rule for a unit of which none of the directories has a file.
fn absent<'d>(
    rule: &Rule,
    directories: impl Iterator<Item = &'d Path>,
) -> Option<(String, String)> {
    let directories: Vec<&Path> = directories.collect();
    let units = &rule.when.context.as_ref()?.units;
    let is_absent = |test: &&TextTest| {
        let TextTest::Is(name) = test else { return false };
        let name = String::from_utf8_lossy(name);
        // Programs create scopes; services can be instances of a template.
        let is_service = name.ends_with(".service") && !directories.is_empty();
        let template = name.split_once('@').map(|(start, _)| format!("{start}@.service"));
        let mut files = std::iter::once(&*name).chain(template.as_deref());
        is_service && !files.any(|file| directories.iter().any(|own| own.join(file).exists()))
    };
    let unit = units.iter().find(is_absent)?;
    let name = EscapedBytes(unit.as_bytes());
    Some((
        format!("no unit file of {name} exists on this host"),
        "see 'systemctl list-unit-files' for the names of units".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::test_policy;

    fn rule(keys: &str) -> Rule {
        let policy = test_policy(&format!("[[rule]]\n{keys}\n"), Vec::new());
        policy.matcher.rules()[0].clone()
    }

    #[test]
    fn services_without_a_file_are_absent_and_instances_have_that_of_their_template() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["web.service", "getty@.service"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        for (unit, is_absent) in [
            ("web.service", false),
            ("getty@tty1.service", false),
            ("wbe.service", true),
            ("session-1.scope", false),
            ("wbe*", false),
        ] {
            let rule = rule(&format!("unit = \"{unit}\"\nignore = true"));
            let found = absent(&rule, [directory.path()].into_iter());
            assert_eq!(found.is_some(), is_absent, "{unit}");
            assert_eq!(absent(&rule, [].into_iter()), None, "no systemd");
        }
    }

    #[test]
    fn a_rule_for_a_service_has_to_leave_it() {
        for (keys, stays) in [
            ("unit = \"web.service\"\ncgroup = \"a\"", true),
            ("unit = \"web.service\"\ncgroup = \"a\"\nleave_units = \"db.service\"", true),
            ("unit = \"web.service\"\ncgroup = \"a\"\nleave_units = \"web*\"", false),
            ("unit = \"web.service\"\ncgroup = \"a\"\nleave_units = true", false),
            ("unit = \"cron.service\"\ncgroup = \"a\"", false),
            ("unit = \"session-1.scope\"\ncgroup = \"a\"", false),
            ("unit = \"web.service\"\nignore = true", false),
        ] {
            assert_eq!(staying(&rule(keys)).is_some(), stays, "{keys}");
        }
    }

    #[test]
    fn only_ancestors_of_root_exempt_processes() {
        for (keys, is_arranged) in [
            ("below = \"x\"\nbelow_any_user = true\nignore = true", true),
            ("below = \"x\"\nignore = true", false),
            ("below = \"x\"\nbelow_any_user = true\ncgroup = \"a\"", false),
        ] {
            assert_eq!(arranged(&rule(keys)).is_some(), is_arranged, "{keys}");
        }
    }

    #[test]
    fn a_rule_for_a_container_has_to_leave_it() {
        for (keys, stays) in [
            ("container = \"docker:web\"\ncgroup = \"a\"", true),
            ("container = true\ncgroup = \"a\"", true),
            ("container = true\ncgroup = \"a\"\ncontainers = true", false),
            ("container = \"docker:web\"\ncgroup = \"a\"\ncontainers = \"docker:w*\"", false),
            ("container = \"docker:web\"\ncgroup = \"a\"\ncontainers = \"docker:db\"", true),
            ("container = \"docker:web\"\ncgroup = \"a\"\ncontainers = \"lxc:*\"", true),
            ("container = \"docker:*\"\ncgroup = \"a\"\ncontainers = \"*:web\"", false),
            ("container = \"podman@1000:*\"\ncgroup = \"a\"", false),
            ("container = \"docker:web\"\nignore = true", false),
        ] {
            assert_eq!(staying_in_container(&rule(keys)).is_some(), stays, "{keys}");
        }
    }

    #[test]
    fn containers_of_users_must_not_be_ignored() {
        for (keys, expected) in [
            ("container = \"podman@1000:*\"\nignore = true", true),
            ("container = [true, \"*@*:*\"]\nignore = true", true),
            ("container = \"podman@0:*\"\nignore = true", false),
            ("container = true\nignore = true", false),
            ("container = \"podman@1000:*\"\ncgroup = \"a\"", false),
        ] {
            let keys = keys.replace("[true, ", "[\"*:*\", ");
            assert_eq!(exempting(&rule(&keys)).is_some(), expected, "{keys}");
        }
    }

    #[test]
    fn a_rule_by_place_needs_a_hierarchy_that_shows_units() {
        let none = Hierarchies::default();
        for (keys, is_void) in [("from = \"/a\"", true), ("login = 5", false), ("user = 5", false)]
        {
            let rule = rule(&format!("{keys}\ncgroup = \"a\""));
            assert_eq!(unplaced(&rule, &none).is_some(), is_void, "{keys}");
        }
    }
}
