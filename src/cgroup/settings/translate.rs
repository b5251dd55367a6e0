//! Translates the settings of one cgroup version to the files of the other. Pure.

use super::value::{Bound, PERIOD, device, device_rates, max_or_size, microseconds, quota, whole};
use super::{SettingError, SettingMessage, Siblings, ValueKind, WORDS, Writes, one};
use crate::cgroup::mounts::Version;

const SHARES: (u64, u64) = (2, 262_144);
const WEIGHTS: (u64, u64) = (1, 10_000);
const BLKIO_WEIGHTS: (u64, u64) = (10, 1_000);
/// The name and range of `blkio.weight` with the BFQ scheduler. The default is 100 as on v2.
const BFQ: (&str, (u64, u64)) = ("blkio.bfq.weight", (1, 1_000));

/// A setting to be translated from the version of its key to that of the host.
pub(super) struct Translation<'a> {
    pub(super) key: &'a str,
    pub(super) value: &'a str,
    pub(super) own: Version,
    pub(super) to: Version,
    pub(super) siblings: &'a Siblings<'a>,
}

impl Translation<'_> {
    pub(super) fn no_counterpart(&self, help: &str) -> SettingError {
        let version = match self.to {
            Version::V1 => "cgroup v1",
            Version::V2 => "cgroup v2",
        };
        let message = format!("{} has no counterpart in {version}, which this host uses", self.key);
        SettingError::NoCounterpart(SettingMessage::new(message, help))
    }

    /// Returns the write of a value that is the same in both versions.
    pub(super) fn same(
        &self,
        v2: &str,
        v1: &str,
        value: Result<String, SettingMessage>,
    ) -> Result<Writes, SettingError> {
        let value = value.map_err(SettingError::Value)?;
        match self.to {
            Version::V1 if v1.is_empty() => Err(self.no_counterpart("the setting is ignored")),
            Version::V1 => Ok(one(v1, value)),
            Version::V2 => Ok(one(v2, value)),
        }
    }

    pub(super) fn one_of(
        &self,
        v2: &str,
        v1: &str,
        words: &[&str],
    ) -> Result<Writes, SettingError> {
        let value = if words.contains(&self.value) {
            Ok(self.value.to_owned())
        } else {
            let help = format!("write one of: {}", words.join(", "));
            Err(SettingMessage::new("invalid value", help))
        };
        self.same(v2, v1, value)
    }

    pub(super) fn size(&self, v2: &str, v1: &str) -> Result<Writes, SettingError> {
        if super::share(self.key, self.value).is_some() {
            // The size of the memory is not known here.
            return self.same(v2, v1, Ok(self.value.to_owned()));
        }
        let bound = self.bound(self.value).map_err(|fault| fault.about(self.key))?;
        let written = match self.to {
            Version::V1 => bound.v1(),
            Version::V2 => bound.v2(),
        };
        self.same(v2, v1, Ok(written))
    }

    /// Parses a size in the format of the key's version.
    fn bound(&self, value: &str) -> Result<Bound, SettingError> {
        max_or_size(value, self.own == Version::V1).map_err(SettingError::Value)
    }

    pub(super) fn cpu_weight(&self) -> Result<Writes, SettingError> {
        let (low, high) = if self.own == Version::V1 { SHARES } else { WEIGHTS };
        let number = whole(self.value, low, high).map_err(SettingError::Value)?;
        if self.is_beside_idle() {
            return Ok(Writes::default());
        }
        Ok(match (self.own, self.to) {
            (Version::V1, Version::V1) => one("cpu.shares", number.to_string()),
            (Version::V2, Version::V2) => one("cpu.weight", number.to_string()),
            // Rounded up here and down in the other direction, so that a round trip changes
            // nothing.
            (Version::V2, Version::V1) => {
                self.cut("cpu.shares", (number * 1024).div_ceil(100), SHARES)
            }
            (Version::V1, Version::V2) => self.cut("cpu.weight", number * 100 / 1024, WEIGHTS),
        })
    }

    /// Checks whether the cgroup is to be idle: the kernel then rejects a weight.
    pub(super) fn is_beside_idle(&self) -> bool {
        (self.siblings)("cpu.idle").is_some_and(|value| value.trim() == "1")
    }

    /// Clamps a translated number to the range of the kernel.
    fn cut(&self, file: &str, number: u64, (low, high): (u64, u64)) -> Writes {
        let cut = number.clamp(low, high);
        let note = (cut != number).then(|| self.cut_note(file, cut, high));
        Writes { note, ..one(file, cut.to_string()) }
    }

    fn cut_note(&self, file: &str, cut: u64, high: u64) -> String {
        let what = if cut == high { "maximum" } else { "minimum" };
        format!("{} = {} becomes {file} = {cut} on this host, the {what}", self.key, self.value)
    }

    pub(super) fn io_weight(&self) -> Result<Writes, SettingError> {
        let text = self.value.strip_prefix("default ").unwrap_or(self.value).trim();
        let (low, high) = if self.own == Version::V1 { BLKIO_WEIGHTS } else { WEIGHTS };
        let number = whole(text, low, high).map_err(SettingError::Value)?;
        Ok(match (self.own, self.to) {
            (Version::V2, Version::V2) => one("io.weight", number.to_string()),
            (Version::V1, Version::V2) => self.cut("io.weight", (number / 5).max(1), WEIGHTS),
            (Version::V1, Version::V1) => {
                self.or_bfq(one("blkio.weight", number.to_string()), number / 5)
            }
            (Version::V2, Version::V1) => {
                self.or_bfq(self.cut("blkio.weight", number * 5, BLKIO_WEIGHTS), number)
            }
        })
    }

    /// Adds the alternative for BFQ. `weight` is on the scale of v2, which has the same default.
    fn or_bfq(&self, mut writes: Writes, weight: u64) -> Writes {
        let (file, (low, high)) = BFQ;
        let cut = weight.clamp(low, high);
        for write in &mut writes.writes {
            write.instead = Some((file, cut.to_string()));
        }
        writes.note_instead = (cut != weight).then(|| self.cut_note(file, cut, high));
        writes
    }

    pub(super) fn cpu_max(&self) -> Result<Writes, SettingError> {
        let is_v1 = self.own == Version::V1;
        let (quota, period) = quota(self.value, is_v1).map_err(SettingError::Value)?;
        let quota = quota.map_or(Bound::Max, Bound::At);
        if self.to == Version::V2 {
            let siblings = is_v1.then(|| (self.siblings)("cpu.cfs_period_us")).flatten();
            let period = siblings.and_then(|text| text.parse().ok()).or(period).unwrap_or(PERIOD);
            return Ok(one("cpu.max", format!("{} {period}", quota.v2())));
        }
        if is_v1 {
            return Ok(one("cpu.cfs_quota_us", quota.v1()));
        }
        let writes = one("cpu.cfs_period_us", period.unwrap_or(PERIOD).to_string());
        Ok(writes.and("cpu.cfs_quota_us", quota.v1()))
    }

    pub(super) fn cpu_period(&self) -> Result<Writes, SettingError> {
        let period: u64 = whole(self.value, 1_000, 1_000_000).map_err(SettingError::Value)?;
        Ok(match (self.to, (self.siblings)("cpu.cfs_quota_us")) {
            (Version::V1, _) => one("cpu.cfs_period_us", period.to_string()),
            (Version::V2, None) => one("cpu.max", format!("max {period}")),
            // Written together with the quota.
            (Version::V2, Some(_)) => Writes::default(),
        })
    }

    /// Returns a separate write for each device.
    pub(super) fn io_max(&self) -> Result<Writes, SettingError> {
        let mut writes = Writes::default();
        for part in self.value.split(',') {
            let (device, rates) = device_rates(part.trim()).map_err(SettingError::Value)?;
            if self.to == Version::V2 {
                let rates: Vec<String> =
                    rates.iter().map(|(name, bound)| format!("{name}={}", bound.v2())).collect();
                writes = writes.and("io.max", format!("{device} {}", rates.join(" ")));
                continue;
            }
            for (name, bound) in rates {
                let file = WORDS.iter().find(|word| word.kind == ValueKind::Throttle(name));
                let file = file.map_or("", |word| word.v1);
                writes = writes.and(file, format!("{device} {}", bound.throttle()));
            }
        }
        Ok(writes)
    }

    /// Translates a limit such as `8:0 1048576`, where 0 removes the limit.
    pub(super) fn throttle(&self, limit: &str) -> Result<Writes, SettingError> {
        let (device, rest) = device(self.value).map_err(SettingError::Value)?;
        let number: u64 = whole(rest, 0, u64::MAX).map_err(SettingError::Value)?;
        Ok(match self.to {
            Version::V1 => one(self.key, format!("{device} {number}")),
            Version::V2 if number == 0 => one("io.max", format!("{device} {limit}=max")),
            Version::V2 => one("io.max", format!("{device} {limit}={number}")),
        })
    }

    pub(super) fn io_latency(&self) -> Result<Writes, SettingError> {
        let (device, rest) = device(self.value).map_err(SettingError::Value)?;
        let help = "write a device and microseconds or a duration: \"8:0 target=2ms\"";
        let target = rest.strip_prefix("target=").and_then(|text| microseconds(text).ok());
        let Some(target) = target else {
            return Err(SettingError::Value(SettingMessage::new("missing target=", help)));
        };
        self.same("io.latency", "", Ok(format!("{device} target={target}")))
    }

    /// Translates a swap limit. v1 limits memory and swap together, so the translation needs the
    /// memory limit.
    pub(super) fn swap(&self) -> Result<Writes, SettingError> {
        if super::share(self.key, self.value).is_some() {
            // The size of the memory is not known here.
            return self.same(self.key, self.key, Ok(self.value.to_owned()));
        }
        let bound = self.bound(self.value)?;
        let (file, memory) = match self.own {
            Version::V2 => ("memory.memsw.limit_in_bytes", "memory.max"),
            Version::V1 => ("memory.swap.max", "memory.limit_in_bytes"),
        };
        if self.own == self.to {
            let written = if self.own == Version::V1 { bound.v1() } else { bound.v2() };
            return Ok(one(self.key, written));
        }
        let siblings = (self.siblings)(memory).and_then(|text| self.bound(&text).ok());
        let translated = match (self.own, bound, siblings) {
            (_, Bound::Max, _) => Bound::Max,
            (_, Bound::At(_), None) => {
                let help = format!("set {memory} too: v1 limits memory and swap together");
                return Err(self.no_counterpart(&help));
            }
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
