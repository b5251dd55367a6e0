//! Rows of the table from two samples, with rates, in a sort order. Pure: must not read a file or clock.

use std::cmp::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::sample::{GroupUsage, SampledGroups, lossy, shown};

/// Sort key of the rows; rows of equal value are sorted by path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Sort {
    Cpu,
    Memory,
    Io,
    Tasks,
    Pressure,
    #[value(name = "name")]
    Path,
}

impl Sort {
    /// Returns the value that is compared; rows without it are sorted by path.
    fn value(self, row: &GroupRow) -> Option<f64> {
        match self {
            Self::Cpu => row.cpu_percent,
            Self::Memory => row.memory_bytes.map(|bytes| bytes as f64),
            Self::Io => row.io_bytes_per_second,
            Self::Tasks => row.tasks.map(|tasks| tasks as f64),
            Self::Pressure => row.pressure_percent,
            Self::Path => None,
        }
    }
}

/// Name and terminal key of each sort key.
pub(super) const SORTS: [(&str, u8, Sort); 6] = [
    ("cpu", b'c', Sort::Cpu),
    ("memory", b'm', Sort::Memory),
    ("io", b'i', Sort::Io),
    ("tasks", b't', Sort::Tasks),
    ("pressure", b'p', Sort::Pressure),
    ("name", b'n', Sort::Path),
];

/// Cgroup with its values and rates.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct GroupRow {
    /// Path from the root of each hierarchy.
    pub(super) cgroup: String,
    /// The path escaped for a terminal.
    #[serde(skip)]
    pub(super) shown: String,
    /// First rule with a destination that can expand to the path.
    pub(super) rule: String,
    /// Number of rules with such a destination.
    pub(super) rules: usize,
    /// CPU usage; 100 is one CPU.
    pub(super) cpu_percent: Option<f64>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) io_bytes_per_second: Option<f64>,
    pub(super) tasks: Option<u64>,
    /// Greatest pressure in the last ten seconds, in percent.
    pub(super) pressure_percent: Option<f64>,
    /// Resource of that pressure: `cpu`, `memory` or `io`.
    pub(super) pressure_of: Option<&'static str>,
    /// Throttled CPU time in percent of the interval.
    pub(super) throttled_percent: Option<f64>,
    pub(super) oom_kills: Option<u64>,
    /// True if it is below another cgroup of the table, which includes its values.
    #[serde(skip)]
    pub(super) is_nested: bool,
}

/// Returns the rows of a sample, with rates since the previous sample, which was taken `apart` before.
pub(super) fn rows(
    before: &SampledGroups,
    now: &SampledGroups,
    apart: Duration,
    rule: impl Fn(usize) -> String,
) -> Vec<GroupRow> {
    let mut rows = Vec::with_capacity(now.len());
    for (path, group) in now {
        let old = before.get(path).map_or(GroupUsage::default(), |group| group.figures);
        let figures = group.figures;
        let parents = (1..path.len()).filter(|&at| path[at] == b'/');
        let is_nested = parents.into_iter().any(|end| now.contains_key(&path[..end]));
        rows.push(GroupRow {
            cgroup: lossy(path),
            shown: shown(path),
            rule: group.rules.first().map(|&first| rule(first)).unwrap_or_default(),
            rules: group.rules.len(),
            // Nanoseconds per second to percent.
            cpu_percent: rate(old.cpu, figures.cpu, apart).map(|rate| rate / 1e7),
            memory_bytes: figures.memory,
            io_bytes_per_second: rate(old.io, figures.io, apart),
            tasks: figures.tasks,
            pressure_percent: figures.pressure.map(|(percent, _)| percent),
            pressure_of: figures.pressure.map(|(_, of)| of.name()),
            throttled_percent: rate(old.throttled, figures.throttled, apart).map(|rate| rate / 1e7),
            oom_kills: figures.oom_kills,
            is_nested,
        });
    }
    rows
}

/// Returns the growth of a value per second.
fn rate(old: Option<u64>, new: Option<u64>, apart: Duration) -> Option<f64> {
    let grown = new?.saturating_sub(old?);
    let seconds = apart.as_secs_f64();
    (seconds > 0.0).then(|| grown as f64 / seconds)
}

/// Sorts the rows, the greatest value first and unknown values last.
pub(super) fn sort(rows: &mut [GroupRow], by: Sort) {
    rows.sort_by(|a, b| {
        let order = by.value(b).partial_cmp(&by.value(a)).unwrap_or(Ordering::Equal);
        order.then_with(|| a.cgroup.cmp(&b.cgroup))
    });
}

/// Returns the sum over all cgroups; nested cgroups are included in their parents.
pub(super) fn total<T: std::iter::Sum<T>>(
    rows: &[GroupRow],
    of: impl Fn(&GroupRow) -> Option<T>,
) -> T {
    rows.iter().filter(|row| !row.is_nested).filter_map(of).sum()
}
