//! Result of a row, and the table.

use std::any::Any;
use std::time::Duration;

/// Result of a row. Fields that a row does not measure are empty.
#[derive(Default)]
pub(crate) struct Outcome {
    /// What was done, in a few words.
    pub(crate) done: String,
    pub(crate) events: Option<i64>,
    pub(crate) lost: Option<i64>,
    pub(crate) misplaced: Option<usize>,
    /// Median and 99th percentile of the placement of a bystander.
    pub(crate) latency: Option<(Duration, Duration)>,
    /// Share of one CPU, in percent.
    pub(crate) cpu: Option<f64>,
    /// Growth of the resident memory in KiB.
    pub(crate) growth: Option<i64>,
    /// Promises that did not hold.
    pub(crate) broken: Vec<String>,
    /// Limits of a time, of CPU, of memory or of descriptors that were exceeded.
    pub(crate) exceeded: Vec<String>,
}

impl Outcome {
    pub(crate) fn new(done: impl Into<String>) -> Self {
        Self { done: done.into(), ..Self::default() }
    }

    pub(crate) fn failed(why: String) -> Self {
        Self { broken: vec![why], ..Self::new("failed") }
    }

    /// Takes the numbers of events from the counters that the daemon printed, by name.
    pub(crate) fn count(&mut self, counter: impl Fn(&str) -> i64) {
        self.events = Some(counter("events") + counter("forks"));
        self.lost = Some(counter("lost_events"));
    }

    /// Records a promise.
    pub(crate) fn expect(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            self.broken.push(what.into());
        }
    }

    /// Records a limit of a time, of CPU, of memory or of descriptors, which may be exceeded because of other work on the
    /// machine or in a short row.
    pub(crate) fn expect_limit(&mut self, holds: bool, what: impl Into<String>) {
        if !holds {
            self.exceeded.push(what.into());
        }
    }

    /// Records how long it took until all was right again, if it was.
    pub(crate) fn expect_soon(&mut self, took: Option<Duration>, limit: Duration, what: &str) {
        self.expect(took.is_some(), format!("{what}: never"));
        self.expect_limit(took.is_none_or(|took| took <= limit), format!("{what}: {took:?}"));
    }

    /// Records the number of misplaced processes, of which there must be none.
    pub(crate) fn expect_none_misplaced(&mut self, misplaced: usize) {
        self.misplaced = Some(self.misplaced.unwrap_or(0) + misplaced);
        self.expect(misplaced == 0, format!("{misplaced} misplaced"));
    }
}

/// Returns the text of a panic.
pub(crate) fn text_of(why: &(dyn Any + Send)) -> String {
    let text = why.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| why.downcast_ref::<&str>().copied()).unwrap_or("a panic");
    text.lines().collect::<Vec<_>>().join("; ")
}

pub(crate) fn print_head() {
    println!(
        "| row | done | events | lost | misplaced | bystander p50 / p99 (ms) | CPU (%) | RSS growth (KiB) | verdict |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
}

pub(crate) fn print(name: &str, row: &Outcome) {
    let failed: Vec<&str> = row.broken.iter().chain(&row.exceeded).map(String::as_str).collect();
    let verdict = if failed.is_empty() { "holds".to_owned() } else { failed.join("; ") };
    let ms = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1000.0);
    let latency = row.latency.map(|(p50, p99)| format!("{} / {}", ms(p50), ms(p99)));
    let cpu = row.cpu.map(|cpu| format!("{cpu:.0}"));
    let cells = [
        name.to_owned(),
        row.done.clone(),
        text(row.events),
        text(row.lost),
        text(row.misplaced),
        latency.unwrap_or_default(),
        cpu.unwrap_or_default(),
        text(row.growth),
        verdict,
    ];
    println!("| {} |", cells.join(" | "));
}

fn text(number: Option<impl ToString>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}
