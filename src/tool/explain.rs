//! `cgrulectl explain`.

use std::io::Write;

use super::command::{Command, Failure, Given};

pub(super) const COMMAND: Command = Command {
    name: "explain",
    operands: "[PID]...",
    summary: "Why a process is where it is",
    flags: &[],
    examples: &[],
    ends_at_operand: false,
    run,
};

fn run(_given: &Given, _out: &mut dyn Write) -> Result<u8, Failure> {
    Err(Failure::Failed("explain is not there yet".to_owned()))
}
