//! Reads the events that the kernel dropped for a daemon.

use std::fs;

/// Returns the number of events that the kernel dropped for the netlink sockets of `pid`, read from
/// outside, so that it is the same measure for every subject.
pub(crate) fn drops(pid: u32) -> u64 {
    let sockets: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())
        })
        .collect();
    let table = fs::read_to_string("/proc/net/netlink").unwrap_or_default();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // Columns: sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode.
    rows.filter(|row| row.len() == 10 && sockets.iter().any(|inode| inode == row[9]))
        .filter_map(|row| row[8].parse::<u64>().ok())
        .sum()
}
