//! `cgrulectl top`.

use std::io::Write;

use super::command::{Command, Failure, Given};

pub(super) const COMMAND: Command = Command {
    name: "top",
    operands: "",
    summary: "Groups by what they use",
    flags: &[],
    examples: &[],
    ends_at_operand: false,
    run,
};

fn run(_given: &Given, _out: &mut dyn Write) -> Result<u8, Failure> {
    Err(Failure::Failed("top is not there yet".to_owned()))
}
