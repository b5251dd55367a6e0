//! `cgrulectl reload`: makes the daemon read its rule files again and reports the result.

use std::io::Write;

use super::command::{Args, FlagSpec, Subcommand, ToolError};
use super::daemon_client;
use super::format::counted;
use super::retained;
use crate::config::escape::Escaped;
use crate::control::protocol::{ControlRequest, ReloadReply};

pub(super) const COMMAND: Subcommand = Subcommand {
    name: "reload",
    operands: "",
    summary: "Reload the rule files, and wait for the result",
    flags: &[FlagSpec::new("json", "one object")],
    examples: &[(
        "reload",
        "exit status 65 if files have new errors; their last valid version is kept",
    )],
    ends_at_operand: false,
    run,
};

/// Exit code for files with new errors.
const REFUSED: u8 = 65;

fn run(given: &Args, out: &mut dyn Write) -> Result<u8, ToolError> {
    given.no_operands()?;
    let reloaded: ReloadReply = daemon_client::ask(given, &ControlRequest::Reload)?.only()?;
    let is_good = reloaded.in_force && reloaded.new_errors == 0;
    let code = if is_good { 0 } else { REFUSED };
    if given.has("json") {
        let text = serde_json::to_string(&reloaded).map_err(std::io::Error::from)?;
        writeln!(out, "{text}")?;
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
        let errors = counted(reloaded.new_errors, "new error", "new errors");
        eprintln!("cgrulectl: {errors}; all other files are active");
    }
    Ok(code)
}
