//! `cgrulectl metrics`: prints the daemon's counters for scrapers. Must print nothing but OpenMetrics text.

use std::io::Write;

use super::command::{Args, Subcommand, ToolError};
use super::daemon_client;
use crate::control::openmetrics;

pub(super) const COMMAND: Subcommand = Subcommand {
    name: "metrics",
    operands: "",
    summary: "Print all counters as OpenMetrics text",
    flags: &[],
    examples: &[("metrics", "for a scraper; alternatively set metrics_textfile in cgruled.toml")],
    ends_at_operand: false,
    run,
};

fn run(given: &Args, out: &mut dyn Write) -> Result<u8, ToolError> {
    given.no_operands()?;
    let status = daemon_client::status(given)?;
    out.write_all(openmetrics::render(&status).as_bytes())?;
    Ok(0)
}
