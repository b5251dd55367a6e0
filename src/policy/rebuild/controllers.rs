//! Adapts the controllers that rules name to this host, with diagnostics about differences.

use std::collections::BTreeSet;

use crate::cgroup::config::GroupSpecs;
use crate::cgroup::conflicts::ConflictingTargets;
use crate::cgroup::mounts::{ControllerMapping, Hierarchies};
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::rules::{Action, InapplicableReason, Origin, PathBase, Rule, Target};

/// Returns the controllers of settings in tables, which apply to rules with that cgroup without
/// being named.
fn controllers_of_tables(specs: &GroupSpecs) -> BTreeSet<&str> {
    specs.tables.iter().flat_map(|table| table.controllers_of_settings()).collect()
}

/// Replaces controllers in rules by their names on this host, with one diagnostic for each name.
/// Controllers that only tables name are translated without a diagnostic.
pub(super) fn adapt(
    rules: &mut [Rule],
    specs: &GroupSpecs,
    hierarchies: &Hierarchies,
) -> Vec<Diagnostic> {
    let mut said = BTreeSet::new();
    let mut diagnostics = Vec::new();
    let of_tables = controllers_of_tables(specs);
    for rule in rules {
        let Action::Place(targets) = rule.action.intended_mut() else { continue };
        let changes = targets.iter_mut().flat_map(|target| {
            let of_ours = target.below == PathBase::Root;
            hierarchies.adapt(target).into_iter().map(move |change| (of_ours, change))
        });
        for (of_ours, (name, meaning)) in changes {
            if said.contains(&name) || of_ours && of_tables.contains(&*name) {
                continue;
            }
            diagnostics.push(translation(&rule.origin, &name, meaning));
            said.insert(name);
        }
    }
    diagnostics
}

/// Creates the diagnostic for a controller with another meaning on this host.
fn translation(
    Origin { file, line }: &Origin,
    name: &str,
    meaning: ControllerMapping,
) -> Diagnostic {
    let (message, help) = match meaning {
        ControllerMapping::Other(other) => (
            format!("\"{name}\" is \"{other}\" on this host"),
            "applies to all rules that name this controller",
        ),
        ControllerMapping::Needless | ControllerMapping::Itself => (
            format!("cgroup v2 has no controller \"{name}\" and needs none"),
            "the name is ignored in all rules",
        ),
        ControllerMapping::Absent => (
            format!("cgroup v2 of this host does not have the controller \"{name}\""),
            "processes are moved, but limits of this controller are not applied",
        ),
    };
    Diagnostic::at_line(file, *line, Severity::Warning, message).with_help(help)
}

/// Removes destinations that conflict in one hierarchy: the last line of the rule wins.
pub(super) fn settle(rules: &mut [Rule], hierarchies: &Hierarchies) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    for rule in rules {
        let Action::Place(targets) = rule.action.intended_mut() else { continue };
        for ConflictingTargets { loser, winner, hierarchy } in hierarchies.settle(targets) {
            let place = hierarchies[hierarchy].mount_point.display();
            let message = format!(
                "conflicting destinations \"{loser}\" and \"{winner}\" in {place}, where a process \
                 has one cgroup: using the last line, \"{winner}\""
            );
            let help = "write one line with all controllers for one cgroup, and give that cgroup the \
                        settings of both";
            let Origin { file, line } = &rule.origin;
            let about = Diagnostic::at_line(file, *line, Severity::Warning, message);
            diagnostics.push(about.with_help(help));
        }
    }
    diagnostics
}

/// Reports the controllers that this host does not have, and marks the rules that cannot be applied
/// without them. A TOML rule loses only that hierarchy, unless it has no other; as in cgrulesengd,
/// a line of a legacy rule and those that continue it move nothing. A controller that only tables
/// name is reported with the table.
pub(super) fn missing(
    rules: &mut [Rule],
    specs: &GroupSpecs,
    hierarchies: &Hierarchies,
) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let of_tables = controllers_of_tables(specs);
    for rule in rules {
        let targets = rule.action.intended().targets();
        let reason = targets.first().and_then(|first| no_hierarchy(first, hierarchies));
        for (index, target) in targets.iter().enumerate() {
            let help = match (&reason, target.below, index) {
                (Some(_), ..) => STAYS,
                (None, PathBase::Root, _) | (None, PathBase::Top, 0) => {
                    "the rule applies in its other hierarchies"
                }
                (None, PathBase::Top, _) => {
                    "only the lines of the rule before the one with this controller are applied"
                }
            };
            let is_applied = target.below == PathBase::Root && reason.is_none();
            for name in hierarchies.span_of(target).1 {
                // The diagnostics of the table say it.
                if is_applied && of_tables.contains(name) {
                    continue;
                }
                let message =
                    format!("no cgroup hierarchy of this host has the controller \"{name}\"");
                let near = hierarchies.similar_controller(name);
                let near =
                    near.map(|near| format!("did you mean \"{near}\"? ")).unwrap_or_default();
                let help = format!("{near}{help}");
                diagnostics.push(warning(&rule.origin, message).with_help(help));
            }
        }
        if let Some(reason) = reason {
            if reason == InapplicableReason::NoHierarchy {
                let message = format!("the rule cannot be applied: {reason}");
                diagnostics.push(warning(&rule.origin, message).with_help(STAYS));
            }
            rule.action.forbid(reason);
        }
    }
    diagnostics
}

/// Consequence for processes with a rule that cannot be applied.
const STAYS: &str = "the rule cannot be applied: matching processes stay where they are";

/// Returns the reason for which a target has no hierarchy; `None` if it has one.
fn no_hierarchy(target: &Target, hierarchies: &Hierarchies) -> Option<InapplicableReason> {
    let (span, missing) = hierarchies.span_of(target);
    let reason = match missing.first() {
        Some(name) => InapplicableReason::NoController((*name).to_owned()),
        None => InapplicableReason::NoHierarchy,
    };
    span.is_empty().then_some(reason)
}

fn warning(Origin { file, line }: &Origin, message: String) -> Diagnostic {
    Diagnostic::at_line(file, *line, Severity::Warning, message)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::cgroup::mounts::{Hierarchy, Version};
    use crate::config::{cgrules_conf, rules_toml};
    use crate::event::Uid;
    use crate::policy::load::{NameService, Sources, load};

    /// Creates a host with cgroup v2 only.
    fn unified(controllers: &[&str]) -> Hierarchies {
        Hierarchies::new(vec![Hierarchy::for_test(
            Version::V2,
            "/sys/fs/cgroup",
            "",
            controllers.iter().map(|&name| name.to_owned()).collect(),
        )])
    }

    #[test]
    fn two_groups_for_one_process_are_said_with_the_one_that_counts() {
        let text = "* cpu a\n\n* cpu web/%u\n% blkio,memory disk/%u\n";
        let parsed = cgrules_conf::parse(&Arc::from(Path::new("/etc/cgrules.conf")), text);
        let mut rules: Vec<Rule> = parsed.rules.into_iter().map(|written| written.rule).collect();
        let host = unified(&["io", "cpu", "memory"]);
        adapt(&mut rules, &GroupSpecs::default(), &host);
        let said = settle(&mut rules, &host);
        let [said] = &*said else { panic!("{said:?}") };
        assert_eq!(
            (&*said.file, said.severity),
            (Path::new("/etc/cgrules.conf"), Severity::Warning)
        );
        let end = "where a process has one cgroup: using the last line, \"disk/%u\"";
        assert_eq!(said.place.as_ref().map(|place| place.line), Some(3));
        assert!(said.message.ends_with(end), "{said}");
        let Action::Place(targets) = &rules[1].action else { panic!() };
        assert_eq!(targets.len(), 1);
        assert_eq!(targets[0].controllers, ["io", "memory"]);
    }

    #[test]
    fn a_name_that_means_another_is_said_once() {
        let rule = "[[rule]]\nuser = 1\ncgroup = \"a\"\ncontrollers = [\"blkio\", \"freezer\"]\n";
        let text = format!("version = 1\n{rule}{rule}");
        let parsed = rules_toml::parse(&Arc::from(Path::new("/a.toml")), &text);
        let mut rules: Vec<Rule> = parsed.rules.into_iter().map(|written| written.rule).collect();
        let host = unified(&["io", "cpu"]);
        let said: Vec<String> = adapt(&mut rules, &GroupSpecs::default(), &host)
            .into_iter()
            .map(|diagnostic| diagnostic.message)
            .collect();
        assert_eq!(
            said,
            [
                "\"blkio\" is \"io\" on this host",
                "cgroup v2 has no controller \"freezer\" and needs none",
            ]
        );
        for rule in &rules {
            let Action::Place(targets) = &rule.action else { panic!() };
            assert_eq!(targets[0].controllers, ["io"]);
        }
        assert!(missing(&mut rules, &GroupSpecs::default(), &host).is_empty());
        let missing = missing(&mut rules, &GroupSpecs::default(), &unified(&[]));
        assert_eq!(missing.len(), 2);
        assert!(rules.iter().all(|rule| rule.action.inapplicable().is_none()), "v2 is joined");
    }

    #[test]
    fn an_old_file_joins_the_groups_of_a_v2_host_that_lacks_its_controllers() {
        let text = "* blkio,cpu,cpuacct,memory x/%u\n* cpu,memory y/%u\n* memroy,cpu z/%u\n";
        let parsed = cgrules_conf::parse(&Arc::from(Path::new("/etc/cgrules.conf")), text);
        let mut rules: Vec<Rule> = parsed.rules.into_iter().map(|written| written.rule).collect();
        let host = unified(&["hugetlb"]);
        let said = adapt(&mut rules, &GroupSpecs::default(), &host);
        let names = ["blkio", "cpu", "cpuacct", "memory"];
        let expected = names.map(|name| {
            format!("/etc/cgrules.conf:1: warning: cgroup v2 of this host does not have the controller \"{name}\"")
        });
        let said = said.iter().map(|one| one.to_string().lines().next().unwrap().to_owned());
        assert_eq!(said.collect::<Vec<_>>(), expected);
        let spans = rules.iter().map(|rule| match &rule.action {
            Action::Place(targets) => host.span_of(&targets[0]).0.is_empty(),
            Action::Ignore(_) | Action::Inapplicable(_) | Action::Observe(_) => panic!(),
        });
        assert_eq!(spans.collect::<Vec<_>>(), [false, false, true]);
        let missing = missing(&mut rules, &GroupSpecs::default(), &host);
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(missing[0].message.ends_with("\"memroy\"") && missing[0].help.is_some());
        let reasons: Vec<_> = rules.iter().map(|rule| rule.action.inapplicable()).collect();
        let reason = InapplicableReason::NoController("memroy".to_owned());
        assert_eq!(reasons, [None, None, Some(&reason)]);
    }

    #[test]
    fn a_rule_without_any_hierarchy_cannot_be_applied_and_keeps_its_place() {
        let host = Hierarchies::new(vec![Hierarchy::for_test(
            Version::V1,
            "/sys/fs/cgroup/freezer",
            "freezer",
            vec!["freezer".to_owned()],
        )]);
        let text =
            "1 nosuch a\n1 freezer,nosuch a\n1 freezer a\n% nosuch b\n% freezer c\n1 freezer a\n";
        let parsed = cgrules_conf::parse(&Arc::from(Path::new("/etc/cgrules.conf")), text);
        let toml = "version = 1\n[[rule]]\nuser = 1\ncgroup = \"a\"\n[[rule]]\nuser = 1\ncgroup = \"a\"\n\
                    controllers = [\"nosuch\"]\n[[rule]]\nuser = 1\ncgroup = \"a\"\ncontrollers = \
                    [\"nosuch\", \"freezer\"]\n";
        let ours = rules_toml::parse(&Arc::from(Path::new("/a.toml")), toml);
        let written = parsed.rules.into_iter().chain(ours.rules);
        let mut rules: Vec<Rule> = written.map(|written| written.rule).collect();
        let said = missing(&mut rules, &GroupSpecs::default(), &host);
        let nosuch = InapplicableReason::NoController("nosuch".to_owned());
        let nosuch = Some(&nosuch);
        let reasons: Vec<_> = rules.iter().map(|rule| rule.action.inapplicable()).collect();
        let none = Some(&InapplicableReason::NoHierarchy);
        assert_eq!(reasons, [nosuch, nosuch, None, None, none, nosuch, None]);
        assert_eq!(rules[2].action.targets().len(), 3, "the first line of it can be applied");
        let helps = said.iter().map(|one| one.help.as_deref().unwrap());
        let stay = helps.filter(|help| help.ends_with("matching processes stay where they are"));
        assert_eq!((stay.count(), said.len()), (4, 6), "{said:?}");
    }

    #[test]
    fn the_words_of_tables_are_translated_without_a_word() {
        let old = Hierarchies::new(vec![Hierarchy::for_test(
            Version::V1,
            "/sys/fs/cgroup/blkio",
            "blkio",
            vec!["blkio".to_owned()],
        )]);
        let text = "version = 1\n[[rule]]\nuser = 1\ncgroup = \"a\"\n[cgroup.a]\nio.weight = 20\n";
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.toml"), text).unwrap();
        let nowhere = directory.path().join("none");
        let sources = Sources {
            directories: vec![directory.path().to_owned()],
            legacy: false,
            cgrules_conf: nowhere.clone(),
            cgrules_d: nowhere,
            owner: Uid(nix::unistd::geteuid().as_raw()),
            ..Sources::default()
        };
        let mut loaded = load(&sources, &NameService::default());
        let rules = Arc::make_mut(&mut loaded.rules);
        assert!(adapt(rules, &loaded.specs, &old).is_empty());
        let Action::Place(targets) = &rules[0].action else { panic!() };
        assert_eq!(targets[0].controllers, ["blkio"]);
    }
}
