//! `cgrulectl reload`: makes the daemon read its rule files again and reports the result.

use std::io::Write;

use super::command::{DaemonFlags, ToolError};
use super::daemon_client;
use super::format::counted;
use super::json;
use super::retained;
use crate::config::escape::Escaped;
use crate::control::protocol::{ControlRequest, ReloadReply};

#[derive(clap::Args)]
#[command(
    about = "Reload the rule files, and wait for the result",
    after_help = "\
Examples:
  cgrulectl reload
      exit status 65 if files have errors; the last valid version of a file is kept"
)]
pub(super) struct ReloadArgs {
    /// one object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonFlags,
}

/// Exit code for files with errors.
const REFUSED: u8 = 65;

pub(super) fn run(given: &ReloadArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    let reloaded: ReloadReply =
        daemon_client::ask(&given.daemon, &ControlRequest::Reload)?.only()?;
    // Also for errors that are not new: the daemon may have read a changed file a moment ago by itself.
    let is_good = reloaded.in_force && reloaded.new_errors == 0 && reloaded.errors == 0;
    let code = if is_good { 0 } else { REFUSED };
    if given.json {
        writeln!(out, "{}", json::line(&reloaded)?)?;
        return Ok(code);
    }
    for line in reloaded.diagnostics.iter().flat_map(|text| text.lines()) {
        eprintln!("{}", Escaped(line));
    }
    let rules = counted(reloaded.rules, "rule", "rules");
    let files = counted(reloaded.files, "file", "files");
    writeln!(out, "active: {rules} from {files}")?;
    if !reloaded.settled {
        writeln!(out, "re-evaluation of all processes is still in progress")?;
    }
    reloaded.kept.iter().for_each(|file| eprintln!("cgrulectl: {}", retained::words(file)));
    if !is_good {
        let errors = match reloaded.new_errors {
            0 => counted(reloaded.errors, "error", "errors"),
            new => counted(new, "new error", "new errors"),
        };
        eprintln!("cgrulectl: {errors}; all other files are active");
    }
    Ok(code)
}
