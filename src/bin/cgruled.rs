//! Executable of the daemon: parses the command line and returns the exit code.

use std::path::{Component, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use clap::builder::{PathBufValueParser, TypedValueParser};
use log::LevelFilter;

use cgruled::cli::command::usage_message;
use cgruled::config::diagnostic::has_errors;
use cgruled::config::quantity;
use cgruled::daemon::{ControlPath, DaemonOptions, check, run};
use cgruled::kernel::gate::watch_if_asked;
use cgruled::telemetry::log::{print_diagnostic, report_error};

#[derive(Parser)]
#[command(
    name = "cgruled",
    version,
    args_override_self = true,
    term_width = 80,
    about = "\
cgruled moves each process into the cgroup named by the first matching rule. It
stays in the foreground. Rules are in /etc/cgruled/rules.d/*.toml.",
    after_help = "\
Signals: TERM and INT stop the daemon; HUP, USR1 and USR2 reload the rules.
Exit: 0 stopped by a signal, 1 failed, 2 invalid usage, 65 invalid settings
(with --check also invalid rules), 78 unsupported host or a second daemon.
More: man cgruled, man cgruled-rules, man cgrulectl."
)]
struct DaemonCommand {
    /// read settings from FILE (default: /etc/cgruled/cgruled.toml)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// read rules here instead of the standard directories; may be repeated, the first directory wins
    #[arg(long, value_name = "DIR")]
    rules: Vec<PathBuf>,
    /// do not read /etc/cgrules.conf, cgrules.d, cgconfig.conf and cgconfig.d, and do not serve
    /// /run/cgred.socket, so that sticky requests of cgexec and cgclassify have no effect
    #[arg(long)]
    no_legacy: bool,
    /// create cgroups of rules below PATH in each hierarchy
    #[arg(long, value_name = "PATH", value_parser = PathBufValueParser::new().try_map(root))]
    root: Option<PathBuf>,
    /// control socket (default: /run/cgruled/control.sock), or off
    #[arg(long, value_name = "PATH", value_parser = PathBufValueParser::new().try_map(control))]
    control: Option<ControlPath>,
    /// report errors in settings and rules, then exit
    #[arg(long)]
    check: bool,
    /// log moves without making them
    #[arg(long)]
    dry_run: bool,
    /// log level: off, error, warn, info (default), debug or trace
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    log: Option<LevelFilter>,
    /// log all counters at this interval, for example 10s
    #[arg(long, value_name = "TIME", value_parser = time)]
    stats_every: Option<Duration>,
}

fn main() -> ExitCode {
    if watch_if_asked(std::env::args_os()) {
        return ExitCode::SUCCESS;
    }
    let given = match DaemonCommand::try_parse() {
        Ok(given) => given,
        Err(error) if error.use_stderr() => {
            report_error(&format!("cgruled: {}", usage_message(&error)));
            return ExitCode::from(2);
        }
        Err(help) => {
            // Fails if the output is closed.
            let _printed = help.print();
            return ExitCode::SUCCESS;
        }
    };
    let default = DaemonOptions::default();
    let options = DaemonOptions {
        config: given.config.unwrap_or(default.config),
        rules: given.rules,
        legacy: !given.no_legacy,
        root: given.root,
        control: given.control,
        dry_run: given.dry_run,
        level: given.log,
        stats_every: given.stats_every,
        ..default
    };
    if given.check {
        let diagnostics = check(&options);
        diagnostics.iter().for_each(print_diagnostic);
        return if has_errors(&diagnostics) { ExitCode::from(65) } else { ExitCode::SUCCESS };
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            report_error(&format!("cgruled: {failure}"));
            ExitCode::from(failure.code())
        }
    }
}

fn root(path: PathBuf) -> Result<PathBuf, &'static str> {
    let mut parts = path.components();
    let is_plain = parts.all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && is_plain && path.to_str().is_some() {
        Ok(path)
    } else {
        Err("use an absolute path without '..'")
    }
}

fn control(path: PathBuf) -> Result<ControlPath, &'static str> {
    if path.as_os_str() == "off" {
        Ok(ControlPath::Off)
    } else if path.is_absolute() {
        Ok(ControlPath::At(path))
    } else {
        Err("use an absolute path, or off")
    }
}

fn level(text: &str) -> Result<LevelFilter, &'static str> {
    text.parse().map_err(|_| "use off, error, warn, info, debug or trace")
}

fn time(text: &str) -> Result<Duration, &'static str> {
    let time = quantity::duration(text).filter(|time| !time.is_zero());
    time.ok_or("use a time such as 10s or 5m")
}
