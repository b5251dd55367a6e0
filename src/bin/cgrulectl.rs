//! Command-line tool of the administrator: inspects, queries and controls the daemon.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(cgruled::cli::run(std::env::args_os()))
}
