//! The files of a cgroup: who may move processes into it, and which processes it has.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::event::{Pid, Uid};

/// Write access to one of these files permits to move processes into a cgroup; `tasks` is for v1.
const FILES: [&str; 2] = ["cgroup.procs", "tasks"];
/// Write permission for group and others.
const WRITABLE: u32 = 0o022;
/// Buffer size that is sufficient to see whether a list has two PIDs.
const TWO: usize = 32;

/// Checks whether a user other than root may move processes into a cgroup.
pub(crate) fn is_writable_by_users(directory: &Path) -> bool {
    FILES.iter().any(|file| {
        fs::metadata(directory.join(file))
            .is_ok_and(|metadata| metadata.uid() != 0 || metadata.mode() & WRITABLE != 0)
    })
}

/// Returns the owner of the directory of a cgroup.
pub(crate) fn owner(directory: &Path) -> Option<Uid> {
    fs::metadata(directory).ok().map(|metadata| Uid(metadata.uid()))
}

/// Returns the ID of a cgroup.
pub(crate) fn id(directory: &Path) -> Option<u64> {
    fs::metadata(directory).ok().map(|metadata| metadata.ino())
}

/// Checks whether a cgroup contains this process and, apart from those for which `leaves` returns true, no other.
pub(crate) fn has_only(directory: &Path, pid: Pid, leaves: impl Fn(Pid) -> bool) -> bool {
    let mut start = [0; TWO];
    let Ok(mut file) = File::open(directory.join("cgroup.procs")) else { return false };
    let Ok(length) = file.read(&mut start) else { return false };
    let mut list = start[..length].to_vec();
    // Usually another process stays, and the beginning of the list shows it.
    if members(&list, pid, &leaves).has_others {
        return false;
    }
    let found = file.read_to_end(&mut list).map(|_| members(&list, pid, &leaves));
    found.is_ok_and(|found| found.has_process && !found.has_others)
}

/// What a list of PIDs contains.
struct Members {
    has_process: bool,
    /// Another one that does not leave.
    has_others: bool,
}

/// Reads the complete lines of a list of PIDs.
fn members(list: &[u8], pid: Pid, leaves: &impl Fn(Pid) -> bool) -> Members {
    let mut found = Members { has_process: false, has_others: false };
    let lines = list.split_inclusive(|&byte| byte == b'\n');
    for line in lines.filter_map(|line| line.strip_suffix(b"\n")) {
        let raw = std::str::from_utf8(line).ok().and_then(|line| line.parse().ok());
        match raw.and_then(Pid::new) {
            Some(one) if one == pid => found.has_process = true,
            Some(one) if leaves(one) => {}
            Some(_) | None => found.has_others = true,
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_with_one_process_is_told_from_others() {
        let directory = tempfile::tempdir().unwrap();
        let has_only = |list: &str, leaving: &[u32]| {
            fs::write(directory.path().join("cgroup.procs"), list).unwrap();
            let leaves = |pid: Pid| leaving.contains(&pid.get());
            has_only(directory.path(), Pid::new(41).unwrap(), leaves)
        };
        assert!(has_only("41\n", &[]));
        for list in ["", "41\n42\n", "4", "411\n", "40\n41\n", "40\n"] {
            assert!(!has_only(list, &[]), "{list:?}");
        }
        let many: Vec<u32> = (1_000_000..1_000_100).collect();
        let list: String = many.iter().map(|pid| format!("{pid}\n")).collect();
        assert!(has_only(&format!("{list}41\n"), &many));
        assert!(!has_only(&format!("{list}41\n"), &many[1..]));
        assert!(!has_only(&format!("{list}41\n42\n"), &many) && !has_only(&list, &many));
    }
}
