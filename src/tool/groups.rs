//! `cgrulectl groups`.

use std::io::Write;

use super::command::{Command, Failure, Given};

pub(super) const COMMAND: Command = Command {
    name: "groups",
    operands: "[PATH]...",
    summary: "Make the groups of cgconfig.conf",
    flags: &[],
    examples: &[],
    ends_at_operand: false,
    run,
};

fn run(_given: &Given, _out: &mut dyn Write) -> Result<u8, Failure> {
    Err(Failure::Failed("groups is not there yet".to_owned()))
}
