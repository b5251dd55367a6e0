//! What can be done when the kernel refuses something that a group is to have.

use nix::errno::Errno;

/// Why the top of a hierarchy refuses most settings.
pub(super) const TOP: &str = "this is the top of the hierarchy, which is the whole machine and has few \
                              settings: give them to the groups below, or name a root below the top";

const NO_RIGHT: &str = "the daemon may not write there: is the cgroup file system mounted read-only, or \
                        does the group belong to another manager?";
const TOO_MUCH: &str = "the kernel does not take the value here: a group may not have more than the group \
                        above it";
const BURST: &str = "a burst may not be more than the quota: lower cpu.max.burst or raise cpu.max";
const ABSENT: &str =
    "the host does not have them all, or a group beside it has them for itself alone";

/// What is peculiar to a file.
const BY_FILE: &[(&[&str], Errno, &str)] = &[
    (
        &["cpu.cfs_quota_us", "cpu.cfs_period_us"],
        Errno::EINVAL,
        "a group may not have more than the group above it, nor less than a group in it, nor a burst \
         above its quota (cpu.max, cpu.max.burst)",
    ),
    (&["cpu.max", "cpu.max.burst", "cpu.cfs_burst_us"], Errno::EINVAL, BURST),
    (
        &["cpu.shares", "cpu.weight", "cpu.weight.nice"],
        Errno::EINVAL,
        "an idle group has no weight: write cpu.idle = 0 beside it",
    ),
    (
        &["memory.limit_in_bytes"],
        Errno::EINVAL,
        "it may not be more than memory and swap together, memory.memsw.limit_in_bytes: raise \
         memory.swap.max too",
    ),
    (
        &["memory.memsw.limit_in_bytes"],
        Errno::EINVAL,
        "memory and swap together may not be less than memory alone: see memory.limit_in_bytes, which \
         may have been refused too",
    ),
    (
        &["cpuset.cpus", "cpuset.mems"],
        Errno::EBUSY,
        "a group in it has what it would lose: take that from the groups in it first",
    ),
    (
        &["cpuset.cpus", "cpuset.mems"],
        Errno::EACCES,
        "the group above does not have them all: give them to that first",
    ),
    (&["cpuset.cpus", "cpuset.mems"], Errno::EINVAL, ABSENT),
    (&["cpuset.cpus", "cpuset.mems"], Errno::ERANGE, ABSENT),
    (
        &["cpuset.cpus", "cpuset.mems"],
        Errno::ENOSPC,
        "processes in the group would be left with none: move them out first",
    ),
];

/// What can be done when a setting is refused: that which is written to `file`.
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
                "the group has no such file: is the controller enabled in the group above, and does \
                 this kernel have it?",
            ),
            (Errno::EBUSY, "the group uses more than that: stop some of its processes first"),
            (Errno::EINVAL, TOO_MUCH),
            (Errno::ERANGE, TOO_MUCH),
            (Errno::ENODEV, "there is no such device"),
            (Errno::EOPNOTSUPP, "this host has no such setting: leave it out, or required = true"),
            (Errno::EACCES, NO_RIGHT),
            (Errno::EPERM, NO_RIGHT),
            (Errno::EROFS, NO_RIGHT),
        ],
    )
}

/// What can be done when a controller cannot be enabled.
pub(super) fn remedy(errno: Errno) -> &'static str {
    const NO_RIGHT: &str = "that group belongs to another manager, as systemd: name a root below a \
                            unit with Delegate=yes";
    look_up(
        errno,
        &[
            (
                Errno::EBUSY,
                "that group holds processes itself, and only one without can hand controllers on: \
                 move them into a group below it",
            ),
            (
                Errno::ENOENT,
                "the controller is not available there: enable it in the group above, or where that is \
                 systemd's start the unit with Delegate=yes",
            ),
            (Errno::EACCES, NO_RIGHT),
            (Errno::EPERM, NO_RIGHT),
            (Errno::EROFS, NO_RIGHT),
            (Errno::EOPNOTSUPP, "that group is threaded, and the controller is not"),
        ],
    )
}

fn look_up(errno: Errno, known: &[(Errno, &'static str)]) -> &'static str {
    let found = known.iter().find(|(own, _)| *own == errno);
    found.map_or("see cgroups(7)", |(_, text)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_by_file_and_errno() {
        for (file, errno, expected) in [
            ("cpu.cfs_quota_us", Errno::EINVAL, "nor less than a group in it"),
            ("cpu.shares", Errno::EINVAL, "cpu.idle = 0"),
            ("cpu.rt_runtime_us", Errno::EINVAL, "more than the group above"),
            ("memory.memsw.limit_in_bytes", Errno::EINVAL, "less than memory alone"),
            ("memory.limit_in_bytes", Errno::EBUSY, "uses more than that"),
            ("cpuset.cpus", Errno::EBUSY, "a group in it has what it would lose"),
            ("cpuset.mems", Errno::EACCES, "the group above does not have them all"),
            ("pids.max", Errno::EACCES, "the daemon may not write there"),
            ("pids.max", Errno::EIO, "see cgroups(7)"),
        ] {
            assert!(advice(file, errno).contains(expected), "{file} {errno}");
        }
    }
}
