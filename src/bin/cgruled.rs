//! The daemon: command line in, exit code out.

use std::ffi::OsString;
use std::path::{Component, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use cgruled::config::diagnostic::has_errors;
use cgruled::config::quantity;
use cgruled::daemon::{Control, Invocation, check, run};
use cgruled::log::complain;
use lexopt::prelude::*;

const HELP: &str = "\
cgruled puts every process into the control group that your rules say. It stays
in the foreground. Rules are in /etc/cgruled/rules.d/*.toml.

Usage: cgruled [OPTION]...

  --config FILE       settings (default: /etc/cgruled/cgruled.toml)
  --rules DIR         read rules here instead of the standard directories; may
                      be repeated, the first directory wins
  --no-legacy         do not read /etc/cgrules.conf, cgrules.d, cgconfig.conf and
                      cgconfig.d, and do not serve /run/cgred.socket, so that
                      cgexec and cgclassify --sticky have no effect
  --root PATH         where the groups of rules begin in each hierarchy
  --control PATH      the control socket (default: /run/cgruled/control.sock),
                      or off
  --check             say what is wrong with settings and rules, then end
  --dry-run           say what would be moved, move nothing
  --log LEVEL         off, error, warn, info (default), debug or trace
  --stats-every TIME  write all counters to the log, for example every 10s
  -h, --help          this text
  -V, --version       the version

Signals: TERM and INT end it; HUP, USR1 and USR2 make it read the rules again.
Exit: 0 ended by a signal, 1 failed, 2 wrong usage, 65 bad settings (with
--check also bad rules), 78 cannot work on this host or beside another daemon.
More: man cgruled, man cgruled-rules, man cgrulectl.
";

enum Command {
    Help,
    Version,
    Check(Invocation),
    Run(Invocation),
}

fn main() -> ExitCode {
    match parse(std::env::args_os().skip(1)) {
        Ok(Command::Help) => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Ok(Command::Version) => {
            println!("cgruled {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Ok(Command::Check(invocation)) => {
            let diagnostics = check(&invocation);
            diagnostics.iter().for_each(|diagnostic| eprintln!("{diagnostic}"));
            if has_errors(&diagnostics) { ExitCode::from(65) } else { ExitCode::SUCCESS }
        }
        Ok(Command::Run(invocation)) => match run(&invocation) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                complain(&format!("cgruled: {failure}"));
                ExitCode::from(failure.code())
            }
        },
        Err(error) => {
            complain(&format!("cgruled: {error}\nTry 'cgruled --help'."));
            ExitCode::from(2)
        }
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let mut invocation = Invocation::default();
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
            Short('h') | Long("help") => return Ok(Command::Help),
            Short('V') | Long("version") => return Ok(Command::Version),
            Short(_) | Long(_) | Value(_) => return Err(argument.unexpected()),
        }
    }
    Ok(if checks { Command::Check(invocation) } else { Command::Run(invocation) })
}

fn root(path: PathBuf) -> Result<PathBuf, String> {
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    if path.is_absolute() && path.components().all(plain) && path.to_str().is_some() {
        Ok(path)
    } else {
        Err(format!("--root {}: give an absolute path without '..'", path.display()))
    }
}

fn control(path: PathBuf) -> Result<Control, String> {
    if path.as_os_str() == "off" {
        Ok(Control::Off)
    } else if path.is_absolute() {
        Ok(Control::At(path))
    } else {
        Err(format!("--control {}: give an absolute path, or off", path.display()))
    }
}

fn time(text: &str) -> Result<Duration, String> {
    quantity::duration(text)
        .filter(|time| !time.is_zero())
        .ok_or_else(|| format!("--stats-every {text}: give a time such as 10s or 5m"))
}
