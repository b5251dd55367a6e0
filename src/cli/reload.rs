//! `cgrulectl reload`: makes the daemon read its rule files again and reports the result.

use std::io::{self, IsTerminal, Write};

use super::command::{DaemonFlags, ToolError};
use super::daemon_client;
use super::format::counted;
use super::json;
use super::plan;
use super::retained;
use crate::config::escape::Escaped;
use crate::control::protocol::{ControlRequest, ReloadReply};

#[derive(clap::Args)]
#[command(
    about = "Reload the rule files, and wait for the result",
    after_help = "\
Examples:
  cgrulectl reload
      exit status 65 if files have errors; the last valid version of a file is kept
  cgrulectl reload --plan
      show what would change, and ask"
)]
pub(super) struct ReloadArgs {
    /// show the plan first, and ask; not a terminal: only show it
    #[arg(long, conflicts_with = "json")]
    plan: bool,
    /// with --plan: do not ask
    #[arg(long, requires = "plan")]
    yes: bool,
    /// one object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonFlags,
}

/// Exit code for files with errors.
const REFUSED: u8 = 65;

pub(super) fn run(given: &ReloadArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
    if given.plan {
        let answer = plan::of_files_on_disk(&given.daemon)?;
        let code = plan::print(&answer, false, out)?;
        out.flush()?;
        if answer.has_errors() || !(given.yes || is_confirmed()?) {
            return Ok(code);
        }
    }
    reload(given, out)
}

/// Asks on the terminal. Returns `false` if there is none.
fn is_confirmed() -> Result<bool, ToolError> {
    let input = io::stdin();
    if !input.is_terminal() || !io::stdout().is_terminal() {
        eprintln!("cgrulectl: not reloaded: not on a terminal; add --yes to reload");
        return Ok(false);
    }
    let mut prompt = io::stderr();
    write!(prompt, "Reload? [y/N] ")?;
    prompt.flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn reload(given: &ReloadArgs, out: &mut dyn Write) -> Result<u8, ToolError> {
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
