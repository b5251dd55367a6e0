//! `cgrulectl watch`: prints the daemon's decisions as they are made. Filters must not reach the daemon,
//! which sends all decisions.

use std::collections::HashMap;
use std::io::Write;

use nix::unistd::{Uid, User};

use super::command::{DaemonFlags, ToolError};
use super::daemon_client;
use super::format::{counted, microseconds, time_of_day};
use super::json;
use crate::config::escape::{Escaped, EscapedBytes};
use crate::control::protocol::{ControlRequest, WatchMessage, WatchedDecision};
use crate::control::status::ActiveRules;
use crate::policy::load::NameService;

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
    /// only processes of this user (name or UID)
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// only decisions by this rule (name or FILE:LINE)
    #[arg(long, value_name = "RULE")]
    rule: Option<String>,
    /// only this executable (path or base name)
    #[arg(long, value_name = "PATH")]
    exe: Option<String>,
    /// also rechecks, and processes that exited or match no rule
    #[arg(long)]
    all: bool,
    /// one line of JSON per decision
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonFlags,
}

/// Outcomes omitted without `--all`: they are frequent and change nothing.
const DULL: [&str; 3] = ["gone", "no-rule", "confirmed"];

pub(super) fn run(given: &WatchArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let filter = Filter::new(given)?;
    if let Some(rule) = filter.rule {
        warn_of_unknown(&given.daemon, rule)?;
    }
    let mut names = WatchedNames::default();
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

/// Checks whether `wanted` is the name of a rule, its file and line, or the end of these.
fn is_rule(wanted: &str, name: &str, origin: Option<(&str, u32)>) -> bool {
    if wanted.is_empty() || wanted == name {
        return wanted == name;
    }
    let origin = origin.map_or_else(String::new, |(file, line)| format!("{file}:{line}"));
    origin.strip_suffix(wanted).is_some_and(|rest| rest.is_empty() || rest.ends_with('/'))
}

/// Conditions on the decisions that are shown.
#[derive(Debug, Default)]
struct Filter<'g> {
    uid: Option<u32>,
    rule: Option<&'g str>,
    exe: Option<&'g str>,
    /// `exe` with links resolved, as the kernel reports it: `/usr/bin/dash` for `/bin/sh`.
    resolved: Option<String>,
    has_dull: bool,
}

impl<'g> Filter<'g> {
    fn new(given: &'g WatchArgs) -> Result<Self, ToolError> {
        let uid = given.user.as_deref().map(uid).transpose()?;
        let rule = given.rule.as_deref();
        let exe = given.exe.as_deref();
        let resolved = exe.filter(|exe| exe.contains('/')).and_then(resolved);
        Ok(Self { uid, rule, exe, resolved, has_dull: given.all })
    }

    fn admits(&self, decision: &WatchedDecision) -> bool {
        let WatchedDecision { uid, rule, file, line, exe, outcome, .. } = decision;
        let origin = file.as_deref().zip(*line);
        self.uid.is_none_or(|wanted| *uid == Some(wanted))
            && self.rule.is_none_or(|wanted| {
                rule.as_deref().is_some_and(|name| is_rule(wanted, name, origin))
            })
            && self.exe.is_none_or(|wanted| {
                exe.as_deref().is_some_and(|exe| {
                    exe == wanted
                        || self.resolved.as_deref() == Some(exe)
                        || !wanted.contains('/') && exe.rsplit('/').next() == Some(wanted)
                })
            })
            && (self.has_dull || !DULL.contains(&outcome.as_str()))
    }
}

/// Resolves the links of a path, and escapes it as the daemon does.
fn resolved(path: &str) -> Option<String> {
    let path = std::fs::canonicalize(path).ok()?;
    Some(EscapedBytes(path.as_os_str().as_encoded_bytes()).to_string())
}

fn uid(text: &str) -> Result<u32, ToolError> {
    let found = NameService::default().uid_of(text).map_err(|error| {
        ToolError::Failed(format!("NSS lookup of user {} failed: {error}", Escaped(text)))
    })?;
    found
        .map(|uid| uid.0)
        .ok_or_else(|| ToolError::Usage(format!("watch: unknown user: {}", Escaped(text))))
}

/// Cache of user names by UID.
#[derive(Debug, Default)]
struct WatchedNames(HashMap<u32, String>);

impl WatchedNames {
    fn of(&mut self, uid: Option<u32>) -> &str {
        let Some(uid) = uid else { return "?" };
        self.0.entry(uid).or_insert_with(|| {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            user.map_or_else(|| uid.to_string(), |user| Escaped(&user.name).to_string())
        })
    }
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

    #[test]
    fn filters_must_all_hold() {
        let mut decision = decision();
        decision.exe = Some("/usr/bin/make".to_owned());
        let all = Filter {
            uid: Some(1000),
            rule: Some("people"),
            exe: Some("make"),
            ..Filter::default()
        };
        assert!(all.admits(&decision));
        let resolved = Some("/usr/bin/make".to_owned());
        let link = Filter { exe: Some("/bin/make"), resolved, ..Filter::default() };
        assert!(link.admits(&decision));
        assert!(Filter { exe: Some("/usr/bin/make"), ..Filter::default() }.admits(&decision));
        for wrong in [
            Filter { uid: Some(1), ..Filter::default() },
            Filter { rule: Some("peopl"), ..Filter::default() },
            Filter { exe: Some("/make"), ..Filter::default() },
            Filter { exe: Some("ake"), ..Filter::default() },
        ] {
            assert!(!wrong.admits(&decision), "{wrong:?}");
        }
        for rule in [
            "/etc/cgruled/rules.d/50-people.toml:7",
            "50-people.toml:7",
            "rules.d/50-people.toml:7",
        ] {
            let place = Filter { rule: Some(rule), ..Filter::default() };
            assert!(place.admits(&decision), "{rule}");
        }
        for rule in ["people.toml:7", "50-people.toml:17", "50-people.toml", "7", ":7", "", "/"] {
            let place = Filter { rule: Some(rule), ..Filter::default() };
            assert!(!place.admits(&decision), "{rule}");
        }
        decision.outcome = "no-rule".to_owned();
        assert!(!Filter::default().admits(&decision));
        assert!(Filter { has_dull: true, ..Filter::default() }.admits(&decision));
    }
}
