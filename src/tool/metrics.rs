//! `cgrulectl metrics`: prints the daemon's counters for scrapers. Must print nothing but OpenMetrics text.

use std::io::Write;

use super::asking;
use super::command::{Command, Failure, Given};
use crate::control::openmetrics;

pub(super) const COMMAND: Command = Command {
    name: "metrics",
    operands: "",
    summary: "Print all counters as OpenMetrics text",
    flags: &[],
    examples: &[("metrics", "for a scraper; alternatively set metrics_textfile in cgruled.toml")],
    ends_at_operand: false,
    run,
};

fn run(given: &Given, out: &mut dyn Write) -> Result<u8, Failure> {
    given.no_operands()?;
    let status = asking::status(given)?;
    out.write_all(openmetrics::render(&status).as_bytes())?;
    Ok(0)
}
