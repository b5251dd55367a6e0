use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::super::settings::SettingsReader;
use super::*;
use crate::cgroup::host::ManagedRoots;
use crate::cgroup::mounts::{Hierarchies, Hierarchy, Version};
use crate::config::daemon_toml::Settings;
use crate::event::Uid;
use crate::policy::load::NameService;
use crate::policy::worker::PolicyService;

/// A host with a directory of rules, and one of rules that are not installed.
struct Host {
    directory: tempfile::TempDir,
    builder: PolicyBuilder,
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["active", "next"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let sources = Sources {
            directories: vec![directory.path().join("active"), directory.path().join("later")],
            legacy: false,
            owner: Uid(nix::unistd::geteuid().as_raw()),
            ..Sources::default()
        };
        let unified = Hierarchy::for_test(Version::V2, "/nonexistent", "", Vec::new());
        let hierarchies = Arc::new(Hierarchies::new(vec![unified]));
        let reader: SettingsReader =
            Box::new(|| (Settings { recheck: None, ..Settings::default() }, Vec::new()));
        let names = NameService::of_files(directory.path());
        let builder = PolicyBuilder::new(sources, names, hierarchies, ManagedRoots::default())
            .with_reloaded_settings(Settings::default(), reader);
        Self { directory, builder }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    /// Writes a file with a rule that leads to this cgroup.
    fn write(&self, below: &str, cgroup: &str) {
        let text = format!("version = 1\n[[rule]]\nuser = 5\ncgroup = \"{cgroup}\"\n");
        fs::write(self.path(below), text).unwrap();
    }

    fn plan(&mut self, directories: &[&str], file: Option<&str>) -> PlannedPolicy {
        let directories = directories.iter().map(|below| self.path(below)).collect();
        let sources = PlanSources { directories, file: file.map(|below| self.path(below)) };
        self.builder.plan(&PlanRequest { number: 7, sources })
    }

    /// Returns the destinations of the rules of a plan without errors.
    fn destinations(&mut self, directories: &[&str], file: Option<&str>) -> Vec<String> {
        let planned = self.plan(directories, file);
        let policy = planned.policy.unwrap_or_else(|| panic!("{:?}", planned.diagnostics));
        destinations(&policy)
    }
}

fn destinations(policy: &Policy) -> Vec<String> {
    let rules = policy.matcher.rules().iter();
    let targets = rules.flat_map(|rule| rule.action.written_targets());
    targets.map(|target| target.destination.as_str().to_owned()).collect()
}

#[test]
fn a_plan_has_the_rules_of_the_reload_and_changes_nothing() {
    let mut host = Host::new();
    host.write("active/50-a.toml", "old");
    let first = host.builder.first();
    host.write("active/50-a.toml", "new");
    let planned = host.plan(&[], None);
    assert_eq!(planned.number, 7);
    let changed: Vec<&str> = planned.settings.applied.iter().map(|change| change.key).collect();
    assert_eq!(changed, ["recheck"]);
    let policy = planned.policy.unwrap();
    assert_eq!(destinations(&policy), ["new"]);
    assert!(policy.generation > first.generation && policy.settings.is_none());
    assert_eq!((policy.summary.rules, policy.summary.files), (1, 1));
    let published = host.builder.cell.read().unwrap();
    assert_eq!(published.generation, first.generation);
    // The settings were not taken by the plan.
    let reloaded = host.builder.reload();
    assert!(reloaded.settings.is_some() && reloaded.generation > policy.generation);
    assert_eq!(destinations(&reloaded), destinations(&policy));
}

#[test]
fn other_directories_replace_those_of_the_daemon() {
    let mut host = Host::new();
    host.write("active/50-a.toml", "old");
    host.write("next/60-b.toml", "next");
    assert_eq!(host.destinations(&["next"], None), ["next"]);
    assert_eq!(host.destinations(&["next", "active"], None), ["next", "old"]);
    let missing = host.plan(&["nowhere"], None);
    assert!(missing.policy.is_none());
    assert_eq!(missing.diagnostics[0].message, "is not a directory");
}

#[test]
fn a_file_is_read_as_if_it_was_in_the_first_directory() {
    let mut host = Host::new();
    host.write("active/50-a.toml", "old");
    host.write("next/60-b.toml", "added");
    host.write("next/50-a.toml", "replaced");
    assert_eq!(host.destinations(&[], Some("next/60-b.toml")), ["old", "added"]);
    assert_eq!(host.destinations(&[], Some("next/50-a.toml")), ["replaced"]);
    fs::write(host.path("next/50-a.toml"), "").unwrap();
    assert_eq!(host.destinations(&[], Some("next/50-a.toml")), Vec::<String>::new());
    // A standard directory need not exist.
    fs::remove_dir_all(host.path("active")).unwrap();
    assert_eq!(host.destinations(&[], Some("next/60-b.toml")), ["added"]);
}

#[test]
fn files_with_errors_have_no_plan() {
    let mut host = Host::new();
    fs::write(host.path("next/50-a.toml"), "version = 1\nnonsense = 1\n").unwrap();
    host.write("next/rules", "a");
    for (file, message) in [
        ("next/50-a.toml", "unknown key"),
        ("next/rules", "is not a rule file"),
        ("next/51-b.toml", "cannot be opened"),
        ("nowhere/51-b.toml", "cannot be opened"),
    ] {
        let planned = host.plan(&[], Some(file));
        assert!(planned.policy.is_none(), "{file}");
        let found = &planned.diagnostics;
        assert!(found.iter().any(|one| one.message.contains(message)), "{file}: {found:?}");
    }
}

#[test]
fn a_file_that_others_may_change_has_no_plan() {
    let mut host = Host::new();
    host.write("next/50-a.toml", "a");
    let mode = |below: &str, mode| {
        fs::set_permissions(host.path(below), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("next/50-a.toml", 0o666);
    assert!(host.plan(&[], Some("next/50-a.toml")).policy.is_none());
    assert!(host.plan(&["next"], None).policy.is_none());
    let host = &mut host;
    fs::set_permissions(host.path("next/50-a.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(host.destinations(&["next"], None), ["a"]);
    fs::set_permissions(host.path("next"), fs::Permissions::from_mode(0o777)).unwrap();
    assert!(host.plan(&[], Some("next/50-a.toml")).policy.is_none());
    assert!(host.plan(&["next"], None).policy.is_none());
}
