//! The daemon under the name, with the command line and with the manners of the original.
//!
//! What differs from `cgruled` is decided here: options, what is checked before the start and with
//! which status it ends, going into the background, and the lines of the log that scripts wait for.
//! The engine is the same one.

mod getopt;
mod narration;
mod options;
mod strict;
mod table;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;

use ::log::{Level, LevelFilter};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, getuid};

use crate::cgroup::tree;
use crate::config::daemon_toml::ExternalMoves;
use crate::config::diagnostic::Diagnostic;
use crate::control::cgred::Cgred;
use crate::daemon::{self, Announcements, Failure, Invocation, Prepared};
use crate::load::{Loaded, Original, Sources};
use crate::log::Output;
use crate::narrator::Narrator;
use crate::sys;
use narration::Narration;
use options::{Accounts, Command, HELP, Options, Wrong};
use strict::Refusal;
use table::Table;

/// Statuses of the process, those of the original where it has one.
const NOT_ROOT: u8 = 1;
const NO_BACKGROUND: u8 = 1;
const USAGE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const NO_CGROUPS: u8 = 81;
const FAILED: u8 = 255;

/// Runs under the command line `words`, which begins behind the name of the program, and under the
/// value of `CGROUP_LOGLEVEL`. Returns the status of the process; the one that was called may have
/// ended before, when the daemon went into the background.
pub fn run(words: impl IntoIterator<Item = OsString>, level: Option<&OsString>) -> u8 {
    // Asked before anything else is read, as by the original.
    if !getuid().is_root() {
        eprintln!("cgrulesengd: only root can run this daemon");
        return NOT_ROOT;
    }
    let accounts = Accounts::default();
    match options::parse(words, level.map(OsString::as_os_str), &accounts) {
        Ok(Command::Help) => {
            print!("{HELP}");
            0
        }
        Ok(Command::Start(options)) => start(&options),
        Err(Wrong::Usage(message)) => {
            eprintln!("cgrulesengd: {message}\n\n{HELP}");
            USAGE
        }
        Err(Wrong::Name(message)) => {
            eprintln!("cgrulesengd: {message}\n\n{HELP}");
            NO_SUCH_NAME
        }
    }
}

fn start(options: &Options) -> u8 {
    let mut invocation = invocation(options);
    let prepared = match prepare(options, &invocation) {
        Ok(prepared) => prepared,
        Err(Refusal { code, message }) => {
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
        // Standard output stays if the log goes there. Nothing else can be done about an error.
        let _left = leave_terminal(invocation.outputs.contains(&Output::Stdout));
    }
    invocation.announcements = announcements(options, &invocation.outputs);
    match daemon::run_prepared(&invocation, prepared) {
        Ok(()) => 0,
        Err(failure) => {
            eprintln!("cgrulesengd: {failure}");
            code_of(&failure)
        }
    }
}

fn invocation(options: &Options) -> Invocation {
    Invocation {
        level: Some(options.level()),
        // The original refuses to start where we leave something out: that must not stay unsaid.
        warns_of_files: true,
        outputs: options.outputs(),
        // The original moves a process after an event of its own alone.
        external_moves: ExternalMoves::Report,
        prints_counters: false,
        control_is_optional: true,
        socket_owner: options.socket_owner,
        socket_group: options.socket_group,
        ..Invocation::default()
    }
}

/// The original ends with 255 for all that goes wrong. Systemd is to tell what passes, and is worth another
/// start, from what does not: as its service the daemon ends with the code that `cgruled` has for the latter.
fn code_of(failure: &Failure) -> u8 {
    let is_service = std::env::var_os("NOTIFY_SOCKET").is_some();
    match failure {
        Failure::Run(..) => FAILED,
        Failure::Place(..) | Failure::Occupied(..) | Failure::Unusable(_) if !is_service => FAILED,
        Failure::NoCgroups => NO_CGROUPS,
        Failure::Place(..)
        | Failure::Occupied(..)
        | Failure::Unusable(_)
        | Failure::Settings(_) => failure.code(),
    }
}

/// Finds out everything that can be known to be wrong while somebody still waits for the status.
fn prepare(options: &Options, invocation: &Invocation) -> Result<Prepared, Refusal> {
    let refusal = |failure: &Failure| {
        let message = failure.to_string().trim_end().to_owned();
        Refusal { code: code_of(failure), message }
    };
    let prepared = Prepared::new(invocation).map_err(|failure| refusal(&failure))?;
    if tree::discover().is_ok_and(|found| found.is_empty()) {
        return Err(refusal(&Failure::NoCgroups));
    }
    if options.is_strict {
        strict::check(prepared.loaded(), &Sources::default().cgconfig_d)?;
    }
    if let Some(path) = &invocation.sticky_socket {
        Cgred::ensure_alone(path)
            .map_err(|error| refusal(&Failure::to_make("sticky socket", error)))?;
    }
    if !invocation.outputs.contains(&Output::Stdout) {
        complain(prepared.loaded(), options.level());
    }
    Ok(prepared)
}

/// Says what is wrong with the files to whoever starts the daemon by hand; only what is left out if the
/// log is to say nothing.
fn complain(loaded: &Loaded, level: LevelFilter) {
    if let Some((_, line)) = missing(loaded) {
        eprintln!("cgrulesengd: {line}");
    }
    let is_said = |one: &&Diagnostic| one.is_error() || level > LevelFilter::Off;
    loaded.diagnostics.iter().filter(is_said).for_each(|one| eprintln!("{one}"));
}

/// The file that the original would not start without. Without rules the daemon does nothing.
fn missing(loaded: &Loaded) -> Option<(Level, String)> {
    let level = if loaded.rules.is_empty() { Level::Error } else { Level::Warn };
    match &loaded.original {
        Original::Misses(file) => {
            Some((level, format!("{}: there is no such file", file.display())))
        }
        Original::NotAsked | Original::Starts | Original::Refuses(_) => None,
    }
}

/// Lines go to standard output when the file cannot be opened.
fn make_sure_of_file(outputs: &mut [Output]) {
    for output in outputs {
        let Output::Lines(path) = &*output else { continue };
        let opened = crate::log::try_file(path);
        if let Err(error) = opened {
            eprintln!("cgrulesengd: {error}; log lines go to standard output");
            *output = Output::Stdout;
        }
    }
}

/// Lets go of the terminal. The original leaves the descriptors closed, so that its sockets become
/// standard input and output; here they are of `/dev/null`.
fn leave_terminal(keeps_output: bool) -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    if !keeps_output {
        dup2_stdout(&null)?;
    }
    Ok(dup2_stderr(&null)?)
}

fn announcements(options: &Options, outputs: &[Output]) -> Announcements {
    let has_file = outputs.iter().any(|output| !matches!(output, Output::Syslog(_)));
    let level = options.level();
    Announcements {
        opening: opening(options, outputs),
        ready: || ::log::info!("Started the CGroup Rules Engine Daemon."),
        reloading: || {
            ::log::info!("Reloading rules configuration");
            // Of SIGUSR1 to the original; here every reload reads both.
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
            keep_quiet
        } else {
            |_| None
        },
    }
}

/// For a log that has errors only.
fn keep_quiet(loaded: &Loaded) -> Option<Box<dyn Narrator>> {
    Some(Box::new(Narration::of_errors(missing(loaded))))
}

fn narrate(loaded: &Loaded) -> Option<Box<dyn Narrator>> {
    Some(Box::new(narration(loaded, |_| None)))
}

fn show_rules(loaded: &Loaded) -> Option<Box<dyn Narrator>> {
    Some(Box::new(narration(loaded, |table| Some(table.to_string()))))
}

fn narration(loaded: &Loaded, show: fn(&Table<'_>) -> Option<String>) -> Narration {
    let sources = Sources::default();
    let table = Table::new(loaded, &sources);
    let (heads, table) = (table.heads(), show(&table));
    Narration { heads, table, ..Narration::of_errors(missing(loaded)) }
}

fn opening(options: &Options, outputs: &[Output]) -> Vec<(Level, String)> {
    let mut lines = vec![
        (Level::Debug, "CGroup Rules Engine Daemon log started".to_owned()),
        (Level::Debug, format!("Current time: {}\n", sys::local_time())),
    ];
    let facility = outputs.iter().find_map(|output| match output {
        Output::Syslog(facility) => Some(u32::from(facility.number()) << 3),
        Output::Target(_) | Output::Stdout | Output::Lines(_) => None,
    });
    if let Some(file) = &options.log_file {
        let (file, facility) = (Path::new(file).display(), facility.unwrap_or(0));
        let level = severity(options.level());
        let line = format!("Opened log file: {file}, log facility: {facility},log level: {level}");
        lines.push((Level::Debug, line));
    }
    lines.push((Level::Info, format!("Proceeding with PID {}", std::process::id())));
    lines
}

/// The least important severity of syslog that is written.
const fn severity(level: LevelFilter) -> u8 {
    match level {
        LevelFilter::Off => 0,
        LevelFilter::Error => 3,
        LevelFilter::Warn => 4,
        LevelFilter::Info => 6,
        LevelFilter::Debug | LevelFilter::Trace => 7,
    }
}

/// The files of the original and the user database of a test, in one directory.
#[cfg(test)]
fn in_directory(root: &Path) -> (Sources, crate::load::NameService) {
    let path = |name: &str| root.join(name);
    let service =
        crate::load::NameService { passwd: path("passwd"), group: path("group"), nss: false };
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
