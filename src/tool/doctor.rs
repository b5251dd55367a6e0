//! `cgrulectl doctor`.

use std::io::Write;

use super::command::{Command, Failure, Given};

pub(super) const COMMAND: Command = Command {
    name: "doctor",
    operands: "",
    summary: "What this host has, and what to change",
    flags: &[],
    examples: &[],
    ends_at_operand: false,
    run,
};

fn run(_given: &Given, _out: &mut dyn Write) -> Result<u8, Failure> {
    Err(Failure::Failed("doctor is not there yet".to_owned()))
}
