//! Commands of `cgrulectl`, one file each. They must not read files or decide by other code than the daemon.
//!
//! Data goes to standard output, diagnostics to standard error. A command queries the daemon through its
//! [control socket](crate::control::client) for state that only the daemon has, and reads the files for
//! everything else. Exit codes: 0 success, 1 failure or problem found, 2 usage error, 65 invalid rules or
//! settings, 69 daemon not reachable; `run` returns that of its command, or 125 to 127 as env(1).

pub mod command;

pub mod cat;
pub mod check;
mod convert;
pub mod daemon_client;
mod doctor;
pub mod explain;
mod format;
mod groups;
mod json;
pub mod list;
mod locale;
mod metrics;
mod place;
mod regular;
mod reload;
mod retained;
mod rows;
mod rule_wording;
mod run;
mod status;
mod top;
mod unread;
mod watch;
mod what_if;

use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal, Write};

use command::{Subcommand, ToolError, help, parse};

/// All commands, in the order of the help text.
pub const COMMANDS: &[&Subcommand] = &[
    &check::COMMAND,
    &explain::COMMAND,
    &list::COMMAND,
    &cat::COMMAND,
    &status::COMMAND,
    &watch::COMMAND,
    &top::COMMAND,
    &metrics::COMMAND,
    &reload::COMMAND,
    &place::COMMAND,
    &run::COMMAND,
    &doctor::COMMAND,
    &convert::COMMAND,
    &groups::COMMAND,
];

/// Runs a command line without the program's name and returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let mut out = io::stdout().lock();
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let named = COMMANDS.iter().find(|one| arguments.first().is_some_and(|name| name == one.name));
    let topic = named.map_or_else(String::new, |one| format!("{} ", one.name));
    let result = dispatch(arguments, &mut out);
    // An error of the final flush counts too. A closed pipe is no error: its reader wants no more output.
    let flushed = out.flush().map_err(ToolError::from);
    match result.and_then(|code| flushed.map(|()| code)) {
        Ok(code) => code,
        Err(ToolError::Written(error)) if error.kind() == ErrorKind::BrokenPipe => 0,
        Err(failure) => {
            let hint = match failure {
                ToolError::Usage(_) => format!("\nTry 'cgrulectl {topic}--help'."),
                ToolError::Data(_)
                | ToolError::NoDaemon(_)
                | ToolError::Failed(_)
                | ToolError::Written(_) => String::new(),
            };
            eprintln!("cgrulectl: {failure}{hint}");
            failure.code()
        }
    }
}

fn dispatch(arguments: Vec<OsString>, out: &mut dyn Write) -> Result<u8, ToolError> {
    let mut arguments = arguments.into_iter();
    let name = arguments.next().unwrap_or_else(|| "--help".into());
    match name.to_str() {
        Some("-h" | "--help" | "help") => out.write_all(overview().as_bytes())?,
        Some("-V" | "--version") => writeln!(out, "cgrulectl {}", env!("CARGO_PKG_VERSION"))?,
        name => {
            let found = COMMANDS.iter().find(|command| Some(command.name) == name);
            let Some(command) = found else {
                let shown =
                    name.map_or_else(|| "?".to_owned(), |name| name.escape_debug().to_string());
                return Err(ToolError::Usage(format!("unknown command: {shown}")));
            };
            let Some(mut given) = parse(command, &mut lexopt::Parser::from_args(arguments))? else {
                out.write_all(help(command).as_bytes())?;
                return Ok(0);
            };
            // https://no-color.org: colours are off if the variable is set and not empty.
            let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            given.color = io::stdout().is_terminal() && !is_unwanted;
            return (command.run)(&given, out);
        }
    }
    Ok(0)
}

/// Returns the text of `cgrulectl --help`, which fits a screen of 24 lines and 80 columns.
fn overview() -> String {
    let commands: String = COMMANDS
        .iter()
        .map(|command| format!("  {:8}  {}\n", command.name, command.summary))
        .collect();
    format!(
        "Usage: cgrulectl COMMAND [OPTION]... (more: COMMAND --help, man cgrulectl)\n\n{commands}\n\
         Examples:\n  cgrulectl explain $$    show whether this shell is in its cgroup\n  \
         cgrulectl check         check rules and settings for errors\n\n\
         Exit status: 0 success, 1 failure or problem found, 2 usage error, 65 invalid\n\
         rules or settings, 69 no daemon; run returns its command's, or 125 to 127.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(line: &str) -> (Result<u8, ToolError>, String) {
        let mut out = Vec::new();
        let arguments = line.split_whitespace().map(OsString::from).collect();
        let result = dispatch(arguments, &mut out);
        (result, String::from_utf8(out).unwrap())
    }

    #[test]
    fn help_fits_a_screen() {
        let (result, text) = call("--help");
        assert_eq!(result.unwrap(), 0);
        assert!(text.lines().count() <= 24 && text.lines().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn every_command_explains_itself_and_names_each_flag_once() {
        for command in COMMANDS {
            let (result, text) = call(&format!("{} --help", command.name));
            assert_eq!(result.unwrap(), 0);
            for flag in command.flags.iter().chain(command::COMMON) {
                assert_eq!(text.matches(&format!("  {}  ", flag.usage())).count(), 1, "{text}");
            }
            let fits = text.lines().all(|line| line.chars().count() <= 80);
            assert!(fits && text.lines().count() <= 24, "{text}");
        }
    }

    #[test]
    fn wrong_usage_is_said() {
        for line in [
            "frobnicate",
            "check --frobnicate",
            "check --config",
            "check --no-legacy=1",
            "top x",
            "doctor x",
            "place x",
        ] {
            let (result, _) = call(line);
            assert_eq!(result.unwrap_err().code(), 2, "{line}");
        }
    }
}
