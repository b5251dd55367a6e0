//! Translates v2 settings to properties of systemd units for `systemctl set-property`. Pure.

use super::kernel_file::only_in;
use super::value::PERIOD;
use super::{SettingError, SettingMessage, Siblings, Write, Writes, files};
use crate::cgroup::mounts::Version;

/// Settings with the same value as the property, except for `max`.
const SAME: [(&str, &str); 11] = [
    ("cpu.weight", "CPUWeight"),
    ("cpuset.cpus", "AllowedCPUs"),
    ("cpuset.mems", "AllowedMemoryNodes"),
    ("io.weight", "IOWeight"),
    ("memory.high", "MemoryHigh"),
    ("memory.low", "MemoryLow"),
    ("memory.max", "MemoryMax"),
    ("memory.min", "MemoryMin"),
    ("memory.swap.max", "MemorySwapMax"),
    ("memory.zswap.max", "MemoryZSwapMax"),
    ("pids.max", "TasksMax"),
];

/// The properties for the limits of `io.max`.
const RATES: [(&str, &str); 4] = [
    ("rbps", "IOReadBandwidthMax"),
    ("wbps", "IOWriteBandwidthMax"),
    ("riops", "IOReadIOPSMax"),
    ("wiops", "IOWriteIOPSMax"),
];

/// The properties of a setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitProperties {
    /// The assignments as `Property=value`.
    pub words: Vec<String>,
    /// A warning if the unit does not get exactly the configured value.
    pub note: Option<String>,
}

/// Returns the properties for the setting `key`, a name of either cgroup version.
///
/// # Errors
/// The value is invalid, or systemd has no such property.
pub fn properties(
    key: &str,
    value: &str,
    siblings: &Siblings<'_>,
) -> Result<UnitProperties, SettingMessage> {
    let Writes { writes, note, .. } = match files(key, value, Version::V2, siblings) {
        Ok(writes) => writes,
        Err(SettingError::NoCounterpart(_)) if only_in(key).is_some() => {
            return Err(no_property(key));
        }
        Err(SettingError::Value(diagnostic) | SettingError::NoCounterpart(diagnostic)) => {
            return Err(diagnostic);
        }
    };
    let mut words = Vec::new();
    for write in writes {
        words.extend(of_write(&write).ok_or_else(|| no_property(key))?);
    }
    Ok(UnitProperties { words, note })
}

fn no_property(key: &str) -> SettingMessage {
    let message = format!("systemd units have no property for {key}");
    SettingMessage::new(message, "remove it, or use it in a table [cgroup.\"path\"]")
}

/// Returns the properties for a v2 file, `None` if systemd has none.
fn of_write(Write { file, value, .. }: &Write) -> Option<Vec<String>> {
    let same = SAME.iter().find(|(word, _)| word == file);
    if let Some((_, property)) = same {
        return Some(vec![format!("{property}={}", infinite(value))]);
    }
    match &**file {
        "cpu.max" => Some(quota(value)),
        "cpu.idle" if value == "1" => Some(vec!["CPUWeight=idle".to_owned()]),
        "cpu.idle" => Some(Vec::new()),
        "io.max" => {
            let (device, rates) = value.split_once(' ')?;
            rates.split(' ').map(|rate| of_rate(device, rate)).collect()
        }
        "io.latency" => {
            let (device, target) = value.split_once(" target=")?;
            Some(vec![format!("IODeviceLatencyTargetSec=/dev/block/{device} {target}us")])
        }
        _ => None,
    }
}

fn of_rate(device: &str, rate: &str) -> Option<String> {
    let (name, value) = rate.split_once('=')?;
    let (_, property) = RATES.iter().find(|(word, _)| *word == name)?;
    Some(format!("{property}=/dev/block/{device} {}", infinite(value)))
}

/// Translates `QUOTA PERIOD` in microseconds to a percentage of one CPU with two decimals, the
/// precision of systemd. An empty assignment removes the quota.
fn quota(value: &str) -> Vec<String> {
    let (quota, period) = value.split_once(' ').unwrap_or((value, ""));
    let period = period.parse().unwrap_or(PERIOD);
    let mut words = vec![match quota.parse::<u64>() {
        Ok(quota) => {
            let hundredths = (quota.saturating_mul(10_000) / period.max(1)).max(1);
            format!("CPUQuota={}.{:02}%", hundredths / 100, hundredths % 100).replace(".00%", "%")
        }
        Err(_) => "CPUQuota=".to_owned(),
    }];
    if period != PERIOD {
        words.push(format!("CPUQuotaPeriodSec={period}us"));
    }
    words
}

fn infinite(value: &str) -> &str {
    if value == "max" { "infinity" } else { value.trim_end() }
}

#[cfg(test)]
#[path = "unit_tests.rs"]
mod tests;
