//! Command line of `cgrulectl`: its commands, the flags that all of them accept, and errors.
//!
//! Help, completions and the test of the manual page must all use `CommandLine`, so that a flag cannot be
//! missing from one of them.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

use super::{
    cat, check, convert, doctor, explain, groups, history, list, metrics, place, plan, release,
    reload, run, status, test, top, watch,
};
use crate::config::escape::Escaped;
use crate::daemon::DaemonOptions;

/// Layout of the help of a command; the usage shows its operands.
const COMMAND_HELP: &str = "{about}\n\n{usage-heading} {usage}\n\n{options}{after-help}";

/// Command line of `cgrulectl`.
#[derive(Parser)]
#[command(
    name = "cgrulectl",
    version,
    args_override_self = true,
    disable_help_subcommand = true,
    term_width = 80,
    help_template = "\
Usage: cgrulectl COMMAND [OPTION]... (more: COMMAND --help, man cgrulectl)

{subcommands}

Example: cgrulectl explain $$   shows whether this shell is in its cgroup
Exit status: 0 success, 1 failure or problem found, 2 usage error, 3 changes in
a plan, 65 invalid rules or settings, 69 no daemon; run: its command's, 125-127."
)]
pub(super) struct CommandLine {
    #[command(subcommand)]
    pub(super) command: CtlCommand,
}

/// Commands in the order of the help text.
#[derive(Subcommand)]
pub(super) enum CtlCommand {
    Check(check::CheckArgs),
    Test(test::TestArgs),
    Explain(explain::ExplainArgs),
    List(list::ListArgs),
    Cat(cat::CatArgs),
    Status(status::StatusArgs),
    Watch(watch::WatchArgs),
    History(history::HistoryArgs),
    Top(top::TopArgs),
    Metrics(metrics::MetricsArgs),
    Plan(plan::PlanArgs),
    Reload(reload::ReloadArgs),
    Place(place::PlaceArgs),
    Run(run::RunArgs),
    Release(release::ReleaseArgs),
    Doctor(doctor::DoctorArgs),
    Convert(convert::ConvertArgs),
    Groups(groups::GroupsArgs),
}

impl CtlCommand {
    /// Executes the command and returns the exit code.
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<u8, ToolError> {
        match self {
            Self::Check(given) => check::run(given, out),
            Self::Test(given) => test::run(given, out),
            Self::Explain(given) => explain::run(given, out),
            Self::List(given) => list::run(given, out),
            Self::Cat(given) => cat::run(given, out),
            Self::Status(given) => status::run(given, out),
            Self::Watch(given) => watch::run(given, out),
            Self::History(given) => history::run(given, out),
            Self::Top(given) => top::run(given, out),
            Self::Metrics(given) => metrics::run(given, out),
            Self::Plan(given) => plan::run(given, out),
            Self::Reload(given) => reload::run(given, out),
            Self::Place(given) => place::run(given, out),
            Self::Run(given) => run::run(given),
            Self::Release(given) => release::run(given, out),
            Self::Doctor(given) => doctor::run(given, out),
            Self::Convert(given) => convert::run(given, out),
            Self::Groups(given) => groups::run(given, out),
        }
    }
}

/// Returns the definition of the command line, for completions and the test of the manual page.
pub fn definition() -> clap::Command {
    CommandLine::command().mut_subcommands(|command| command.help_template(COMMAND_HELP))
}

/// Returns the message for an invalid command line without the name of the program.
pub fn usage_message(error: &clap::Error) -> String {
    let text = error.to_string();
    let lines = text.trim_start_matches("error: ").lines().filter(|line| !line.is_empty());
    lines.map(|line| Escaped(line).to_string()).collect::<Vec<_>>().join("\n")
}

/// Flags that every command accepts: the files and the socket of the daemon.
#[derive(Default, clap::Args)]
pub(super) struct DaemonFlags {
    /// settings file (default: /etc/cgruled/cgruled.toml)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// read rules from this directory only; may be repeated
    #[arg(long, value_name = "DIR")]
    rules: Vec<PathBuf>,
    /// root of the rules' cgroups, as --root of the daemon
    #[arg(long, value_name = "PATH")]
    root: Option<PathBuf>,
    /// do not read the files of cgrulesengd
    #[arg(long)]
    no_legacy: bool,
    /// control socket (default: /run/cgruled/control.sock)
    #[arg(long, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
}

impl DaemonFlags {
    /// Returns the configuration paths that a daemon with the same flags would use.
    pub(super) fn options(&self) -> DaemonOptions {
        let default = DaemonOptions::default();
        DaemonOptions {
            config: self.config.clone().unwrap_or(default.config),
            rules: self.rules.clone(),
            root: self.root.clone(),
            legacy: !self.no_legacy,
            ..default
        }
    }
}

/// Error that ended a command; the kind determines the exit code.
#[derive(Debug)]
pub enum ToolError {
    /// Invalid command line: exit code 2.
    Usage(String),
    /// Daemon not reachable although the command needs it: exit code 69.
    NoDaemon(String),
    /// Any other failed operation: exit code 1.
    Failed(String),
    /// Write error of standard output: exit code 1.
    Written(io::Error),
}

impl ToolError {
    /// Creates the error of a failed lookup of a user or group.
    pub(super) fn nss(error: impl fmt::Display) -> Self {
        Self::Failed(format!("NSS lookup failed: {error}"))
    }

    /// Returns the exit code for this kind of error.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Written(_) => 1,
            Self::Usage(_) => 2,
            Self::NoDaemon(_) => 69,
        }
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::NoDaemon(message) | Self::Failed(message) => {
                f.write_str(message)
            }
            Self::Written(error) => write!(f, "cannot write the output: {error}"),
        }
    }
}

impl From<io::Error> for ToolError {
    fn from(error: io::Error) -> Self {
        Self::Written(error)
    }
}
