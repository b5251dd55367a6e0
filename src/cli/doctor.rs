//! `cgrulectl doctor`: checks this host for everything that the daemon needs, with advice. Must leave the
//! host unchanged.

mod gate;
mod groups;
mod host;
mod kernel;
mod latency;

use std::io::{self, Write};
use std::sync::Arc;

use serde::Serialize;

use super::command::{DaemonFlags, ToolError};
use super::json;
use super::locale;
use crate::cgroup::tree;
use crate::daemon;
use crate::event::Uid;
use crate::policy::load;

#[derive(clap::Args)]
#[command(
    about = "Check what this host offers, and suggest improvements",
    after_help = "\
Examples:
  cgrulectl doctor
      exit status 0 if the daemon can work here, 1 if not; as root it also
      tests whether the kernel reports events, and measures the latency of a
      move"
)]
pub(super) struct DoctorArgs {
    /// one object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonFlags,
}

/// Columns of an output line.
const WIDTH: usize = 80;
/// Columns before the text of a finding.
const INDENT: usize = 18;

/// Severity of a finding; `Wrong` determines the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum FindingState {
    /// Works as it should, nothing to improve.
    Ok,
    /// Works, but could work better.
    Note,
    /// Prevents the daemon from working on this host.
    Wrong,
}

/// Result of one check, with advice unless all is well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    topic: &'static str,
    state: FindingState,
    text: String,
    advice: Option<String>,
}

impl Finding {
    fn new(topic: &'static str, state: FindingState, text: impl Into<String>) -> Self {
        Self { topic, state, text: text.into(), advice: None }
    }

    fn ok(topic: &'static str, text: impl Into<String>) -> Self {
        Self::new(topic, FindingState::Ok, text)
    }

    fn note(topic: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..Self::new(topic, FindingState::Note, text) }
    }

    fn wrong(topic: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..Self::new(topic, FindingState::Wrong, text) }
    }
}

#[derive(Serialize)]
struct DoctorReport<'f> {
    well: bool,
    findings: &'f [Finding],
}

pub(super) fn run(given: &DoctorArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let findings = findings(&given.daemon);
    let well = !findings.iter().any(|finding| finding.state == FindingState::Wrong);
    if given.json {
        let report = DoctorReport { well, findings: &findings };
        writeln!(out, "{}", json::line(&report)?)?;
    } else {
        let color = locale::is_colored();
        findings.iter().try_for_each(|finding| print(finding, color, out))?;
    }
    Ok(u8::from(!well))
}

fn findings(flags: &DaemonFlags) -> Vec<Finding> {
    let invocation = flags.options();
    let (settings, diagnostics) = load::settings(&invocation.config, Uid(0));
    let mut found = kernel::findings();
    let hierarchies = Arc::new(tree::discover().unwrap_or_default());
    found.extend(groups::findings(&hierarchies, &settings));
    found.extend(host::findings());
    found.extend(gate::finding(&daemon::survey(&invocation, None).loaded.rules));
    if !diagnostics.is_empty() {
        let text =
            format!("{}: {} errors or warnings", invocation.config.display(), diagnostics.len());
        found.push(Finding::note("settings", text, "run 'cgrulectl check'"));
    }
    let ground = groups::ground(&hierarchies, &settings.root);
    found.extend(latency::findings(&hierarchies, ground.as_deref(), settings.fast_moves));
    found
}

/// Writes one finding, with its text in a separate column.
fn print(finding: &Finding, color: bool, out: &mut dyn Write) -> io::Result<()> {
    let (word, paint) = match finding.state {
        FindingState::Ok => ("ok", "32"),
        FindingState::Note => ("note", "33"),
        FindingState::Wrong => ("WRONG", "31"),
    };
    let word = match color {
        true => format!("\x1b[{paint}m{word:<6}\x1b[0m"),
        false => format!("{word:<6}"),
    };
    let text = wrapped(&finding.text);
    let (first, rest) = text.split_first().map_or(("", &[][..]), |(first, rest)| (first, rest));
    writeln!(out, "{word}{:<12}{first}", finding.topic)?;
    let advice = finding.advice.as_deref().map(|advice| wrapped(&format!("-> {advice}")));
    for line in rest.iter().chain(advice.iter().flatten()) {
        writeln!(out, "{:INDENT$}{line}", "")?;
    }
    Ok(())
}

/// Wraps a text into lines that fit its column. Control characters are escaped.
fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let word: String = word.chars().flat_map(visible).collect();
        let line = lines.last().map_or(0, |line| line.chars().count());
        if line > 0 && line + 1 + word.chars().count() > WIDTH - INDENT {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            line.push_str(if line.is_empty() { "" } else { " " });
            line.push_str(&word);
        }
    }
    lines
}

fn visible(character: char) -> Vec<char> {
    match character.is_control() {
        true => character.escape_default().collect(),
        false => vec![character],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(finding: &Finding, color: bool) -> String {
        let mut out = Vec::new();
        print(finding, color, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn findings_fit_eighty_columns_and_cannot_forge_lines() {
        let text = "a user\nnamed\u{1b}[31m ".to_owned() + &"word ".repeat(40);
        let finding =
            Finding::wrong("names", text.trim_end(), "do something ".repeat(12).trim_end());
        let shown = printed(&finding, false);
        assert!(shown.starts_with("WRONG names       a user\\nnamed\\u{1b}[31m word"), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= WIDTH), "{shown}");
        assert!(shown.contains("\n                  -> do something"), "{shown}");
        assert!(printed(&finding, true).starts_with("\u{1b}[31mWRONG \u{1b}[0mnames"));
    }

    #[test]
    fn json_has_a_word_for_each_state() {
        let findings = [Finding::ok("kernel", "6.18"), Finding::note("a", "b", "c")];
        let text =
            serde_json::to_string(&DoctorReport { well: true, findings: &findings }).unwrap();
        assert_eq!(
            text,
            "{\"well\":true,\"findings\":[{\"topic\":\"kernel\",\"state\":\"ok\",\"text\":\"6.18\",\
             \"advice\":null},{\"topic\":\"a\",\"state\":\"note\",\"text\":\"b\",\"advice\":\"c\"}]}"
        );
    }
}
