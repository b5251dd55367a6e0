//! The administrator's tool: see, ask and change.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cgruled::tool::run(std::env::args_os().skip(1)))
}
