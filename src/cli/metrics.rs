//! `cgrulectl metrics`: prints the daemon's counters for scrapers. Must print nothing but OpenMetrics text.

use std::io::Write;

use super::command::{DaemonFlags, ToolError};
use super::daemon_client;
use crate::control::openmetrics;

#[derive(clap::Args)]
#[command(
    about = "Print all counters as OpenMetrics text",
    after_help = "\
Examples:
  cgrulectl metrics
      for a scraper; alternatively set metrics_textfile in cgruled.toml"
)]
pub(super) struct MetricsArgs {
    #[command(flatten)]
    daemon: DaemonFlags,
}

pub(super) fn run(given: &MetricsArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let status = daemon_client::status(&given.daemon)?;
    out.write_all(openmetrics::render(&status).as_bytes())?;
    Ok(0)
}
