//! `cgrulectl reload`.

use std::io::Write;

use super::asking;
use super::command::{Command, Failure, Flag, Given};
use super::figures::counted;
use crate::config::escape::Escaped;
use crate::control::protocol::{Reloaded, Request};

pub(super) const COMMAND: Command = Command {
    name: "reload",
    operands: "",
    summary: "Make the daemon read its files again, and wait for the result",
    flags: &[Flag::new("json", "one object")],
    examples: &[("reload", "exit 65 if the files have new errors and the old rules stay")],
    ends_at_operand: false,
    run,
};

/// The old rules stay in force.
const REFUSED: u8 = 65;

fn run(given: &Given, out: &mut dyn Write) -> Result<u8, Failure> {
    given.no_operands()?;
    let reloaded: Reloaded = asking::ask(given, &Request::Reload)?.only()?;
    let code = if reloaded.in_force { 0 } else { REFUSED };
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
    if reloaded.in_force {
        writeln!(out, "in force: {rules} from {files}")?;
        if !reloaded.settled {
            writeln!(out, "not every process was looked at yet; that goes on")?;
        }
    } else {
        let errors = counted(reloaded.errors, "new error", "new errors");
        eprintln!("cgrulectl: {errors}; the old rules stay in force ({rules} from {files})");
    }
    Ok(code)
}
