//! `cgrulectl place`: makes the daemon re-evaluate processes and reports the results.

use std::ffi::OsStr;
use std::io::Write;

use super::command::{Args, FlagSpec, Subcommand, ToolError};
use super::daemon_client;
use crate::config::escape::Escaped;
use crate::control::client;
use crate::control::protocol::ProcessReport;

pub(super) const COMMAND: Subcommand = Subcommand {
    name: "place",
    operands: "PID...",
    summary: "Re-evaluate processes now",
    flags: &[FlagSpec::new("json", "one line of JSON per process")],
    examples: &[(
        "place 4711",
        "re-evaluate a process, even if external moves of it are not reverted",
    )],
    ends_at_operand: false,
    run,
};

/// Outcomes that are no failure.
const WELL: [&str; 8] =
    ["placed", "in-place", "would-place", "no-rule", "ignored", "protected", "sticky", "in-slice"];

fn run(given: &Args, out: &mut dyn Write) -> Result<u8, ToolError> {
    if given.operands.is_empty() {
        return Err(ToolError::Usage("place: missing PID".to_owned()));
    }
    let pids = given.operands.iter().map(|text| pid(text)).collect::<Result<Vec<u32>, _>>()?;
    let socket = daemon_client::socket(given)?;
    let abouts = client::place(&socket, &pids)?.ok_or_else(|| daemon_client::no_daemon(&socket))?;
    for about in &abouts {
        if given.has("json") {
            let text = serde_json::to_string(about).map_err(std::io::Error::from)?;
            writeln!(out, "{text}")?;
        } else {
            writeln!(out, "{}", told(about))?;
        }
    }
    let is_well = |about: &ProcessReport| {
        about.history.last().is_some_and(|last| WELL.contains(&last.outcome.as_str()))
    };
    Ok(u8::from(!abouts.iter().all(is_well)))
}

fn pid(text: &OsStr) -> Result<u32, ToolError> {
    let number = text.to_str().and_then(|text| text.parse().ok()).filter(|&pid| pid > 0);
    number.ok_or_else(|| {
        let shown = text.to_string_lossy();
        ToolError::Usage(format!("place: invalid PID: {}", Escaped(&shown)))
    })
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
    use super::*;
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
            assert_eq!(pid(OsStr::new(wrong)).unwrap_err().code(), 2, "{wrong}");
        }
    }
}
