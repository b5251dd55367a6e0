//! Table of rows that fits a terminal. Pure: must not write or move the cursor.

use super::rows::{GroupRow, SORTS, Sort, total};

/// Columns of everything except cgroup and rule, with separators.
const FIXED: usize = 48;
/// Minimum columns of the cgroup.
const SHORTEST: usize = 8;
/// Minimum columns of cgroup and rule together for the rule to be shown.
const LEAST: usize = 24;
/// Cells of the bar for CPU usage.
const BAR: usize = 4;
/// Percentage from which pressure and throttling are highlighted.
const MUCH: f64 = 10.0;

/// Capabilities and size of the terminal.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameOptions {
    pub(super) color: bool,
    pub(super) unicode: bool,
    pub(super) width: usize,
    /// Number of lines, if limited.
    pub(super) height: Option<usize>,
}

/// Content of the header lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) sort: Sort,
    pub(super) cpus: usize,
    /// Number of all rules, which may be 0.
    pub(super) rules: usize,
    /// True if the line about keys is shown.
    pub(super) is_interactive: bool,
}

/// Returns the lines of the table, without escape sequences that move the cursor.
pub(super) fn lines(rows: &[GroupRow], frame: Frame, style: FrameOptions) -> Vec<String> {
    // A narrower terminal cuts every line, and lines with escape sequences cannot be cut.
    let style = FrameOptions { color: style.color && style.width >= FIXED + SHORTEST, ..style };
    let mut lines = vec![totals(rows, style)];
    if frame.is_interactive {
        lines.push(keys(frame.sort, style));
    }
    let (group, rule) = widths(style.width);
    lines.push(paint(&header(group, rule, style.width), "7", style));
    let unmeasured = unmeasured(rows);
    let used = lines.len() + usize::from(unmeasured.is_some());
    let room = style.height.map_or(usize::MAX, |height| height.saturating_sub(used));
    let (fit, rest) = match rows.len() > room {
        true => rows.split_at(room.saturating_sub(1)),
        false => (rows, &[][..]),
    };
    lines.extend(fit.iter().map(|row| line(row, frame, style)));
    if rows.is_empty() {
        let why = match frame.rules {
            0 => "No rules found: run 'cgrulectl check'.",
            _ => "No cgroup of a rule exists.",
        };
        lines.push(why.to_owned());
    } else if !rest.is_empty() {
        lines.push(format!("{} {} more cgroups", dots(style), rest.len()));
    }
    lines.extend(unmeasured.map(|text| cut(&text, style.width, style)));
    if !style.color {
        lines.iter_mut().for_each(|line| *line = cut(line, style.width, style));
    }
    lines
}

/// Returns the reason for missing values, if a controller is not enabled for some of the cgroups.
fn unmeasured(rows: &[GroupRow]) -> Option<String> {
    // Rates of the first sample are missing as well.
    let is_io_missing =
        |row: &GroupRow| row.io_bytes_per_second.is_none() && row.cpu_percent.is_some();
    let missing: Vec<&str> = [
        ("memory", rows.iter().any(|row| row.memory_bytes.is_none())),
        ("io", rows.iter().any(is_io_missing)),
    ]
    .into_iter()
    .filter_map(|(name, is_missing)| is_missing.then_some(name))
    .collect();
    let names = missing.join(" and ");
    (!missing.is_empty()).then(|| {
        format!("-  {names} not enabled for the cgroup: see 'controllers' in cgruled-rules(5)")
    })
}

fn widths(width: usize) -> (usize, usize) {
    let rest = width.saturating_sub(FIXED);
    if rest < LEAST {
        return ((rest + 1).max(SHORTEST), 0);
    }
    let group = rest * 4 / 7;
    (group, rest - group)
}

fn totals(rows: &[GroupRow], style: FrameOptions) -> String {
    // An empty sum of floats is -0.0.
    let cpu: f64 = total::<f64>(rows, |row| row.cpu_percent) + 0.0;
    let io: f64 = total(rows, |row| row.io_bytes_per_second);
    let text = format!(
        "cgroups {}  CPU {cpu:.1}%  memory {}  IO {}/s  tasks {}  OOM kills {}",
        rows.len(),
        bytes(total(rows, |row| row.memory_bytes)),
        bytes(io as u64),
        total::<u64>(rows, |row| row.tasks),
        total::<u64>(rows, |row| row.oom_kills),
    );
    paint(&cut(&text, style.width, style), "1", style)
}

fn keys(sort: Sort, style: FrameOptions) -> String {
    let words: Vec<String> = SORTS
        .iter()
        .map(|&(word, key, own)| {
            let mark = if own == sort { "*" } else { "" };
            format!("{}:{mark}{word}", char::from(key))
        })
        .collect();
    cut(&format!("sort  {}  q:quit", words.join(" ")), style.width, style)
}

fn header(group: usize, rule: usize, width: usize) -> String {
    let text = format!(
        "{:<group$} {:>10} {:>6} {:>6} {:>5} {:>5} {:>4} {:>3}",
        "CGROUP", "CPU%", "MEM", "IO/s", "TASKS", "PRESS", "THR%", "OOM"
    );
    let text = if rule > 0 { format!("{text} {:<rule$}", "RULE") } else { text };
    format!("{text:<width$}").chars().take(width).collect()
}

fn line(row: &GroupRow, Frame { cpus, .. }: Frame, style: FrameOptions) -> String {
    let (group, rule) = widths(style.width);
    let cpu = match row.cpu_percent {
        Some(value) if value < 9999.95 => format!("{value:.1}"),
        Some(value) => format!("{:.0}", value.min(999_999.0)),
        None => "-".to_owned(),
    };
    let pressure = match (row.pressure_percent, row.pressure_of) {
        (Some(percent), Some(of)) if percent >= 0.05 => {
            format!("{percent:.1}{}", of.chars().next().unwrap_or(' '))
        }
        (Some(_), _) => "0".to_owned(),
        (None, _) => "-".to_owned(),
    };
    let throttled = row
        .throttled_percent
        .map_or("-".to_owned(), |percent| format!("{:.0}", percent.min(9999.0)));
    let cells = [
        format!("{:<group$}", cut_start(&row.shown, group, style)),
        paint(
            &bar(row.cpu_percent.unwrap_or(0.0) / 100.0 / cpus.max(1) as f64, style),
            "36",
            style,
        ) + &format!("{cpu:>6}"),
        format!("{:>6}", row.memory_bytes.map_or("-".to_owned(), bytes)),
        format!("{:>6}", row.io_bytes_per_second.map_or("-".to_owned(), |rate| bytes(rate as u64))),
        format!("{:>5}", count(row.tasks)),
        alarm(format!("{pressure:>5}"), row.pressure_percent >= Some(MUCH), style),
        alarm(format!("{throttled:>4}"), row.throttled_percent >= Some(MUCH), style),
        alarm(format!("{:>3}", count(row.oom_kills)), row.oom_kills > Some(0), style),
    ];
    let mut line = cells.join(" ");
    if rule > 0 {
        line.push(' ');
        line += &feeders(row, rule, style);
    }
    line
}

fn count(value: Option<u64>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}

/// Paints a cell red if its value is alarming.
fn alarm(cell: String, is_alarming: bool, style: FrameOptions) -> String {
    if is_alarming { paint(&cell, "31", style) } else { cell }
}

/// Returns the name of the first rule, and the number of further rules for the cgroup.
fn feeders(row: &GroupRow, width: usize, style: FrameOptions) -> String {
    let more = if row.rules > 1 { format!(" +{}", row.rules - 1) } else { String::new() };
    let name =
        cut(&super::sample::shown(row.rule.as_bytes()), width.saturating_sub(more.len()), style);
    name + &more
}

/// Returns a bar for a fraction of 1.
fn bar(part: f64, style: FrameOptions) -> String {
    const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
    let steps = if style.unicode { 8 } else { 1 };
    let filled = (part.clamp(0.0, 1.0) * (BAR * steps) as f64).round() as usize;
    let full = if style.unicode { '█' } else { '#' };
    let mut text: String = std::iter::repeat_n(full, filled / steps).collect();
    if filled % steps > 0 {
        text.push(EIGHTHS[filled % steps]);
    }
    format!("{text:<BAR$}")
}

/// Formats bytes in at most five characters: `1023`, `1.0K`, `12.3M`, `123G`.
fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "";
    for next in ["K", "M", "G", "T", "P", "E"] {
        if value < 1000.0 || (unit.is_empty() && value < 1024.0) {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit.is_empty() || value >= 99.95 {
        return format!("{value:.0}{unit}");
    }
    format!("{value:.1}{unit}")
}

const fn dots(style: FrameOptions) -> &'static str {
    if style.unicode { "…" } else { "~" }
}

/// Cuts the end of a text.
fn cut(text: &str, width: usize, style: FrameOptions) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(dots(style).chars()).take(width).collect()
}

/// Cuts the beginning of a path, since cgroups differ at the end.
fn cut_start(text: &str, width: usize, style: FrameOptions) -> String {
    let count = text.chars().count();
    if count <= width {
        return text.to_owned();
    }
    let rest = text.chars().skip(count - width.saturating_sub(1));
    dots(style).chars().chain(rest).take(width).collect()
}

fn paint(text: &str, code: &str, style: FrameOptions) -> String {
    if style.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
