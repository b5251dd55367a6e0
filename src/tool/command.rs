//! What a command line of `cgrulectl` may say. Parsing, help, completions and the check of the manual
//! page all read the same tables, so that none of them can know a flag that the others do not.

use std::ffi::{OsStr, OsString};
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::path::PathBuf;

use lexopt::Arg;

use crate::config::diagnostic::Diagnostic;
use crate::daemon::Invocation;

/// One command.
pub struct Command {
    /// The word that calls it.
    pub name: &'static str,
    /// What follows the flags, for example `[PID]...`; empty for nothing.
    pub operands: &'static str,
    /// What it does, half a line.
    pub summary: &'static str,
    /// Its own flags, besides [`COMMON`].
    pub flags: &'static [Flag],
    /// Command lines without the program's name, and what they do.
    pub examples: &'static [(&'static str, &'static str)],
    /// Whether flags end at the first operand, because what follows is somebody else's command line.
    pub ends_at_operand: bool,
    /// Does it; returns the exit code.
    pub run: fn(&Given, &mut dyn Write) -> Result<u8, Failure>,
}

/// A flag.
pub struct Flag {
    /// Its name without `--`.
    pub long: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// The name of its value, if it takes one.
    pub value: Option<&'static str>,
    /// What it does, half a line.
    pub summary: &'static str,
}

/// The flags of every command.
pub const COMMON: &[Flag] = &[
    Flag::value("config", "FILE", "the settings (default: /etc/cgruled/cgruled.toml)"),
    Flag::value("rules", "DIR", "read rules here and nowhere else; may be repeated"),
    Flag::value("root", "PATH", "groups begin here, as for a daemon with --root"),
    Flag::new("no-legacy", "do not read the files of cgrulesengd"),
    Flag::value("socket", "PATH", "the daemon's socket (default: /run/cgruled/control.sock)"),
    Flag { short: Some('h'), ..Flag::new("help", "this text") },
];

impl Flag {
    /// A flag without a value.
    pub const fn new(long: &'static str, summary: &'static str) -> Self {
        Self { long, short: None, value: None, summary }
    }

    /// A flag with a value.
    pub const fn value(long: &'static str, value: &'static str, summary: &'static str) -> Self {
        Self { long, short: None, value: Some(value), summary }
    }

    /// As it is written: `-n, --name VALUE`.
    pub fn usage(&self) -> String {
        let mut usage = self.short.map_or(String::new(), |short| format!("-{short}, "));
        usage += "--";
        usage += self.long;
        self.value.map_or(usage.clone(), |value| format!("{usage} {value}"))
    }
}

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The command line makes no sense: exit 2.
    Usage(String),
    /// The files have these errors: exit 65.
    Data(Vec<Diagnostic>),
    /// No daemon answers, and the question cannot be answered without: exit 69.
    NoDaemon(String),
    /// It did not work: exit 1.
    Failed(String),
    /// The output cannot be written: exit 1.
    Written(io::Error),
}

impl Failure {
    /// The exit code.
    pub const fn code(&self) -> u8 {
        match self {
            Self::Failed(_) | Self::Written(_) => 1,
            Self::Usage(_) => 2,
            Self::Data(_) => 65,
            Self::NoDaemon(_) => 69,
        }
    }
}

impl fmt::Display for Failure {
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

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Written(error)
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

/// What a command line says after the command's name.
#[derive(Debug, Default)]
pub struct Given {
    flags: Vec<(&'static str, OsString)>,
    /// What is no flag.
    pub operands: Vec<OsString>,
    /// Whether the output may be coloured: it goes to a terminal, and `NO_COLOR` is not set.
    pub color: bool,
}

impl Given {
    /// Whether the flag was there.
    pub fn has(&self, long: &str) -> bool {
        self.flags.iter().any(|(name, _)| *name == long)
    }

    /// The value of the flag; the last one counts.
    pub fn value(&self, long: &str) -> Option<&OsStr> {
        self.flags.iter().rev().find(|(name, _)| *name == long).map(|(_, value)| value.as_os_str())
    }

    /// All values of the flag.
    pub fn values<'g>(&'g self, long: &'g str) -> impl Iterator<Item = &'g OsStr> {
        let is_it = move |(name, _): &&(&str, OsString)| *name == long;
        self.flags.iter().filter(is_it).map(|(_, value)| value.as_os_str())
    }

    /// The value of the flag as text.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn text(&self, long: &str) -> Result<Option<&str>, Failure> {
        let text = |value: &OsStr| {
            let shown = value.to_string_lossy().escape_debug().to_string();
            Failure::Usage(format!("--{long} {shown}: is not text"))
        };
        self.value(long).map(|value| value.to_str().ok_or_else(|| text(value))).transpose()
    }

    /// Makes sure that nothing but flags is given.
    ///
    /// # Errors
    /// There is something.
    pub fn no_operands(&self) -> Result<(), Failure> {
        self.operands.first().map_or(Ok(()), |operand| {
            let shown = operand.to_string_lossy().escape_debug().to_string();
            Err(Failure::Usage(format!("unexpected argument: {shown}")))
        })
    }

    /// Where a daemon with the same flags would read its files.
    pub fn invocation(&self) -> Invocation {
        let mut invocation = Invocation { legacy: !self.has("no-legacy"), ..Invocation::default() };
        invocation.rules = self.values("rules").map(PathBuf::from).collect();
        if let Some(config) = self.value("config") {
            invocation.config = config.into();
        }
        invocation.root = self.value("root").map(PathBuf::from);
        invocation
    }
}

/// Reads the flags and operands of `command`. `None` if it is to be explained only.
///
/// # Errors
/// An unknown flag, a missing value.
pub fn parse(command: &Command, parser: &mut lexopt::Parser) -> Result<Option<Given>, Failure> {
    let mut given = Given::default();
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

fn find(command: &Command, is_it: impl Fn(&Flag) -> bool) -> Option<&'static Flag> {
    command.flags.iter().chain(COMMON).find(|flag| is_it(flag))
}

fn unknown(command: &Command, flag: &str) -> Failure {
    let shown = flag.escape_debug();
    Failure::Usage(format!("{}: no such option: {shown}", command.name))
}

/// The text of `cgrulectl COMMAND --help`.
pub fn help(command: &Command) -> String {
    let Command { name, operands, summary, flags, examples, .. } = command;
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

/// A text in lines of at most 72 characters.
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
