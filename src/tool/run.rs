//! `cgrulectl run`.

use std::io::Write;

use super::command::{Command, Failure, Given};

pub(super) const COMMAND: Command = Command {
    name: "run",
    operands: "COMMAND [ARGUMENT]...",
    summary: "Start a command in a group",
    flags: &[],
    examples: &[],
    ends_at_operand: true,
    run,
};

fn run(_given: &Given, _out: &mut dyn Write) -> Result<u8, Failure> {
    Err(Failure::Failed("run is not there yet".to_owned()))
}
