//! The values to which settings return when no table contains them any more: those of a cgroup that
//! the kernel has just created. Pure.
//!
//! Checked against the initial values of Linux 6.18.

/// The part of a kernel file that one setting writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SettingSlot {
    /// The name of the file.
    pub file: Box<str>,
    /// The first word of its line in a file with one line for each device or resource; empty if the
    /// setting is the whole file.
    pub line: Box<str>,
}

/// The value of a slot in a new cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// This value, as it is written to the file.
    Value(String),
    /// The value of the parent cgroup.
    OfParent,
}

/// Files with one line for each device or resource, and the rest of the line in a new cgroup.
const LINES: [(&str, &str); 17] = [
    ("io.max", "rbps=max wbps=max riops=max wiops=max"),
    ("io.latency", "target=0"),
    ("io.weight", "default"),
    ("io.bfq.weight", "default"),
    ("rdma.max", "hca_handle=max hca_object=max"),
    ("misc.max", "max"),
    ("dmem.max", "max"),
    ("dmem.low", "0"),
    ("dmem.min", "0"),
    ("blkio.throttle.read_bps_device", "0"),
    ("blkio.throttle.write_bps_device", "0"),
    ("blkio.throttle.read_iops_device", "0"),
    ("blkio.throttle.write_iops_device", "0"),
    ("blkio.weight_device", "0"),
    ("blkio.bfq.weight_device", "0"),
    ("blkio.leaf_weight_device", "0"),
    ("net_prio.ifpriomap", "0"),
];

/// Files of [`LINES`] with a line for all devices without one of their own, which is written without
/// a first word.
const WEIGHTS: [&str; 2] = ["io.weight", "io.bfq.weight"];
/// The first word of that line.
const ALL_DEVICES: &str = "default";

/// Files with a single value, and the value in a new cgroup.
const VALUES: [(&str, &str); 49] = [
    ("cgroup.freeze", "0"),
    ("cgroup.max.depth", "max"),
    ("cgroup.max.descendants", "max"),
    ("cgroup.pressure", "1"),
    ("cpu.cfs_burst_us", "0"),
    ("cpu.cfs_period_us", "100000"),
    ("cpu.cfs_quota_us", "-1"),
    ("cpu.idle", "0"),
    ("cpu.max", "max 100000"),
    ("cpu.max.burst", "0"),
    ("cpu.rt_period_us", "1000000"),
    ("cpu.rt_runtime_us", "0"),
    ("cpu.shares", "1024"),
    ("cpu.uclamp.max", "max"),
    ("cpu.uclamp.min", "0"),
    ("cpu.weight", "100"),
    ("cpu.weight.nice", "0"),
    ("cpuset.cpu_exclusive", "0"),
    ("cpuset.cpus.exclusive", "\n"),
    ("cpuset.cpus.partition", "member"),
    ("cpuset.mem_exclusive", "0"),
    ("cpuset.mem_hardwall", "0"),
    ("cpuset.memory_migrate", "0"),
    ("cpuset.memory_spread_page", "0"),
    ("cpuset.memory_spread_slab", "0"),
    ("cpuset.sched_load_balance", "1"),
    ("cpuset.sched_relax_domain_level", "-1"),
    ("blkio.bfq.weight", "100"),
    ("blkio.leaf_weight", "500"),
    ("blkio.weight", "500"),
    ("freezer.state", "THAWED"),
    ("io.prio.class", "no-change"),
    ("memory.high", "max"),
    ("memory.kmem.limit_in_bytes", "-1"),
    ("memory.kmem.tcp.limit_in_bytes", "-1"),
    ("memory.limit_in_bytes", "-1"),
    ("memory.low", "0"),
    ("memory.max", "max"),
    ("memory.memsw.limit_in_bytes", "-1"),
    ("memory.min", "0"),
    ("memory.move_charge_at_immigrate", "0"),
    ("memory.oom.group", "0"),
    ("memory.oom_control", "0"),
    ("memory.soft_limit_in_bytes", "-1"),
    ("memory.swap.high", "max"),
    ("memory.swap.max", "max"),
    ("memory.zswap.max", "max"),
    ("memory.zswap.writeback", "1"),
    ("pids.max", "max"),
];

/// Files of v1 with which a new cgroup inherits the value of its parent. A cpuset that is empty
/// refuses processes.
const INHERITED: [&str; 6] = [
    "cgroup.clone_children",
    "cpuset.cpus",
    "cpuset.mems",
    "memory.swappiness",
    "net_cls.classid",
    "notify_on_release",
];

/// Returns the part of `file` that a write of `value` sets.
pub fn slot(file: &str, value: &str) -> SettingSlot {
    let first = value.split_ascii_whitespace().next().unwrap_or_default();
    let line = match LINES.iter().any(|(name, _)| *name == file) {
        false => "",
        true if WEIGHTS.contains(&file) && !first.contains(':') => ALL_DEVICES,
        true => first,
    };
    SettingSlot { file: file.into(), line: line.into() }
}

impl SettingSlot {
    /// Returns the value of the slot in the content of its file; `None` if its line is missing.
    pub fn value_in<'t>(&self, content: &'t str) -> Option<&'t str> {
        if self.line.is_empty() {
            return Some(content.trim());
        }
        content.lines().find_map(|line| {
            let rest = line.strip_prefix(&*self.line)?;
            rest.starts_with(|next: char| next.is_ascii_whitespace()).then(|| rest.trim())
        })
    }

    /// Returns the value of the slot in a new cgroup of a hierarchy, which is v2 if `is_unified`;
    /// `None` if it is unknown.
    pub fn default_value(&self, is_unified: bool) -> Option<DefaultValue> {
        let Self { file, line } = self;
        if let Some(rest) = value_of(&LINES, file) {
            return Some(DefaultValue::Value(match &**line {
                ALL_DEVICES => "default 100".to_owned(),
                line => format!("{line} {rest}"),
            }));
        }
        if INHERITED.contains(&&**file) {
            // On v2 an empty cpuset uses the CPUs of its parent.
            let empty = DefaultValue::Value("\n".to_owned());
            return Some(if is_unified { empty } else { DefaultValue::OfParent });
        }
        let of_huge_pages = super::hugetlb(file).map(|_| match file.ends_with(".max") {
            true => "max",
            false => "-1",
        });
        let value = value_of(&VALUES, file).or(of_huge_pages);
        value.map(|value| DefaultValue::Value(value.to_owned()))
    }
}

/// Returns the default of a file from a list.
fn value_of(list: &[(&str, &'static str)], file: &str) -> Option<&'static str> {
    list.iter().find(|(name, _)| *name == file).map(|&(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::mounts::Version;
    use crate::cgroup::settings::{self, ValueKind, WORDS};

    fn value(file: &str, value: &str, is_unified: bool) -> Option<DefaultValue> {
        slot(file, value).default_value(is_unified)
    }

    fn text(file: &str, written: &str) -> String {
        match value(file, written, true) {
            Some(DefaultValue::Value(text)) => text,
            other => panic!("{file}: {other:?}"),
        }
    }

    /// A setting that is added to the vocabulary needs a default, which its own parser accepts.
    #[test]
    fn every_setting_of_the_vocabulary_returns_to_a_valid_value() {
        for word in WORDS {
            for (key, version) in [(word.v2, Version::V2), (word.v1, Version::V1)] {
                if key.is_empty() {
                    continue;
                }
                let kinds = [ValueKind::IoMax, ValueKind::IoLatency];
                let is_of_device = kinds.contains(&word.kind) || key.ends_with("_device");
                let example = if is_of_device { "8:0 1" } else { "50" };
                let found = value(key, example, version == Version::V2);
                let found = found.unwrap_or_else(|| panic!("{key} has no default"));
                let DefaultValue::Value(found) = found else { continue };
                let written = settings::files(key, &found, version, &|_| None);
                // The kernel removes a line with this value; a table cannot contain it.
                let is_removal = is_of_device && found.ends_with(['0']);
                assert!(written.is_ok() || is_removal, "{key}: {written:?}");
            }
        }
    }

    #[test]
    fn a_device_has_a_slot_of_its_own() {
        let disk = slot("io.max", "8:0 rbps=1");
        let content = "8:16 rbps=2 wbps=max\n8:0 rbps=1 wbps=max riops=max wiops=max\n";
        assert_eq!(disk.value_in(content), Some("rbps=1 wbps=max riops=max wiops=max"));
        assert_eq!(slot("io.max", "8:1 rbps=1").value_in(content), None);
        assert_eq!(text("io.max", "8:0 rbps=1"), "8:0 rbps=max wbps=max riops=max wiops=max");
        assert_eq!(slot("io.weight", "50").value_in("default 50\n8:0 7\n"), Some("50"));
        assert_eq!(slot("io.weight", "8:0 7").value_in("default 50\n8:0 7\n"), Some("7"));
        assert_eq!(text("io.weight", "50"), "default 100");
        assert_eq!(text("io.weight", "8:0 7"), "8:0 default");
        assert_eq!(slot("pids.max", "7").value_in("7\n"), Some("7"));
    }

    #[test]
    fn a_cpuset_inherits_from_its_parent() {
        assert_eq!(text("cpuset.cpus", "0"), "\n");
        assert_eq!(value("cpuset.cpus", "0", false), Some(DefaultValue::OfParent));
        assert_eq!(value("cpuset.nonsense", "0", false), None);
        assert_eq!(text("hugetlb.2MB.max", "0"), "max");
        assert_eq!(text("hugetlb.2MB.rsvd.limit_in_bytes", "0"), "-1");
    }
}
