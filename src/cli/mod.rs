//! Commands of `cgrulectl`, one file each. They must not read files or decide by other code than the daemon.
//!
//! Data goes to standard output, diagnostics to standard error. A command queries the daemon through its
//! [control socket](crate::control::client) for state that only the daemon has, and reads the files for
//! everything else. Exit codes: 0 success, 1 failure or problem found, 2 usage error, 3 a plan with changes, 65
//! invalid rules or settings, 69 daemon not reachable; `run` returns that of its command, or 125 to 127 as env(1).

mod ancestors;
pub mod command;
mod conditions;

pub mod cat;
pub mod check;
mod convert;
pub mod daemon_client;
mod decision_filter;
mod doctor;
pub mod explain;
mod format;
mod groups;
mod history;
pub mod inspected_program;
mod json;
pub mod list;
mod locale;
mod metrics;
mod place;
pub mod plan;
mod regular;
mod release;
mod reload;
mod retained;
mod rows;
mod rule_wording;
mod run;
mod status;
pub mod test;
mod time_limit;
mod top;
mod unread;
mod watch;
mod what_if;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};

use clap::FromArgMatches;

use command::{CommandLine, ToolError, definition, usage_message};

/// Runs a command line and returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let mut out = io::stdout().lock();
    let result = dispatch(arguments, &mut out);
    // An error of the final flush counts too. A closed pipe is no error: its reader wants no more output.
    let flushed = out.flush().map_err(ToolError::from);
    match result.and_then(|code| flushed.map(|()| code)) {
        Ok(code) => code,
        Err(ToolError::Written(error)) if error.kind() == ErrorKind::BrokenPipe => 0,
        Err(failure) => {
            eprintln!("cgrulectl: {failure}");
            failure.code()
        }
    }
}

fn dispatch(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
) -> Result<u8, ToolError> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    match arguments.get_mut(1) {
        None => arguments.push("--help".into()),
        Some(first) if first == "help" => *first = "--help".into(),
        Some(_) => {}
    }
    let parsed = definition()
        .try_get_matches_from(arguments)
        .and_then(|matches| CommandLine::from_arg_matches(&matches));
    match parsed {
        Ok(line) => line.command.run(out),
        Err(error) if error.use_stderr() => Err(ToolError::Usage(usage_message(&error))),
        Err(help) => {
            write!(out, "{help}")?;
            Ok(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::command::CtlCommand;
    use super::*;

    fn call(line: &str) -> (Result<u8, ToolError>, String) {
        let mut out = Vec::new();
        let line = format!("cgrulectl {line}");
        let arguments = line.split_whitespace().map(OsString::from);
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
        let mut definition = definition();
        definition.build();
        for command in definition.get_subcommands() {
            let (result, text) = call(&format!("{} --help", command.get_name()));
            assert_eq!(result.unwrap(), 0);
            let explained: Vec<&str> = text
                .lines()
                .filter(|line| line.trim_start().starts_with('-'))
                .filter_map(|line| line.split(' ').find(|word| word.starts_with("--")))
                .collect();
            for flag in command.get_arguments().filter_map(clap::Arg::get_long) {
                let count = explained.iter().filter(|word| word[2..] == *flag).count();
                assert_eq!(count, 1, "--{flag}: {text}");
            }
            let fits = text.lines().all(|line| line.chars().count() <= 80);
            assert!(fits && text.lines().count() <= 32, "{text}");
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
    #[test]
    fn the_last_value_counts_and_directories_add_up() {
        let line = ["cgrulectl", "cat", "--root", "/a", "--rules", "/b", "--root=/c", "--rules=/d"];
        let parsed = CommandLine::try_parse_from(line).unwrap();
        let CtlCommand::Cat(given) = parsed.command else { panic!("another command") };
        let options = given.daemon.options();
        assert_eq!(options.root, Some("/c".into()));
        assert_eq!(options.rules, ["/b", "/d"].map(std::path::PathBuf::from));
    }
}
