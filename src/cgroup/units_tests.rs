use std::fs;
use std::os::unix::fs::PermissionsExt;

use std::time::Instant;

use super::*;
use crate::rules::Origin;

/// A command that stands for systemctl.
fn fake(script: &str, limit: Duration) -> (tempfile::TempDir, Systemd) {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("systemctl");
    let log = directory.path().join("log");
    let text =
        format!("#!/bin/sh\nfor word; do echo \"<$word>\"; done >> {}\n{script}\n", log.display());
    // Written by another process: while we hold it open for writing a fork of another test's would keep
    // it so, and nobody could execute it.
    let draft = directory.path().join("draft");
    fs::write(&draft, text).unwrap();
    assert!(Command::new("/bin/cp").arg(&draft).arg(&program).status().unwrap().success());
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    (directory, Systemd { program, is_running: true, limit })
}

fn unit(name: &str, settings: &[(&str, &str)]) -> UnitGift {
    UnitGift {
        name: name.to_owned(),
        settings: settings
            .iter()
            .map(|(key, word)| ((*key).to_owned(), vec![(*word).to_owned()]))
            .collect(),
        origin: Origin { file: Path::new("/a.toml").into(), line: 3 },
    }
}

fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while Instant::now() < end {
        if condition() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

#[test]
fn all_properties_of_a_unit_are_set_in_one_call() {
    let (directory, systemd) = fake("", LIMIT);
    let settings =
        [("cpu.weight", "CPUWeight=50"), ("io.max", "IOReadBandwidthMax=/dev/block/8:0 5")];
    systemd.set(&unit("php-fpm.service", &settings)).unwrap();
    assert_eq!(
        fs::read_to_string(directory.path().join("log")).unwrap(),
        "<set-property>\n<--runtime>\n<-->\n<php-fpm.service>\n<CPUWeight=50>\n\
         <IOReadBandwidthMax=/dev/block/8:0 5>\n"
    );
}

#[test]
fn a_refusal_is_said_in_its_own_words() {
    let (_directory, systemd) = fake("echo 'Unit x.service not found.' >&2; exit 5", LIMIT);
    let why = systemd.set(&unit("x.service", &[("pids.max", "TasksMax=1")])).unwrap_err();
    assert_eq!(why, "systemctl: exit status: 5: Unit x.service not found.");
    let missing = Systemd { program: "/nonexistent/systemctl".into(), ..systemd };
    let why = missing.set(&unit("x.service", &[("pids.max", "TasksMax=1")])).unwrap_err();
    assert!(why.starts_with("/nonexistent/systemctl: "), "{why}");
}

#[test]
fn a_systemd_that_hangs_is_given_up() {
    let (_directory, systemd) = fake("exec sleep 60", Duration::from_millis(200));
    let begin = Instant::now();
    let why = systemd.set(&unit("x.service", &[("pids.max", "TasksMax=1")])).unwrap_err();
    assert_eq!(why, "systemctl took longer than 0.2 s");
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn one_unit_that_is_refused_costs_no_other() {
    let (directory, systemd) = fake("[ \"$4\" = b.service ]", LIMIT);
    let metrics = Arc::new(Metrics::default());
    let mut units = Units::new(systemd, Arc::clone(&metrics));
    units.give(&[]);
    assert!(units.thread.is_none());
    let word = [("pids.max", "TasksMax=1")];
    units.give(&[unit("a.service", &word), unit("b.service", &word)]);
    assert!(eventually(|| metrics.set_units.get() == 1));
    assert_eq!(metrics.refused_units.get(), 1);
    let log = fs::read_to_string(directory.path().join("log")).unwrap();
    assert!(log.find("<a.service>").unwrap() < log.find("<b.service>").unwrap());
}

#[test]
fn without_systemd_nothing_is_run() {
    let (directory, systemd) = fake("", LIMIT);
    let mut units =
        Units::new(Systemd { is_running: false, ..systemd }, Arc::new(Metrics::default()));
    units.give(&[unit("a.service", &[("pids.max", "TasksMax=1")])]);
    assert!(units.was_said && units.thread.is_none());
    assert!(!directory.path().join("log").exists());
}
