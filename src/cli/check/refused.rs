//! Settings that the kernel of this host will refuse: CPUs, memory nodes and disks that it does not have, and
//! settings in the section of another controller. Must not write a setting.

use std::fs;
use std::path::Path;

use crate::cgroup::config::{GroupSpec, GroupSpecs, SpecSetting};
use crate::cgroup::disk::disk_of_partition;
use crate::cgroup::mounts::{Hierarchies, Hierarchy, Version};
use crate::cgroup::settings::{self, SettingMessage, Write};
use crate::config::diagnostic::{Diagnostic, Severity};

/// Mount point of sysfs.
const SYSFS: &str = "/sys";
/// Returns a warning for each setting that the kernel will refuse.
pub(super) fn all(specs: &GroupSpecs, hierarchies: &Hierarchies) -> Vec<Diagnostic> {
    let host = HostDevices { hierarchies, sysfs: Path::new(SYSFS) };
    let all = specs.tables.iter().chain(&specs.templates).chain(&specs.groups);
    let found = all.flat_map(|spec| spec.settings.iter().filter_map(|own| host.check(spec, own)));
    found.collect()
}

/// CPUs, memory nodes and disks of a host.
struct HostDevices<'h> {
    hierarchies: &'h Hierarchies,
    sysfs: &'h Path,
}

impl HostDevices<'_> {
    fn check(&self, spec: &GroupSpec, setting: &SpecSetting) -> Option<Diagnostic> {
        // A missing controller is reported elsewhere.
        let (index, _) = self.hierarchies.locate(&setting.controller)?;
        let tree = self.hierarchies.get(index)?;
        let misplaced = self.in_other_section(setting);
        let (message, help) = misplaced.or_else(|| {
            let writes = settings::files(&setting.key, &setting.value, tree.version, &|key| {
                spec.value_of(key)
            });
            writes.ok()?.writes.iter().find_map(|write| self.refusal(write, tree))
        })?;
        Some(setting.diagnostic(Severity::Warning, SettingMessage { message, help }))
    }

    /// Returns message and help for a setting in a section whose hierarchy lacks its file.
    fn in_other_section(&self, setting: &SpecSetting) -> Option<(String, String)> {
        let (own, _) = setting.key.split_once('.')?;
        let section = &setting.controller;
        if own == section || section == "cgroup" {
            return None;
        }
        // Controllers that share a v1 hierarchy also share their sections.
        let (meant, used) = (self.hierarchies.locate(own)?, self.hierarchies.locate(section)?);
        let is_v1 = self.hierarchies.get(used.0)?.version == Version::V1;
        let is_same = meant.0 == used.0 && (is_v1 || meant.1 == used.1);
        (!is_same).then(|| {
            let message = format!("{} is not a setting of {section}", setting.key);
            (message, format!("move it to {own} {{ }} in the same section"))
        })
    }

    /// Returns message and help for a write that the kernel refuses.
    fn refusal(&self, write: &Write, tree: &Hierarchy) -> Option<(String, String)> {
        match &*write.file {
            "cpuset.cpus" => {
                let known = self.ranges(tree, &write.file, "devices/system/cpu/possible")?;
                absent(&write.value, &known, "CPUs")
            }
            "cpuset.mems" => {
                let known = self.ranges(tree, &write.file, "devices/system/node/possible")?;
                absent(&write.value, &known, "memory nodes")
            }
            file if settings::is_by_device(file) => self.no_disk(&write.value),
            _ => None,
        }
    }

    /// Returns the CPUs or memory nodes that a cgroup can have.
    fn ranges(&self, tree: &Hierarchy, file: &str, of_host: &str) -> Option<String> {
        // On v1 a cgroup cannot have more than the one above; v2 accepts CPUs that are offline.
        let of_tree = match tree.version {
            Version::V1 => fs::read_to_string(tree.mount_point.join(file)).ok(),
            Version::V2 => None,
        };
        let known = of_tree.or_else(|| fs::read_to_string(self.sysfs.join(of_host)).ok())?;
        Some(known.trim().to_owned()).filter(|known| !known.is_empty())
    }

    fn no_disk(&self, value: &str) -> Option<(String, String)> {
        let number = value.split_ascii_whitespace().next()?;
        let devices = self.sysfs.join("dev/block");
        if let Some(disk) = disk_of_partition(&devices, number) {
            let message = format!("{number} is a partition: only disks have limits");
            return Some((message, format!("write {}", disk.number)));
        }
        // Without sysfs nothing is known.
        if !devices.exists() || devices.join(number).exists() {
            return None;
        }
        let message = format!("no disk of this host has the number {number}");
        Some((message, "lsblk shows the numbers in the column MAJ:MIN".to_owned()))
    }
}

/// Returns message and help for a list with CPUs or memory nodes that are not in `known`.
fn absent(list: &str, known: &str, what: &str) -> Option<(String, String)> {
    let known_ranges: Vec<(u64, u64)> = known.split(',').filter_map(range).collect();
    let is_known = |&(first, last): &(u64, u64)| {
        known_ranges.iter().any(|own| own.0 <= first && last <= own.1)
    };
    let has_all = list.split(',').filter_map(range).all(|own| is_known(&own));
    (!has_all).then(|| {
        let message = format!("this host does not have all of the {what} {}", list.trim());
        (message, format!("it has {known}: the kernel refuses the setting"))
    })
}

/// Parses `3` or `0-3`.
fn range(text: &str) -> Option<(u64, u64)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;
    use crate::cgroup::config::GroupPermissions;
    use crate::rules::Origin;

    /// A host with 4 CPUs, 1 memory node and the disk 8:0 with the partition 8:1.
    fn sysfs() -> tempfile::TempDir {
        let sysfs = tempfile::tempdir().unwrap();
        let at = |path: &str| sysfs.path().join(path);
        for directory in ["devices/system/cpu", "devices/system/node", "dev/block", "sda/sda1"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        fs::write(at("devices/system/cpu/possible"), "0-3\n").unwrap();
        fs::write(at("devices/system/node/possible"), "0\n").unwrap();
        fs::write(at("sda/dev"), "8:0\n").unwrap();
        fs::write(at("sda/sda1/partition"), "1\n").unwrap();
        symlink("../../sda", at("dev/block/8:0")).unwrap();
        symlink("../../sda/sda1", at("dev/block/8:1")).unwrap();
        sysfs
    }

    fn messages(
        hierarchies: &Hierarchies,
        controller: &str,
        key: &str,
        value: &str,
    ) -> Vec<String> {
        let sysfs = sysfs();
        let host = HostDevices { hierarchies, sysfs: sysfs.path() };
        let origin = Origin { file: Arc::from(Path::new("/a.conf")), line: 7 };
        let setting = SpecSetting {
            key: key.to_owned(),
            value: value.to_owned(),
            controller: controller.to_owned(),
            origin: origin.clone(),
            place: None,
        };
        let spec = GroupSpec {
            text: "a".to_owned(),
            controllers: Vec::new(),
            settings: vec![setting.clone()],
            perm: GroupPermissions::default(),
            is_required: false,
            remove_after: None,
            origin,
        };
        let found = host.check(&spec, &setting);
        found.map(|own| format!("{}; {}", own.message, own.help.unwrap())).into_iter().collect()
    }

    fn host(version: Version, names: &[&str]) -> Hierarchies {
        let controllers = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let trees = match version {
            Version::V2 => vec![Hierarchy::for_test(version, "/none", "", controllers(names))],
            Version::V1 => names
                .iter()
                .map(|name| {
                    let names: Vec<&str> = name.split(',').collect();
                    Hierarchy::for_test(version, "/none", (*name).to_owned(), controllers(&names))
                })
                .collect(),
        };
        Hierarchies::new(trees)
    }

    #[test]
    fn devices_that_the_host_does_not_have() {
        let v2 = host(Version::V2, &["cpu", "cpuset", "io", "memory"]);
        let v1 = host(Version::V1, &["cpu,cpuacct", "cpuset", "blkio", "memory"]);
        for (key, value, expected) in [
            ("cpuset.cpus", "0-3", ""),
            ("cpuset.cpus", "", ""),
            ("cpuset.cpus", "1,3-4", "all of the CPUs 1,3-4; it has 0-3"),
            ("cpuset.mems", "0", ""),
            ("cpuset.mems", "0-1", "all of the memory nodes 0-1; it has 0:"),
            ("io.max", "8:0 rbps=1M", ""),
            (
                "io.max",
                "8:0 rbps=1M, 9:0 rbps=1M",
                "no disk of this host has the number 9:0; lsblk",
            ),
            ("io.max", "8:1 rbps=1M", "8:1 is a partition: only disks have limits; write 8:0"),
            ("blkio.throttle.read_bps_device", "9:0 1", "no disk of this host has the number 9:0"),
            ("memory.max", "1G", ""),
        ] {
            let controller = key.split('.').next().unwrap();
            for hierarchies in [&v2, &v1] {
                let found = messages(hierarchies, controller, key, value).join("");
                let is_right =
                    if expected.is_empty() { found.is_empty() } else { found.contains(expected) };
                assert!(is_right, "{key} = {value}: {found}");
            }
        }
    }

    #[test]
    fn settings_in_the_section_of_another_controller() {
        let v2 = host(Version::V2, &["cpu", "io", "memory"]);
        let v1 = host(Version::V1, &["cpu,cpuacct", "blkio", "memory"]);
        for (controller, key, is_wrong) in [
            ("cpu", "memory.limit_in_bytes", true),
            ("memory", "cpu.shares", true),
            ("cpu", "cpu.shares", false),
            ("cpu", "cpuacct.usage", false),
            ("blkio", "io.weight", false),
            ("cpu", "tasks", false),
            ("cpu", "vendor.file", false),
        ] {
            for hierarchies in [&v2, &v1] {
                let found = messages(hierarchies, controller, key, "100");
                assert_eq!(!found.is_empty(), is_wrong, "{controller} {key}: {found:?}");
            }
        }
        let found = messages(&v1, "cpu", "memory.limit_in_bytes", "5M");
        let expected = "memory.limit_in_bytes is not a setting of cpu; move it to memory { } in the same section";
        assert_eq!(found, [expected]);
    }
}
