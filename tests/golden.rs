//! Compares the result of loading directories of rule files with the expected text.
//! `UPDATE_GOLDEN=1` writes the present result: review the difference before a commit.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::unwrap_used, clippy::panic)]

mod case;

use std::fmt::Write as _;
use std::path::Path;

use case::Copy;
use cgruled::cgroup::config::{FileOwnership, GroupPermissions, GroupSpecs, SpecSetting};
use cgruled::policy::load::{FileOutcome, Loaded, UpstreamVerdict, load};
use cgruled::rules::{Action, Rule};

#[test]
fn loading_gives_what_is_expected() {
    case::compare("load", run);
}

/// Loads a copy of the case and returns the result as text.
fn run(cases: &Path, case: &Path) -> String {
    let copy = Copy::of(cases, case);
    let shown = show(&load(&copy.sources, &copy.service), &copy.root);
    copy.nameless(&shown)
}

fn show(loaded: &Loaded, root: &Path) -> String {
    let mut text = String::from("rules:\n");
    for rule in &*loaded.rules {
        writeln!(text, "  {}", show_rule(rule)).unwrap();
    }
    show_gifts(&loaded.specs, &mut text);
    text.push_str("files:\n");
    for file in &loaded.files {
        let path = file.path.strip_prefix(root).unwrap();
        let outcome = match &file.outcome {
            FileOutcome::Loaded(rules) => format!("{rules} rules"),
            FileOutcome::Mask => "mask".to_owned(),
            FileOutcome::HiddenBy(first) => format!("hidden by {}", first.display()),
            FileOutcome::Skipped => "skipped".to_owned(),
            FileOutcome::Refused => "refused".to_owned(),
        };
        writeln!(text, "  {}: {outcome}", path.display().to_string().escape_debug()).unwrap();
    }
    match &loaded.upstream {
        UpstreamVerdict::NotAsked => {}
        UpstreamVerdict::Starts => text.push_str("cgrulesengd: starts\n"),
        UpstreamVerdict::Misses(file) => {
            writeln!(text, "cgrulesengd: misses {}", file.display()).unwrap();
        }
        UpstreamVerdict::Refuses(line) => writeln!(text, "cgrulesengd: refuses {line}").unwrap(),
    }
    text.push_str("diagnostics:\n");
    for diagnostic in &loaded.diagnostics {
        writeln!(text, "{diagnostic}").unwrap();
    }
    text
}

/// Appends the settings of cgroups, if there are any.
fn show_gifts(specs: &GroupSpecs, text: &mut String) {
    let kinds =
        [("table", &specs.tables), ("template", &specs.templates), ("group", &specs.groups)];
    for (kind, spec) in kinds.iter().flat_map(|(kind, list)| list.iter().map(move |g| (kind, g))) {
        writeln!(text, "{kind} {}:", spec.text).unwrap();
        for SpecSetting { key, value, controller, .. } in &spec.settings {
            writeln!(text, "  {controller}: {key} = {value}").unwrap();
        }
        if spec.perm != GroupPermissions::default() {
            let GroupPermissions { is_of_user, directory, task, .. } = spec.perm;
            let one = |o: FileOwnership| {
                let mode = o.mode.map(|mode| format!("{mode:04o}"));
                format!("{:?} {:?} {mode:?}", o.uid.map(|id| id.0), o.gid.map(|id| id.0))
            };
            if is_of_user {
                text.push_str("  owned by the user of the path\n");
            }
            writeln!(text, "  owners: {}, of tasks {}", one(directory), one(task)).unwrap();
        }
        if spec.is_required {
            text.push_str("  required\n");
        }
        if let Some(after) = spec.remove_after {
            writeln!(text, "  removed after {after:?}").unwrap();
        }
    }
    for unit in &specs.units {
        writeln!(text, "unit {}: {}", unit.name, unit.properties().join(" ")).unwrap();
    }
    for table in &specs.user_slices {
        let words = table.settings.iter().flat_map(|(_, words)| words.clone());
        let words = words.collect::<Vec<_>>().join(" ");
        writeln!(text, "slices of {} users: {words}", table.users.len()).unwrap();
    }
}

fn show_rule(rule: &Rule) -> String {
    let prefix = if rule.action.observes() { "observe: " } else { "" };
    let action = match rule.action.intended() {
        Action::Ignore(_) => "ignore".to_owned(),
        Action::Observe(_) => unreachable!(),
        Action::Inapplicable(it) => format!("stays: {}", it.reason),
        Action::Place(targets) => {
            let target = &targets[0];
            format!("{} {:?}", target.destination.as_str(), target.controllers)
        }
    };
    let count = |name: &str, count: usize| match count {
        0 => String::new(),
        _ => format!(" {name}:{count}"),
    };
    let kinds = [
        count("user", rule.when.users.len()),
        count("group", rule.when.groups.len()),
        count("exe", rule.when.exes.len()),
        count("not-user", rule.not.users.len()),
        count("not-group", rule.not.groups.len()),
    ];
    format!("{} ({}) -> {prefix}{action}", rule.name, kinds.concat().trim_start())
}
