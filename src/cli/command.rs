//! Definition and parsing of `cgrulectl` command lines.
//!
//! The parser, help, shell completions and the test of the manual page must all use the tables of this
//! module, so that a flag cannot be missing from one of them.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::path::PathBuf;

use lexopt::Arg;

use crate::config::diagnostic::Diagnostic;
use crate::daemon::DaemonOptions;

/// A command and everything that the parser, help and completions need of it.
pub struct Subcommand {
    /// Name on the command line.
    pub name: &'static str,
    /// Usage text of the operands, such as `[PID]...`; empty if the command takes none.
    pub operands: &'static str,
    /// Description for the help text, half a line.
    pub summary: &'static str,
    /// Flags in addition to [`COMMON`].
    pub flags: &'static [FlagSpec],
    /// Example command lines without the program's name, each with a description.
    pub examples: &'static [(&'static str, &'static str)],
    /// True if flags end at the first operand, because the rest is the command line of another program.
    pub ends_at_operand: bool,
    /// Function that executes the command and returns the exit code.
    pub run: fn(&Args, &mut dyn Write) -> Result<u8, ToolError>,
}

/// A flag of a command, with or without a value.
pub struct FlagSpec {
    /// Long name as it follows `--`, which is also the key of [`Args`].
    pub long: &'static str,
    /// One-letter form without `-`, if any.
    pub short: Option<char>,
    /// Placeholder of the value in help, such as `FILE`; `None` if the flag takes no value.
    pub value: Option<&'static str>,
    /// Description for the help text, half a line.
    pub summary: &'static str,
}

/// Flags that every command accepts.
pub const COMMON: &[FlagSpec] = &[
    FlagSpec::value("config", "FILE", "settings file (default: /etc/cgruled/cgruled.toml)"),
    FlagSpec::value("rules", "DIR", "read rules from this directory only; may be repeated"),
    FlagSpec::value("root", "PATH", "root of the rules' cgroups, as --root of the daemon"),
    FlagSpec::new("no-legacy", "do not read the files of cgrulesengd"),
    FlagSpec::value("socket", "PATH", "control socket (default: /run/cgruled/control.sock)"),
    FlagSpec { short: Some('h'), ..FlagSpec::new("help", "show this help") },
];

impl FlagSpec {
    /// Creates a flag without a value.
    pub const fn new(long: &'static str, summary: &'static str) -> Self {
        Self { long, short: None, value: None, summary }
    }

    /// Creates a flag with a value.
    pub const fn value(long: &'static str, value: &'static str, summary: &'static str) -> Self {
        Self { long, short: None, value: Some(value), summary }
    }

    /// Returns the flag as shown in help: `-n, --name VALUE`.
    pub fn usage(&self) -> String {
        let mut usage = self.short.map_or(String::new(), |short| format!("-{short}, "));
        usage += "--";
        usage += self.long;
        self.value.map_or(usage.clone(), |value| format!("{usage} {value}"))
    }
}

/// Error that ended a command; the kind determines the exit code.
#[derive(Debug)]
pub enum ToolError {
    /// Invalid command line: exit code 2.
    Usage(String),
    /// Errors in rule or settings files: exit code 65.
    Data(Vec<Diagnostic>),
    /// Daemon not reachable although the command needs it: exit code 69.
    NoDaemon(String),
    /// Any other failed operation: exit code 1.
    Failed(String),
    /// Write error of standard output: exit code 1.
    Written(io::Error),
}

impl ToolError {
    /// Returns the exit code for this kind of error.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Written(_) => 1,
            Self::Usage(_) => 2,
            Self::Data(_) => 65,
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
            Self::Data(diagnostics) => {
                let lines: Vec<String> = diagnostics.iter().map(Diagnostic::to_string).collect();
                f.write_str(&lines.join("\n"))
            }
        }
    }
}

impl From<io::Error> for ToolError {
    fn from(error: io::Error) -> Self {
        Self::Written(error)
    }
}

impl From<lexopt::Error> for ToolError {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

/// Parsed command line after the command's name.
#[derive(Debug, Default)]
pub struct Args {
    flags: Vec<(&'static str, OsString)>,
    /// Arguments that are neither flags nor values of flags.
    pub operands: Vec<OsString>,
    /// True if output may be coloured: standard output is a terminal and `NO_COLOR` is not set.
    pub color: bool,
}

impl Args {
    /// Checks whether the flag was given.
    pub fn has(&self, long: &str) -> bool {
        self.flags.iter().any(|(name, _)| *name == long)
    }

    /// Returns the value of the flag; the last occurrence counts.
    pub fn value(&self, long: &str) -> Option<&OsStr> {
        self.flags.iter().rev().find(|(name, _)| *name == long).map(|(_, value)| value.as_os_str())
    }

    /// Returns the values of all occurrences of the flag.
    pub fn values<'g>(&'g self, long: &'g str) -> impl Iterator<Item = &'g OsStr> {
        let is_it = move |(name, _): &&(&str, OsString)| *name == long;
        self.flags.iter().filter(is_it).map(|(_, value)| value.as_os_str())
    }

    /// Returns the value of the flag as text.
    ///
    /// # Errors
    /// The value is not UTF-8.
    pub fn text(&self, long: &str) -> Result<Option<&str>, ToolError> {
        let text = |value: &OsStr| {
            let shown = value.to_string_lossy().escape_debug().to_string();
            ToolError::Usage(format!("invalid value for --{long}: {shown} is not UTF-8"))
        };
        self.value(long).map(|value| value.to_str().ok_or_else(|| text(value))).transpose()
    }

    /// Checks that no operands were given.
    ///
    /// # Errors
    /// An operand was given.
    pub fn no_operands(&self) -> Result<(), ToolError> {
        self.operands.first().map_or(Ok(()), |operand| {
            let shown = operand.to_string_lossy().escape_debug().to_string();
            Err(ToolError::Usage(format!("unexpected argument: {shown}")))
        })
    }

    /// Returns the configuration paths that a daemon with the same flags would use.
    pub fn invocation(&self) -> DaemonOptions {
        let mut invocation =
            DaemonOptions { legacy: !self.has("no-legacy"), ..DaemonOptions::default() };
        invocation.rules = self.values("rules").map(PathBuf::from).collect();
        if let Some(config) = self.value("config") {
            invocation.config = config.into();
        }
        invocation.root = self.value("root").map(PathBuf::from);
        invocation
    }
}

/// Parses the flags and operands of `command`. Returns `None` if `--help` was given.
///
/// # Errors
/// An unknown flag, or a flag without its value.
pub fn parse(command: &Subcommand, parser: &mut lexopt::Parser) -> Result<Option<Args>, ToolError> {
    let mut given = Args::default();
    loop {
        if command.ends_at_operand && !given.operands.is_empty() {
            given.operands.extend(parser.raw_args()?);
        }
        let flag = match parser.next()? {
            None => return Ok(Some(given)),
            Some(Arg::Value(value)) => {
                given.operands.push(value);
                continue;
            }
            Some(Arg::Long(long)) => find(command, |flag| flag.long == long)
                .ok_or_else(|| unknown(command, &format!("--{long}")))?,
            Some(Arg::Short(short)) => find(command, |flag| flag.short == Some(short))
                .ok_or_else(|| unknown(command, &format!("-{short}")))?,
        };
        if flag.long == "help" {
            return Ok(None);
        }
        let value = if flag.value.is_some() { parser.value()? } else { OsString::new() };
        given.flags.push((flag.long, value));
    }
}

fn find(command: &Subcommand, is_it: impl Fn(&FlagSpec) -> bool) -> Option<&'static FlagSpec> {
    command.flags.iter().chain(COMMON).find(|flag| is_it(flag))
}

fn unknown(command: &Subcommand, flag: &str) -> ToolError {
    let shown = flag.escape_debug();
    ToolError::Usage(format!("{}: unknown option: {shown}", command.name))
}

/// Returns the text of `cgrulectl COMMAND --help`.
pub fn help(command: &Subcommand) -> String {
    let Subcommand { name, operands, summary, flags, examples, .. } = command;
    let mut text = format!("{summary}\n\nUsage: cgrulectl {name} [OPTION]...");
    if !operands.is_empty() {
        text.extend([" ", operands]);
    }
    text += "\n\n";
    let width = flags.iter().chain(COMMON).map(|flag| flag.usage().len()).max().unwrap_or(0);
    for (index, flag) in flags.iter().chain(COMMON).enumerate() {
        let is_first_of_all = index == flags.len() && index > 0;
        text += if is_first_of_all { "\n" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {:width$}  {}", flag.usage(), flag.summary);
    }
    for (index, (line, meaning)) in examples.iter().enumerate() {
        let _ = write!(text, "{}", if index == 0 { "\nExamples:\n" } else { "" });
        let _ = writeln!(text, "  cgrulectl {line}");
        folded(meaning).iter().for_each(|line| text.extend(["      ", line, "\n"]));
    }
    text
}

/// Wraps a text into lines of at most 72 characters.
fn folded(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut().filter(|line| line.len() + 1 + word.len() <= 72) {
            Some(line) => line.extend([" ", word]),
            None => lines.push(word.to_owned()),
        }
    }
    lines
}
