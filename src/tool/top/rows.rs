//! Two moments to rates, in an order. Pure.

use std::cmp::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::sample::{Figures, Groups, lossy, shown};

/// What rows are sorted by; then by path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Cpu,
    Memory,
    Io,
    Tasks,
    Pressure,
    Path,
}

/// The words and keys of the orders.
pub(super) const SORTS: [(&str, u8, Sort); 6] = [
    ("cpu", b'c', Sort::Cpu),
    ("memory", b'm', Sort::Memory),
    ("io", b'i', Sort::Io),
    ("tasks", b't', Sort::Tasks),
    ("pressure", b'p', Sort::Pressure),
    ("name", b'n', Sort::Path),
];

/// A group as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Row {
    /// From the top of each hierarchy.
    pub(super) cgroup: String,
    /// The same, for people.
    #[serde(skip)]
    pub(super) shown: String,
    /// The first rule that can lead there.
    pub(super) rule: String,
    /// How many rules can.
    pub(super) rules: usize,
    /// 100 is one CPU.
    pub(super) cpu_percent: Option<f64>,
    pub(super) memory_bytes: Option<u64>,
    pub(super) io_bytes_per_second: Option<f64>,
    pub(super) tasks: Option<u64>,
    /// Percent of the last ten seconds.
    pub(super) pressure_percent: Option<f64>,
    /// What it is pressed for: `cpu`, `memory` or `io`.
    pub(super) pressure_of: Option<&'static str>,
    /// Time for which CPUs were withheld, in percent of the time.
    pub(super) throttled_percent: Option<f64>,
    pub(super) oom_kills: Option<u64>,
    /// Whether it lies below another one, whose figures contain its own.
    #[serde(skip)]
    pub(super) is_nested: bool,
}

/// The rows of a moment, with rates since the one before, which was `apart` from it.
pub(super) fn rows(
    before: &Groups,
    now: &Groups,
    apart: Duration,
    rule: impl Fn(usize) -> String,
) -> Vec<Row> {
    let mut rows = Vec::with_capacity(now.len());
    for (path, group) in now {
        let old = before.get(path).map(|group| group.figures);
        let figures = group.figures;
        let rate = |of: fn(&Figures) -> Option<u64>| {
            let grown = of(&figures)?.saturating_sub(of(&old?)?);
            let seconds = apart.as_secs_f64();
            (seconds > 0.0).then(|| grown as f64 / seconds)
        };
        let parents = (1..path.len()).filter(|&at| path[at] == b'/');
        let is_nested = parents.into_iter().any(|end| now.contains_key(&path[..end]));
        rows.push(Row {
            cgroup: lossy(path),
            shown: shown(path),
            rule: group.rules.first().map(|&first| rule(first)).unwrap_or_default(),
            rules: group.rules.len(),
            // Nanoseconds a second to percent.
            cpu_percent: rate(|f| f.cpu).map(|rate| rate / 1e7),
            memory_bytes: figures.memory,
            io_bytes_per_second: rate(|f| f.io),
            tasks: figures.tasks,
            pressure_percent: figures.pressure.map(|(percent, _)| percent),
            pressure_of: figures.pressure.map(|(_, of)| of.name()),
            throttled_percent: rate(|f| f.throttled).map(|rate| rate / 1e7),
            oom_kills: figures.oom_kills,
            is_nested,
        });
    }
    rows
}

/// The largest first, what is not known last.
pub(super) fn sort(rows: &mut [Row], by: Sort) {
    let key = |row: &Row| match by {
        Sort::Cpu => row.cpu_percent,
        Sort::Memory => row.memory_bytes.map(|bytes| bytes as f64),
        Sort::Io => row.io_bytes_per_second,
        Sort::Tasks => row.tasks.map(|tasks| tasks as f64),
        Sort::Pressure => row.pressure_percent,
        Sort::Path => None,
    };
    rows.sort_by(|a, b| {
        let order = key(b).partial_cmp(&key(a)).unwrap_or(Ordering::Equal);
        order.then_with(|| a.cgroup.cmp(&b.cgroup))
    });
}

/// The sum of all groups, each counted once.
pub(super) fn total<T: std::iter::Sum<T>>(rows: &[Row], of: impl Fn(&Row) -> Option<T>) -> T {
    rows.iter().filter(|row| !row.is_nested).filter_map(of).sum()
}
