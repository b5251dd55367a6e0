//! `cgrulectl metrics`.

use std::io::Write;

use super::command::{Command, Failure, Given};

pub(super) const COMMAND: Command = Command {
    name: "metrics",
    operands: "",
    summary: "All counters as OpenMetrics text",
    flags: &[],
    examples: &[],
    ends_at_operand: false,
    run,
};

fn run(_given: &Given, _out: &mut dyn Write) -> Result<u8, Failure> {
    Err(Failure::Failed("metrics is not there yet".to_owned()))
}
