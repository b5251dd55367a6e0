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

/// Checks whether a cgroup contains this process and no other.
pub(crate) fn has_only(directory: &Path, pid: Pid) -> bool {
    let mut start = [0; TWO];
    let read =
        File::open(directory.join("cgroup.procs")).and_then(|mut file| file.read(&mut start));
    read.is_ok_and(|length| is_list_of(&start[..length], pid))
}

/// Checks whether the beginning of a list of PIDs contains `pid` only.
fn is_list_of(list: &[u8], pid: Pid) -> bool {
    list.strip_suffix(b"\n").is_some_and(|list| list == pid.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_with_one_process_is_told_from_others() {
        let pid = Pid::new(41).unwrap();
        assert!(is_list_of(b"41\n", pid));
        for list in [&b""[..], b"41\n42\n", b"4", b"411\n", b"40\n41\n", b"40\n"] {
            assert!(!is_list_of(list, pid));
        }
    }
}
