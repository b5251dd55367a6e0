//! Prints tables in plain text or Markdown, and computes their statistics.

use std::fs::File;
use std::io::Write;

use serde_json::{Map, Value, json};

use crate::Result;
use crate::machine;
use crate::plan::Plan;
use crate::subjects::{self, Subject};

/// Result of one measurement.
pub(crate) struct Table {
    pub(crate) title: String,
    /// Description of the measurement, in a sentence or two.
    pub(crate) note: String,
    pub(crate) head: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
    /// Samples of each subject for `--samples`.
    pub(crate) samples: Vec<Value>,
}

impl Table {
    pub(crate) fn new(title: &str, note: &str, head: &[&'static str]) -> Self {
        let (title, note, head) = (title.into(), note.into(), head.to_vec());
        Self { title, note, head, rows: Vec::new(), samples: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Adds a row for a subject that cannot be measured.
    pub(crate) fn missing(&mut self, subject: Subject, why: &str) {
        let mut cells = vec![subject.name(), why.to_owned()];
        cells.resize(self.head.len(), String::new());
        self.rows.push(cells);
    }
}

pub(crate) fn heading(plan: &Plan) -> Result<()> {
    let date = std::process::Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).output()?;
    let mut facts = vec![("date", String::from_utf8_lossy(&date.stdout).trim().to_owned())];
    facts.extend(machine::mode());
    facts.push(("cgruled", subjects::describe(&subjects::cgruled_path())));
    if let Some(path) = subjects::baseline_path() {
        facts.push(("baseline", subjects::describe(&path)));
    }
    facts.push(("length", if plan.quick { "--quick: not for quoting" } else { "full" }.into()));
    let intro = "Ratios are taken within a round, in which all subjects run one after another; shown are the median and \
                 the least and greatest of the rounds. The v1 subjects place into a `pids` cgroup, because \
                 cgrulesengd cannot place into v2 unless a controller is enabled there; each is compared with the \
                 floor in the same hierarchy. Compare ratios, not times.";
    let title = "Results of `cargo bench --bench storm -- --markdown`";
    println!("{}{title}\n\n{intro}\n", if plan.markdown { "# " } else { "" });
    if let Some(path) = &plan.samples {
        // The file is committed: without the path of the program.
        let facts = facts.iter().map(|(name, value)| {
            let value = value.split(" (").next();
            ((*name).to_owned(), json!(value))
        });
        writeln!(File::create(path)?, "{}", Value::Object(facts.collect::<Map<_, _>>()))?;
    }
    for (name, value) in facts {
        println!("{}{name}: {value}", if plan.markdown { "- " } else { "" });
    }
    println!();
    Ok(())
}

pub(crate) fn print(plan: &Plan, table: &Table) -> Result<()> {
    if plan.markdown {
        markdown(table);
    } else {
        plain(table);
    }
    if let Some(path) = &plan.samples {
        let mut file = File::options().append(true).open(path)?;
        for sample in &table.samples {
            writeln!(file, "{sample}")?;
        }
    }
    Ok(())
}

fn markdown(table: &Table) {
    println!("## {}\n\n{}\n", table.title, table.note);
    println!("| {} |", table.head.join(" | "));
    println!("|{}", "---|".repeat(table.head.len()));
    for row in &table.rows {
        println!("| {} |", row.join(" | "));
    }
    println!();
}

fn plain(table: &Table) {
    println!("{}\n  {}", table.title, table.note);
    let head: Vec<String> = table.head.iter().map(|&word| word.to_owned()).collect();
    let width = |column: usize| {
        let cells = std::iter::once(&head).chain(&table.rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    for row in std::iter::once(&head).chain(&table.rows) {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        println!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    println!();
}

/// Returns the value below which `percent` of the sorted values lie; 100 returns the greatest.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((sorted.len() * percent / 100).min(last)).copied()
}

pub(crate) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

pub(crate) fn median(values: Vec<f64>) -> Option<f64> {
    middle(&sorted(values))
}

/// Returns the median; between the two middle values when the count is even: with few rounds the
/// upper one alone would mislead.
fn middle(sorted: &[f64]) -> Option<f64> {
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get(sorted.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

/// Formats `median (least..greatest)`, or a dash without values.
pub(crate) fn spread(values: Vec<f64>, digits: usize) -> String {
    let values = sorted(values);
    match (values.first(), middle(&values), values.last()) {
        (Some(least), Some(middle), Some(most)) => {
            format!("{middle:.digits$} ({least:.digits$}..{most:.digits$})")
        }
        (_, _, _) => "-".into(),
    }
}

/// Formats a number of microseconds or the like, or a dash.
pub(crate) fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}
