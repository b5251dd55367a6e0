//! What the controllers that rules name mean on this host, and what is to be said of them.

use std::collections::BTreeSet;

use crate::cgroup::mounts::{Hierarchies, Meaning};
use crate::cgroup::provision::Gifts;
use crate::cgroup::rivals::Rivals;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::rules::{Action, Below, Rule};

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
            let message = match meaning {
                Meaning::Other(other) => format!("\"{name}\" is \"{other}\" on this host"),
                Meaning::Needless | Meaning::Itself => {
                    format!("\"{name}\" is no controller of cgroup v2, where no group needs it")
                }
            };
            let message = format!("line {}: {message}", rule.origin.line);
            let about = Diagnostic::about(&rule.origin.file, Severity::Warning, message);
            diagnostics.push(about.with_help("all rules that name it are read so"));
            said.insert(name);
        }
    }
    diagnostics
}

/// Lets the last line of a rule win where two lead to different groups of one hierarchy.
pub(super) fn settle(rules: &mut [Rule], hierarchies: &Hierarchies) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    for rule in rules {
        let Action::Place(targets) = &mut rule.action else { continue };
        for Rivals { loser, winner, hierarchy } in hierarchies.settle(targets) {
            let (line, place) = (rule.origin.line, hierarchies[hierarchy].mount_point.display());
            let message = format!(
                "line {line}: the rule leads to \"{loser}\" and to \"{winner}\" in {place}, where a process \
                 has one group: \"{winner}\" counts, the last line"
            );
            let help = "write one line with all controllers for one group, and give that group the \
                        settings of both";
            let about = Diagnostic::about(&rule.origin.file, Severity::Warning, message);
            diagnostics.push(about.with_help(help));
        }
    }
    diagnostics
}

/// A controller that this host does not have costs the rule that hierarchy only. That a table's is
/// missing is said of the table.
pub(super) fn missing(rules: &[Rule], gifts: &Gifts, hierarchies: &Hierarchies) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let of_tables = controllers_of_tables(gifts);
    for rule in rules {
        let Action::Place(targets) = &rule.action else { continue };
        for target in targets {
            let is_said = |name: &&str| target.below == Below::Root && of_tables.contains(name);
            for name in hierarchies.span_of(target).1.into_iter().filter(|name| !is_said(name)) {
                let message = format!(
                    "line {}: no cgroup hierarchy of this host has the controller \"{name}\"",
                    rule.origin.line
                );
                diagnostics.push(
                    Diagnostic::about(&rule.origin.file, Severity::Warning, message).with_help(
                        match target.below {
                            Below::Root => "the rule works in the hierarchies that there are",
                            Below::Top => "so the rule moves nothing",
                        },
                    ),
                );
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
        assert!(said.message.starts_with("line 3: ") && said.message.ends_with(end), "{said}");
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
                "line 3: \"blkio\" is \"io\" on this host",
                "line 3: \"freezer\" is no controller of cgroup v2, where no group needs it",
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
