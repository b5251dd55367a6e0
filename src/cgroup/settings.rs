//! What a group can be given: one vocabulary, the words of v2, and the files of either interface that
//! say the same. Pure.
//!
//! A word of one interface is translated for a host that has the other; any other name is that of a
//! kernel file and is passed on as it is. Weights are translated linearly, so that the ratios between
//! groups stay, and cut to what the kernel takes, which is reported.

mod caveat;
mod kernel_file;
pub mod order;
mod translate;
mod unit;
mod value;

use super::mounts::Version;
use translate::Setting;
use value::{count, list, microseconds, whole};

pub use caveat::{contradictions, weaker};
pub use unit::{Properties, properties};

/// One write into a file of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The name of the file.
    pub file: String,
    /// What to write.
    pub value: String,
    /// A file and a value for kernels that do not have the first.
    pub instead: Option<(&'static str, String)>,
}

/// What a setting comes to with one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// In an order that the kernel accepts for a new group; for one that has something see [`order`].
    pub writes: Vec<Write>,
    /// Why the group does not get exactly what was asked for.
    pub note: Option<String>,
    /// The same where the second file is written.
    pub note_instead: Option<String>,
}

/// Why a setting cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The kernel would not take the value.
    Value(Complaint),
    /// The interface has nothing that means the same.
    NoCounterpart(Complaint),
}

/// One line about a value, and one line about what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: String,
}

impl Complaint {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// A word of the vocabulary.
#[derive(Clone, Copy, Debug)]
struct Word {
    v2: &'static str,
    /// Empty where v1 has nothing alike.
    v1: &'static str,
    kind: Kind,
}

/// What values a word takes and how they are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    CpuWeight,
    CpuMax,
    CpuPeriod,
    IoWeight,
    IoMax,
    /// One of the limits of `io.max`, by its name there.
    Throttle(&'static str),
    IoLatency,
    /// Bytes; the same with both interfaces but for `max`.
    Size,
    /// Bytes of swap, to v1 bytes of memory and swap together.
    Swap,
    Count,
    /// Microseconds, or a time.
    Time,
    /// A whole number in this range, the same with both interfaces.
    Whole(i64, i64),
    /// Numbers and ranges.
    List,
    /// One of these words.
    OneOf(&'static [&'static str]),
}

const fn word(v2: &'static str, v1: &'static str, kind: Kind) -> Word {
    Word { v2, v1, kind }
}

/// In the order in which a group must be given them: memory nodes before anything is charged, a limit
/// before what must not be lower, whether it is idle before its weight.
const WORDS: &[Word] = &[
    word("cpuset.mems", "cpuset.mems", Kind::List),
    word("cpuset.cpus", "cpuset.cpus", Kind::List),
    word("cpuset.cpus.partition", "", Kind::OneOf(&["member", "root", "isolated"])),
    word("cpu.idle", "cpu.idle", Kind::Whole(0, 1)),
    word("cpu.weight", "cpu.shares", Kind::CpuWeight),
    word("cpu.weight.nice", "", Kind::Whole(-20, 19)),
    word("", "cpu.cfs_period_us", Kind::CpuPeriod),
    word("cpu.max", "cpu.cfs_quota_us", Kind::CpuMax),
    word("cpu.max.burst", "cpu.cfs_burst_us", Kind::Time),
    word("io.weight", "blkio.weight", Kind::IoWeight),
    word("io.max", "", Kind::IoMax),
    word("", "blkio.throttle.read_bps_device", Kind::Throttle("rbps")),
    word("", "blkio.throttle.write_bps_device", Kind::Throttle("wbps")),
    word("", "blkio.throttle.read_iops_device", Kind::Throttle("riops")),
    word("", "blkio.throttle.write_iops_device", Kind::Throttle("wiops")),
    word("io.latency", "", Kind::IoLatency),
    word("memory.max", "memory.limit_in_bytes", Kind::Size),
    word("memory.high", "memory.soft_limit_in_bytes", Kind::Size),
    word("memory.low", "", Kind::Size),
    word("memory.min", "", Kind::Size),
    word("memory.swap.max", "memory.memsw.limit_in_bytes", Kind::Swap),
    word("memory.swap.high", "", Kind::Size),
    word("memory.zswap.max", "", Kind::Size),
    word("memory.oom.group", "", Kind::Whole(0, 1)),
    word("pids.max", "pids.max", Kind::Count),
];

/// Files that no setting may write: processes come into groups by rules, and `cgroup.subtree_control`
/// follows from what groups are given.
const NOT_SETTINGS: [&str; 7] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.kill",
    "cgroup.subtree_control",
    "cgroup.event_control",
    "tasks",
    "release_agent",
];

/// The other settings of the group, by name: some mean something only together.
pub type Beside<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The writes that give a group the setting `key`, a word of either interface or the name of a kernel
/// file, where the interface is `version`.
///
/// # Errors
/// The value is wrong, whatever the interface, or the interface has nothing alike.
pub fn files(
    key: &str,
    value: &str,
    version: Version,
    beside: &Beside<'_>,
) -> Result<Writes, Fault> {
    let Some((word, own)) = find(key) else { return other(key, value, version) };
    let setting = Setting { key, value: value.trim(), own, to: version, beside };
    let (v2, v1) = (word.v2, word.v1);
    if let Kind::Size = word.kind {
        return setting.size(v2, v1);
    }
    let translated = match word.kind {
        Kind::CpuWeight => setting.cpu_weight(),
        Kind::CpuMax => setting.cpu_max(),
        Kind::CpuPeriod => setting.cpu_period(),
        Kind::IoWeight => setting.io_weight(),
        Kind::IoMax => setting.io_max(),
        Kind::Throttle(limit) => setting.throttle(limit),
        Kind::IoLatency => setting.io_latency(),
        Kind::Swap => setting.swap(),
        Kind::Size => Ok(Writes::default()),
        Kind::Count => setting.same(v2, v1, count(setting.value)),
        Kind::Time => setting.same(v2, v1, microseconds(setting.value)),
        Kind::Whole(low, high) => {
            let number = whole(setting.value, low, high);
            let writes = setting.same(v2, v1, number.map(|number| number.to_string()));
            let is_weight = v2 == "cpu.weight.nice" && setting.is_beside_idle();
            if is_weight { writes.map(|_| Writes::default()) } else { writes }
        }
        Kind::List => setting.same(v2, v1, list(setting.value)),
        Kind::OneOf(words) => setting.one_of(v2, v1, words),
    };
    translated.map_err(|fault| fault.about(key))
}

/// Whether a value is right, whatever the interface of the host.
///
/// # Errors
/// The value is wrong.
pub fn check(key: &str, value: &str) -> Result<(), Complaint> {
    let none = |_: &str| None;
    [Version::V2, Version::V1].into_iter().try_for_each(|version| {
        match files(key, value, version, &none) {
            Err(Fault::Value(complaint)) => Err(complaint),
            Ok(_) | Err(Fault::NoCounterpart(_)) => Ok(()),
        }
    })
}

/// All words of both interfaces.
pub fn words() -> impl Iterator<Item = &'static str> {
    WORDS.iter().flat_map(|word| [word.v2, word.v1]).filter(|name| !name.is_empty())
}

/// Where a setting comes in the order of writing.
pub fn rank(key: &str) -> usize {
    let is_it = |word: &Word| word.v2 == key || word.v1 == key;
    WORDS.iter().position(is_it).unwrap_or(WORDS.len())
}

/// Whether `true` and `false` are values for it: 1 and 0.
pub fn is_switch(key: &str) -> bool {
    find(key).is_none_or(|(word, _)| word.kind == Kind::Whole(0, 1))
}

/// What can be a share of the memory of the host.
const SHARES: [&str; 9] = [
    "memory.max",
    "memory.high",
    "memory.low",
    "memory.min",
    "memory.swap.max",
    "memory.swap.high",
    "memory.zswap.max",
    "memory.limit_in_bytes",
    "memory.soft_limit_in_bytes",
];

/// The percentage of the host's memory that a setting asks for, if it does: 1 to 100.
pub fn share(key: &str, value: &str) -> Option<u64> {
    let percent = value.trim().strip_suffix('%').filter(|_| SHARES.contains(&key))?;
    percent.parse().ok().filter(|percent| (1..=100).contains(percent))
}

/// The word with this name and the interface that it is of.
fn find(key: &str) -> Option<(Word, Version)> {
    let named = |name: fn(&Word) -> &'static str| {
        WORDS.iter().find(|word| !key.is_empty() && name(word) == key).copied()
    };
    let v2 = named(|word| word.v2).map(|word| (word, Version::V2));
    v2.or_else(|| Some((named(|word| word.v1)?, Version::V1)))
}

/// A setting that is no word of the vocabulary.
fn other(key: &str, value: &str, version: Version) -> Result<Writes, Fault> {
    if NOT_SETTINGS.contains(&key) {
        let help = "rules say which processes a group holds; leave it out";
        return Err(Fault::Value(Complaint::new(format!("{key} is no setting"), help)));
    }
    if key.is_empty() || key.contains('/') {
        let help = "write the name of a file in a cgroup directory";
        return Err(Fault::Value(Complaint::new(format!("\"{key}\" is no setting"), help)));
    }
    let none = |_: &str| None;
    let setting = Setting { key, value: value.trim(), own: version, to: version, beside: &none };
    let Some((huge, own)) = hugetlb(key) else {
        return match kernel_file::only_in(key).is_none_or(|own| own == version) {
            true => Ok(one(key, value)),
            false => Err(setting.no_counterpart("it is left out")),
        };
    };
    let files = [huge.clone() + ".max", huge + ".limit_in_bytes"];
    let setting = Setting { own, ..setting };
    setting.size(&files[0], &files[1])
}

/// `hugetlb.2MB`, or with `.rsvd`, of the name of a limit.
fn hugetlb(key: &str) -> Option<(String, Version)> {
    key.strip_prefix("hugetlb.")?;
    let v2 = key.strip_suffix(".max").map(|stem| (stem.to_owned(), Version::V2));
    v2.or_else(|| Some((key.strip_suffix(".limit_in_bytes")?.to_owned(), Version::V1)))
}

fn one(file: &str, value: impl Into<String>) -> Writes {
    let write = Write { file: file.to_owned(), value: value.into(), instead: None };
    Writes { writes: vec![write], ..Writes::default() }
}

impl Writes {
    fn and(mut self, file: &str, value: impl Into<String>) -> Self {
        self.writes.extend(one(file, value).writes);
        self
    }
}

impl Fault {
    /// Puts the key before the message of a value's fault.
    fn about(self, key: &str) -> Self {
        match self {
            Self::Value(Complaint { message, help }) => {
                Self::Value(Complaint { message: format!("{key} {message}"), help })
            }
            Self::NoCounterpart(complaint) => Self::NoCounterpart(complaint),
        }
    }
}

#[cfg(test)]
mod inverse_tests;

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
