//! Options of the command line and the environment. They are processed in order: each takes effect
//! before the next one is read.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::absolute;

use ::log::LevelFilter;

use super::getopt::{ArgumentKind, OptionParser, OptionSpec};
use crate::event::{Gid, Uid};
use crate::sys::accounts;
use crate::telemetry::log::{Facility, LogOutput};

/// Help text, printed by `--help`.
pub(super) const HELP: &str = "\
cgrulesengd moves each process into the cgroup named by the first matching rule.

Usage: cgrulesengd [OPTION]...

  -f, --logfile=FILE         write log lines to FILE; - is standard output
  -s, --syslog[=FACILITY]    write to syslog: 0 to 7 for local0 to local7, D for daemon;
                             the value follows without a space: -s3
  -v, --verbose              log more: warnings, with -vv changes, with -vvv everything
  -q, --quiet                log less
  -Q, --nolog                log nothing
  -n, --nodaemon             stay in the foreground
  -d, --debug                stay in the foreground and log everything to standard output
  -u, --socket-user=USER     owner of the socket, by name
  -g, --socket-group=GROUP   group of the socket, by name
      --strict               do not start with an invalid or a missing rule file
  -h, --help                 print this help and exit

Rules: /etc/cgrules.conf, /etc/cgrules.d/*, then those of cgruled.
Signals: TERM and INT stop the daemon; HUP, USR1 and USR2 reload the rules.
Exit: 0 started, or stopped by a signal; 1 not root; 2 invalid usage; 3 unknown user or group;
65 invalid settings of cgruled; 81 no cgroups; 255 failed; with --strict 96, 99, 104 for a
missing or invalid file. See cgrulesengd(8).
";

#[derive(Clone, Copy)]
enum LegacyFlag {
    Help,
    Verbose,
    Quiet,
    Nolog,
    Logfile,
    Syslog,
    Nodaemon,
    Debug,
    SocketUser,
    SocketGroup,
    Strict,
}

const fn spec(
    letter: u8,
    name: &'static str,
    takes: ArgumentKind,
    flag: LegacyFlag,
) -> OptionSpec<LegacyFlag> {
    OptionSpec { flag, letter: Some(letter), name, takes }
}

const SPECS: [OptionSpec<LegacyFlag>; 11] = [
    spec(b'h', "help", ArgumentKind::Nothing, LegacyFlag::Help),
    spec(b'v', "verbose", ArgumentKind::Nothing, LegacyFlag::Verbose),
    spec(b'q', "quiet", ArgumentKind::Nothing, LegacyFlag::Quiet),
    spec(b'Q', "nolog", ArgumentKind::Nothing, LegacyFlag::Nolog),
    spec(b'f', "logfile", ArgumentKind::Argument, LegacyFlag::Logfile),
    spec(b's', "syslog", ArgumentKind::Attached, LegacyFlag::Syslog),
    spec(b'n', "nodaemon", ArgumentKind::Nothing, LegacyFlag::Nodaemon),
    spec(b'd', "debug", ArgumentKind::Nothing, LegacyFlag::Debug),
    spec(b'u', "socket-user", ArgumentKind::Argument, LegacyFlag::SocketUser),
    spec(b'g', "socket-group", ArgumentKind::Argument, LegacyFlag::SocketGroup),
    OptionSpec {
        flag: LegacyFlag::Strict,
        letter: None,
        name: "strict",
        takes: ArgumentKind::Nothing,
    },
];

/// Action that the command line requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum LegacyCommand {
    Help,
    Start(LegacyOptions),
}

/// Error in the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum OptionError {
    /// Invalid option or argument: exit 2.
    Usage(String),
    /// User or group that does not exist: exit 3.
    Name(String),
}

/// Settings from the command line and the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LegacyOptions {
    /// Number of `-v` minus that of `-q`, plus 1. Values below 0 and above 4 act as 0 and 4.
    pub(super) verbosity: i32,
    /// Path of the log file, or `-` for standard output.
    pub(super) log_file: Option<OsString>,
    pub(super) facility: Option<Facility>,
    pub(super) stays: bool,
    pub(super) is_strict: bool,
    pub(super) socket_owner: Option<Uid>,
    pub(super) socket_group: Option<Gid>,
}

const EVERYTHING: i32 = 4;

/// Functions that resolve user and group names.
pub(super) struct Accounts {
    pub(super) uid: fn(&str) -> io::Result<Option<Uid>>,
    pub(super) gid: fn(&str) -> io::Result<Option<Gid>>,
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            uid: |name| Ok(accounts::user_by_name(name)?.map(|user| Uid(user.uid))),
            gid: |name| Ok(accounts::group_by_name(name)?.map(|group| Gid(group.gid))),
        }
    }
}

impl LegacyOptions {
    /// Creates the default options. `level` is the value of `CGROUP_LOGLEVEL`, of which only the
    /// debug level has an effect.
    fn new(level: Option<&OsStr>) -> Self {
        let level = level.unwrap_or_default().as_bytes();
        let is_debug = level.eq_ignore_ascii_case(b"DEBUG") || integer(level) == Some(4);
        Self {
            verbosity: if is_debug { EVERYTHING } else { 1 },
            log_file: is_debug.then(|| "-".into()),
            facility: None,
            stays: false,
            is_strict: false,
            socket_owner: None,
            socket_group: None,
        }
    }

    /// Returns the least important level that is written.
    pub(super) const fn level(&self) -> LevelFilter {
        match self.verbosity {
            ..=0 => LevelFilter::Off,
            1 => LevelFilter::Error,
            2 => LevelFilter::Warn,
            3 => LevelFilter::Info,
            EVERYTHING.. => LevelFilter::Debug,
        }
    }

    /// Returns the outputs of the log: syslog unless there is a file.
    pub(super) fn outputs(&self) -> Vec<LogOutput> {
        let file = self.log_file.as_ref().map(|path| match path.as_bytes() {
            b"-" => LogOutput::Stdout,
            // Made absolute, because the working directory changes on the way into the background.
            _ => LogOutput::Lines(absolute(path).unwrap_or_else(|_| path.into())),
        });
        let default = if file.is_none() { Some(Facility::DAEMON) } else { None };
        let syslog = self.facility.or(default).map(LogOutput::Syslog);
        file.into_iter().chain(syslog).collect()
    }
}

/// Parses a number like strtol(3), without trailing characters.
fn integer(text: &[u8]) -> Option<i64> {
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 0x0b;
    let start = text.iter().position(|byte| !is_blank(byte))?;
    std::str::from_utf8(&text[start..]).ok()?.parse().ok()
}

/// Parses a command line without the program name.
pub(super) fn parse(
    words: impl IntoIterator<Item = OsString>,
    level: Option<&OsStr>,
    accounts: &Accounts,
) -> Result<LegacyCommand, OptionError> {
    let mut options = LegacyOptions::new(level);
    let mut words = OptionParser::new(&SPECS, words);
    while let Some(option) = words.next_option() {
        let (flag, argument) = option.map_err(OptionError::Usage)?;
        match flag {
            LegacyFlag::Help => return Ok(LegacyCommand::Help),
            LegacyFlag::Verbose => options.verbosity = options.verbosity.saturating_add(1),
            LegacyFlag::Quiet => options.verbosity = options.verbosity.saturating_sub(1),
            LegacyFlag::Nolog => options.verbosity = 0,
            LegacyFlag::Logfile => options.log_file = argument,
            LegacyFlag::Syslog => options.facility = Some(facility(argument)?),
            LegacyFlag::Nodaemon => options.stays = true,
            LegacyFlag::Debug => {
                options.stays = true;
                options.verbosity = EVERYTHING;
                options.log_file = Some("-".into());
            }
            LegacyFlag::SocketUser => {
                options.socket_owner = Some(id("user", argument, accounts.uid)?);
            }
            LegacyFlag::SocketGroup => {
                options.socket_group = Some(id("group", argument, accounts.gid)?);
            }
            LegacyFlag::Strict => options.is_strict = true,
        }
    }
    Ok(LegacyCommand::Start(options))
}

fn facility(argument: Option<OsString>) -> Result<Facility, OptionError> {
    let Some(argument) = argument else { return Ok(Facility::DAEMON) };
    let found = match argument.as_bytes() {
        b"D" => Some(Facility::DAEMON),
        [digit @ b'0'..=b'7'] => Facility::local(digit - b'0'),
        _ => None,
    };
    let unknown =
        || format!("invalid syslog facility {}: use 0 to 7 or D", argument.to_string_lossy());
    found.ok_or_else(|| OptionError::Usage(unknown()))
}

fn id<T>(
    kind: &str,
    argument: Option<OsString>,
    find: fn(&str) -> io::Result<Option<T>>,
) -> Result<T, OptionError> {
    let name = argument.unwrap_or_default();
    match name.to_str().map(find).transpose() {
        Ok(found) => found
            .flatten()
            .ok_or_else(|| OptionError::Name(format!("unknown {kind} {}", name.to_string_lossy()))),
        Err(error) => Err(OptionError::Name(format!(
            "cannot look up the {kind} {}: {error}",
            name.to_string_lossy()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_with(line: &str, level: &str) -> Result<LegacyCommand, OptionError> {
        let accounts = Accounts {
            uid: |name| Ok((name == "web").then_some(Uid(33))),
            gid: |name| Ok((name == "web").then_some(Gid(34))),
        };
        parse(line.split_whitespace().map(OsString::from), Some(OsStr::new(level)), &accounts)
    }

    fn options(line: &str) -> LegacyOptions {
        match parse_with(line, "") {
            Ok(LegacyCommand::Start(options)) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn level(line: &str) -> LevelFilter {
        options(line).level()
    }

    #[test]
    fn verbosity_is_counted_and_then_kept_within_bounds() {
        assert_eq!(level(""), LevelFilter::Error);
        assert_eq!(level("-v"), LevelFilter::Warn);
        assert_eq!(level("-vv"), LevelFilter::Info);
        assert_eq!(level("-vvvvvv"), LevelFilter::Debug);
        assert_eq!(level("-vvvvvvqqqq"), LevelFilter::Info);
        assert_eq!(level("-q"), LevelFilter::Off);
        assert_eq!(level("-qqv"), LevelFilter::Off);
        assert_eq!(level("-vvQ"), LevelFilter::Off);
        assert_eq!(level("-Qv"), LevelFilter::Error);
        assert_eq!(level("-dq"), LevelFilter::Info);
    }

    #[test]
    fn lines_go_to_syslog_unless_there_is_a_file() {
        let syslog = |number| LogOutput::Syslog(Facility::local(number).unwrap());
        let daemon = || LogOutput::Syslog(Facility::DAEMON);
        assert_eq!(options("").outputs(), [daemon()]);
        assert_eq!(options("-s3").outputs(), [syslog(3)]);
        assert_eq!(options("-s 3 --syslog=D").outputs(), [daemon()]);
        assert_eq!(options("-f /a -f /b").outputs(), [LogOutput::Lines("/b".into())]);
        assert_eq!(options("-f - -s").outputs(), [LogOutput::Stdout, daemon()]);
        assert_eq!(options("-d").outputs(), [LogOutput::Stdout]);
        assert_eq!(options("-d -f /x").outputs(), [LogOutput::Lines("/x".into())]);
        assert_eq!(options("-f x").outputs(), [LogOutput::Lines(absolute("x").unwrap())]);
    }

    #[test]
    fn debug_stays_and_the_environment_does_not() {
        assert!(options("-d").stays && options("-n").stays && !options("").stays);
        for level in ["DEBUG", "debug", "4", "04", " 4", "+4", "\t\x0b+004"] {
            let Ok(LegacyCommand::Start(options)) = parse_with("", level) else { panic!() };
            let outputs = options.outputs();
            assert_eq!((options.level(), options.stays), (LevelFilter::Debug, false));
            assert_eq!(outputs, [LogOutput::Stdout]);
        }
        for level in ["", "3", "INFO", "ERROR", "5", "x", "4 ", "4x", "++4", "-4", " "] {
            assert_eq!(parse_with("", level), parse_with("", ""));
        }
    }

    #[test]
    fn the_first_wrong_option_wins() {
        let usage = |line| matches!(parse_with(line, ""), Err(OptionError::Usage(_)));
        let name = |line| matches!(parse_with(line, ""), Err(OptionError::Name(_)));
        assert!(usage("-s9 -h") && usage("-s33") && usage("--syslog=d") && usage("--syslog="));
        assert_eq!(parse_with("-h -s9", ""), Ok(LegacyCommand::Help));
        assert!(name("-u nobody-here -x") && usage("-x -u nobody-here"));
        assert!(name("--socket-user=33") && name("-g ghost"));
        let found = options("-u web --socket-g=web --strict");
        assert_eq!((found.socket_owner, found.socket_group), (Some(Uid(33)), Some(Gid(34))));
        assert!(found.is_strict);
    }
}
