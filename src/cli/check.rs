//! `cgrulectl check`: reports errors and warnings of rules and settings. Must not need privileges or a
//! daemon.

mod accounts;
mod container_engines;
mod context;
mod escapes;
mod files;
mod kernel;
mod lints;
mod people;
mod refused;
mod uncreated;

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::command::{DaemonFlags, ToolError};
use super::locale;
use crate::config::diagnostic::{Diagnostic, Severity, sort};
use crate::config::escape::EscapedBytes;
use crate::daemon;
use crate::policy::load::{NameService, load_given};
use crate::policy::rebuild::LoadedConfig;
use crate::rules::Rule;

#[derive(clap::Args)]
#[command(
    about = "Check rules and settings; exit status 65 on errors",
    after_help = "\
Examples:
  cgrulectl check
      check all files that the daemon would read
  cgrulectl check --strict ./50-web.toml
      check one file before it is installed; needs no root"
)]
pub(super) struct CheckArgs {
    /// treat warnings as errors
    #[arg(long)]
    strict: bool,
    /// an array with one object per diagnostic
    #[arg(long)]
    json: bool,
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    daemon: DaemonFlags,
}

pub(super) fn run(given: &CheckArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let invocation = given.daemon.options();
    let (survey, notes) = if given.paths.is_empty() {
        (daemon::survey(&invocation, None), Vec::new())
    } else {
        let (files, notes) = files::given(&given.paths)?;
        let loaded = load_given(&files, &NameService::default());
        (daemon::survey(&invocation, Some(loaded)), notes)
    };
    let mut diagnostics = all(&survey);
    diagnostics.extend(daemon::missing(&invocation));
    if given.json {
        json(&diagnostics, out)?;
    } else {
        show(&diagnostics, locale::is_colored(), out)?;
    }
    out.flush()?;
    notes.iter().for_each(|note| eprintln!("cgrulectl: {note}"));
    eprintln!("{}", summary(&survey, &diagnostics));
    let worst = diagnostics.iter().map(|diagnostic| diagnostic.severity).max();
    Ok(match worst {
        Some(Severity::Error) => 65,
        Some(Severity::Warning) if given.strict => 65,
        Some(Severity::Warning) | None => 0,
    })
}

/// Returns the diagnostics of all files and the lints for this host, in the order of files and lines.
pub fn all(survey: &LoadedConfig) -> Vec<Diagnostic> {
    let mut all = survey.loaded.diagnostics.clone();
    all.extend(lints::all(&survey.loaded.rules));
    // A rule that observes is checked before it acts.
    let rules: Vec<Rule> = survey.loaded.rules.iter().map(acting).collect();
    all.extend(people::all(&survey.loaded.specs.user_slices, &rules, &people::effects_of_moving()));
    all.extend(context::all(&rules, &survey.loaded.specs, &survey.hierarchies));
    all.extend(escapes::all(&rules, &survey.loaded.specs));
    all.extend(accounts::all(&rules, &survey.loaded.specs.user_slices, &survey.names));
    all.extend(uncreated::all(survey));
    all.extend(refused::all(&survey.loaded.specs, &survey.hierarchies));
    all.extend(kernel::missing(&survey.loaded.specs, &survey.hierarchies));
    sort(&mut all);
    all
}

/// Returns a rule with the action that it would have if it did not observe.
fn acting(rule: &Rule) -> Rule {
    Rule { action: rule.action.intended().clone(), ..rule.clone() }
}

/// Writes the diagnostics in the form of compiler messages.
///
/// # Errors
/// The output cannot be written.
pub fn show(diagnostics: &[Diagnostic], color: bool, out: &mut dyn Write) -> io::Result<()> {
    diagnostics.iter().try_for_each(|diagnostic| {
        let text = diagnostic.to_string();
        if !color {
            return writeln!(out, "{text}");
        }
        let code = match diagnostic.severity {
            Severity::Error => 31,
            Severity::Warning => 35,
        };
        let word = format!(": {}: ", diagnostic.severity);
        let painted = format!(": \x1b[1;{code}m{}\x1b[0m: ", diagnostic.severity);
        writeln!(out, "{}", text.replacen(&word, &painted, 1))
    })
}

/// Returns the summary: `1 error, 2 warnings in 3 files; 17 rules, 2 of them only observing, 1 gated`.
pub fn summary(survey: &LoadedConfig, diagnostics: &[Diagnostic]) -> String {
    let errors = diagnostics.iter().filter(|own| own.severity == Severity::Error).count();
    let rules = &survey.loaded.rules;
    let observing = match rules.iter().filter(|rule| rule.action.observes()).count() {
        0 => String::new(),
        count => format!(", {count} of them only observing"),
    };
    let gated = match rules.iter().filter(|rule| rule.is_gated).count() {
        0 => String::new(),
        count => format!(", {count} gated"),
    };
    format!(
        "{}, {} in {}; {}{observing}{gated}",
        counted(errors, "error"),
        counted(diagnostics.len() - errors, "warning"),
        counted(survey.loaded.files.len(), "file"),
        counted(rules.len(), "rule"),
    )
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// JSON object for a diagnostic. Fields are added, and must never be renamed.
#[derive(Serialize)]
struct CheckMessage<'d> {
    severity: String,
    file: String,
    line: Option<u32>,
    column: Option<u32>,
    message: &'d str,
    help: Option<&'d str>,
}

/// Writes the diagnostics as a JSON array of objects.
///
/// # Errors
/// The output cannot be written.
pub fn json(diagnostics: &[Diagnostic], out: &mut dyn Write) -> io::Result<()> {
    let all: Vec<CheckMessage<'_>> = diagnostics.iter().map(said).collect();
    super::json::write(&all, out)
}

fn said(diagnostic: &Diagnostic) -> CheckMessage<'_> {
    CheckMessage {
        severity: diagnostic.severity.to_string(),
        file: EscapedBytes(diagnostic.file.as_os_str().as_encoded_bytes()).to_string(),
        line: diagnostic.place.as_ref().map(|place| place.line),
        column: diagnostic.place.as_ref().map(|place| place.column).filter(|&column| column > 0),
        message: &diagnostic.message,
        help: diagnostic.help.as_deref(),
    }
}
