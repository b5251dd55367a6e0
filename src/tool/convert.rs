//! `cgrulectl convert`.

use std::io::Write;

use super::command::{Command, Failure, Given};

pub(super) const COMMAND: Command = Command {
    name: "convert",
    operands: "[PATH]...",
    summary: "Turn other rule files into TOML rules",
    flags: &[],
    examples: &[],
    ends_at_operand: false,
    run,
};

fn run(_given: &Given, _out: &mut dyn Write) -> Result<u8, Failure> {
    Err(Failure::Failed("convert is not there yet".to_owned()))
}
