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

use super::command::{Args, FlagSpec, Subcommand, ToolError};
use super::daemon_client::RunNotes;
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

pub(super) const COMMAND: Subcommand = Subcommand {
    name: "top",
    operands: "",
    summary: "Show the resource usage of the cgroups of rules",
    flags: &[
        FlagSpec {
            short: Some('d'),
            ..FlagSpec::value(
                "delay",
                "TIME",
                "interval between tables, such as 500ms (default: 1s)",
            )
        },
        FlagSpec {
            short: Some('n'),
            ..FlagSpec::value("iterations", "N", "stop after this many tables")
        },
        FlagSpec::value(
            "sort",
            "KEY",
            "sort by cpu (default), memory, io, tasks, pressure or name",
        ),
        FlagSpec::new("once", "print one table and stop, as without a terminal"),
        FlagSpec::new("json", "one line of JSON per table; a single one without -n"),
    ],
    examples: &[
        ("top", "the keys c m i t p n sort, q quits; PRESS is the worst of cpu, memory and io"),
        ("top --once --sort memory", "print one table for a mail or a log"),
    ],
    ends_at_operand: false,
    run,
};

/// Minimum interval: at a shorter one the tool itself would take much of the CPU time.
const LEAST_DELAY: Duration = Duration::from_millis(50);

struct TopOptions {
    delay: Duration,
    iterations: Option<u64>,
    sort: Sort,
}

fn run(given: &Args, out: &mut dyn Write) -> Result<u8, ToolError> {
    given.no_operands()?;
    let mut options = options(given)?;
    let has_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let is_interactive = has_terminal && !given.has("once") && !given.has("json");
    if !is_interactive {
        options.iterations = options.iterations.or(Some(1));
    }
    let WhatIf { policy, hierarchies, diagnostics } = WhatIf::new(given, RunNotes::Said)?;
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
        watch(&mut top, &mut options, given.color, out)?;
    } else {
        print(&mut top, &options, given, out)?;
    }
    Ok(0)
}

fn options(given: &Args) -> Result<TopOptions, ToolError> {
    let usage = |text: &str| ToolError::Usage(format!("top: {text}"));
    let delay = match given.text("delay")? {
        None => Some(Duration::from_secs(1)),
        // As in systemd-cgtop, a number without a unit is seconds.
        Some(text) => quantity::duration(text).or_else(|| quantity::duration(&format!("{text}s"))),
    };
    let delay = delay.filter(|delay| *delay >= LEAST_DELAY);
    let delay = delay
        .ok_or_else(|| usage("invalid --delay: use a time such as 500ms or 2s, at least 50ms"))?;
    let iterations = given.text("iterations")?.map(str::parse::<u64>).transpose();
    let iterations = iterations.ok().filter(|count| *count != Some(0));
    let iterations =
        iterations.ok_or_else(|| usage("invalid --iterations: use a number from 1"))?;
    let word = given.text("sort")?.unwrap_or("cpu");
    let found = SORTS.iter().find(|(own, _, _)| *own == word);
    let words = SORTS.map(|(word, _, _)| word).join(", ");
    let sort = found
        .map(|(_, _, sort)| *sort)
        .ok_or_else(|| usage(&format!("invalid --sort: use one of {words}")))?;
    Ok(TopOptions { delay, iterations, sort })
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
fn print(
    top: &mut TopScreen<'_>,
    options: &TopOptions,
    given: &Args,
    out: &mut dyn Write,
) -> Result<(), ToolError> {
    let mut count = 0;
    while options.iterations.is_none_or(|most| count < most) {
        thread::sleep(options.delay);
        let (mut rows, apart) = top.style();
        sort(&mut rows, options.sort);
        if given.has("json") {
            let interval_ms = u64::try_from(apart.as_millis()).unwrap_or(u64::MAX);
            serde_json::to_writer(&mut *out, &TopObject { interval_ms, groups: &rows })
                .map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            if count > 0 {
                writeln!(out)?;
            }
            let (width, _) = terminal::size(io::stdout().as_fd());
            let style = FrameOptions {
                color: given.color,
                unicode: locale::is_unicode(),
                width,
                height: None,
            };
            let frame =
                Frame { sort: options.sort, cpus: cpus(), rules: top.rules, is_interactive: false };
            for line in lines(&rows, frame, style) {
                writeln!(out, "{}", line.trim_end())?;
            }
        }
        out.flush()?;
        count += 1;
    }
    Ok(())
}

/// Updates the table on a terminal until a key or signal stops it.
fn watch(
    top: &mut TopScreen<'_>,
    options: &mut TopOptions,
    color: bool,
    out: &mut dyn Write,
) -> Result<(), ToolError> {
    let terminal = Terminal::take(out)?;
    // The first rates appear after 300 ms at most.
    let mut rows = top.first();
    let mut next = Instant::now() + options.delay.min(Duration::from_millis(300));
    let mut count = 0;
    loop {
        sort(&mut rows, options.sort);
        let frame =
            Frame { sort: options.sort, cpus: cpus(), rules: top.rules, is_interactive: true };
        draw(&rows, frame, color, terminal.size(), out)?;
        let input = terminal.wait(next.saturating_duration_since(Instant::now()), out)?;
        match input {
            Input::End | Input::Key(b'q' | b'Q') => return Ok(()),
            Input::Key(key) => {
                let found = SORTS.iter().find(|(_, own, _)| *own == key.to_ascii_lowercase());
                options.sort = found.map_or(options.sort, |(_, _, sort)| *sort);
            }
            Input::Nothing | Input::Resized => {}
        }
        if Instant::now() >= next {
            rows = top.style().0;
            next = Instant::now() + options.delay;
            count += 1;
            if options.iterations.is_some_and(|most| count >= most) {
                return Ok(());
            }
        }
    }
}

/// Draws over the previous table, so that the screen does not flicker.
fn draw(
    rows: &[GroupRow],
    frame: Frame,
    color: bool,
    (width, height): (usize, usize),
    out: &mut dyn Write,
) -> io::Result<()> {
    let style = FrameOptions { color, unicode: locale::is_unicode(), width, height: Some(height) };
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
