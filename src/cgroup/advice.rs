//! Advice for the administrator when the kernel refuses a setting or a controller.

use std::path::Path;

use nix::errno::Errno;

use super::disk::{DEVICES, Disk, disk_of_partition};

/// The advice for settings of the hierarchy root, which has few files.
pub(super) const TOP: &str = "the hierarchy root is the whole machine and has few settings: configure \
                              the cgroups below it, or set root in cgruled.toml to a path below it";

const NO_RIGHT: &str = "no write access: the cgroup file system may be mounted read-only, or the cgroup may \
                        belong to another manager";
const TOO_MUCH: &str = "the kernel rejects the value: a cgroup must not have more than its parent";
const BURST: &str = "the burst must not exceed the quota: lower cpu.max.burst or raise cpu.max";
const ABSENT: &str =
    "some of these CPUs or memory nodes do not exist, or a sibling cgroup uses them exclusively";

/// Advice that depends on the file, before the general advice for the errno.
const BY_FILE: &[(&[&str], Errno, &str)] = &[
    (
        &["cpu.cfs_quota_us", "cpu.cfs_period_us"],
        Errno::EINVAL,
        "the quota must not exceed that of the parent, nor be less than that of a child cgroup or less \
         than the burst (cpu.max, cpu.max.burst)",
    ),
    (&["cpu.max", "cpu.max.burst", "cpu.cfs_burst_us"], Errno::EINVAL, BURST),
    (
        &["cpu.shares", "cpu.weight", "cpu.weight.nice"],
        Errno::EINVAL,
        "an idle cgroup has no weight: add cpu.idle = 0; the weight of the hierarchy root cannot be changed",
    ),
    (
        &["memory.use_hierarchy"],
        Errno::EINVAL,
        "since Linux 5.11 the kernel accepts only 1, the default: remove the setting",
    ),
    (
        &["memory.limit_in_bytes"],
        Errno::EINVAL,
        "it must not exceed memory.memsw.limit_in_bytes, the limit of memory and swap together: raise \
         memory.swap.max too",
    ),
    (
        &["memory.memsw.limit_in_bytes"],
        Errno::EINVAL,
        "the limit of memory and swap together must not be less than memory.limit_in_bytes, which may \
         have been refused too",
    ),
    (
        &["cpuset.cpus", "cpuset.mems"],
        Errno::EBUSY,
        "a child cgroup uses CPUs or memory nodes that are removed: change the child cgroups first",
    ),
    (
        &["cpuset.cpus", "cpuset.mems"],
        Errno::EACCES,
        "the parent cgroup lacks some of these CPUs or memory nodes: add them there first",
    ),
    (&["cpuset.cpus", "cpuset.mems"], Errno::EINVAL, ABSENT),
    (&["cpuset.cpus", "cpuset.mems"], Errno::ERANGE, ABSENT),
    (
        &["cpuset.cpus", "cpuset.mems"],
        Errno::ENOSPC,
        "processes in the cgroup would have none left: move them out first",
    ),
];

/// Returns the advice for a value that was refused by `file`.
pub(in crate::cgroup) fn of_value(file: &str, value: &str, errno: Errno) -> String {
    let devices = Path::new(DEVICES);
    let of_disk = if errno == Errno::ENODEV { of_partition(devices, value) } else { None };
    of_disk.unwrap_or_else(|| advice(file, errno).to_owned())
}

/// Returns the advice for a value that begins with the number of a partition, such as `8:1 rbps=1M`.
fn of_partition(devices: &Path, value: &str) -> Option<String> {
    let number = value.split_ascii_whitespace().next()?;
    let disk = disk_of_partition(devices, number)?;
    let Disk { number: of_disk, name } = disk;
    Some(format!("{number} is a partition: write {of_disk}, the number of its disk {name}"))
}

/// Returns the advice for a refused write to `file`.
pub(in crate::cgroup) fn advice(file: &str, errno: Errno) -> &'static str {
    let own = BY_FILE.iter().find(|(files, own, _)| *own == errno && files.contains(&file));
    if let Some((_, _, text)) = own {
        return text;
    }
    look_up(
        errno,
        &[
            (
                Errno::ENOENT,
                "the file does not exist: the controller may not be enabled in the parent cgroup, or \
                 not be supported by this kernel",
            ),
            (Errno::EBUSY, "the cgroup uses more than that: stop some of its processes first"),
            (Errno::EINVAL, TOO_MUCH),
            (Errno::ERANGE, TOO_MUCH),
            (Errno::ENODEV, "no such device: see lsblk for device numbers"),
            (Errno::EOPNOTSUPP, "not supported by this host: remove it, or required = true"),
            (Errno::EACCES, NO_RIGHT),
            (Errno::EPERM, NO_RIGHT),
            (Errno::EROFS, NO_RIGHT),
        ],
    )
}

/// Returns the advice for a controller that cannot be enabled.
pub(super) fn remedy(errno: Errno) -> &'static str {
    const NO_RIGHT: &str = "the cgroup belongs to another manager such as systemd: set root in \
                            cgruled.toml to a path below a unit with Delegate=yes";
    look_up(
        errno,
        &[
            (
                Errno::EBUSY,
                "the cgroup contains processes, so it cannot enable controllers for its children: \
                 move the processes into a child cgroup",
            ),
            (
                Errno::ENOENT,
                "the controller is not available there: enable it in its parent or, if that belongs to \
                 systemd, start the unit with Delegate=yes",
            ),
            (Errno::EACCES, NO_RIGHT),
            (Errno::EPERM, NO_RIGHT),
            (Errno::EROFS, NO_RIGHT),
            (Errno::EOPNOTSUPP, "the cgroup is threaded, and the controller does not support that"),
        ],
    )
}

fn look_up(errno: Errno, known: &[(Errno, &'static str)]) -> &'static str {
    let found = known.iter().find(|(own, _)| *own == errno);
    found.map_or("see cgroups(7)", |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn advice_is_by_file_and_errno() {
        for (file, errno, expected) in [
            ("cpu.cfs_quota_us", Errno::EINVAL, "nor be less than that of a child cgroup"),
            ("cpu.shares", Errno::EINVAL, "cpu.idle = 0"),
            ("cpu.shares", Errno::EINVAL, "hierarchy root cannot be changed"),
            ("memory.use_hierarchy", Errno::EINVAL, "accepts only 1"),
            ("cpu.rt_runtime_us", Errno::EINVAL, "more than its parent"),
            ("memory.memsw.limit_in_bytes", Errno::EINVAL, "less than memory.limit_in_bytes"),
            ("memory.limit_in_bytes", Errno::EBUSY, "uses more than that"),
            ("cpuset.cpus", Errno::EBUSY, "a child cgroup uses"),
            ("cpuset.mems", Errno::EACCES, "the parent cgroup lacks"),
            ("pids.max", Errno::EACCES, "no write access"),
            ("pids.max", Errno::EIO, "see cgroups(7)"),
        ] {
            assert!(advice(file, errno).contains(expected), "{file} {errno}");
        }
    }

    #[test]
    fn the_disk_of_a_partition_is_named() {
        let root = tempfile::tempdir().unwrap();
        let disk = root.path().join("block/vda");
        fs::create_dir_all(disk.join("vda1")).unwrap();
        fs::write(disk.join("dev"), "254:0\n").unwrap();
        fs::write(disk.join("vda1/partition"), "1\n").unwrap();
        let devices = root.path().join("dev");
        fs::create_dir(&devices).unwrap();
        symlink("../block/vda", devices.join("254:0")).unwrap();
        symlink("../block/vda/vda1", devices.join("254:1")).unwrap();
        let expected = "254:1 is a partition: write 254:0, the number of its disk vda";
        assert_eq!(of_partition(&devices, "254:1 rbps=1").as_deref(), Some(expected));
        for value in ["254:0 1", "9:9 1", "../dev/254:1 1", ":", ""] {
            assert_eq!(of_partition(&devices, value), None, "{value}");
        }
    }
}
