//! `cgrulectl place`: makes the daemon re-evaluate processes and reports the results.

use std::io::Write;

use super::command::{DaemonFlags, ToolError};
use super::daemon_client;
use super::json;
use crate::config::escape::Escaped;
use crate::control::client;
use crate::control::protocol::ProcessReport;

#[derive(clap::Args)]
#[command(
    about = "Re-evaluate processes now",
    after_help = "\
Examples:
  cgrulectl place 4711
      re-evaluate a process, even if external moves of it are not reverted"
)]
pub(super) struct PlaceArgs {
    /// one line of JSON per process
    #[arg(long)]
    json: bool,
    #[arg(value_name = "PID", required = true, value_parser = clap::value_parser!(u32).range(1..))]
    pids: Vec<u32>,
    #[command(flatten)]
    daemon: DaemonFlags,
}

/// Outcomes that are no failure.
const WELL: [&str; 8] =
    ["placed", "in-place", "would-place", "no-rule", "ignored", "protected", "sticky", "in-slice"];

pub(super) fn run(given: &PlaceArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let socket = daemon_client::socket(&given.daemon)?;
    let abouts =
        client::place(&socket, &given.pids)?.ok_or_else(|| daemon_client::no_daemon(&socket))?;
    for about in &abouts {
        if given.json {
            writeln!(out, "{}", json::line(about)?)?;
        } else {
            writeln!(out, "{}", told(about))?;
        }
    }
    let mut last = abouts.iter().map(|about| about.history.last());
    let is_well = last.all(|last| last.is_some_and(|last| WELL.contains(&last.outcome.as_str())));
    Ok(u8::from(!is_well))
}

/// Formats the latest outcome: `4711: placed in /people/alice by rule 'people'`.
fn told(about: &ProcessReport) -> String {
    let pid = about.pid;
    let Some(last) = about.history.last() else {
        return format!("{pid}: no decision recorded");
    };
    let mut text = format!("{pid}: {}", Escaped(&last.outcome));
    if !last.cgroup.is_empty() {
        let link =
            if last.outcome.ends_with("place") || last.outcome == "placed" { "in" } else { "for" };
        text += &format!(" {link} {}", Escaped(&last.cgroup));
    }
    if !last.rule.is_empty() {
        text += &format!(" by rule '{}'", Escaped(&last.rule));
    }
    if !last.detail.is_empty() {
        text += &format!(": {}", Escaped(&last.detail));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::command::CommandLine;
    use crate::control::protocol::HistoryEntry;

    fn about(outcome: &str, cgroup: &str, detail: &str) -> ProcessReport {
        let [outcome, rule, cgroup, detail] = [outcome, "web", cgroup, detail].map(str::to_owned);
        let entry = HistoryEntry { ago_ms: 0, outcome, rule, cgroup, detail };
        ProcessReport { pid: 7, history: vec![entry], moved_ago_ms: None }
    }

    #[test]
    fn each_process_gets_one_line() {
        assert_eq!(told(&about("placed", "/a", "")), "7: placed in /a by rule 'web'");
        assert_eq!(
            told(&about("refused", "/a\n7: placed", "busy")),
            "7: refused for /a\\u{a}7: placed by rule 'web': busy"
        );
    }

    #[test]
    fn what_is_no_process_id_is_said() {
        for wrong in ["0", "-1", "x", "4294967296", ""] {
            let parsed = CommandLine::try_parse_from(["cgrulectl", "place", "--", wrong]);
            assert_eq!(parsed.err().unwrap().exit_code(), 2, "{wrong}");
        }
    }
}
