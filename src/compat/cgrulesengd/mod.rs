//! Drop-in replacement for libcgroup's cgrulesengd: its command line, exit statuses and log lines
//! on top of the same daemon. Must not change how processes are classified.
//!
//! The differences to `cgruled` are here: the options, the checks before the start with their exit
//! statuses, the detachment from the terminal, and the log lines that scripts wait for.

mod getopt;
mod legacy_log;
mod options;
mod strict;
mod table;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use ::log::{Level, LevelFilter};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, getuid};

use crate::cgroup::tree;
use crate::config::daemon_toml::ExternalMoves;
use crate::config::diagnostic::Diagnostic;
use crate::control::cgred::CgredServer;
use crate::daemon::{self, DaemonError, DaemonOptions, LifecycleHooks, PreparedDaemon};
use crate::policy::load::{Loaded, Sources, UpstreamVerdict};
use crate::policy::observer::DecisionObserver;
use crate::sys;
use crate::telemetry::log::LogOutput;
use legacy_log::LegacyLog;
use options::{Accounts, HELP, LegacyCommand, LegacyOptions, OptionError};
use strict::StrictError;
use table::RuleListing;

/// Exit statuses of the process: those of cgrulesengd where it defines one.
const NOT_ROOT: u8 = 1;
const NO_BACKGROUND: u8 = 1;
const USAGE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const NO_CGROUPS: u8 = 81;
const FAILED: u8 = 255;

/// Runs the daemon with the command line `words`, without the program name, and with `level`, the
/// value of `CGROUP_LOGLEVEL`. Returns the exit status of the process. When the daemon goes into
/// the background, the calling process has exited earlier, with status 0.
pub fn run(words: impl IntoIterator<Item = OsString>, level: Option<&OsString>) -> u8 {
    // Checked before anything else is read, as in cgrulesengd.
    if !getuid().is_root() {
        eprintln!("cgrulesengd: must be run as root");
        return NOT_ROOT;
    }
    let accounts = Accounts::default();
    match options::parse(words, level.map(OsString::as_os_str), &accounts) {
        Ok(LegacyCommand::Help) => {
            let _printed = io::stdout().write_all(HELP.as_bytes());
            0
        }
        Ok(LegacyCommand::Start(options)) => start(&options),
        Err(OptionError::Usage(message)) => {
            eprintln!("cgrulesengd: {message}\n\n{HELP}");
            USAGE
        }
        Err(OptionError::Name(message)) => {
            eprintln!("cgrulesengd: {message}\n\n{HELP}");
            NO_SUCH_NAME
        }
    }
}

fn start(options: &LegacyOptions) -> u8 {
    let mut invocation = invocation(options);
    let prepared = match prepare(options, &invocation) {
        Ok(prepared) => prepared,
        Err(StrictError { code, message }) => {
            eprintln!("cgrulesengd: {message}");
            return code;
        }
    };
    if !options.stays {
        if let Err(error) = sys::daemonise() {
            eprintln!("cgrulesengd: cannot go into the background: {error}");
            return NO_BACKGROUND;
        }
    }
    make_sure_of_file(&mut invocation.outputs);
    if !options.stays {
        // Standard output stays open if the log goes there. An error cannot be handled here.
        let _left = leave_terminal(invocation.outputs.contains(&LogOutput::Stdout));
    }
    invocation.hooks = hooks(options, &invocation.outputs);
    match daemon::run_prepared(&invocation, prepared) {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("cgrulesengd: {failure}");
            code_of(&failure)
        }
    }
}

fn invocation(options: &LegacyOptions) -> DaemonOptions {
    DaemonOptions {
        level: Some(options.level()),
        // cgrulesengd refuses to start with a file of which this daemon ignores a line, so the
        // diagnostics must be logged.
        warns_of_files: true,
        outputs: options.outputs(),
        // cgrulesengd moves a process only after an event of that process.
        external_moves: ExternalMoves::Report,
        prints_counters: false,
        control_is_optional: true,
        socket_owner: options.socket_owner,
        socket_group: options.socket_group,
        ..DaemonOptions::default()
    }
}

/// Maps a failure to an exit status. cgrulesengd exits with 255 after any failure.
fn code_of(failure: &DaemonError) -> u8 {
    // systemd must be able to tell temporary failures, which are worth a restart, from permanent
    // ones: as its service the daemon uses the exit codes of `cgruled` for the latter.
    let is_service = std::env::var_os("NOTIFY_SOCKET").is_some();
    match failure {
        DaemonError::Run(..) => FAILED,
        DaemonError::Place(..) | DaemonError::Occupied(..) | DaemonError::Unusable(_)
            if !is_service =>
        {
            FAILED
        }
        DaemonError::NoCgroups => NO_CGROUPS,
        DaemonError::Place(..)
        | DaemonError::Occupied(..)
        | DaemonError::Unusable(_)
        | DaemonError::Settings(_) => failure.code(),
    }
}

/// Checks everything that can be checked before the caller gets the exit status.
fn prepare(
    options: &LegacyOptions,
    invocation: &DaemonOptions,
) -> Result<PreparedDaemon, StrictError> {
    let refusal = |failure: &DaemonError| {
        let message = failure.to_string().trim_end().to_owned();
        StrictError { code: code_of(failure), message }
    };
    let prepared = PreparedDaemon::new(invocation).map_err(|failure| refusal(&failure))?;
    if tree::discover().is_ok_and(|found| found.is_empty()) {
        return Err(refusal(&DaemonError::NoCgroups));
    }
    if options.is_strict {
        strict::check(prepared.loaded(), &Sources::default().cgconfig_d)?;
    }
    if let Some(path) = &invocation.sticky_socket {
        CgredServer::ensure_alone(path)
            .map_err(|error| refusal(&DaemonError::to_make("sticky socket", error)))?;
    }
    if !invocation.outputs.contains(&LogOutput::Stdout) {
        report_error(prepared.loaded(), options.level());
    }
    Ok(prepared)
}

/// Prints the diagnostics of the files on standard error for a manual start. With logging turned
/// off only errors are printed.
fn report_error(loaded: &Loaded, level: LevelFilter) {
    if let Some((_, line)) = missing(loaded) {
        eprintln!("cgrulesengd: {line}");
    }
    let is_said = |one: &&Diagnostic| one.is_error() || level > LevelFilter::Off;
    loaded.diagnostics.iter().filter(is_said).for_each(|one| eprintln!("{one}"));
}

/// Returns the diagnostic for a missing file without which cgrulesengd would not start. Without any
/// rule it is an error, because the daemon then does nothing.
fn missing(loaded: &Loaded) -> Option<(Level, String)> {
    let level = if loaded.rules.is_empty() { Level::Error } else { Level::Warn };
    match &loaded.upstream {
        UpstreamVerdict::Misses(file) => Some((level, format!("{}: no such file", file.display()))),
        UpstreamVerdict::NotAsked | UpstreamVerdict::Starts | UpstreamVerdict::Refuses(_) => None,
    }
}

/// Redirects log lines to standard output if the log file cannot be opened.
fn make_sure_of_file(outputs: &mut [LogOutput]) {
    for output in outputs {
        let LogOutput::Lines(path) = &*output else { continue };
        let opened = crate::telemetry::log::try_file(path);
        if let Err(error) = opened {
            eprintln!("cgrulesengd: {error}; logging to standard output instead");
            *output = LogOutput::Stdout;
        }
    }
}

/// Detaches from the terminal by opening `/dev/null` in place of the standard descriptors.
// cgrulesengd closes the descriptors, so that its sockets become standard input and output.
fn leave_terminal(keeps_output: bool) -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    if !keeps_output {
        dup2_stdout(&null)?;
    }
    Ok(dup2_stderr(&null)?)
}

fn hooks(options: &LegacyOptions, outputs: &[LogOutput]) -> LifecycleHooks {
    let has_file = outputs.iter().any(|output| !matches!(output, LogOutput::Syslog(_)));
    let level = options.level();
    LifecycleHooks {
        opening: opening(options, outputs),
        ready: || ::log::info!("Started the CGroup Rules Engine Daemon."),
        reloading: || {
            ::log::info!("Reloading rules configuration");
            // cgrulesengd logs this after SIGUSR1 only; here every reload reads both kinds of file.
            ::log::info!("Reloading templates configuration.");
        },
        ended: || {
            ::log::info!("Stopped CGroup Rules Engine Daemon at {}\n", sys::local_time());
        },
        rules: if has_file && level >= LevelFilter::Info {
            show_rules
        } else if level >= LevelFilter::Warn {
            narrate
        } else if level >= LevelFilter::Error {
            mute
        } else {
            |_| None
        },
    }
}

/// Creates the observer of a log that has errors only.
fn mute(loaded: &Loaded) -> Option<Box<dyn DecisionObserver>> {
    Some(Box::new(LegacyLog::of_errors(missing(loaded))))
}

fn narrate(loaded: &Loaded) -> Option<Box<dyn DecisionObserver>> {
    Some(Box::new(narration(loaded, |_| None)))
}

fn show_rules(loaded: &Loaded) -> Option<Box<dyn DecisionObserver>> {
    Some(Box::new(narration(loaded, |table| Some(table.to_string()))))
}

fn narration(loaded: &Loaded, show: fn(&RuleListing<'_>) -> Option<String>) -> LegacyLog {
    let sources = Sources::default();
    let table = RuleListing::new(loaded, &sources);
    let heads = table.heads();
    let table = show(&table);
    LegacyLog { heads, table, ..LegacyLog::of_errors(missing(loaded)) }
}

fn opening(options: &LegacyOptions, outputs: &[LogOutput]) -> Vec<(Level, String)> {
    let mut lines = vec![
        (Level::Debug, "CGroup Rules Engine Daemon log started".to_owned()),
        (Level::Debug, format!("Current time: {}", sys::local_time())),
        // cgrulesengd writes an empty line here.
        (Level::Debug, String::new()),
    ];
    let facility = outputs.iter().find_map(|output| match output {
        LogOutput::Syslog(facility) => Some(u32::from(facility.number()) << 3),
        LogOutput::Target(_) | LogOutput::Stdout | LogOutput::Lines(_) => None,
    });
    if let Some(file) = &options.log_file {
        let file = Path::new(file).display();
        let facility = facility.unwrap_or(0);
        let level = severity(options.level());
        let line = format!("Opened log file: {file}, log facility: {facility},log level: {level}");
        lines.push((Level::Debug, line));
    }
    lines.push((Level::Info, format!("Proceeding with PID {}", std::process::id())));
    lines
}

/// Returns the least important syslog severity that is written.
const fn severity(level: LevelFilter) -> u8 {
    match level {
        LevelFilter::Off => 0,
        LevelFilter::Error => 3,
        LevelFilter::Warn => 4,
        LevelFilter::Info => 6,
        LevelFilter::Debug | LevelFilter::Trace => 7,
    }
}

/// Places the files of cgrulesengd and the user database of a test in one directory.
#[cfg(test)]
fn in_directory(root: &Path) -> (Sources, crate::policy::load::NameService) {
    let path = |name: &str| root.join(name);
    let service = crate::policy::load::NameService::of_files(root);
    let sources = Sources {
        directories: Vec::new(),
        legacy: true,
        cgrules_conf: path("cgrules.conf"),
        cgrules_d: path("cgrules.d"),
        cgconfig_conf: path("cgconfig.conf"),
        cgconfig_d: path("cgconfig.d"),
        owner: crate::event::Uid(nix::unistd::geteuid().as_raw()),
    };
    (sources, service)
}
