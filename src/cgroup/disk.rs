//! Finds the disk of a partition: the kernel accepts limits of input and output for whole disks only,
//! and reports a partition as a device that does not exist. It must not write anything.

use std::fs;
use std::path::Path;

/// The directory with a link for each block device by its number.
pub const DEVICES: &str = "/sys/dev/block";

/// A disk that has partitions.
#[derive(Debug, PartialEq, Eq)]
pub struct Disk {
    /// Major and minor number, as in `8:0`.
    pub number: String,
    /// Name below `/dev`.
    pub name: String,
}

/// Returns the disk of the partition with a number such as `8:1`; `None` if that is no partition.
pub fn disk_of_partition(devices: &Path, number: &str) -> Option<Disk> {
    let is_number = |text: &str| text.parse::<u32>().is_ok();
    number.split_once(':').filter(|(major, minor)| is_number(major) && is_number(minor))?;
    let partition = fs::canonicalize(devices.join(number)).ok()?;
    if !partition.join("partition").exists() {
        return None;
    }
    // A partition is a directory in that of its disk.
    let disk = partition.parent()?;
    let number = fs::read_to_string(disk.join("dev")).ok()?.trim().to_owned();
    Some(Disk { number, name: disk.file_name()?.to_str()?.to_owned() })
}
