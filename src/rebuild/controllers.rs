//! What the controllers that rules name mean on this host, and what is to be said of them.

use std::collections::BTreeSet;

use crate::cgroup::mounts::{Hierarchies, Meaning};
use crate::cgroup::provision::Gifts;
use crate::cgroup::rivals::Rivals;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::rules::{Action, Below, Origin, Rule};

/// The controllers of settings in tables, which rules that lead there have without naming them.
fn controllers_of_tables(gifts: &Gifts) -> BTreeSet<&str> {
    gifts.tables.iter().flat_map(|table| table.controllers_of_settings()).collect()
}

/// Puts the names that this host has for controllers into the rules, and says so once for each name. The
/// words of tables are translated without a word.
pub(super) fn adapt(
    rules: &mut [Rule],
    gifts: &Gifts,
    hierarchies: &Hierarchies,
) -> Vec<Diagnostic> {
    let mut said = BTreeSet::new();
    let mut diagnostics = Vec::new();
    let of_tables = controllers_of_tables(gifts);
    for rule in rules {
        let Action::Place(targets) = &mut rule.action else { continue };
        let changes = targets.iter_mut().flat_map(|target| {
            let of_ours = target.below == Below::Root;
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

/// What is said of a name that means something else here.
fn translation(Origin { file, line }: &Origin, name: &str, meaning: Meaning) -> Diagnostic {
    let (message, help) = match meaning {
        Meaning::Other(other) => (
            format!("\"{name}\" is \"{other}\" on this host"),
            "all rules that name it are read so",
        ),
        Meaning::Needless | Meaning::Itself => (
            format!("\"{name}\" is no controller of cgroup v2, where no group needs it"),
            "all rules that name it are read so",
        ),
        Meaning::Absent => (
            format!("cgroup v2 of this host does not have the controller \"{name}\""),
            "processes join the groups of all rules that name it; what it would limit has no limit",
        ),
    };
    Diagnostic::at_line(file, *line, Severity::Warning, message).with_help(help)
}

/// Lets the last line of a rule win where two lead to different groups of one hierarchy.
pub(super) fn settle(rules: &mut [Rule], hierarchies: &Hierarchies) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    for rule in rules {
        let Action::Place(targets) = &mut rule.action else { continue };
        for Rivals { loser, winner, hierarchy } in hierarchies.settle(targets) {
            let place = hierarchies[hierarchy].mount_point.display();
            let message = format!(
                "the rule leads to \"{loser}\" and to \"{winner}\" in {place}, where a process \
                 has one group: \"{winner}\" counts, the last line"
            );
            let help = "write one line with all controllers for one group, and give that group the \
                        settings of both";
            let Origin { file, line } = &rule.origin;
            let about = Diagnostic::at_line(file, *line, Severity::Warning, message);
            diagnostics.push(about.with_help(help));
        }
    }
    diagnostics
}

/// A controller that this host does not have costs a rule of ours that hierarchy only, and a rule of
/// the original everything, as there: on a v2 host only a name that nobody knows comes so far. That a
/// table's is missing is said of the table.
pub(super) fn missing(rules: &[Rule], gifts: &Gifts, hierarchies: &Hierarchies) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let of_tables = controllers_of_tables(gifts);
    for rule in rules {
        let Action::Place(targets) = &rule.action else { continue };
        for target in targets {
            let is_said = |name: &&str| target.below == Below::Root && of_tables.contains(name);
            for name in hierarchies.span_of(target).1.into_iter().filter(|name| !is_said(name)) {
                let message =
                    format!("no cgroup hierarchy of this host has the controller \"{name}\"");
                let help = match target.below {
                    Below::Root => "the rule works in the hierarchies that there are",
                    Below::Top => "so the rule moves nothing",
                };
                let Origin { file, line } = &rule.origin;
                let about = Diagnostic::at_line(file, *line, Severity::Warning, message);
                diagnostics.push(about.with_help(help));
            }
        }
    }
    diagnostics
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::cgroup::mounts::{Hierarchy, Version};
    use crate::config::{cgrules_conf, rules_toml};
    use crate::event::Uid;
    use crate::load::{NameService, Sources, load};

    /// A host with nothing but v2.
    fn unified(controllers: &[&str]) -> Hierarchies {
        Hierarchies::new(vec![Hierarchy {
            version: Version::V2,
            mount_point: "/sys/fs/cgroup".into(),
            top: "/".into(),
            listed: String::new(),
            controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
            favordynmods: false,
        }])
    }

    #[test]
    fn two_groups_for_one_process_are_said_with_the_one_that_counts() {
        let text = "* cpu a\n\n* cpu web/%u\n% blkio,memory disk/%u\n";
        let parsed = cgrules_conf::parse(&Arc::from(Path::new("/etc/cgrules.conf")), text);
        let mut rules: Vec<Rule> = parsed.rules.into_iter().map(|written| written.rule).collect();
        let host = unified(&["io", "cpu", "memory"]);
        adapt(&mut rules, &Gifts::default(), &host);
        let said = settle(&mut rules, &host);
        let [said] = &*said else { panic!("{said:?}") };
        assert_eq!(
            (&*said.file, said.severity),
            (Path::new("/etc/cgrules.conf"), Severity::Warning)
        );
        let end = "where a process has one group: \"disk/%u\" counts, the last line";
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
        let said: Vec<String> = adapt(&mut rules, &Gifts::default(), &host)
            .into_iter()
            .map(|diagnostic| diagnostic.message)
            .collect();
        assert_eq!(
            said,
            [
                "\"blkio\" is \"io\" on this host",
                "\"freezer\" is no controller of cgroup v2, where no group needs it",
            ]
        );
        for rule in &rules {
            let Action::Place(targets) = &rule.action else { panic!() };
            assert_eq!(targets[0].controllers, ["io"]);
        }
        assert!(missing(&rules, &Gifts::default(), &host).is_empty());
        let missing = missing(&rules, &Gifts::default(), &unified(&[]));
        assert_eq!(missing.len(), 2);
    }

    #[test]
    fn an_old_file_joins_the_groups_of_a_v2_host_that_lacks_its_controllers() {
        let text = "* blkio,cpu,cpuacct,memory x/%u\n* cpu,memory y/%u\n* memroy,cpu z/%u\n";
        let parsed = cgrules_conf::parse(&Arc::from(Path::new("/etc/cgrules.conf")), text);
        let mut rules: Vec<Rule> = parsed.rules.into_iter().map(|written| written.rule).collect();
        let host = unified(&["hugetlb"]);
        let said = adapt(&mut rules, &Gifts::default(), &host);
        let names = ["blkio", "cpu", "cpuacct", "memory"];
        let expected = names.map(|name| {
            format!("/etc/cgrules.conf:1: warning: cgroup v2 of this host does not have the controller \"{name}\"")
        });
        let first = |one: &Diagnostic| one.to_string().lines().next().unwrap().to_owned();
        assert_eq!(said.iter().map(first).collect::<Vec<_>>(), expected);
        let spans = rules.iter().map(|rule| match &rule.action {
            Action::Place(targets) => host.span_of(&targets[0]).0.is_empty(),
            Action::Ignore(_) => panic!(),
        });
        assert_eq!(spans.collect::<Vec<_>>(), [false, false, true]);
        let missing = missing(&rules, &Gifts::default(), &host);
        assert_eq!(missing.len(), 1, "{missing:?}");
        assert!(missing[0].message.ends_with("\"memroy\"") && missing[0].help.is_some());
    }

    #[test]
    fn the_words_of_tables_are_translated_without_a_word() {
        let old = Hierarchies::new(vec![Hierarchy {
            version: Version::V1,
            mount_point: "/sys/fs/cgroup/blkio".into(),
            top: "/".into(),
            listed: "blkio".into(),
            controllers: vec!["blkio".to_owned()],
            favordynmods: false,
        }]);
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
        assert!(adapt(rules, &loaded.gifts, &old).is_empty());
        let Action::Place(targets) = &rules[0].action else { panic!() };
        assert_eq!(targets[0].controllers, ["blkio"]);
    }
}
