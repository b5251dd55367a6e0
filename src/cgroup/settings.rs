//! Translates settings of a cgroup to writes into files of cgroup v1 or v2. The vocabulary is that
//! of v2 and the v1 names with the same meaning. Pure.
//!
//! A name of one version is translated on a host that uses the other. Any other name is that of a
//! kernel file and is passed on unchanged. Weights are translated linearly, so that the ratios
//! between cgroups are kept, and clamped to the range of the kernel, which is reported.

mod defaults;
mod kernel_file;
mod limitation;
mod translate;
mod unit;
mod value;
pub mod write_order;

use super::mounts::Version;
use translate::Translation;
use value::{count, list, microseconds, whole};

pub use defaults::{DefaultValue, SettingSlot, slot};
pub use limitation::{contradictions, limitation};
pub use unit::{UnitProperties, properties};

/// A write to a file of a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The name of the file.
    pub file: String,
    /// The value to be written.
    pub value: String,
    /// A file and a value for kernels that lack the first file.
    pub instead: Option<(&'static str, String)>,
}

/// The writes of a setting for one cgroup version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// The writes in an order that the kernel accepts for a new cgroup; for an existing one see
    /// [`write_order`].
    pub writes: Vec<Write>,
    /// A warning if the cgroup does not get exactly the configured value.
    pub note: Option<String>,
    /// The warning if the alternative file is written.
    pub note_instead: Option<String>,
}

/// The reason for which a setting cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingError {
    /// A value that the kernel would not accept.
    Value(SettingMessage),
    /// A setting without an equivalent in this cgroup version.
    NoCounterpart(SettingMessage),
}

/// A message about a value, with advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingMessage {
    /// The description of the problem.
    pub message: String,
    /// The advice for the author of the file.
    pub help: String,
}

impl SettingMessage {
    fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

/// A setting of the vocabulary with its names.
#[derive(Clone, Copy, Debug)]
struct SettingKey {
    v2: &'static str,
    /// Empty if v1 has no equivalent.
    v1: &'static str,
    kind: ValueKind,
}

/// The values of a setting and their translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ValueKind {
    CpuWeight,
    CpuMax,
    CpuPeriod,
    IoWeight,
    IoMax,
    /// A limit of `io.max`, by its name there.
    Throttle(&'static str),
    IoLatency,
    /// Bytes, the same in both versions except for `max`.
    Size,
    /// Bytes of swap on v2, of memory and swap together on v1.
    Swap,
    Count,
    /// Microseconds, or a duration.
    Time,
    /// A whole number in this range, the same in both versions.
    Whole(i64, i64),
    /// Numbers and ranges of CPUs or memory nodes.
    List,
    /// One of a fixed set of values.
    OneOf(&'static [&'static str]),
}

const fn word(v2: &'static str, v1: &'static str, kind: ValueKind) -> SettingKey {
    SettingKey { v2, v1, kind }
}

/// The vocabulary in the order of writing: memory nodes before anything is charged, a limit before
/// the limit that must not be lower, `cpu.idle` before the weight.
const WORDS: &[SettingKey] = &[
    word("cpuset.mems", "cpuset.mems", ValueKind::List),
    word("cpuset.cpus", "cpuset.cpus", ValueKind::List),
    word("cpuset.cpus.partition", "", ValueKind::OneOf(&["member", "root", "isolated"])),
    word("cpu.idle", "cpu.idle", ValueKind::Whole(0, 1)),
    word("cpu.weight", "cpu.shares", ValueKind::CpuWeight),
    word("cpu.weight.nice", "", ValueKind::Whole(-20, 19)),
    word("", "cpu.cfs_period_us", ValueKind::CpuPeriod),
    word("cpu.max", "cpu.cfs_quota_us", ValueKind::CpuMax),
    word("cpu.max.burst", "cpu.cfs_burst_us", ValueKind::Time),
    word("io.weight", "blkio.weight", ValueKind::IoWeight),
    word("io.max", "", ValueKind::IoMax),
    word("", "blkio.throttle.read_bps_device", ValueKind::Throttle("rbps")),
    word("", "blkio.throttle.write_bps_device", ValueKind::Throttle("wbps")),
    word("", "blkio.throttle.read_iops_device", ValueKind::Throttle("riops")),
    word("", "blkio.throttle.write_iops_device", ValueKind::Throttle("wiops")),
    word("io.latency", "", ValueKind::IoLatency),
    word("memory.max", "memory.limit_in_bytes", ValueKind::Size),
    word("memory.high", "memory.soft_limit_in_bytes", ValueKind::Size),
    word("memory.low", "", ValueKind::Size),
    word("memory.min", "", ValueKind::Size),
    word("memory.swap.max", "memory.memsw.limit_in_bytes", ValueKind::Swap),
    word("memory.swap.high", "", ValueKind::Size),
    word("memory.zswap.max", "", ValueKind::Size),
    word("memory.oom.group", "", ValueKind::Whole(0, 1)),
    word("pids.max", "pids.max", ValueKind::Count),
];

/// Files that no setting may write: rules decide which processes a cgroup contains, and
/// `cgroup.subtree_control` follows from the configuration.
const NOT_SETTINGS: [&str; 7] = [
    "cgroup.procs",
    "cgroup.threads",
    "cgroup.kill",
    "cgroup.subtree_control",
    "cgroup.event_control",
    "tasks",
    "release_agent",
];

/// The other settings of the cgroup, by name, as some settings depend on each other.
pub type Siblings<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Returns that the cgroup has no other settings.
fn no_siblings(_key: &str) -> Option<String> {
    None
}

/// Returns the writes for the setting `key`, a name of either cgroup version or of a kernel file,
/// on a host with `version`.
///
/// # Errors
/// The value is invalid in every version, or the version has no equivalent.
pub fn files(
    key: &str,
    value: &str,
    version: Version,
    siblings: &Siblings<'_>,
) -> Result<Writes, SettingError> {
    let Some((word, own)) = find(key) else { return other(key, value, version) };
    let setting = Translation { key, value: value.trim(), own, to: version, siblings };
    let v2 = word.v2;
    let v1 = word.v1;
    if let ValueKind::Size = word.kind {
        return setting.size(v2, v1);
    }
    let translated = match word.kind {
        ValueKind::CpuWeight => setting.cpu_weight(),
        ValueKind::CpuMax => setting.cpu_max(),
        ValueKind::CpuPeriod => setting.cpu_period(),
        ValueKind::IoWeight => setting.io_weight(),
        ValueKind::IoMax => setting.io_max(),
        ValueKind::Throttle(limit) => setting.throttle(limit),
        ValueKind::IoLatency => setting.io_latency(),
        ValueKind::Swap => setting.swap(),
        ValueKind::Size => Ok(Writes::default()),
        ValueKind::Count => setting.same(v2, v1, count(setting.value)),
        ValueKind::Time => setting.same(v2, v1, microseconds(setting.value)),
        ValueKind::Whole(low, high) => {
            let number = whole(setting.value, low, high);
            let writes = setting.same(v2, v1, number.map(|number| number.to_string()));
            let is_weight = v2 == "cpu.weight.nice" && setting.is_beside_idle();
            if is_weight { writes.map(|_| Writes::default()) } else { writes }
        }
        ValueKind::List => setting.same(v2, v1, list(setting.value)),
        ValueKind::OneOf(words) => setting.one_of(v2, v1, words),
    };
    translated.map_err(|fault| fault.about(key))
}

/// Checks a value independently of the cgroup version of the host.
///
/// # Errors
/// The value is invalid.
pub fn check(key: &str, value: &str) -> Result<(), SettingMessage> {
    [Version::V2, Version::V1].into_iter().try_for_each(|version| {
        match files(key, value, version, &no_siblings) {
            Err(SettingError::Value(diagnostic)) => Err(diagnostic),
            Ok(_) | Err(SettingError::NoCounterpart(_)) => Ok(()),
        }
    })
}

/// Returns the names of both versions.
pub fn words() -> impl Iterator<Item = &'static str> {
    WORDS.iter().flat_map(|word| [word.v2, word.v1]).filter(|name| !name.is_empty())
}

/// Returns the position of a setting in the order of writing.
pub fn rank(key: &str) -> usize {
    let index = WORDS.iter().position(|word| word.v2 == key || word.v1 == key);
    index.unwrap_or(WORDS.len())
}

/// Checks whether a setting accepts `true` and `false`, which mean 1 and 0.
pub fn is_switch(key: &str) -> bool {
    find(key).is_none_or(|(word, _)| word.kind == ValueKind::Whole(0, 1))
}

/// Checks whether a file keeps several values that are written one after the other: one for each
/// device, or in a kernel file outside of the vocabulary, such as `devices.allow`.
pub fn takes_several(key: &str) -> bool {
    (is_by_device(key) || find(key).is_none()) && hugetlb(key).is_none()
}

/// Checks whether the values of a file begin with the number of a disk.
pub fn is_by_device(file: &str) -> bool {
    find(file).is_some_and(|(word, _)| {
        matches!(word.kind, ValueKind::IoMax | ValueKind::IoLatency | ValueKind::Throttle(_))
    })
}

/// The settings that can be a percentage of the memory of the host.
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

/// Returns the percentage of the host's memory in a value, 1 to 100, if it is one.
pub fn share(key: &str, value: &str) -> Option<u64> {
    let percent = value.trim().strip_suffix('%').filter(|_| SHARES.contains(&key))?;
    percent.parse().ok().filter(|percent| (1..=100).contains(percent))
}

/// Returns the setting with this name, and the cgroup version that has the name.
fn find(key: &str) -> Option<(SettingKey, Version)> {
    if key.is_empty() {
        return None;
    }
    let v2 = WORDS.iter().find(|word| word.v2 == key).map(|word| (*word, Version::V2));
    v2.or_else(|| Some((*WORDS.iter().find(|word| word.v1 == key)?, Version::V1)))
}

/// Returns the write for a setting outside of the vocabulary.
fn other(key: &str, value: &str, version: Version) -> Result<Writes, SettingError> {
    if NOT_SETTINGS.contains(&key) {
        let help = "rules decide which processes a cgroup contains; remove it";
        return Err(SettingError::Value(SettingMessage::new(
            format!("invalid setting {key}"),
            help,
        )));
    }
    if key.is_empty() || key.contains('/') {
        let help = "write the name of a file in a cgroup directory";
        return Err(SettingError::Value(SettingMessage::new(
            format!("invalid setting \"{key}\""),
            help,
        )));
    }
    let setting =
        Translation { key, value: value.trim(), own: version, to: version, siblings: &no_siblings };
    let Some((huge, own)) = hugetlb(key) else {
        return match kernel_file::only_in(key).is_none_or(|own| own == version) {
            true => Ok(one(key, value)),
            false => Err(setting.no_counterpart("the setting is ignored")),
        };
    };
    let files = [huge.clone() + ".max", huge + ".limit_in_bytes"];
    let setting = Translation { own, ..setting };
    setting.size(&files[0], &files[1])
}

/// Splits the name of a hugetlb limit into its version and its stem: `hugetlb.2MB`, or with
/// `.rsvd`.
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

impl SettingError {
    /// Adds the key to the message about an invalid value.
    fn about(self, key: &str) -> Self {
        match self {
            Self::Value(SettingMessage { message, help }) => {
                Self::Value(SettingMessage { message: format!("{key}: {message}"), help })
            }
            Self::NoCounterpart(diagnostic) => Self::NoCounterpart(diagnostic),
        }
    }
}

#[cfg(test)]
mod inverse_tests;

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
