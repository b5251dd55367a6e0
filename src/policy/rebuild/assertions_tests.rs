//! Tests what a failing test of a rule file does at a load.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::settings::SettingsReader;
use super::*;
use crate::cgroup::host::ManagedRoots;
use crate::cgroup::mounts::{Hierarchies, Hierarchy, Version};
use crate::config::daemon_toml::Settings;
use crate::event::Uid;
use crate::placement::assertions;
use crate::policy::Policy;
use crate::policy::load::{NameService, Sources};
use crate::policy::worker::PolicyService;

/// Builder for one directory, with the setting `strict_tests`, which can change at a reload.
fn builder(directory: &Path, strict: &Arc<AtomicBool>) -> PolicyBuilder {
    let sources = Sources {
        directories: vec![directory.to_owned()],
        legacy: false,
        owner: Uid(nix::unistd::geteuid().as_raw()),
        ..Sources::default()
    };
    let controllers = ["cpu", "memory"].map(str::to_owned).to_vec();
    let unified = Hierarchy::for_test(Version::V2, "/nonexistent", "", controllers);
    let hierarchies = Arc::new(Hierarchies::new(vec![unified]));
    let settings = |strict: &AtomicBool| Settings {
        strict_tests: strict.load(Ordering::Relaxed),
        ..Settings::default()
    };
    let running = settings(strict);
    let strict = Arc::clone(strict);
    let reader: SettingsReader = Box::new(move || (settings(&strict), Vec::new()));
    let names = NameService::of_files(directory);
    PolicyBuilder::new(sources, names, hierarchies, ManagedRoots::default())
        .with_tests(assertions::report, running.strict_tests)
        .with_reloaded_settings(running, reader)
}

/// A file whose rule leads to `cgroup`, and whose test expects `a`.
fn write(directory: &Path, cgroup: &str) {
    let text = format!(
        "version = 1\nrequires = \"0.2\"\n[[rule]]\nuser = 5\ncgroup = \"{cgroup}\"\n\
         [[test]]\nprocess = {{ user = 5 }}\nexpect = \"a\"\n"
    );
    fs::write(directory.join("50-a.toml"), text).unwrap();
}

/// Returns the destination of the active rule, and the numbers of errors and of files that are kept.
fn active(policy: &Policy) -> (&str, usize, usize) {
    let rule = &policy.matcher.rules()[0];
    let destination = rule.action.written_targets()[0].destination.as_str();
    (destination, policy.summary.errors, policy.summary.kept)
}

#[test]
fn a_failing_test_is_a_warning_or_an_error_of_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let strict = Arc::new(AtomicBool::new(false));
    write(path, "a");
    let mut builder = builder(path, &strict);
    assert_eq!(active(&builder.first()), ("a", 0, 0));
    assert_eq!(builder.diagnostics(), []);

    write(path, "b");
    assert_eq!(active(&builder.reload()), ("b", 0, 0));
    let [warning] = builder.diagnostics() else { panic!("{:?}", builder.diagnostics()) };
    assert!(!warning.is_error() && warning.message.contains("\"a\" expected"), "{warning}");

    write(path, "a");
    strict.store(true, Ordering::Relaxed);
    assert_eq!(active(&builder.reload()), ("a", 0, 0), "the setting is read at a reload");
    write(path, "c");
    assert_eq!(active(&builder.reload()), ("a", 1, 1), "the last valid version stays");
    strict.store(false, Ordering::Relaxed);
    assert_eq!(active(&builder.reload()), ("c", 0, 0));
}

#[test]
fn a_new_file_with_a_failing_test_has_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let strict = Arc::new(AtomicBool::new(true));
    write(directory.path(), "b");
    let mut builder = builder(directory.path(), &strict);
    assert_eq!(active(&builder.first()), ("b", 1, 0), "no valid version is known");
}

#[test]
fn the_tests_do_not_outlive_a_load() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "b");
    let builder = builder(directory.path(), &Arc::default());
    let loaded = builder.survey().loaded;
    assert!(loaded.tests.is_empty() && loaded.diagnostics.len() == 1);
}
