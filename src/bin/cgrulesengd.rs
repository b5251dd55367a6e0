//! Executable of the replacement for cgrulesengd: same command line, same exit codes.

use std::process::ExitCode;

fn main() -> ExitCode {
    if cgruled::kernel::gate::watch_if_asked(std::env::args_os()) {
        return ExitCode::SUCCESS;
    }
    let level = std::env::var_os("CGROUP_LOGLEVEL");
    ExitCode::from(cgruled::compat::cgrulesengd::run(std::env::args_os().skip(1), level.as_ref()))
}
