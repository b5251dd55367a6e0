//! `cgrulectl status`: shows the state of the daemon, as a page or as JSON.

mod page;

use std::io::Write;

use super::command::{DaemonFlags, ToolError};
use super::json;
use super::{daemon_client, locale};

#[derive(clap::Args)]
#[command(
    about = "Show daemon state, counters and placement latency",
    after_help = "\
Examples:
  cgrulectl status
      overview of rules, events, moves, failures and latency
  cgrulectl status --json | jq .latency.p99_us
      a single value"
)]
pub(super) struct StatusArgs {
    /// one object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonFlags,
}

pub(super) fn run(given: &StatusArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let status = daemon_client::status(&given.daemon)?;
    if given.json {
        json::write(&status, out)?;
    } else {
        let style = page::PageOptions {
            is_colored: locale::is_colored(),
            is_unicode: locale::is_unicode(),
        };
        out.write_all(page::render(&status, style).as_bytes())?;
    }
    Ok(0)
}
