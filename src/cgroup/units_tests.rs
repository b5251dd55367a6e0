use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::drop_ins::DropIns;
use super::systemctl::LIMIT;
use super::*;
use crate::cgroup::config::{UnitSpec, UserSliceSpec};
use crate::rules::UserTest;

/// Writes a drop-in for each property as systemd does: complete under another name first.
const AS_SYSTEMD: &str = r#"
[ "$1" = set-property ] || exit 0
unit=$4
shift 4
mkdir -p "$here/control/$unit.d"
for word; do
    echo "$word" >"$here/control/$unit.d/.new"
    mv "$here/control/$unit.d/.new" "$here/control/$unit.d/50-${word%%=*}.conf"
done
"#;

/// Creates a command that imitates systemctl, and directories that imitate those of systemd.
fn fake(script: &str, limit: Duration) -> (tempfile::TempDir, Systemd) {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("systemctl");
    let here = directory.path().display();
    let text = format!(
        "#!/bin/sh\nhere={here}\nfor word; do echo \"<$word>\"; done >> $here/log\n{script}\n"
    );
    // Written by another process: a fork of a concurrent test would inherit a descriptor open for
    // writing, and execve(2) would fail with ETXTBSY.
    let draft = directory.path().join("draft");
    fs::write(&draft, text).unwrap();
    assert!(Command::new("/bin/cp").arg(&draft).arg(&program).status().unwrap().success());
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let at = |name: &str| directory.path().join(name);
    fs::create_dir(at("tree")).unwrap();
    let systemd = Systemd {
        program,
        is_running: true,
        limit,
        drop_ins: DropIns { control: at("control") },
        state: at("units.json"),
        tree: Some(at("tree")),
    };
    (directory, systemd)
}

fn unit(name: &str, settings: &[(&str, &str)]) -> UnitSpec {
    UnitSpec {
        name: name.to_owned(),
        settings: settings
            .iter()
            .map(|(key, word)| ((*key).to_owned(), vec![(*word).to_owned()]))
            .collect(),
        origin: Origin { file: Path::new("/a.toml").into(), line: 3 },
    }
}

/// Creates a table for users by UID.
fn people(first: u32, last: u32, words: &[(&str, &str)]) -> UserSliceSpec {
    let UnitSpec { settings, origin, .. } = unit("", words);
    UserSliceSpec { users: vec![UserTest::Ids(Uid(first), Uid(last))], settings, origin }
}

fn units(systemd: &Systemd) -> (Units, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::default());
    let units = Units::new(systemd.clone(), Arc::clone(&metrics), Arc::new(|_| Ok(None)));
    (units, metrics)
}

fn tables(units: &[UnitSpec], user_slices: &[UserSliceSpec]) -> UnitTables {
    UnitTables { units: units.to_vec(), user_slices: user_slices.to_vec() }
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

fn log_in(directory: &tempfile::TempDir, uid: u32) -> PathBuf {
    let slice = directory.path().join(format!("tree/user.slice/user-{uid}.slice"));
    fs::create_dir_all(&slice).unwrap();
    slice
}

fn drop_in(directory: &tempfile::TempDir, unit: &str, property: &str) -> PathBuf {
    directory.path().join(format!("control/{unit}.d/50-{property}.conf"))
}

fn log(directory: &tempfile::TempDir) -> String {
    fs::read_to_string(directory.path().join("log")).unwrap_or_default()
}

#[test]
fn all_properties_of_a_unit_are_set_in_one_call() {
    let (directory, systemd) = fake("", LIMIT);
    let settings =
        [("cpu.weight", "CPUWeight=50"), ("io.max", "IOReadBandwidthMax=/dev/block/8:0 5")];
    systemd.set(&unit("php-fpm.service", &settings)).unwrap();
    assert_eq!(
        log(&directory),
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
    assert_eq!(why, "systemctl timed out after 0.2 s");
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn one_unit_that_is_refused_costs_no_other() {
    let (directory, systemd) = fake("[ \"$4\" = b.service ]", LIMIT);
    let (mut units, metrics) = units(&systemd);
    units.give(UnitTables::default());
    assert!(units.thread.is_none());
    let word = [("pids.max", "TasksMax=1")];
    units.give(tables(&[unit("a.service", &word), unit("b.service", &word)], &[]));
    assert!(eventually(|| metrics.units_configured.get() == 1));
    assert_eq!(metrics.units_refused.get(), 1);
    let log = log(&directory);
    assert!(log.find("<a.service>").unwrap() < log.find("<b.service>").unwrap());
}

#[test]
fn without_systemd_nothing_is_run() {
    let (directory, systemd) = fake("", LIMIT);
    let (mut units, _metrics) = units(&Systemd { is_running: false, ..systemd });
    units.give(tables(&[], &[people(1000, 1999, &[("pids.max", "TasksMax=1")])]));
    assert!(units.was_said && units.thread.is_none());
    assert!(!directory.path().join("log").exists());
}

#[test]
fn slices_get_their_settings_when_they_appear() {
    let (directory, systemd) = fake(AS_SYSTEMD, LIMIT);
    log_in(&directory, 1000);
    let (mut units, metrics) = units(&systemd);
    units.give(tables(&[], &[people(1000, 1999, &[("pids.max", "TasksMax=5")])]));
    let has = |uid: u32| drop_in(&directory, &format!("user-{uid}.slice"), "TasksMax").exists();
    assert!(eventually(|| has(1000)), "one that exists at the start");
    log_in(&directory, 2000);
    let slice = log_in(&directory, 1001);
    assert!(eventually(|| has(1001)));
    assert!(eventually(|| metrics.units_configured.get() == 2));
    // The settings outlive the session, so the next session starts with them.
    fs::remove_dir(&slice).unwrap();
    log_in(&directory, 1001);
    log_in(&directory, 1002);
    assert!(eventually(|| metrics.units_configured.get() == 3));
    assert!(has(1002) && !has(2000));
    assert_eq!(log(&directory).matches("<user-1001.slice>").count(), 1);
}

#[test]
fn what_no_table_says_any_more_is_taken_back_after_a_restart_too() {
    let (directory, systemd) = fake(AS_SYSTEMD, LIMIT);
    log_in(&directory, 1000);
    log_in(&directory, 1001);
    let settings = [("pids.max", "TasksMax=5"), ("cpu.weight", "CPUWeight=7")];
    let service = [unit("a.service", &settings)];
    let at = |unit: &str, property: &str| drop_in(&directory, unit, property);
    let foreign = at("user-1001.slice", "MemoryMax");
    {
        let (mut units, metrics) = units(&systemd);
        units.give(tables(&service, &[people(1000, 1999, &settings)]));
        assert!(eventually(|| metrics.units_configured.get() == 3));
        fs::write(&foreign, "of the administrator").unwrap();
    }
    // A restarted daemon with tables that select one user less and have one setting less.
    let (mut units, metrics) = units(&systemd);
    units.give(tables(&service[..0], &[people(1000, 1000, &settings[..1])]));
    assert!(eventually(|| metrics.units_released.get() == 2));
    assert!(eventually(|| metrics.units_configured.get() == 1));
    assert!(eventually(|| !at("user-1000.slice", "CPUWeight").exists()));
    assert!(at("user-1000.slice", "TasksMax").exists());
    assert!(foreign.exists() && !at("user-1001.slice", "TasksMax").exists());
    assert!(!at("a.service", "TasksMax").parent().unwrap().exists());
    // One reload after the drop-ins of two units, one after that of a single property.
    assert!(eventually(|| log(&directory).matches("<daemon-reload>").count() == 2));
    // A third daemon, without tables.
    drop(units);
    let (mut units, metrics) = self::units(&systemd);
    units.give(UnitTables::default());
    assert!(eventually(|| metrics.units_released.get() == 1));
    assert!(!at("user-1000.slice", "TasksMax").exists());
    assert!(eventually(|| log(&directory).matches("<daemon-reload>").count() == 3));
}

#[test]
fn the_remaining_settings_of_a_unit_are_written_after_a_revert() {
    let script = format!("{AS_SYSTEMD}\n").replace(
        "[ \"$1\" = set-property ] || exit 0",
        "[ \"$1\" = show ] && echo ActiveState=$(cat $here/state) && echo MemoryMax=infinity\n\
         [ \"$1\" = set-property ] || exit 0",
    );
    let (directory, systemd) = fake(&script, LIMIT);
    fs::write(directory.path().join("state"), "active").unwrap();
    let at = |property: &str| drop_in(&directory, "a.service", property);
    let (mut units, metrics) = units(&systemd);
    let apply = |units: &mut Units, settings: &[(&str, &str)]| {
        units.give(tables(&[unit("a.service", settings)], &[]));
    };
    apply(&mut units, &[("cpu.weight", "CPUWeight=7")]);
    assert!(eventually(|| metrics.units_configured.get() == 1));
    // Set by the administrator, so another property has to be used.
    fs::write(at("TasksMax"), "of the administrator").unwrap();
    apply(&mut units, &[]);
    assert!(eventually(|| metrics.units_released.get() == 1));
    assert!(eventually(|| log(&directory).matches("<daemon-reload>").count() == 2));
    assert!(log(&directory).contains("<a.service>\n<MemoryMax=infinity>\n<daemon-reload>\n"));
    assert!(!at("MemoryMax").exists() && !at("CPUWeight").exists() && at("TasksMax").exists());
    assert_eq!(metrics.units_refused.get(), 0);
    // A unit without a cgroup has nothing to write to.
    fs::write(directory.path().join("state"), "inactive").unwrap();
    apply(&mut units, &[("cpu.weight", "CPUWeight=8")]);
    assert!(eventually(|| metrics.units_configured.get() == 2));
    apply(&mut units, &[]);
    assert!(eventually(|| log(&directory).matches("<daemon-reload>").count() == 3));
    assert!(eventually(|| metrics.units_released.get() == 2));
    assert_eq!(log(&directory).matches("<MemoryMax=infinity>").count(), 1);
}
