//! `cgrulectl watch`: prints the daemon's decisions as they are made. Filters must not reach the daemon,
//! which sends all decisions.

use std::io::Write;

use super::command::{DaemonFlags, ToolError};
use super::daemon_client;
use super::decision_filter::{DecisionConditions, DecisionFilter, UserNames, is_rule};
use super::format::{counted, microseconds, time_of_day};
use super::json;
use crate::config::escape::Escaped;
use crate::control::protocol::{ControlRequest, WatchMessage, WatchedDecision};
use crate::control::status::ActiveRules;

#[derive(clap::Args)]
#[command(
    about = "Show decisions as they are made",
    after_help = "\
Examples:
  cgrulectl watch --user alice
      show the decisions during a login of alice
  cgrulectl watch --json | jq .latency_us
      latency of each decision in microseconds"
)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    conditions: DecisionConditions,
    /// one line of JSON per decision
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonFlags,
}

pub(super) fn run(given: &WatchArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let filter = DecisionFilter::new("watch", &given.conditions)?;
    if let Some(rule) = &given.conditions.rule {
        warn_of_unknown(&given.daemon, rule)?;
    }
    let mut names = UserNames::default();
    let mut conversation = daemon_client::ask(&given.daemon, &ControlRequest::Watch)?;
    while let Some(watched) = conversation.next_line::<WatchMessage>()? {
        let line = match &watched {
            // The first line confirms the subscription: later losses are counted.
            WatchMessage::Lost { lost: 0 } => {
                eprintln!("cgrulectl: watching; press Ctrl-C to stop");
                continue;
            }
            WatchMessage::Decision(decision) if !filter.admits(decision) => continue,
            _ if given.json => json::line(&watched)?,
            WatchMessage::Lost { lost } => format!("({} lost)", counted(*lost, "line", "lines")),
            WatchMessage::Decision(decision) => told(decision, names.of(decision.uid)),
        };
        writeln!(out, "{line}")?;
        out.flush()?;
    }
    Err(ToolError::NoDaemon("connection closed by the daemon".to_owned()))
}

/// Warns about a rule that does not exist, for which `watch` would wait for ever.
fn warn_of_unknown(flags: &DaemonFlags, wanted: &str) -> Result<(), ToolError> {
    // It is no error: the next version of the files may have the rule.
    let ActiveRules { rules } = daemon_client::ask(flags, &ControlRequest::Rules)?.only()?;
    if !rules.iter().any(|rule| is_rule(wanted, &rule.name, Some((&rule.file, rule.line)))) {
        let wanted = Escaped(wanted);
        eprintln!(
            "cgrulectl: no active rule has the name or location {wanted}; run 'cgrulectl list'"
        );
    }
    Ok(())
}

/// Formats a decision as one line:
/// `13:55:31.123Z placed 4711 alice /usr/bin/make -> /people/alice by 'people' (exec, 104 us)`.
fn told(decision: &WatchedDecision, user: &str) -> String {
    let WatchedDecision { time_ms, pid, exe, rule, cgroup, outcome, cause, latency_us, .. } =
        decision;
    let mut text =
        format!("{} {:9} {pid} {user}", time_of_day(*time_ms), Escaped(outcome).to_string());
    for (before, name, after) in [(" ", exe, ""), (" -> ", cgroup, ""), (" by '", rule, "'")] {
        if let Some(name) = name {
            text += &format!("{before}{}{after}", Escaped(name));
        }
    }
    text + &format!(" ({}, {})", Escaped(cause), microseconds(*latency_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision() -> WatchedDecision {
        WatchedDecision {
            time_ms: 1_795_528_531_123,
            pid: 4711,
            uid: Some(1000),
            exe: Some("/usr/bin/make\n".to_owned()),
            rule: Some("people".to_owned()),
            file: Some("/etc/cgruled/rules.d/50-people.toml".to_owned()),
            line: Some(7),
            cgroup: Some("/people/alice".to_owned()),
            outcome: "placed".to_owned(),
            cause: "exec".to_owned(),
            latency_us: 104,
        }
    }

    #[test]
    fn a_decision_is_one_line() {
        assert_eq!(
            told(&decision(), "alice"),
            "13:55:31.123Z placed    4711 alice /usr/bin/make\\u{a} -> /people/alice by 'people' \
             (exec, 104 us)"
        );
    }
}
