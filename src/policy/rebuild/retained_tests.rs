use std::fs;
use std::path::PathBuf;

use super::*;
use crate::config::diagnostic::new_errors;
use crate::event::Uid;
use crate::policy::load::{NameService, Sources, load_over};

const BROKEN: &str =
    "[[rule]]\nuser = 5009\ncgroup = \"z\"\n[[rule]]\nuser = 5001\ncgrup = \"z\"\n";

/// Files of a host, and the active state of the daemon.
struct Host {
    directory: tempfile::TempDir,
    texts: LastGood,
    diagnostics: Vec<Diagnostic>,
}

/// Result of a reload.
struct Seen {
    /// Destinations of the active rules.
    groups: Vec<String>,
    kept: Vec<(String, Fallback)>,
    new_errors: usize,
}

fn rule(group: &str) -> String {
    format!("[[rule]]\nuser = 5001\ncgroup = \"{group}\"\n")
}

impl Host {
    fn new(files: &[(&str, &str)]) -> (Self, Seen) {
        let directory = tempfile::tempdir().unwrap();
        for name in ["etc", "usr", "cgrules.d"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let mut host = Self { directory, texts: LastGood::default(), diagnostics: Vec::new() };
        files.iter().for_each(|(name, text)| host.write(name, text));
        let seen = host.reload();
        (host, seen)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let head = if name.ends_with(".toml") { "version = 1\n" } else { "" };
        fs::write(self.path(name), format!("{head}{text}")).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    fn reload(&mut self) -> Seen {
        let sources = Sources {
            directories: vec![self.path("etc"), self.path("usr")],
            legacy: true,
            cgrules_conf: self.path("cgrules.conf"),
            cgrules_d: self.path("cgrules.d"),
            cgconfig_conf: self.path("cgconfig.conf"),
            cgconfig_d: self.path("cgconfig.d"),
            owner: Uid(nix::unistd::geteuid().as_raw()),
        };
        let mut keeping = RetainedFiles::default();
        let (loaded, new_errors) = loop {
            let loaded = load_over(&sources, &NameService::default(), keeping.overlay.clone());
            let new = new_errors(&self.diagnostics, &loaded.diagnostics);
            if !self.texts.keep(&mut keeping, &loaded, &new) {
                let count = new.len();
                break (loaded, count);
            }
        };
        self.texts.adopt(loaded.contents, SystemTime::now());
        self.diagnostics = loaded.diagnostics;
        let group = |rule: &crate::rules::Rule| match &rule.action {
            crate::rules::Action::Place(targets) => targets[0].destination.to_string(),
            crate::rules::Action::Ignore(_)
            | crate::rules::Action::Inapplicable(_)
            | crate::rules::Action::Observe(_) => "-".to_owned(),
        };
        let name = |kept: Retained| {
            let file = kept.file.strip_prefix(self.directory.path()).unwrap();
            (file.display().to_string(), kept.stays)
        };
        Seen {
            groups: loaded.rules.iter().map(group).collect(),
            kept: keeping.files.into_iter().map(name).collect(),
            new_errors,
        }
    }
}

impl Seen {
    fn names(&self) -> Vec<&str> {
        self.kept.iter().map(|(name, _)| name.as_str()).collect()
    }
}

#[test]
fn a_broken_file_stays_as_it_was_and_changes_nothing_for_the_others() {
    let (mut host, _) = Host::new(&[("usr/60-b.toml", &rule("b")), ("usr/65-d.toml", &rule("d"))]);
    host.write("usr/60-b.toml", BROKEN);
    host.write("usr/70-c.toml", &rule("c"));
    host.remove("usr/65-d.toml");
    for _ in 0..2 {
        let seen = host.reload();
        assert_eq!((seen.groups.join(" ").as_str(), seen.names()), ("b c", vec!["usr/60-b.toml"]));
        assert_eq!(seen.new_errors, 0, "the others have none");
    }
    host.write("etc/10-a.toml", &rule("a"));
    assert_eq!(host.reload().groups, ["a", "b", "c"]);
    host.write("usr/60-b.toml", &rule("mended"));
    let seen = host.reload();
    assert_eq!((seen.groups.join(" ").as_str(), seen.names().len()), ("a mended c", 0));
    host.write("usr/60-b.toml", BROKEN);
    host.reload();
    host.remove("usr/60-b.toml");
    assert_eq!(host.reload().groups, ["a", "c"], "what is removed is gone");
}

#[test]
fn the_good_rules_of_a_new_file_with_errors_are_in_force() {
    let (mut host, _) = Host::new(&[("usr/60-b.toml", &rule("b"))]);
    host.write("usr/70-c.toml", BROKEN);
    let seen = host.reload();
    assert_eq!((seen.groups.join(" ").as_str(), seen.names().len()), ("b z", 0));
    assert_eq!(seen.new_errors, 2);
    assert_eq!(host.reload().new_errors, 0, "it is known by now");
    host.write("usr/70-c.toml", &format!("{BROKEN}nonsense = 1\n"));
    let seen = host.reload();
    assert_eq!((seen.groups.join(" ").as_str(), seen.names()), ("b z", vec!["usr/70-c.toml"]));
}

#[test]
fn a_broken_file_does_not_hide_what_was_in_force() {
    let (mut host, _) = Host::new(&[("usr/60-b.toml", &rule("b"))]);
    host.write("etc/60-b.toml", BROKEN);
    for _ in 0..2 {
        let seen = host.reload();
        let hidden: Arc<Path> = host.path("usr/60-b.toml").into();
        assert_eq!(seen.groups, ["b"]);
        assert_eq!(seen.kept, [("etc/60-b.toml".to_owned(), Fallback::Aside(hidden))]);
    }
    host.write("etc/60-b.toml", &rule("mine"));
    assert_eq!(host.reload().groups, ["mine"]);
    host.write("etc/60-b.toml", BROKEN);
    assert_eq!(host.reload().groups, ["mine"]);
    host.write("etc/60-b.toml", "");
    fs::write(host.path("etc/60-b.toml"), "").unwrap();
    assert_eq!(host.reload().groups, [""; 0], "a mask");
    host.write("etc/60-b.toml", BROKEN);
    assert_eq!(host.reload().groups, [""; 0], "it stays one");
}

#[test]
fn files_that_are_not_trusted_any_more_stay_as_they_were() {
    use std::os::unix::fs::PermissionsExt;
    let files = [("etc/10-a.toml", &*rule("a")), ("usr/60-b.toml", &rule("b"))];
    let (mut host, _) = Host::new(&files);
    let chmod = |host: &Host, name: &str, mode: u32| {
        fs::set_permissions(host.path(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    host.write("etc/10-a.toml", &rule("written by others"));
    host.write("etc/20-a.toml", &rule("by others too"));
    chmod(&host, "etc", 0o777);
    host.write("usr/70-c.toml", &rule("c"));
    for _ in 0..2 {
        let seen = host.reload();
        assert_eq!(seen.groups, ["a", "b", "c"]);
        assert_eq!(seen.kept, [("etc".to_owned(), Fallback::Directory)]);
    }
    chmod(&host, "etc", 0o755);
    assert_eq!(host.reload().groups.len(), 4);
    chmod(&host, "usr/60-b.toml", 0o666);
    let seen = host.reload();
    assert_eq!((seen.groups.len(), seen.names()), (4, vec!["usr/60-b.toml"]));
}

#[test]
fn legacy_files_stay_one_by_one() {
    let files = [
        ("cgrules.conf", "root cpu a\n"),
        ("cgrules.d/b", "root cpu b\n"),
        ("cgrules.d/d", "root cpu d\n"),
    ];
    let (mut host, _) = Host::new(&files);
    host.write("cgrules.conf", "root cpu x\nroot cpu\n");
    host.remove("cgrules.d/d");
    host.write("cgrules.d/c", "root cpu c\n");
    let seen = host.reload();
    assert_eq!((seen.groups.join(" ").as_str(), seen.names()), ("a b c", vec!["cgrules.conf"]));
    // An editor that removes a file and writes it again.
    host.remove("cgrules.conf");
    assert_eq!(host.reload().groups, ["b", "c"]);
    host.write("cgrules.conf", "root cpu x\nroot cpu\n");
    let seen = host.reload();
    assert_eq!((seen.groups.join(" ").as_str(), seen.names().len()), ("x b c", 0));
}

#[test]
fn a_file_that_did_not_change_is_not_kept_and_times_stay() {
    let (mut host, _) = Host::new(&[("usr/60-b.toml", &rule("b"))]);
    let path: Arc<Path> = host.path("usr/60-b.toml").into();
    let since = host.texts.0[&path].1;
    host.write("usr/60-b.toml", BROKEN);
    assert_eq!(host.reload().kept, [("usr/60-b.toml".to_owned(), Fallback::AsOf(since))]);
    let loaded = host.texts.0[&path].0.clone();
    let error = Diagnostic::about(&path, crate::config::diagnostic::Severity::Error, "of others");
    let mut loaded = FileContents::from([(path, loaded)]);
    let sources = Sources { directories: Vec::new(), legacy: false, ..Sources::default() };
    let mut same = load_over(&sources, &NameService::default(), Overlay::default());
    std::mem::swap(&mut same.contents, &mut loaded);
    assert!(!host.texts.keep(&mut RetainedFiles::default(), &same, &[&error]));
}
