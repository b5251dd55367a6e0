//! `cgrulectl top`: shows the resource usage of the cgroups that rules place processes in. Must not need a
//! daemon.

mod patterns;
mod rows;
mod sample;
mod terminal;
mod view;

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::command::{DaemonFlags, ToolError};
use super::daemon_client::RunNotes;
use super::json;
use super::locale;
use super::unread;
use super::what_if::WhatIf;
use crate::config::quantity;
use crate::rules::PathBase;
use patterns::DestinationPatterns;
use rows::{GroupRow, SORTS, Sort, rows, sort};
use sample::{SampledGroups, Sampler, shown};
use terminal::{Input, Terminal};
use view::{Frame, FrameOptions, lines};

#[derive(clap::Args)]
#[command(
    about = "Show the resource usage of the cgroups of rules",
    after_help = "\
Examples:
  cgrulectl top
      the keys c m i t p n sort, q quits; PRESS is the worst of cpu, memory
      and io
  cgrulectl top --once --sort memory
      print one table for a mail or a log"
)]
pub(super) struct TopArgs {
    /// interval between tables, such as 500ms
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = delay)]
    delay: Duration,
    /// stop after this many tables
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,
    /// sort key
    #[arg(long, value_name = "KEY", default_value = "cpu")]
    sort: Sort,
    /// print one table and stop, as without a terminal
    #[arg(long)]
    once: bool,
    /// one line of JSON per table; a single one without -n
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonFlags,
}

/// Minimum interval: at a shorter one the tool itself would take much of the CPU time.
const LEAST_DELAY: Duration = Duration::from_millis(50);

pub(super) fn run(given: &TopArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let has_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let is_interactive = has_terminal && !given.once && !given.json;
    let WhatIf { policy, hierarchies, diagnostics } = WhatIf::new(&given.daemon, RunNotes::Said)?;
    if let Some(note) = unread::told(&unread::files(&diagnostics)) {
        eprintln!("cgrulectl: {note}");
    }
    let rules = policy.matcher.rules();
    let patterns = DestinationPatterns::new(rules, |target| policy.beginning(target.below));
    let sampler = Sampler { hierarchies, patterns };
    let name = |rule: usize| rules.get(rule).map_or(String::new(), |rule| rule.name.to_string());
    let root = format!("{}/", shown(policy.beginning(PathBase::Root).as_bytes()));
    let mut top = TopScreen::new(&sampler, rules.len(), root, &name);
    if is_interactive {
        watch(&mut top, given, out)?;
    } else {
        print(&mut top, given, out)?;
    }
    Ok(0)
}

/// Parses an interval. As in systemd-cgtop, a number without a unit is seconds.
fn delay(text: &str) -> Result<Duration, &'static str> {
    let delay = quantity::duration(text).or_else(|| quantity::duration(&format!("{text}s")));
    delay
        .filter(|delay| *delay >= LEAST_DELAY)
        .ok_or("use a time such as 500ms or 2s, at least 50ms")
}

/// Previous sample, and everything needed to take the next one.
struct TopScreen<'t> {
    sampler: &'t Sampler,
    rules: usize,
    /// Prefix that is omitted from paths, as in rules.
    root: String,
    name: &'t dyn Fn(usize) -> String,
    last: SampledGroups,
    at: Instant,
}

impl<'t> TopScreen<'t> {
    fn new(
        sampler: &'t Sampler,
        rules: usize,
        root: String,
        name: &'t dyn Fn(usize) -> String,
    ) -> Self {
        Self { sampler, rules, root, name, last: sampler.sample(), at: Instant::now() }
    }

    /// Returns the cgroups of the first sample, without rates.
    fn first(&self) -> Vec<GroupRow> {
        self.rows(&SampledGroups::new(), &self.last, Duration::ZERO)
    }

    /// Takes a sample and returns the cgroups with rates since the previous one.
    fn style(&mut self) -> (Vec<GroupRow>, Duration) {
        let now = self.sampler.sample();
        let at = Instant::now();
        let apart = at - self.at;
        let rows = self.rows(&self.last, &now, apart);
        (self.last, self.at) = (now, at);
        (rows, apart)
    }

    fn rows(&self, before: &SampledGroups, now: &SampledGroups, apart: Duration) -> Vec<GroupRow> {
        let mut rows = rows(before, now, apart, self.name);
        for row in &mut rows {
            if let Some(below) = row.shown.strip_prefix(&self.root) {
                row.shown = below.to_owned();
            }
        }
        rows
    }
}

#[derive(Serialize)]
struct TopObject<'r> {
    /// Time between the two samples of the rates.
    interval_ms: u64,
    groups: &'r [GroupRow],
}

/// Prints one table, or one line of JSON, for each sample, without a terminal.
fn print(top: &mut TopScreen<'_>, given: &TopArgs, out: &mut dyn Write) -> Result<(), ToolError> {
    for count in 0..given.iterations.unwrap_or(1) {
        thread::sleep(given.delay);
        let (mut rows, apart) = top.style();
        sort(&mut rows, given.sort);
        if given.json {
            let interval_ms = u64::try_from(apart.as_millis()).unwrap_or(u64::MAX);
            writeln!(out, "{}", json::line(&TopObject { interval_ms, groups: &rows })?)?;
        } else {
            if count > 0 {
                writeln!(out)?;
            }
            let (width, _) = terminal::size(io::stdout().as_fd());
            let style = FrameOptions {
                color: locale::is_colored(),
                unicode: locale::is_unicode(),
                width,
                height: None,
            };
            let frame =
                Frame { sort: given.sort, cpus: cpus(), rules: top.rules, is_interactive: false };
            for line in lines(&rows, frame, style) {
                writeln!(out, "{}", line.trim_end())?;
            }
        }
        out.flush()?;
    }
    Ok(())
}

/// Updates the table on a terminal until a key or signal stops it.
fn watch(top: &mut TopScreen<'_>, given: &TopArgs, out: &mut dyn Write) -> Result<(), ToolError> {
    let terminal = Terminal::take(out)?;
    // The first rates appear after 300 ms at most.
    let mut rows = top.first();
    let mut next = Instant::now() + given.delay.min(Duration::from_millis(300));
    let (mut count, mut order) = (0, given.sort);
    loop {
        sort(&mut rows, order);
        let frame = Frame { sort: order, cpus: cpus(), rules: top.rules, is_interactive: true };
        draw(&rows, frame, terminal.size(), out)?;
        let input = terminal.wait(next.saturating_duration_since(Instant::now()), out)?;
        match input {
            Input::End | Input::Key(b'q' | b'Q') => return Ok(()),
            Input::Key(key) => {
                let found = SORTS.iter().find(|(_, own, _)| *own == key.to_ascii_lowercase());
                order = found.map_or(order, |(_, _, sort)| *sort);
            }
            Input::Nothing | Input::Resized => {}
        }
        if Instant::now() >= next {
            rows = top.style().0;
            next = Instant::now() + given.delay;
            count += 1;
            if given.iterations.is_some_and(|most| count >= most) {
                return Ok(());
            }
        }
    }
}

/// Draws over the previous table, so that the screen does not flicker.
fn draw(
    rows: &[GroupRow],
    frame: Frame,
    (width, height): (usize, usize),
    out: &mut dyn Write,
) -> io::Result<()> {
    let style = FrameOptions {
        color: locale::is_colored(),
        unicode: locale::is_unicode(),
        width,
        height: Some(height),
    };
    let mut text = "\x1b[H".to_owned();
    for (index, line) in lines(rows, frame, style).iter().take(height).enumerate() {
        text += if index == 0 { "" } else { "\r\n" };
        text += line;
        text += "\x1b[K";
    }
    text += "\x1b[J";
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn cpus() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
#[path = "top/tests.rs"]
mod tests;
