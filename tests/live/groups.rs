//! Compares `cgrulectl groups` with the real cgconfigparser: the same file with two prefixes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::user::{ALICE, BOB, CAROL};
use crate::harness::{Live, skip};
use crate::settings::Enabled;

const PARSER: &str = "/usr/sbin/cgconfigparser";
const CONTROLLERS: [&str; 4] = ["cpu", "memory", "pids", "freezer"];

/// Returns sections with every kind of perm, two for one path, and one for an ancestor of another.
/// The ancestor comes first: cgconfigparser changes the owner of everything below a cgroup.
fn file(prefix: &str) -> String {
    format!(
        "group {prefix}/a {{\n  perm {{ task {{ uid = cgt-alice; gid = cgt-team; fperm = 664; }}\n    \
         admin {{ uid = cgt-bob; gid = cgt-bob; dperm = 2750; fperm = 640; }} }}\n  \
         pids {{ pids.max = 100; }}\n  memory {{ memory.limit_in_bytes = 100M; \
         memory.soft_limit_in_bytes = 50M; }}\n}}\n\
         group \"{prefix}/b\" {{ perm {{ admin {{ uid = root; }} task {{ uid = cgt-carol; }} }} freezer {{ }} }}\n\
         # a comment\ngroup {prefix}/b/c/ {{ cpu {{ cpu.shares = 333; cpu.cfs_quota_us = 20000; }} freezer {{ }} }}\n\
         group {prefix}/b/c {{ pids {{ pids.max = 7; }} }}\n\
         default {{ perm {{ task {{ uid = root; gid = cgt-alice; }} admin {{ gid = cgt-team; fperm = 660; }} }} }}\n"
    )
}

/// Collects owners and modes of all files of a cgroup, and the values of its settings.
fn look(directory: &Path, below: &str, found: &mut BTreeMap<String, String>) {
    let Ok(entries) = fs::read_dir(directory.join(below)) else { return };
    for entry in entries.flatten() {
        let name = format!("{below}/{}", entry.file_name().to_str().unwrap());
        let metadata = entry.metadata().unwrap();
        let mut line = format!("{:o} {}:{}", metadata.mode(), metadata.uid(), metadata.gid());
        if metadata.is_dir() {
            look(directory, &name, found);
        } else if metadata.mode() & 0o200 != 0 {
            line += " ";
            line += &fs::read_to_string(entry.path()).unwrap_or_default();
        }
        found.insert(name, line);
    }
}

fn looks(live: &Live, below: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for controller in CONTROLLERS {
        let directory = live.ground.directory(controller, below).unwrap();
        let mut own = BTreeMap::new();
        look(&directory, ".", &mut own);
        found.extend(own.into_iter().map(|(name, line)| (format!("{controller}:{name}"), line)));
    }
    found
}

fn groups(arguments: &[&Path]) -> Output {
    let program = env!("CARGO_BIN_EXE_cgrulectl");
    Command::new(program).arg("groups").args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Writes a file with sections below a prefix.
fn write(live: &Live, prefix: &str, text: fn(&str) -> String) -> PathBuf {
    let path = live.path(prefix);
    let root = live.ground.at(prefix);
    fs::write(&path, text(root.trim_matches('/'))).unwrap();
    path
}

#[test]
fn groups_are_what_cgconfigparser_makes() {
    let Some(live) = Live::require() else { return };
    let is_there = |name: &str| live.ground.directory(name, "").is_some();
    if !Path::new(PARSER).exists() || !CONTROLLERS.into_iter().all(is_there) {
        println!("skipped: no {PARSER}, or not all v1 hierarchies");
        return;
    }
    let (theirs, ours) = (write(&live, "theirs", file), write(&live, "ours", file));
    let output = Command::new(PARSER).arg("-l").arg(theirs).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let dry = groups(&[Path::new("--dry-run"), &ours]);
    assert!(dry.status.success(), "{}", said(&dry));
    assert!(looks(&live, "ours").is_empty(), "a dry run created cgroups");
    let output = groups(&[&ours]);
    assert!(output.status.success(), "{}", said(&output));
    let (theirs, made) = (looks(&live, "theirs"), looks(&live, "ours"));
    assert!(theirs.len() > 100, "{theirs:?}");
    let differ: Vec<_> =
        theirs.iter().filter(|(name, line)| made.get(*name) != Some(line)).collect();
    assert!(differ.is_empty(), "theirs: {differ:?}");
    assert_eq!(theirs.len(), made.len());
    // A second run restores a value that was changed in between.
    let limit = live.ground.directory("pids", "ours/a/pids.max").unwrap();
    fs::write(limit, "5").unwrap();
    let output = groups(&[Path::new("-v"), &ours]);
    assert!(output.status.success() && said(&output).contains("write 100 to"), "{}", said(&output));
    assert_eq!(looks(&live, "ours"), made);
}

/// The kernel takes only the first line of a write, and cgconfigparser writes each line.
#[test]
fn values_of_several_lines_are_written_one_after_the_other() {
    let Some(live) = Live::require() else { return };
    let allowed = |live: &Live, below: &str| {
        let list = live.ground.directory("devices", below).unwrap().join("devices.list");
        fs::read_to_string(list).unwrap()
    };
    if live.ground.directory("devices", "").is_none() || !Path::new(PARSER).exists() {
        skip("no v1 hierarchy for devices, or no cgconfigparser");
        return;
    }
    let text = |prefix: &str| {
        format!(
            "group {prefix}/a {{ pids {{ pids.max = \"\"; }}\ndevices {{ devices.deny = a; }} }}\n\
             group {prefix}/a {{ devices {{\ndevices.allow = \"c 1:3 rwm\n\n  c 1:5 rwm\n\"; }} }}\n"
        )
    };
    let output = Command::new(PARSER).arg("-l").arg(write(&live, "theirs", text)).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let output = groups(&[&write(&live, "ours", text)]);
    assert!(output.status.success(), "{}", said(&output));
    let expected = "c 1:3 rwm\nc 1:5 rwm\n";
    assert_eq!(allowed(&live, "theirs/a"), expected);
    assert_eq!(allowed(&live, "ours/a"), expected);
    let _daemon = live.daemon(
        "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"dev/%u\"\ncontrollers = [\"devices\"]\n\
         [cgroup.\"dev/%u\"]\ndevices.deny = \"a\"\ndevices.allow = [\"c 1:3 rwm\", \"c 1:5 rwm\"]\n",
    );
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("devices", alice.subject, "dev/cgt-alice");
    assert_eq!(allowed(&live, "dev/cgt-alice"), expected);
}

#[test]
fn failures_are_reported_and_the_rest_is_created() {
    let Some(live) = Live::require() else { return };
    if live.ground.directory("pids", "").is_none() {
        skip("no v1 hierarchy for pids");
        return;
    }
    let text = |prefix: &str| {
        format!(
            "group {prefix}/a {{ no-such {{ }} pids {{ pids.no = 1; }} }}\n\
             group ../{prefix} {{ pids {{ }} }}\ngroup {prefix}/b {{ pids {{ pids.max = 3; }} }}\n"
        )
    };
    let output = groups(&[&write(&live, "some", text)]);
    let all = said(&output);
    assert_eq!(output.status.code(), Some(1), "{all}");
    for line in ["controller \"no-such\"", "some/a/pids.no: No such file", "leads out of"] {
        assert!(all.contains(line), "{line} is not in {all}");
    }
    let limit = live.ground.directory("pids", "some/b/pids.max").unwrap();
    assert_eq!(fs::read_to_string(limit).unwrap(), "3\n");
    let bad =
        write(&live, "bad", |prefix| format!("group {prefix}/x {{ pids {{ pids.max 3; }} }}\n"));
    assert_eq!(groups(&[&bad]).status.code(), Some(65));
    assert_eq!(groups(&[&live.path("none")]).status.code(), Some(1));
}

/// Checks a cpuset below another one. cgconfigparser leaves the ancestors without cpus and mems, so
/// that the kernel refuses the values of the child.
#[test]
fn a_cpuset_below_another_works() {
    let Some(live) = Live::require() else { return };
    let Some(group) = live.ground.directory("cpuset", "some/a") else {
        skip("no v1 hierarchy for cpuset");
        return;
    };
    let text = |prefix: &str| format!("group {prefix}/a {{ cpuset {{ cpuset.cpus = 0; }} }}\n");
    let output = groups(&[&write(&live, "some", text)]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(fs::read_to_string(group.join("cpuset.cpus")).unwrap(), "0\n");
    assert_eq!(fs::read_to_string(group.join("cpuset.mems")).unwrap(), "0\n");
}

/// Checks an ancestor of the destination and the destination itself.
#[test]
fn a_rule_leads_into_cpusets_without_cpus_and_mems() {
    let Some(live) = Live::require() else { return };
    let Some(pre) = live.ground.directory("cpuset", "pre") else {
        skip("no v1 hierarchy for cpuset");
        return;
    };
    fs::create_dir_all(pre.join("leaf")).unwrap();
    let _daemon = live.daemon(
        "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"pre/%u\"\ncontrollers = [\"cpuset\"]\n\
         [[rule]]\nuser = \"cgt-bob\"\ncgroup = \"pre/leaf\"\ncontrollers = [\"cpuset\"]\n",
    );
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("cpuset", alice.subject, "pre/cgt-alice");
    let bob = live.hold(&format!("uid {BOB} {BOB}"));
    live.expect_pid("cpuset", bob.subject, "pre/leaf");
}

/// The kernel refuses CPUs that a sibling has for itself alone, also if others are written a moment later.
#[test]
fn a_rule_leads_into_a_cpuset_beside_an_exclusive_one() {
    let Some(live) = Live::require() else { return };
    let Some(root) = live.ground.directory("cpuset", "") else {
        skip("no v1 hierarchy for cpuset");
        return;
    };
    let all = fs::read_to_string(root.parent().unwrap().join("cpuset.cpus")).unwrap();
    if !all.starts_with("0-") {
        skip("one CPU");
        return;
    }
    let alone = root.join("alone");
    for (directory, cpus) in [(&root, "0-1"), (&alone, "0")] {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join("cpuset.cpus"), cpus).unwrap();
        fs::write(directory.join("cpuset.mems"), "0").unwrap();
        fs::write(directory.join("cpuset.cpu_exclusive"), "1").unwrap();
    }
    let daemon = live.daemon(
        "[[rule]]\nuser = \"cgt-alice\"\ncgroup = \"beside\"\ncontrollers = [\"cpuset\"]\n\
         [cgroup.beside]\ncpuset.cpus = \"1\"\n",
    );
    let alice = live.hold(&format!("uid {ALICE} {ALICE}"));
    live.expect_pid("cpuset", alice.subject, "beside");
    let beside = root.join("beside");
    assert_eq!(fs::read_to_string(beside.join("cpuset.cpus")).unwrap(), "1\n");
    assert_eq!(fs::read_to_string(beside.join("cpuset.mems")).unwrap(), "0\n");
    assert!(!daemon.log().contains("cannot"), "{}", daemon.log());
}

#[test]
fn on_v2_controllers_are_enabled_and_names_translated() {
    let Some(live) = Live::require() else { return };
    let top = live.ground.directory("", "").unwrap().parent().unwrap().to_owned();
    let available = fs::read_to_string(top.join("cgroup.controllers")).unwrap();
    if !available.split_whitespace().any(|name| name == "hugetlb") {
        skip("the v2 tree has no hugetlb");
        return;
    }
    let (guard, live) = (Enabled::note(&top, "hugetlb"), live);
    let text = |prefix: &str| {
        format!(
            "group {prefix}/h {{ perm {{ task {{ uid = cgt-carol; }} admin {{ uid = cgt-bob; fperm = 600; }} }} \
             hugetlb {{ hugetlb.2MB.limit_in_bytes = 4M; }} }}\n"
        )
    };
    let output = groups(&[&write(&live, "some", text)]);
    assert!(output.status.success(), "{}", said(&output));
    let group = live.ground.directory("", "some/h").unwrap();
    assert_eq!(fs::read_to_string(group.join("hugetlb.2MB.max")).unwrap(), "4194304\n");
    let owner = |file: &str| fs::metadata(group.join(file)).unwrap().uid();
    assert_eq!((owner("cgroup.procs"), owner("hugetlb.2MB.max"), owner("")), (CAROL, BOB, BOB));
    assert_eq!(fs::metadata(group.join("hugetlb.2MB.max")).unwrap().mode() & 0o777, 0o600);
    drop(live);
    drop(guard);
}
