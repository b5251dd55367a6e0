use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::sample::{GroupUsage, Resource, shown};
use super::*;
use crate::cgroup::mounts::{Hierarchies, Hierarchy, Version};
use crate::config::rules_toml;
use crate::rules::Rule;

fn tree(root: &Path, version: Version, listed: &str) -> Hierarchy {
    Hierarchy::for_test(
        version,
        root.join(if version == Version::V2 { "v2" } else { listed }),
        listed.to_owned(),
        listed.split(',').map(str::to_owned).collect(),
    )
}

fn sampler(root: &Path, trees: &[(Version, &str)]) -> Sampler {
    let trees = trees.iter().map(|(version, listed)| tree(root, *version, listed)).collect();
    let text = "version = 1\n[[rule]]\nname = \"sites\"\nuser = 1\ncgroup = \"sites/%u\"\n\
                [[rule]]\nuser = 2\ncgroup = \"sites/%U\"\n[[rule]]\nuser = 3\ncgroup = \"sites\"\n";
    let parsed = rules_toml::parse(&Arc::from(Path::new("/a.toml")), text);
    let rules: Vec<Rule> = parsed.rules.into_iter().map(|written| written.rule).collect();
    let hierarchies = Arc::new(Hierarchies::new(trees));
    Sampler { hierarchies, patterns: DestinationPatterns::new(&rules, |_| "") }
}

fn write(directory: &Path, files: &[(&str, &str)]) {
    fs::create_dir_all(directory).unwrap();
    for (name, text) in files {
        fs::write(directory.join(name), text).unwrap();
    }
}

#[test]
fn figures_of_version_2() {
    let root = tempfile::tempdir().unwrap();
    let group = root.path().join("v2/sites/alice");
    write(
        &group,
        &[
            ("cpu.stat", "usage_usec 1500000\nuser_usec 1\nthrottled_usec 20\n"),
            ("memory.current", "4096\n"),
            ("memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"),
            (
                "io.stat",
                "8:0 rbytes=100 wbytes=20 rios=1 wios=1 dbytes=5 dios=0\n8:16 rbytes=3 wbytes=0\n",
            ),
            ("pids.current", "7\n"),
            ("cpu.pressure", "some avg10=1.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=9.00\n"),
            ("io.pressure", "some avg10=12.00 avg60=0.00 avg300=0.00 total=1\n"),
        ],
    );
    write(&root.path().join("v2/other/alice"), &[("pids.current", "1\n")]);
    write(&root.path().join("v2/sites/alice/below"), &[("pids.current", "1\n")]);
    let groups = sampler(root.path(), &[(Version::V2, "")]).sample();
    let paths: Vec<&[u8]> = groups.keys().map(Vec::as_slice).collect();
    assert_eq!(paths, [&b"/sites"[..], b"/sites/alice"]);
    let alice = &groups[&b"/sites/alice"[..]];
    assert_eq!(alice.rules, [0, 1]);
    assert_eq!(
        alice.figures,
        GroupUsage {
            cpu: Some(1_500_000_000),
            throttled: Some(20_000),
            memory: Some(4096),
            io: Some(123),
            tasks: Some(7),
            pressure: Some((12.0, Resource::Io)),
            oom_kills: Some(2),
        }
    );
    assert_eq!(groups[&b"/sites"[..]].figures, GroupUsage::default());
}

#[test]
fn figures_of_version_1() {
    let root = tempfile::tempdir().unwrap();
    let at = |tree: &str| root.path().join(tree).join("sites/bob");
    write(
        &at("cpu,cpuacct"),
        &[("cpuacct.usage", "77\n"), ("cpu.stat", "nr_periods 1\nthrottled_time 9\n")],
    );
    write(
        &at("memory"),
        &[
            ("memory.usage_in_bytes", "8192\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
        ],
    );
    write(
        &at("blkio"),
        &[("blkio.throttle.io_service_bytes", "8:0 Read 5\n8:0 Total 5\nTotal 50\n")],
    );
    write(&at("pids"), &[("pids.current", "3\n")]);
    let trees = ["cpu,cpuacct", "memory", "blkio", "pids"].map(|listed| (Version::V1, listed));
    let groups = sampler(root.path(), &trees).sample();
    assert_eq!(
        groups[&b"/sites/bob"[..]].figures,
        GroupUsage {
            cpu: Some(77),
            throttled: Some(9),
            memory: Some(8192),
            io: Some(50),
            tasks: Some(3),
            pressure: None,
            oom_kills: Some(1),
        }
    );
}

#[test]
fn rates_come_from_two_looks_and_nested_groups_count_once() {
    let root = tempfile::tempdir().unwrap();
    let sampler = sampler(root.path(), &[(Version::V2, "")]);
    let set = |path: &str, cpu: u64, memory: u64| {
        let (stat, memory) = (format!("usage_usec {cpu}\n"), memory.to_string());
        write(&root.path().join(path), &[("cpu.stat", &stat), ("memory.current", &memory)]);
    };
    set("v2/sites", 0, 300);
    set("v2/sites/a", 0, 100);
    let before = sampler.sample();
    set("v2/sites", 3_000_000, 300);
    set("v2/sites/a", 1_000_000, 100);
    set("v2/sites/b", 1_000_000, 200);
    let mut made =
        rows(&before, &sampler.sample(), Duration::from_secs(2), |rule| format!("r{rule}"));
    sort(&mut made, Sort::Cpu);
    let shown: Vec<_> =
        made.iter().map(|row| (&*row.cgroup, row.cpu_percent, &*row.rule)).collect();
    assert_eq!(
        shown,
        [("/sites", Some(150.0), "r2"), ("/sites/a", Some(50.0), "r0"), ("/sites/b", None, "r0"),]
    );
    assert_eq!(rows::total::<u64>(&made, |row| row.memory_bytes), 300);
    sort(&mut made, Sort::Memory);
    assert_eq!(made[1].cgroup, "/sites/b");
    sort(&mut made, Sort::Path);
    assert_eq!(made[2].cgroup, "/sites/b");
}

#[test]
fn hostile_names_are_escaped() {
    let root = tempfile::tempdir().unwrap();
    let name = OsStr::from_bytes(b"a\n\x1b[31m\xff\xe2\x80\xae\\");
    write(&root.path().join("v2/sites").join(name), &[]);
    let groups = sampler(root.path(), &[(Version::V2, "")]).sample();
    let path = groups.keys().nth(1).unwrap();
    assert_eq!(shown(path), "/sites/a\\n\\u{1b}[31m\\xff\\u{202e}\\\\");
    assert_eq!(shown("/ä/я".as_bytes()), "/ä/я");
}
