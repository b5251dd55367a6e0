use super::*;
use crate::cgroup::apply::WrittenSetting;
use crate::cgroup::reaper::applied::AppliedSettings;

/// Creates a directory that imitates a cgroup.
fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
    let group = tempfile::tempdir().unwrap();
    files.iter().for_each(|(file, text)| fs::write(group.path().join(file), text).unwrap());
    group
}

fn setting(file: &str, line: &str, value: &str) -> RecordedSetting {
    RecordedSetting { file: file.into(), line: line.into(), value: value.into() }
}

/// Returns the content of a file. A write to a plain file does not truncate it.
fn begins(group: &tempfile::TempDir, file: &str, text: &str) -> bool {
    fs::read_to_string(group.path().join(file)).unwrap().starts_with(text)
}

#[test]
fn only_the_value_that_was_written_is_reverted() {
    let group = group(&[
        ("pids.max", "77\n"),
        ("memory.max", "4096\n"),
        ("cpu.weight", "100\n"),
        ("io.max", "8:0 rbps=1 wbps=max riops=max wiops=max\n"),
        ("own.file", "1\n"),
    ]);
    fs::create_dir(group.path().join("memory.high")).unwrap();
    let stale = [
        setting("pids.max", "", "77"),
        setting("memory.max", "", "8192"),
        setting("cpu.weight", "", "100"),
        setting("io.max", "8:0", "rbps=1 wbps=max riops=max wiops=max"),
        setting("io.max", "8:16", "rbps=1 wbps=max riops=max wiops=max"),
        setting("own.file", "", "1"),
        setting("cpu.max", "", "50000 100000"),
        setting("memory.high", "", "4096"),
    ];
    let results = revert(group.path(), &stale, true);
    assert_eq!(
        results,
        [
            RevertResult::Reverted,
            RevertResult::Changed("4096".to_owned()),
            RevertResult::Reverted,
            RevertResult::Reverted,
            RevertResult::Gone,
            RevertResult::NoDefault,
            RevertResult::Gone,
            RevertResult::Refused(Errno::EISDIR),
        ]
    );
    assert!(begins(&group, "pids.max", "max") && begins(&group, "memory.max", "4096"));
    assert!(begins(&group, "io.max", "8:0 rbps=max wbps=max riops=max wiops=max"));
}

#[test]
fn a_v1_cpuset_gets_the_value_of_its_parent() {
    let parent = group(&[("cpuset.cpus", "0-3\n")]);
    let child = parent.path().join("child");
    fs::create_dir(&child).unwrap();
    fs::write(child.join("cpuset.cpus"), "0\n").unwrap();
    let results = revert(&child, &[setting("cpuset.cpus", "", "0")], false);
    assert_eq!(results, [RevertResult::Reverted]);
    assert_eq!(fs::read_to_string(child.join("cpuset.cpus")).unwrap().trim(), "0-3");
}

fn written(group: &tempfile::TempDir, file: &str, was_set: bool) -> WrittenSetting {
    let directory = group.path().to_owned();
    WrittenSetting { directory, text: "a/%u".into(), slot: settings::slot(file, ""), was_set }
}

#[test]
fn a_value_that_others_wrote_is_not_recorded() {
    let group = group(&[("pids.max", "77\n"), ("memory.max", "4096\n")]);
    let mut applied = AppliedSettings::default();
    let both =
        |was_set| vec![written(&group, "pids.max", was_set), written(&group, "memory.max", true)];
    applied.record(both(true), |_| false);
    assert_eq!(applied.cgroups().count(), 0);
    applied.record(both(false), |_| false);
    let own = applied.cgroups().next().unwrap().clone();
    assert_eq!(own.settings, [setting("pids.max", "", "77")]);
    applied.record(both(true), |_| true);
    assert_eq!(applied.cgroups().next().unwrap().settings.len(), 2);
    let slots = ["pids.max", "memory.max"].map(|file| settings::slot(file, ""));
    applied.forget_settings(group.path(), &slots[..1]);
    assert_eq!(applied.cgroups().next().unwrap().settings.len(), 1);
    applied.forget_settings(group.path(), &slots[1..]);
    assert_eq!(applied.cgroups().count(), 0);
}

#[test]
fn a_record_ends_with_its_cgroup() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("settings.journal");
    let group = group(&[("pids.max", "77\n")]);
    let mut applied = AppliedSettings::open(Some(&path));
    applied.record(vec![written(&group, "pids.max", false)], |_| false);
    drop(applied);
    let mut applied = AppliedSettings::open(Some(&path));
    assert_eq!(applied.cgroups().count(), 1, "it is read by a later run");
    // A second cgroup of the same name.
    let aside = place.path().join("aside");
    fs::rename(group.path(), aside).unwrap();
    fs::create_dir(group.path()).unwrap();
    applied.forget_removed();
    assert_eq!(applied.cgroups().count(), 0);
}
