//! `cgrulectl history`: prints the evaluations that the daemon keeps, also those of processes that have
//! exited. It must not need the thread that moves processes.

use std::io::Write;
use std::time::Duration;

use super::command::{DaemonFlags, ToolError};
use super::daemon_client;
use super::decision_filter::{DecisionConditions, DecisionFilter, UserNames};
use super::format::{counted, microseconds, timestamp};
use super::json;
use crate::config::escape::Escaped;
use crate::config::quantity;
use crate::control::history::message::{HistoryMessage, HistoryStatus, RecordedEvaluation};
use crate::control::protocol::ControlRequest;

#[derive(clap::Args)]
#[command(
    about = "Show past decisions, also about processes that have exited",
    after_help = "\
Examples:
  cgrulectl history --since 1h --user alice
      show what was decided about processes of alice in the last hour
  cgrulectl history --pid 4711
      show all that was decided about process 4711"
)]
pub(super) struct HistoryArgs {
    /// only decisions of this last time, such as 90s, 30m or 1h
    #[arg(long, value_name = "TIME", value_parser = age)]
    since: Option<Duration>,
    /// only this process, with all decisions (see --all)
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    #[command(flatten)]
    conditions: DecisionConditions,
    /// one line of JSON per decision
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonFlags,
}

pub(super) fn age(text: &str) -> Result<Duration, String> {
    quantity::duration(text).ok_or_else(|| "write a time such as 90s, 30m or 1h".to_owned())
}

pub(super) fn run(given: &HistoryArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let mut filter = DecisionFilter::new("history", &given.conditions)?;
    filter.has_dull |= given.pid.is_some();
    let mut shown =
        HistoryOutput { out, is_json: given.json, names: UserNames::default(), count: 0 };
    let wanted = (given.since, given.pid, filter.uid());
    let (status, lost) = each(&given.daemon, wanted, |own| match filter.admits(own) {
        true => shown.evaluation(own),
        false => Ok(()),
    })?;
    shown.lost(lost)?;
    note(&status, given.since, shown.count);
    Ok(0)
}

/// Passes each recorded evaluation of this last time, process and user to `take`. Returns the state of the history at the
/// beginning, and how many were overwritten before they could be read.
pub(super) fn each(
    flags: &DaemonFlags,
    (since, pid, uid): (Option<Duration>, Option<u32>, Option<u32>),
    mut take: impl FnMut(&RecordedEvaluation) -> Result<(), ToolError>,
) -> Result<(HistoryStatus, u64), ToolError> {
    let ms = |since: Duration| u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let request = ControlRequest::History { ago_ms: since.map(ms), pid, uid };
    let mut reply = daemon_client::ask(flags, &request)?;
    let mut status = HistoryStatus::default();
    while let Some(message) = reply.next_line::<HistoryMessage>()? {
        match message {
            HistoryMessage::Begin(begin) => status = begin,
            HistoryMessage::Evaluation(own) => take(&own)?,
            HistoryMessage::End { lost } => return Ok((status, lost)),
        }
    }
    Err(ToolError::NoDaemon("connection closed by the daemon".to_owned()))
}

/// Reports on standard error what the output does not contain.
fn note(status: &HistoryStatus, since: Option<Duration>, shown: u64) {
    if shown == 0 {
        eprintln!("cgrulectl: no decision of the history meets the conditions");
    }
    let Some(oldest) = status.oldest_ms.filter(|_| status.overwritten > 0) else { return };
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let covered = now.saturating_sub(Duration::from_millis(oldest));
    if since.is_none_or(|since| since > covered) {
        let earlier = counted(status.overwritten, "earlier evaluation", "earlier evaluations");
        eprintln!(
            "cgrulectl: the history begins at {}; {earlier} overwritten (see history.size in cgruled.toml)",
            timestamp(oldest)
        );
    }
}

/// Output of evaluations, one line each.
struct HistoryOutput<'o> {
    out: &'o mut dyn Write,
    is_json: bool,
    names: UserNames,
    count: u64,
}

impl HistoryOutput<'_> {
    fn evaluation(&mut self, own: &RecordedEvaluation) -> Result<(), ToolError> {
        self.count += 1;
        let line = if self.is_json { json::line(own)? } else { told(own, self.names.of(own.uid)) };
        Ok(writeln!(self.out, "{line}")?)
    }

    /// Writes the number of evaluations that were overwritten before they could be read, if any.
    fn lost(&mut self, lost: u64) -> Result<(), ToolError> {
        if lost == 0 {
            return Ok(());
        }
        let line = if self.is_json {
            json::line(&HistoryMessage::End { lost })?
        } else {
            format!("({} lost)", counted(lost, "evaluation", "evaluations"))
        };
        Ok(writeln!(self.out, "{line}")?)
    }
}

/// Formats an evaluation as one line:
/// `2026-11-24 13:55:31.123Z placed 4711 alice /usr/bin/make -> people/%u by 'people' (exec, 104 us)`.
fn told(own: &RecordedEvaluation, user: &str) -> String {
    let RecordedEvaluation { time_ms, pid, exe, invoked, rule, cgroups, outcome, cause, .. } = own;
    let outcome = Escaped(outcome).to_string();
    let mut text = format!("{} {outcome:9} {pid} {user}", timestamp(*time_ms));
    let cgroups = (!cgroups.is_empty()).then(|| cgroups.join(", "));
    let program = invoked.as_ref().or(exe.as_ref());
    for (before, name, after) in
        [(" ", program, ""), (" -> ", cgroups.as_ref(), ""), (" by '", rule.as_ref(), "'")]
    {
        if let Some(name) = name {
            text += &format!("{before}{}{after}", Escaped(name));
        }
    }
    text += &format!(" ({}, {})", Escaped(cause), microseconds(own.latency_us));
    if !own.incomplete.is_empty() {
        text += &format!(" [{}]", Escaped(&own.incomplete.join(", ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evaluation() -> RecordedEvaluation {
        RecordedEvaluation {
            time_ms: 1_795_528_531_123,
            pid: 4711,
            uid: Some(1000),
            gid: Some(100),
            exe: Some("/usr/bin/make\n".to_owned()),
            rule: Some("people".to_owned()),
            file: Some("/etc/cgruled/rules.d/50-people.toml".to_owned()),
            line: Some(7),
            cgroups: vec!["people/%u".to_owned()],
            outcome: "placed".to_owned(),
            cause: "exec".to_owned(),
            latency_us: 104,
            ..RecordedEvaluation::default()
        }
    }

    fn shown(is_json: bool, evaluations: &[RecordedEvaluation], lost: u64) -> String {
        let mut out = Vec::new();
        let names = UserNames::default();
        let mut output = HistoryOutput { out: &mut out, is_json, names, count: 0 };
        evaluations.iter().for_each(|own| output.evaluation(own).unwrap());
        output.lost(lost).unwrap();
        assert_eq!(output.count, evaluations.len() as u64);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_evaluation_is_one_line() {
        assert_eq!(
            told(&evaluation(), "alice"),
            "2026-11-24 13:55:31.123Z placed    4711 alice /usr/bin/make\\u{a} -> people/%u by \
             'people' (exec, 104 us)"
        );
        let script = RecordedEvaluation {
            invoked: Some("/opt/script".to_owned()),
            incomplete: vec!["exe-truncated".to_owned()],
            ..evaluation()
        };
        assert!(told(&script, "alice").contains(" alice /opt/script -> "));
        assert!(told(&script, "alice").ends_with("(exec, 104 us) [exe-truncated]"));
    }

    /// The output of records with little and of lost ones.
    #[test]
    fn the_text_is_the_expected_one() {
        let gone = RecordedEvaluation {
            time_ms: 1_795_528_532_000,
            pid: 4712,
            outcome: "gone".to_owned(),
            cause: "fork".to_owned(),
            latency_us: 1_250,
            ..RecordedEvaluation::default()
        };
        let ignored = RecordedEvaluation {
            uid: Some(4_000_000_001),
            cgroups: Vec::new(),
            exe: None,
            outcome: "ignored".to_owned(),
            ..evaluation()
        };
        assert_eq!(
            shown(false, &[gone, ignored], 3),
            "2026-11-24 13:55:32.000Z gone      4712 ? (fork, 1.2 ms)\n\
             2026-11-24 13:55:31.123Z ignored   4711 4000000001 by 'people' (exec, 104 us)\n\
             (3 evaluations lost)\n"
        );
    }

    #[test]
    fn the_json_is_the_expected_one() {
        assert_eq!(
            shown(true, &[evaluation()], 1),
            "{\"time_ms\":1795528531123,\"pid\":4711,\"uid\":1000,\"gid\":100,\
             \"exe\":\"/usr/bin/make\\n\",\"exe_on_host\":false,\"invoked\":null,\
             \"rule\":\"people\",\"file\":\"/etc/cgruled/rules.d/50-people.toml\",\"line\":7,\
             \"cgroups\":[\"people/%u\"],\"outcome\":\"placed\",\"cause\":\"exec\",\
             \"latency_us\":104,\"incomplete\":[]}\n{\"lost\":1}\n"
        );
    }

    #[test]
    fn an_invalid_time_is_refused() {
        assert_eq!(age("1h"), Ok(Duration::from_secs(3600)));
        assert!(age("1").is_err() && age("yesterday").is_err());
    }
}
