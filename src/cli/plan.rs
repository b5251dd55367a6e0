//! `cgrulectl plan`: shows what a reload would change, with files of the daemon or others. Must not decide
//! anything: the daemon does, as at a reload.

mod past;
mod view;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::command::{DaemonFlags, ToolError};
use super::daemon_client;
use super::history::age;
use super::json;
use super::locale;
use crate::config::escape::{Escaped, EscapedBytes};
use crate::control::plan_report::{PlanReport, ProcessPlan};
use crate::control::protocol::ControlRequest;
pub use view::{PlanViewOptions, show};

#[derive(clap::Args)]
#[command(
    about = "Show what a reload would change, without changing anything",
    after_help = "\
Examples:
  cgrulectl plan --rules /root/rules.d
      if these rules replaced those of the daemon
  cgrulectl plan /root/50-web.toml
      if this file was added; exit status 0 without changes, 3 with, 65 on errors"
)]
pub(super) struct PlanArgs {
    /// show all processes
    #[arg(long)]
    all: bool,
    /// one object
    #[arg(long)]
    json: bool,
    /// for the processes of this last time, such as 1h, by the history
    #[arg(long, value_name = "TIME", value_parser = age, conflicts_with = "file")]
    since: Option<Duration>,
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    daemon: DaemonFlags,
}

/// Exit code for a plan with changes.
const CHANGES: u8 = 3;
/// Exit code for files with errors.
const ERRORS: u8 = 65;

/// What a reload would change. Fields are added, and must never be renamed.
#[derive(Debug, Serialize)]
pub struct PlanAnswer {
    /// The part about files, settings and cgroups.
    #[serde(flatten)]
    pub report: PlanReport,
    /// The processes for which something would change, or that are not known.
    pub changes: Vec<ProcessPlan>,
}

pub(super) fn run(given: &PlanArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    if let Some(since) = given.since {
        let options = PlanViewOptions { all: given.all, ascii: !locale::is_unicode() };
        return past::run(&given.daemon, since, (given.json, options), out);
    }
    let rules = given.daemon.options().rules;
    let rules = rules.iter().map(|path| absolute(path)).collect::<Result<_, _>>()?;
    let file = given.file.as_deref().map(absolute).transpose()?;
    let answer = ask(&given.daemon, rules, file)?;
    if given.json {
        writeln!(out, "{}", json::line(&answer)?)?;
        return Ok(answer.code());
    }
    print(&answer, given.all, out)
}

/// Requests the plan of the files that the daemon would read at a reload.
pub(super) fn of_files_on_disk(flags: &DaemonFlags) -> Result<PlanAnswer, ToolError> {
    ask(flags, Vec::new(), None)
}

fn ask(
    flags: &DaemonFlags,
    rules: Vec<String>,
    file: Option<String>,
) -> Result<PlanAnswer, ToolError> {
    let mut reply = daemon_client::ask(flags, &ControlRequest::Plan { rules, file })?;
    let report = reply.next_line()?.unwrap_or_default();
    let mut changes = Vec::new();
    while let Some(process) = reply.next_line()? {
        changes.push(process);
    }
    Ok(PlanAnswer { report, changes })
}

/// Writes the plan as text, or the errors of its files on standard error. Returns the exit code.
pub(super) fn print(answer: &PlanAnswer, all: bool, out: &mut dyn Write) -> Result<u8, ToolError> {
    for line in answer.report.diagnostics.iter().flat_map(|text| text.lines()) {
        eprintln!("{}", Escaped(line));
    }
    if answer.code() == ERRORS {
        eprintln!("cgrulectl: no plan, because the files have errors");
        return Ok(ERRORS);
    }
    show(answer, PlanViewOptions { all, ascii: !locale::is_unicode() }, out)?;
    Ok(answer.code())
}

impl PlanAnswer {
    /// Returns the exit code of the command.
    pub(super) fn code(&self) -> u8 {
        let PlanReport { errors, settings, created, .. } = &self.report;
        match *errors {
            0 if self.changes.is_empty() && settings.is_empty() && created.is_empty() => 0,
            0 => CHANGES,
            _ => ERRORS,
        }
    }

    /// Checks whether files have errors, so that there is no plan.
    pub(super) fn has_errors(&self) -> bool {
        self.code() == ERRORS
    }
}

/// Returns the path for the daemon, which has another working directory.
fn absolute(path: &Path) -> Result<String, ToolError> {
    let shown = || EscapedBytes(path.as_os_str().as_encoded_bytes()).to_string();
    let full = std::path::absolute(path)
        .map_err(|error| ToolError::Failed(format!("{}: {error}", shown())))?;
    full.into_os_string().into_string().map_err(|_| {
        ToolError::Usage(format!("{}: rename it: the path is not valid UTF-8", shown()))
    })
}
