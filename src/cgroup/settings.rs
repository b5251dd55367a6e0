//! What a group can be given: one vocabulary, the words of v2, and the files of either interface that
//! say the same. Pure.
//!
//! A word of one interface is translated for a host that has the other; any other name is that of a
//! kernel file and is passed on as it is. Weights are translated linearly, so that the ratios between
//! groups stay, and cut to what the kernel takes, which is reported.

mod value;

use super::mounts::Version;
use value::{Bound, count, device, device_rates, list, max_or_size, quota, whole};

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
    /// In an order that the kernel accepts.
    pub writes: Vec<Write>,
    /// Why the group does not get exactly what was asked for.
    pub note: Option<String>,
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
/// before what must not be lower.
const WORDS: &[Word] = &[
    word("cpuset.mems", "cpuset.mems", Kind::List),
    word("cpuset.cpus", "cpuset.cpus", Kind::List),
    word("cpuset.cpus.partition", "", Kind::OneOf(&["member", "root", "isolated"])),
    word("cpu.weight", "cpu.shares", Kind::CpuWeight),
    word("cpu.weight.nice", "", Kind::Whole(-20, 19)),
    word("", "cpu.cfs_period_us", Kind::CpuPeriod),
    word("cpu.max", "cpu.cfs_quota_us", Kind::CpuMax),
    word("cpu.max.burst", "cpu.cfs_burst_us", Kind::Whole(0, i64::MAX / 1000)),
    word("cpu.idle", "cpu.idle", Kind::Whole(0, 1)),
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

const SHARES: (u64, u64) = (2, 262_144);
const WEIGHTS: (u64, u64) = (1, 10_000);
const BLKIO_WEIGHTS: (u64, u64) = (10, 1_000);
/// As `blkio.weight` is called by the BFQ scheduler, which has the default 100 as v2.
const BFQ: (&str, (u64, u64)) = ("blkio.bfq.weight", (1, 1_000));
/// Microseconds; the period of a new group.
const PERIOD: u64 = 100_000;

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
        Kind::Whole(low, high) => {
            let number = whole(setting.value, low, high);
            setting.same(v2, v1, number.map(|number| number.to_string()))
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

/// Where a setting comes in the order of writing.
pub fn rank(key: &str) -> usize {
    let is_it = |word: &Word| word.v2 == key || word.v1 == key;
    WORDS.iter().position(is_it).unwrap_or(WORDS.len())
}

/// Whether `true` and `false` are values for it: 1 and 0.
pub fn is_switch(key: &str) -> bool {
    find(key).is_none_or(|(word, _)| word.kind == Kind::Whole(0, 1))
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
    let Some((huge, own)) = hugetlb(key) else { return Ok(one(key, value)) };
    let files = [huge.clone() + ".max", huge + ".limit_in_bytes"];
    let none = |_: &str| None;
    let setting = Setting { key, value: value.trim(), own, to: version, beside: &none };
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
    Writes { writes: vec![write], note: None }
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

/// A setting to be translated from the interface of its key to that of the host.
struct Setting<'a> {
    key: &'a str,
    value: &'a str,
    own: Version,
    to: Version,
    beside: &'a Beside<'a>,
}

impl Setting<'_> {
    fn no_counterpart(&self, help: &str) -> Fault {
        let version = match self.to {
            Version::V1 => "cgroup v1",
            Version::V2 => "cgroup v2",
        };
        let message = format!("{} has no counterpart in {version}, which this host uses", self.key);
        Fault::NoCounterpart(Complaint::new(message, help))
    }

    /// One value that is the same with both interfaces.
    fn same(&self, v2: &str, v1: &str, value: Result<String, Complaint>) -> Result<Writes, Fault> {
        let value = value.map_err(Fault::Value)?;
        match self.to {
            Version::V1 if v1.is_empty() => Err(self.no_counterpart("it is left out")),
            Version::V1 => Ok(one(v1, value)),
            Version::V2 => Ok(one(v2, value)),
        }
    }

    fn one_of(&self, v2: &str, v1: &str, words: &[&str]) -> Result<Writes, Fault> {
        let value = if words.contains(&self.value) {
            Ok(self.value.to_owned())
        } else {
            let help = format!("write one of: {}", words.join(", "));
            Err(Complaint::new("is none of its values", help))
        };
        self.same(v2, v1, value)
    }

    fn size(&self, v2: &str, v1: &str) -> Result<Writes, Fault> {
        let bound = self.bound(self.value).map_err(|fault| fault.about(self.key))?;
        let written = match self.to {
            Version::V1 => bound.v1(),
            Version::V2 => bound.v2(),
        };
        let mut writes = self.same(v2, v1, Ok(written))?;
        let has_swap = (self.beside)("memory.swap.max").is_some();
        if v2 == "memory.max" && self.to == Version::V1 && has_swap {
            // The sum may not be lower than the limit at any moment: lift it first.
            writes.writes.splice(0..0, one("memory.memsw.limit_in_bytes", "-1").writes);
        }
        Ok(writes)
    }

    /// A size as the interface of the key writes it.
    fn bound(&self, value: &str) -> Result<Bound, Fault> {
        max_or_size(value, self.own == Version::V1).map_err(Fault::Value)
    }

    fn cpu_weight(&self) -> Result<Writes, Fault> {
        let (low, high) = if self.own == Version::V1 { SHARES } else { WEIGHTS };
        let number = whole(self.value, low, high).map_err(Fault::Value)?;
        Ok(match (self.own, self.to) {
            (Version::V1, Version::V1) => one("cpu.shares", number.to_string()),
            (Version::V2, Version::V2) => one("cpu.weight", number.to_string()),
            // Up here and down there: going to and fro changes nothing.
            (Version::V2, Version::V1) => {
                self.cut("cpu.shares", (number * 1024).div_ceil(100), SHARES)
            }
            (Version::V1, Version::V2) => self.cut("cpu.weight", number * 100 / 1024, WEIGHTS),
        })
    }

    /// A translated number, cut to what the kernel takes.
    fn cut(&self, file: &str, number: u64, (low, high): (u64, u64)) -> Writes {
        let cut = number.clamp(low, high);
        let note = (cut != number).then(|| {
            let what = if cut == high { "most" } else { "least" };
            format!("{} = {} is {file} = {cut} here, the {what} it can be", self.key, self.value)
        });
        Writes { note, ..one(file, cut.to_string()) }
    }

    fn io_weight(&self) -> Result<Writes, Fault> {
        let text = self.value.strip_prefix("default ").unwrap_or(self.value).trim();
        let (low, high) = if self.own == Version::V1 { BLKIO_WEIGHTS } else { WEIGHTS };
        let number = whole(text, low, high).map_err(Fault::Value)?;
        Ok(match (self.own, self.to) {
            (Version::V2, Version::V2) => one("io.weight", number.to_string()),
            (Version::V1, Version::V2) => self.cut("io.weight", (number / 5).max(1), WEIGHTS),
            (Version::V1, Version::V1) => {
                Self::or_bfq(one("blkio.weight", number.to_string()), number / 5)
            }
            (Version::V2, Version::V1) => {
                Self::or_bfq(self.cut("blkio.weight", number * 5, BLKIO_WEIGHTS), number)
            }
        })
    }

    /// `weight` is on the scale of v2, whose default is that of BFQ.
    fn or_bfq(mut writes: Writes, weight: u64) -> Writes {
        let (file, (low, high)) = BFQ;
        for write in &mut writes.writes {
            write.instead = Some((file, weight.clamp(low, high).to_string()));
        }
        writes
    }

    fn cpu_max(&self) -> Result<Writes, Fault> {
        let is_v1 = self.own == Version::V1;
        let (quota, period) = quota(self.value, is_v1).map_err(Fault::Value)?;
        let written = |none: &str| quota.map_or(none.to_owned(), |number| number.to_string());
        if self.to == Version::V2 {
            let beside = is_v1.then(|| (self.beside)("cpu.cfs_period_us")).flatten();
            let period = beside.and_then(|text| text.parse().ok()).or(period).unwrap_or(PERIOD);
            return Ok(one("cpu.max", format!("{} {period}", written("max"))));
        }
        if is_v1 {
            return Ok(one("cpu.cfs_quota_us", written("-1")));
        }
        // Without a quota any period is right below any other group.
        let writes = one("cpu.cfs_quota_us", "-1");
        let writes = writes.and("cpu.cfs_period_us", period.unwrap_or(PERIOD).to_string());
        Ok(match quota {
            Some(quota) => writes.and("cpu.cfs_quota_us", quota.to_string()),
            None => writes,
        })
    }

    fn cpu_period(&self) -> Result<Writes, Fault> {
        let period: u64 = whole(self.value, 1_000, 1_000_000).map_err(Fault::Value)?;
        Ok(match (self.to, (self.beside)("cpu.cfs_quota_us")) {
            (Version::V1, _) => one("cpu.cfs_period_us", period.to_string()),
            (Version::V2, None) => one("cpu.max", format!("max {period}")),
            // The quota says it.
            (Version::V2, Some(_)) => Writes::default(),
        })
    }

    /// Each device is a write of its own.
    fn io_max(&self) -> Result<Writes, Fault> {
        let mut writes = Writes::default();
        for part in self.value.split(',') {
            let (device, rates) = device_rates(part.trim()).map_err(Fault::Value)?;
            if self.to == Version::V2 {
                let rates: Vec<String> =
                    rates.iter().map(|(name, bound)| format!("{name}={}", bound.v2())).collect();
                writes = writes.and("io.max", format!("{device} {}", rates.join(" ")));
                continue;
            }
            for (name, bound) in rates {
                let file = WORDS.iter().find(|word| word.kind == Kind::Throttle(name));
                let file = file.map_or("", |word| word.v1);
                writes = writes.and(file, format!("{device} {}", bound.throttle()));
            }
        }
        Ok(writes)
    }

    /// `8:0 1048576`, where 0 takes the limit away.
    fn throttle(&self, limit: &str) -> Result<Writes, Fault> {
        let (device, rest) = device(self.value).map_err(Fault::Value)?;
        let number: u64 = whole(rest, 0, u64::MAX).map_err(Fault::Value)?;
        Ok(match self.to {
            Version::V1 => one(self.key, format!("{device} {number}")),
            Version::V2 if number == 0 => one("io.max", format!("{device} {limit}=max")),
            Version::V2 => one("io.max", format!("{device} {limit}={number}")),
        })
    }

    fn io_latency(&self) -> Result<Writes, Fault> {
        let (device, rest) = device(self.value).map_err(Fault::Value)?;
        let help = "write a device and microseconds: \"8:0 target=2000\"";
        let target = rest.strip_prefix("target=").and_then(|text| text.parse::<u64>().ok());
        let wrong = || Complaint::new("has no target", help);
        let target = target.ok_or_else(|| Fault::Value(wrong()))?;
        self.same("io.latency", "", Ok(format!("{device} target={target}")))
    }

    /// v1 limits memory and swap together, so that each needs the other limit to be translated.
    fn swap(&self) -> Result<Writes, Fault> {
        let bound = self.bound(self.value)?;
        let (file, memory) = match self.own {
            Version::V2 => ("memory.memsw.limit_in_bytes", "memory.max"),
            Version::V1 => ("memory.swap.max", "memory.limit_in_bytes"),
        };
        if self.own == self.to {
            let written = if self.own == Version::V1 { bound.v1() } else { bound.v2() };
            return Ok(one(self.key, written));
        }
        let beside = (self.beside)(memory).and_then(|text| self.bound(&text).ok());
        let help = || format!("set {memory} beside it: v1 limits memory and swap together");
        let translated = match (self.own, bound, beside) {
            (_, Bound::Max, _) => Bound::Max,
            (_, Bound::At(_), None) => return Err(self.no_counterpart(&help())),
            (Version::V2, Bound::At(_), Some(Bound::Max)) => Bound::Max,
            (Version::V2, Bound::At(swap), Some(Bound::At(memory))) => {
                Bound::At(swap.saturating_add(memory))
            }
            (Version::V1, Bound::At(_), Some(Bound::Max)) => Bound::At(0),
            (Version::V1, Bound::At(both), Some(Bound::At(memory))) => {
                Bound::At(both.saturating_sub(memory))
            }
        };
        let written = if self.to == Version::V1 { translated.v1() } else { translated.v2() };
        Ok(one(file, written))
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
