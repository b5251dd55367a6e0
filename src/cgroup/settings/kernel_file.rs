//! Kernel files that exist in only one cgroup version and are not in the vocabulary. Pure.
//!
//! Checked against the file tables of Linux 6.18. Files not listed here are assumed to exist in
//! both versions; an error of the kernel is reported when they are written.

use crate::cgroup::mounts::Version;

/// Prefixes of controllers, or of parts of one, that exist in only one version.
const PREFIXES: [(&str, Version); 14] = [
    ("blkio.", Version::V1),
    ("cpuacct.", Version::V1),
    ("devices.", Version::V1),
    ("freezer.", Version::V1),
    ("net_cls.", Version::V1),
    ("net_prio.", Version::V1),
    ("perf_event.", Version::V1),
    ("cpu.rt_", Version::V1),
    ("cpuset.memory_", Version::V1),
    ("cpuset.sched_", Version::V1),
    ("memory.kmem.", Version::V1),
    ("io.", Version::V2),
    ("memory.zswap.", Version::V2),
    ("cpuset.cpus.", Version::V2),
];

const V1: [&str; 10] = [
    "cgroup.clone_children",
    "cpuset.cpu_exclusive",
    "cpuset.mem_exclusive",
    "cpuset.mem_hardwall",
    "memory.force_empty",
    "memory.move_charge_at_immigrate",
    "memory.oom_control",
    "memory.pressure_level",
    "memory.swappiness",
    "memory.use_hierarchy",
];

const V2: [&str; 10] = [
    "cgroup.freeze",
    "cgroup.max.depth",
    "cgroup.max.descendants",
    "cgroup.pressure",
    "cgroup.type",
    "cpu.pressure",
    "memory.peak",
    "memory.pressure",
    "memory.reclaim",
    "memory.swap.peak",
];

/// Returns the only cgroup version that has this file.
pub(super) fn only_in(file: &str) -> Option<Version> {
    let begins = PREFIXES.iter().find(|(prefix, _)| file.starts_with(prefix));
    let begins = begins.map(|(_, version)| *version);
    let is_v1 = V1.contains(&file).then_some(Version::V1);
    let is_v2 = V2.contains(&file).then_some(Version::V2);
    begins.or(is_v1).or(is_v2)
}
