//! The daemon in place of the original: its command line in, its exit codes out.

use std::process::ExitCode;

fn main() -> ExitCode {
    let level = std::env::var_os("CGROUP_LOGLEVEL");
    ExitCode::from(cgruled::cgrulesengd::run(std::env::args_os().skip(1), level.as_ref()))
}
