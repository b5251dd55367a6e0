//! Parses `cgruled.toml`, the settings of the daemon; it reads no files and checks nothing on the
//! host.

pub mod changes;
mod choices;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;
use toml::de::{DeInteger, DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::quantity;
use super::source_text::{Diagnostics, SourceText, text_of};
use super::table::{TomlSection, TomlStatus, Value, shortened};
pub use choices::{ExternalMoves, FastMoves, LegacyRoot, Scheduling};

/// The keys of the file.
pub const KEYS: [&str; 14] = [
    "version",
    "root",
    "legacy_root",
    "fast_moves",
    "scheduling",
    "recheck",
    "external_moves",
    "log",
    "history",
    "receive_buffer",
    "stats_every",
    "control_socket",
    "metrics_textfile",
    "strict_tests",
];
/// The keys of the table `log`.
pub const LOG_KEYS: [&str; 3] = ["level", "target", "file"];
/// The keys of the table `history`.
pub const HISTORY_KEYS: [&str; 1] = ["size"];

/// The settings of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `root = "auto" | "/path"`: the managed root, to which paths of TOML rules are relative.
    pub root: Root,
    /// `legacy_root = "top" | "pool"`: the base of the paths in `cgrules.conf`.
    pub legacy_root: LegacyRoot,
    /// `fast_moves = "off" | "auto" | "warm" | "expedited" | "favordynmods"`.
    pub fast_moves: FastMoves,
    /// `scheduling = "auto" | "realtime" | "normal"`.
    pub scheduling: Scheduling,
    /// `recheck = "100ms"`: the delay between a move and its recheck; `None` (`"off"` or `"0"`)
    /// disables rechecks.
    pub recheck: Option<Duration>,
    /// `external_moves = "revert" | "report" | "off"`; `None` if unset.
    pub external_moves: Option<ExternalMoves>,
    /// `log = { level, target, file }`.
    pub log: LogSettings,
    /// `history = { size = "8M" }`: bytes of the history of evaluations; 0 disables it.
    pub history_size: u32,
    /// `receive_buffer = "16M"`: bytes that the kernel may queue on each socket.
    pub receive_buffer: u32,
    /// `stats_every = "5m"`: the interval between counter lines in the log; `None` disables them.
    pub stats_every: Option<Duration>,
    /// `control_socket = "/path" | "off"`: the socket for `cgrulectl`; `None` disables it.
    pub control_socket: Option<PathBuf>,
    /// `metrics_textfile = "/path" | "off"`: the file to which all counters are written every 15 s
    /// as OpenMetrics.
    pub metrics_textfile: Option<PathBuf>,
    /// `strict_tests = false`: whether a failing test of a rule file is an error of that file.
    pub strict_tests: bool,
}

/// The default path of the control socket.
pub const CONTROL_SOCKET: &str = "/run/cgruled/control.sock";

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: Root::Auto,
            legacy_root: LegacyRoot::Unsaid,
            fast_moves: FastMoves::Auto,
            scheduling: Scheduling::Auto,
            recheck: Some(Duration::from_millis(100)),
            external_moves: None,
            log: LogSettings::default(),
            history_size: 8 << 20,
            receive_buffer: 16 << 20,
            stats_every: None,
            control_socket: Some(PathBuf::from(CONTROL_SOCKET)),
            metrics_textfile: None,
            strict_tests: false,
        }
    }
}

/// The base of the paths in TOML rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// The delegated subtree under systemd on cgroup v2, else the hierarchy root.
    Auto,
    /// This path below the root of each hierarchy. Absolute, without `.` and `..`.
    Path(PathBuf),
}

/// Destination and minimum level of log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The least severe level that is logged.
    pub level: LevelFilter,
    /// The destination of the lines that are logged.
    pub target: LogTarget,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self { level: LevelFilter::Info, target: LogTarget::Auto }
    }
}

/// The destination of log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// The journal if standard error is connected to it, else standard error.
    Auto,
    /// Standard error, even if the journal is available.
    Stderr,
    /// The socket of the journal, in its native protocol.
    Journal,
    /// This file, opened for appending.
    File(PathBuf),
}

/// Parses the bytes of `file`, which need not be valid text.
pub fn parse_bytes(file: &Arc<Path>, bytes: &[u8]) -> (Settings, Vec<Diagnostic>) {
    match text_of(file, bytes) {
        Ok(text) => parse(file, text),
        Err(diagnostic) => (Settings::default(), vec![diagnostic]),
    }
}

/// Parses the text of `file`. An invalid setting has its default value; a file that is not TOML
/// gives all defaults.
pub fn parse(file: &Arc<Path>, text: &str) -> (Settings, Vec<Diagnostic>) {
    let source = SourceText::new(file, text);
    let mut report = Diagnostics::new(&source);
    let mut piece = TomlSection::new(&mut report, 0);
    let settings = match piece.parse(text) {
        (table, TomlStatus::Right) => settings(&table, &mut piece),
        (_, TomlStatus::Wrong) => Settings::default(),
    };
    (settings, report.finish())
}

fn settings(table: &DeTable<'_>, piece: &mut TomlSection<'_, '_>) -> Settings {
    piece.only_keys(table, &KEYS);
    let default = Settings::default();
    if let Some(value) = table.get("version") {
        piece.integer(value, "version", 1..=1);
    }
    Settings {
        root: read(table, "root", piece, root).unwrap_or(default.root),
        legacy_root: read(table, "legacy_root", piece, |entry| entry.word(&LegacyRoot::WORDS))
            .unwrap_or(default.legacy_root),
        fast_moves: read(table, "fast_moves", piece, |entry| entry.word(&FastMoves::WORDS))
            .unwrap_or(default.fast_moves),
        scheduling: read(table, "scheduling", piece, |entry| entry.word(&Scheduling::WORDS))
            .unwrap_or(default.scheduling),
        recheck: read(table, "recheck", piece, interval).unwrap_or(default.recheck),
        external_moves: read(table, "external_moves", piece, |entry| {
            entry.word(&ExternalMoves::WORDS)
        }),
        log: read(table, "log", piece, log_settings).unwrap_or(default.log),
        history_size: read(table, "history", piece, history_size).unwrap_or(default.history_size),
        receive_buffer: read(table, "receive_buffer", piece, receive_buffer)
            .unwrap_or(default.receive_buffer),
        stats_every: read(table, "stats_every", piece, interval).unwrap_or(default.stats_every),
        control_socket: read(table, "control_socket", piece, path_or_off)
            .unwrap_or(default.control_socket),
        metrics_textfile: read(table, "metrics_textfile", piece, path_or_off)
            .unwrap_or(default.metrics_textfile),
        strict_tests: read(table, "strict_tests", piece, |entry| {
            entry.piece.boolean(entry.value, entry.key)
        })
        .unwrap_or(default.strict_tests),
    }
}

/// A key of the file with its value, and the report of its errors.
struct SettingEntry<'e, 'r, 't> {
    key: &'e str,
    value: &'e Value<'e>,
    piece: &'e mut TomlSection<'r, 't>,
}

/// Reads one key, if present.
fn read<T>(
    table: &DeTable<'_>,
    key: &str,
    piece: &mut TomlSection<'_, '_>,
    reader: fn(&mut SettingEntry<'_, '_, '_>) -> Option<T>,
) -> Option<T> {
    reader(&mut SettingEntry { key, value: table.get(key)?, piece })
}

impl<'e> SettingEntry<'e, '_, '_> {
    fn string(&mut self) -> Option<&'e str> {
        self.piece.string(self.value, self.key)
    }

    fn word<T: Copy>(&mut self, words: &[(&str, T)]) -> Option<T> {
        self.piece.word(self.value, self.key, words)
    }

    /// Reports the value as invalid.
    fn reject<T>(&mut self, message: impl Into<String>, help: impl Into<String>) -> Option<T> {
        self.piece.error_help(self.value.span(), message, help);
        None
    }
}

fn root(entry: &mut SettingEntry<'_, '_, '_>) -> Option<Root> {
    match entry.string()? {
        "auto" => Some(Root::Auto),
        _ => absolute_path(entry).map(Root::Path),
    }
}

/// Reads an interval, for which `"off"` and 0 give `Some(None)`.
fn interval(entry: &mut SettingEntry<'_, '_, '_>) -> Option<Option<Duration>> {
    if let DeValue::Integer(number) = entry.value.get_ref() {
        if number.as_str() == "0" {
            return Some(None);
        }
        let help = format!("add a unit: \"{number}ms\" or \"{number}s\"");
        return entry.reject(format!("{} has no unit", entry.key), help);
    }
    let text = entry.string()?;
    if text == "off" {
        return Some(None);
    }
    let Some(time) = quantity::duration(text) else {
        let message = format!("invalid time \"{}\"", shortened(text));
        let help = "write a time such as \"100ms\", \"10s\" or \"5m\", or \"off\"";
        return entry.reject(message, help);
    };
    Some(Some(time).filter(|time| !time.is_zero()))
}

fn receive_buffer(entry: &mut SettingEntry<'_, '_, '_>) -> Option<u32> {
    // The kernel doubles the requested size, in a signed int.
    size(entry, 4096..=(1 << 30), "must be from 4K to 1G")
}

fn history_size(entry: &mut SettingEntry<'_, '_, '_>) -> Option<u32> {
    let table = entry.piece.table(entry.value, entry.key)?;
    entry.piece.only_keys(table, &HISTORY_KEYS);
    read(table, "size", entry.piece, |entry| {
        let value = entry.value.get_ref();
        let number = value.as_integer().map(DeInteger::as_str);
        if number.or(value.as_str()) == Some("0") {
            return Some(0);
        }
        // Positions of texts have 32 bits: see control/history/recorder.rs.
        size(entry, 64 << 10..=256 << 20, "must be 0 or from 64K to 256M")
    })
}

/// Reads a size in bytes, with or without a unit.
fn size(
    entry: &mut SettingEntry<'_, '_, '_>,
    range: RangeInclusive<i64>,
    limits: &str,
) -> Option<u32> {
    if entry.value.get_ref().is_integer() {
        let bytes = entry.piece.integer(entry.value, entry.key, range)?;
        return u32::try_from(bytes).ok();
    }
    let text = entry.string()?;
    let bytes = quantity::size(text).and_then(|bytes| i64::try_from(bytes).ok());
    match bytes.filter(|bytes| range.contains(bytes)) {
        Some(bytes) => u32::try_from(bytes).ok(),
        None => {
            let message = format!("invalid size \"{}\": {limits}", shortened(text));
            entry.reject(message, "write a size such as \"512K\" or \"16M\"")
        }
    }
}

fn log_settings(entry: &mut SettingEntry<'_, '_, '_>) -> Option<LogSettings> {
    let table = entry.piece.table(entry.value, entry.key)?;
    let piece = &mut *entry.piece;
    piece.only_keys(table, &LOG_KEYS);
    let default = LogSettings::default();
    let level = read(table, "level", piece, level).unwrap_or(default.level);
    let file = read(table, "file", piece, absolute_path);
    // The key `file` alone selects the target.
    let Some(value) = table.get("target") else {
        return Some(LogSettings { level, target: file.map_or(default.target, LogTarget::File) });
    };
    let target = SettingEntry { key: "target", value, piece };
    let target = log_target(target, file, table.contains_key("file")).unwrap_or(default.target);
    Some(LogSettings { level, target })
}

fn level(entry: &mut SettingEntry<'_, '_, '_>) -> Option<LevelFilter> {
    entry.word(&[
        ("off", LevelFilter::Off),
        ("error", LevelFilter::Error),
        ("warn", LevelFilter::Warn),
        ("info", LevelFilter::Info),
        ("debug", LevelFilter::Debug),
        ("trace", LevelFilter::Trace),
    ])
}

fn log_target(
    mut target: SettingEntry<'_, '_, '_>,
    file: Option<PathBuf>,
    has_file: bool,
) -> Option<LogTarget> {
    // `None` for the file, whose path is another key.
    let found = target.word(&[
        ("auto", Some(&LogTarget::Auto)),
        ("stderr", Some(&LogTarget::Stderr)),
        ("journal", Some(&LogTarget::Journal)),
        ("file", None),
    ])?;
    match (found, has_file) {
        (None, true) => file.map(LogTarget::File),
        (None, false) => {
            target.reject("target is \"file\", but file is not set", "add file = \"/path\"")
        }
        (Some(_), true) => {
            target.reject("file is set, but target is not \"file\"", "remove one of them")
        }
        (Some(found), false) => Some(found.clone()),
    }
}

fn path_or_off(entry: &mut SettingEntry<'_, '_, '_>) -> Option<Option<PathBuf>> {
    match entry.string()? {
        "off" => Some(None),
        _ => absolute_path(entry).map(Some),
    }
}

fn absolute_path(entry: &mut SettingEntry<'_, '_, '_>) -> Option<PathBuf> {
    let text = entry.string()?;
    if text.starts_with('/') && !text.split('/').any(|part| part == "." || part == "..") {
        return Some(PathBuf::from(text));
    }
    let message = format!("{} must be an absolute path", entry.key);
    entry.reject(message, "write a path that begins with / and contains no . or ..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Settings, Vec<String>) {
        let file = Arc::from(Path::new("/etc/cgruled/cgruled.toml"));
        let (settings, diagnostics) = parse(&file, text);
        let shown = diagnostics.iter().map(|d| {
            let place = d.place.as_ref().map(|p| format!("{}:{}: ", p.line, p.column));
            format!("{}{}", place.unwrap_or_default(), d.message)
        });
        (settings, shown.collect())
    }

    #[test]
    fn nothing_written_gives_defaults() {
        assert_eq!(read(""), (Settings::default(), Vec::new()));
    }

    #[test]
    fn everything_can_be_set() {
        let (settings, wrong) = read(
            "root = \"/sites\"\nlegacy_root = \"pool\"\nfast_moves = \"warm\"\nscheduling = \"normal\"\nrecheck = \"0\"\nexternal_moves = \"report\"\n\
             receive_buffer = \"8M\"\nstats_every = \"5m\"\nversion = 1\n\
             control_socket = \"off\"\nmetrics_textfile = \"/var/lib/a.prom\"\nstrict_tests = true\n\
             log = { level = \"debug\", target = \"file\", file = \"/var/log/cgruled\" }\n\
             [history]\nsize = \"1M\"\n",
        );
        assert_eq!(wrong, [""; 0]);
        let expected = Settings {
            root: Root::Path(PathBuf::from("/sites")),
            legacy_root: LegacyRoot::Pool,
            fast_moves: FastMoves::Warm,
            scheduling: Scheduling::Normal,
            recheck: None,
            external_moves: Some(ExternalMoves::Report),
            log: LogSettings {
                level: LevelFilter::Debug,
                target: LogTarget::File(PathBuf::from("/var/log/cgruled")),
            },
            history_size: 1 << 20,
            receive_buffer: 8 << 20,
            stats_every: Some(Duration::from_secs(300)),
            control_socket: None,
            metrics_textfile: Some(PathBuf::from("/var/lib/a.prom")),
            strict_tests: true,
        };
        assert_eq!(settings, expected);
        assert_eq!(read("recheck = 0").0.recheck, None);
        assert_eq!(read("history.size = 0").0.history_size, 0);
        assert_eq!(read("history.size = \"0\"").0.history_size, 0);
        assert_eq!(read("[log]\nfile = \"/x\"").0.log.target, LogTarget::File("/x".into()));
    }

    #[test]
    fn paths_are_absolute_and_plain() {
        for (path, is_valid) in [
            ("/run/a.prom", true),
            ("/run/.../a", true),
            ("run/a.prom", false),
            ("/run/../a", false),
            ("/run/./a", false),
            ("./a", false),
        ] {
            let (settings, wrong) = read(&format!("metrics_textfile = \"{path}\""));
            assert_eq!(settings.metrics_textfile.is_some(), is_valid, "{path}");
            assert_eq!(wrong.is_empty(), is_valid, "{path}: {wrong:?}");
        }
    }

    #[test]
    fn all_errors_are_found_and_defaults_stay() {
        let (settings, wrong) = read(
            "root = \"sites/../x\"\nlegacy_rot = 1\nfast_moves = \"worm\"\nrecheck = 100\n\
             receive_buffer = \"16MB\"\nstats_every = true\n\n[log]\nlevel = \"inf\"\n\
             target = \"file\"\ncolour = 1\n[history]\nsize = \"1G\"\nage = 1\n",
        );
        assert_eq!(settings, Settings::default());
        assert_eq!(
            wrong,
            [
                "1:8: root must be an absolute path",
                "2:1: unknown key \"legacy_rot\"",
                "3:14: invalid value \"worm\" for fast_moves",
                "4:11: recheck has no unit",
                "5:18: invalid size \"16MB\": must be from 4K to 1G",
                "6:15: stats_every must be a string, not a boolean",
                "9:9: invalid value \"inf\" for level",
                "10:10: target is \"file\", but file is not set",
                "11:1: unknown key \"colour\"",
                "13:8: invalid size \"1G\": must be 0 or from 64K to 256M",
                "14:1: unknown key \"age\"",
            ]
        );
    }

    #[test]
    fn not_toml_gives_defaults() {
        let (settings, wrong) = read("recheck = \"5s\"\nroot = \n");
        assert_eq!(settings, Settings::default());
        assert_eq!(wrong.len(), 1);
    }
}
