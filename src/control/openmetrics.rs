//! Renders [`Status`] as OpenMetrics text.
//!
//! Names begin with `cgruled_`. Each counter of the daemon is a counter; in addition there are the
//! build, the start time, the active rules, refusals by errno and the latency of moves as a
//! histogram.

use std::fmt::{self, Write};

use super::status::{MoveLatency, Status};
use crate::telemetry::metrics::MEANINGS;

/// The largest bucket as a power of two in microseconds: 16.8 s. The set of buckets is fixed, so
/// that no series appears or disappears.
const BUCKETS: u32 = 24;

/// Returns the whole text, which ends with `# EOF`.
pub fn render(status: &Status) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = write_all(status, &mut text);
    text
}

fn write_all(status: &Status, out: &mut String) -> fmt::Result {
    // The textfile collector of node_exporter does not know the type "info".
    family(out, "cgruled_build_info", "gauge", "", "The running daemon.")?;
    writeln!(out, "cgruled_build_info{{version=\"{}\"}} 1", label(&status.version))?;
    gauge(out, "cgruled_start_time_seconds", "seconds", "Start time.", status.started)?;
    gauge(out, "cgruled_rules", "", "Active rules.", status.rules.count)?;
    let not_in_force = status.refused_reload.as_ref().map_or(0, |refused| refused.errors.len());
    let errors = status.rules.errors + not_in_force as u64;
    gauge(out, "cgruled_rule_errors", "", "Errors in rule files.", errors)?;
    let help = "1 if files with new errors are kept at their last valid version.";
    gauge(out, "cgruled_rules_stale", "", help, u64::from(status.refused_reload.is_some()))?;
    for (name, meaning) in MEANINGS {
        let Some(value) = status.counters.get(*name) else { continue };
        family(out, &format!("cgruled_{name}"), "counter", "", meaning.trim())?;
        writeln!(out, "cgruled_{name}_total {value}")?;
    }
    family(out, "cgruled_refusals", "counter", "", "Moves refused by the kernel, by errno.")?;
    for refusal in &status.refusals {
        let errno = label(&refusal.errno);
        writeln!(out, "cgruled_refusals_total{{errno=\"{errno}\"}} {}", refusal.count)?;
    }
    histogram(out, &status.latency)?;
    out.write_str("# EOF\n")
}

fn family(out: &mut String, name: &str, kind: &str, unit: &str, help: &str) -> fmt::Result {
    writeln!(out, "# TYPE {name} {kind}")?;
    if !unit.is_empty() {
        writeln!(out, "# UNIT {name} {unit}")?;
    }
    writeln!(out, "# HELP {name} {}", label(help))
}

fn gauge(out: &mut String, name: &str, unit: &str, help: &str, value: u64) -> fmt::Result {
    family(out, name, "gauge", unit, help)?;
    writeln!(out, "{name} {value}")
}

fn histogram(out: &mut String, latency: &MoveLatency) -> fmt::Result {
    let name = "cgruled_placement_latency_seconds";
    let help = "Time from the kernel's event to the end of the move.";
    family(out, name, "histogram", "seconds", help)?;
    for power in 0..=BUCKETS {
        let upper = 1u64 << power;
        let within = latency.octaves.iter().filter(|&&(octave, _)| octave <= upper);
        let count: u64 = within.map(|&(_, count)| count).sum();
        writeln!(out, "{name}_bucket{{le=\"{}\"}} {count}", seconds(upper))?;
    }
    writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {}", latency.count)?;
    writeln!(out, "{name}_sum {}", seconds(latency.sum_us))?;
    writeln!(out, "{name}_count {}", latency.count)
}

/// Formats microseconds as seconds, for example `0.000064`. OpenMetrics requires the decimal point.
fn seconds(microseconds: u64) -> String {
    let text = format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000);
    let short = text.trim_end_matches('0');
    if short.ends_with('.') { format!("{short}0") } else { short.to_owned() }
}

/// Escapes a label or help text.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::RefusedMoves;

    fn status() -> Status {
        let refusal = RefusedMoves { errno: "EBUSY".into(), meaning: String::new(), count: 7 };
        Status {
            version: "1.0".into(),
            counters: [("placed".to_owned(), 5)].into(),
            refusals: vec![refusal],
            latency: MoveLatency {
                count: 3,
                sum_us: 1_000_090,
                octaves: vec![(64, 2), (128, 0), (1 << 20, 1)],
                ..MoveLatency::default()
            },
            ..Status::default()
        }
    }

    #[test]
    fn each_series_has_its_family() {
        let text = render(&status());
        for line in [
            "# TYPE cgruled_placed counter",
            "# HELP cgruled_placed Processes moved to the cgroup of their rule.",
            "cgruled_placed_total 5",
            "cgruled_refusals_total{errno=\"EBUSY\"} 7",
            "# UNIT cgruled_placement_latency_seconds seconds",
            "cgruled_placement_latency_seconds_bucket{le=\"0.000032\"} 0",
            "cgruled_placement_latency_seconds_bucket{le=\"0.000064\"} 2",
            "cgruled_placement_latency_seconds_bucket{le=\"1.048576\"} 3",
            "cgruled_placement_latency_seconds_bucket{le=\"+Inf\"} 3",
            "cgruled_placement_latency_seconds_sum 1.00009",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1);
    }

    #[test]
    fn families_are_whole_and_come_once() {
        let text = render(&status());
        let names: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
            .collect();
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len());
        let mut current = "";
        for line in text.lines().filter(|line| *line != "# EOF") {
            match line.strip_prefix("# ") {
                Some(meta) => current = meta.split(' ').nth(1).unwrap(),
                None => assert!(line.starts_with(current), "{line} is not of {current}"),
            }
        }
    }
}
