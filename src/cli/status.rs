//! `cgrulectl status`: shows the state of the daemon, as a page or as JSON.

mod page;

use std::io::Write;

use super::command::{Args, FlagSpec, Subcommand, ToolError};
use super::daemon_client;

pub(super) const COMMAND: Subcommand = Subcommand {
    name: "status",
    operands: "",
    summary: "Show daemon state, counters and placement latency",
    flags: &[FlagSpec::new("json", "one object")],
    examples: &[
        ("status", "overview of rules, events, moves, failures and latency"),
        ("status --json | jq .latency.p99_us", "a single value"),
    ],
    ends_at_operand: false,
    run,
};

fn run(given: &Args, out: &mut dyn Write) -> Result<u8, ToolError> {
    given.no_operands()?;
    let status = daemon_client::status(given)?;
    if given.has("json") {
        let text = serde_json::to_string_pretty(&status).map_err(std::io::Error::from)?;
        writeln!(out, "{text}")?;
    } else {
        let style =
            page::PageOptions { is_colored: given.color, is_unicode: super::locale::is_unicode() };
        out.write_all(page::render(&status, style).as_bytes())?;
    }
    Ok(0)
}
