//! Executable of the daemon: parses the command line and returns the exit code.

use std::ffi::OsString;
use std::path::{Component, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use cgruled::config::diagnostic::has_errors;
use cgruled::config::quantity;
use cgruled::daemon::{ControlPath, DaemonOptions, check, run};
use cgruled::telemetry::log::report_error;
use lexopt::prelude::*;

const HELP: &str = "\
cgruled moves each process into the cgroup named by the first matching rule. It
stays in the foreground. Rules are in /etc/cgruled/rules.d/*.toml.

Usage: cgruled [OPTION]...

  --config FILE       read settings from FILE (default:
                      /etc/cgruled/cgruled.toml)
  --rules DIR         read rules here instead of the standard directories; may
                      be repeated, the first directory wins
  --no-legacy         do not read /etc/cgrules.conf, cgrules.d, cgconfig.conf and
                      cgconfig.d, and do not serve /run/cgred.socket, so that
                      cgexec and cgclassify --sticky have no effect
  --root PATH         create cgroups of rules below PATH in each hierarchy
  --control PATH      control socket (default: /run/cgruled/control.sock),
                      or off
  --check             report errors in settings and rules, then exit
  --dry-run           log moves without making them
  --log LEVEL         log level: off, error, warn, info (default), debug or trace
  --stats-every TIME  log all counters at this interval, for example 10s
  -h, --help          print this help and exit
  -V, --version       print the version and exit

Signals: TERM and INT stop the daemon; HUP, USR1 and USR2 reload the rules.
Exit: 0 stopped by a signal, 1 failed, 2 invalid usage, 65 invalid settings
(with --check also invalid rules), 78 unsupported host or a second daemon.
More: man cgruled, man cgruled-rules, man cgrulectl.
";

enum DaemonCommand {
    Help,
    Version,
    Check(DaemonOptions),
    Run(DaemonOptions),
}

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(DaemonCommand::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(DaemonCommand::Version) => {
            println!("cgruled {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(DaemonCommand::Check(invocation)) => {
            let diagnostics = check(&invocation);
            diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
            if has_errors(&diagnostics) { ExitCode::from(65) } else { ExitCode::SUCCESS }
        }
        Ok(DaemonCommand::Run(invocation)) => match run(&invocation) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                report_error(&format!("cgruled: {failure}"));
                ExitCode::from(failure.code())
            }
        },
        Err(error) => {
            report_error(&format!("cgruled: {error}\nTry 'cgruled --help'."));
            ExitCode::from(2)
        }
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<DaemonCommand, lexopt::Error> {
    let mut invocation = DaemonOptions::default();
    let mut checks = false;
    let mut parser = lexopt::Parser::from_args(arguments);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") => invocation.config = parser.value()?.into(),
            Long("rules") => invocation.rules.push(parser.value()?.into()),
            Long("no-legacy") => invocation.legacy = false,
            Long("root") => invocation.root = Some(root(parser.value()?.into())?),
            Long("control") => invocation.control = Some(control(parser.value()?.into())?),
            Long("check") => checks = true,
            Long("dry-run") => invocation.dry_run = true,
            Long("log") => invocation.level = Some(parser.value()?.parse()?),
            Long("stats-every") => invocation.stats_every = Some(time(&parser.value()?.string()?)?),
            Short('h') | Long("help") => return Ok(DaemonCommand::Help),
            Short('V') | Long("version") => return Ok(DaemonCommand::Version),
            Short(_) | Long(_) | Value(_) => return Err(argument.unexpected()),
        }
    }
    Ok(if checks { DaemonCommand::Check(invocation) } else { DaemonCommand::Run(invocation) })
}

fn root(path: PathBuf) -> Result<PathBuf, String> {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if path.is_absolute() && path.components().all(plain) && path.to_str().is_some() {
        Ok(path)
    } else {
        Err(format!("invalid --root {}: use an absolute path without '..'", path.display()))
    }
}

fn control(path: PathBuf) -> Result<ControlPath, String> {
    if path.as_os_str() == "off" {
        Ok(ControlPath::Off)
    } else if path.is_absolute() {
        Ok(ControlPath::At(path))
    } else {
        Err(format!("invalid --control {}: use an absolute path, or off", path.display()))
    }
}

fn time(text: &str) -> Result<Duration, String> {
    quantity::duration(text)
        .filter(|time| !time.is_zero())
        .ok_or_else(|| format!("invalid --stats-every {text}: use a time such as 10s or 5m"))
}
