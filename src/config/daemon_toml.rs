//! Parses `cgruled.toml`, the settings of the daemon; it reads no files and checks nothing on the
//! host.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use log::LevelFilter;
use toml::de::{DeTable, DeValue};

use super::diagnostic::Diagnostic;
use super::quantity;
use super::source_text::{Diagnostics, SourceText, text_of};
use super::table::{TomlSection, TomlStatus, Value, shortened};

/// The keys of the file.
pub const KEYS: [&str; 11] = [
    "version",
    "root",
    "legacy_root",
    "fast_moves",
    "recheck",
    "external_moves",
    "log",
    "receive_buffer",
    "stats_every",
    "control_socket",
    "metrics_textfile",
];
/// The keys of the table `log`.
pub const LOG_KEYS: [&str; 3] = ["level", "target", "file"];

/// The settings of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `root = "auto" | "/path"`: the managed root, to which paths of TOML rules are relative.
    pub root: Root,
    /// `legacy_root = "top" | "pool"`: the base of the paths in `cgrules.conf`.
    pub legacy_root: LegacyRoot,
    /// `fast_moves = "off" | "warm" | "expedited" | "favordynmods"`.
    pub fast_moves: FastMoves,
    /// `recheck = "100ms"`: the delay between a move and its recheck; `None` (`"off"` or `"0"`)
    /// disables rechecks.
    pub recheck: Option<Duration>,
    /// `external_moves = "revert" | "report" | "off"`; `None` if unset.
    pub external_moves: Option<ExternalMoves>,
    /// `log = { level, target, file }`.
    pub log: LogSettings,
    /// `receive_buffer = "16M"`: bytes that the kernel may queue on each socket.
    pub receive_buffer: u32,
    /// `stats_every = "5m"`: the interval between counter lines in the log; `None` disables them.
    pub stats_every: Option<Duration>,
    /// `control_socket = "/path" | "off"`: the socket for `cgrulectl`; `None` disables it.
    pub control_socket: Option<PathBuf>,
    /// `metrics_textfile = "/path" | "off"`: the file to which all counters are written every 15 s
    /// as OpenMetrics.
    pub metrics_textfile: Option<PathBuf>,
}

/// The default path of the control socket.
pub const CONTROL_SOCKET: &str = "/run/cgruled/control.sock";

impl Default for Settings {
    fn default() -> Self {
        Self {
            root: Root::Auto,
            legacy_root: LegacyRoot::Unsaid,
            fast_moves: FastMoves::Warm,
            recheck: Some(Duration::from_millis(100)),
            external_moves: None,
            log: LogSettings::default(),
            receive_buffer: 16 << 20,
            stats_every: None,
            control_socket: Some(PathBuf::from(CONTROL_SOCKET)),
            metrics_textfile: None,
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

/// The base of the paths in legacy rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegacyRoot {
    /// The hierarchy root, with a warning where it differs from the managed root, because the key
    /// is unset.
    Unsaid,
    /// The root of each hierarchy, as with cgrulesengd.
    Top,
    /// The managed root, as for TOML rules.
    Pool,
}

/// The method that shortens the wait of a move for an RCU grace period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FastMoves {
    /// No method: moves wait for the grace period.
    Off,
    /// No-op moves by the daemon while processes are being placed.
    Warm,
    /// Expedited grace periods of the kernel, for the whole machine.
    Expedited,
    /// The mount option of the hierarchy.
    Favordynmods,
}

/// The reaction when another process moves a process out of the cgroup of its rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExternalMoves {
    /// The move is reverted: always if an unprivileged user caused it, else once.
    #[default]
    Revert,
    /// The move is logged and counted.
    Report,
    /// External moves are not detected.
    Off,
}

impl ExternalMoves {
    /// Returns the value of the setting as written in the file.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Revert => "revert",
            Self::Report => "report",
            Self::Off => "off",
        }
    }
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
        legacy_root: read(table, "legacy_root", piece, legacy_root).unwrap_or(default.legacy_root),
        fast_moves: read(table, "fast_moves", piece, fast_moves).unwrap_or(default.fast_moves),
        recheck: read(table, "recheck", piece, interval).unwrap_or(default.recheck),
        external_moves: read(table, "external_moves", piece, external_moves),
        log: read(table, "log", piece, log_settings).unwrap_or(default.log),
        receive_buffer: read(table, "receive_buffer", piece, receive_buffer)
            .unwrap_or(default.receive_buffer),
        stats_every: read(table, "stats_every", piece, interval).unwrap_or(default.stats_every),
        control_socket: read(table, "control_socket", piece, path_or_off)
            .unwrap_or(default.control_socket),
        metrics_textfile: read(table, "metrics_textfile", piece, path_or_off)
            .unwrap_or(default.metrics_textfile),
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

fn legacy_root(entry: &mut SettingEntry<'_, '_, '_>) -> Option<LegacyRoot> {
    entry.word(&[("top", LegacyRoot::Top), ("pool", LegacyRoot::Pool)])
}

fn fast_moves(entry: &mut SettingEntry<'_, '_, '_>) -> Option<FastMoves> {
    entry.word(&[
        ("off", FastMoves::Off),
        ("warm", FastMoves::Warm),
        ("expedited", FastMoves::Expedited),
        ("favordynmods", FastMoves::Favordynmods),
    ])
}

fn external_moves(entry: &mut SettingEntry<'_, '_, '_>) -> Option<ExternalMoves> {
    let meanings = [ExternalMoves::Revert, ExternalMoves::Report, ExternalMoves::Off];
    entry.word(&meanings.map(|meaning| (meaning.word(), meaning)))
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
    let range = 4096..=(1 << 30);
    if entry.value.get_ref().is_integer() {
        let bytes = entry.piece.integer(entry.value, entry.key, range)?;
        return u32::try_from(bytes).ok();
    }
    let text = entry.string()?;
    let bytes = quantity::size(text).and_then(|bytes| i64::try_from(bytes).ok());
    match bytes.filter(|bytes| range.contains(bytes)) {
        Some(bytes) => u32::try_from(bytes).ok(),
        None => {
            let message = format!("invalid size \"{}\": must be from 4K to 1G", shortened(text));
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
            "root = \"/sites\"\nlegacy_root = \"pool\"\nfast_moves = \"warm\"\nrecheck = \"0\"\nexternal_moves = \"report\"\n\
             receive_buffer = \"8M\"\nstats_every = \"5m\"\nversion = 1\n\
             control_socket = \"off\"\nmetrics_textfile = \"/var/lib/a.prom\"\n\
             log = { level = \"debug\", target = \"file\", file = \"/var/log/cgruled\" }\n",
        );
        assert_eq!(wrong, [""; 0]);
        let expected = Settings {
            root: Root::Path(PathBuf::from("/sites")),
            legacy_root: LegacyRoot::Pool,
            fast_moves: FastMoves::Warm,
            recheck: None,
            external_moves: Some(ExternalMoves::Report),
            log: LogSettings {
                level: LevelFilter::Debug,
                target: LogTarget::File(PathBuf::from("/var/log/cgruled")),
            },
            receive_buffer: 8 << 20,
            stats_every: Some(Duration::from_secs(300)),
            control_socket: None,
            metrics_textfile: Some(PathBuf::from("/var/lib/a.prom")),
        };
        assert_eq!(settings, expected);
        assert_eq!(read("recheck = 0").0.recheck, None);
        assert_eq!(read("[log]\nfile = \"/x\"").0.log.target, LogTarget::File("/x".into()));
    }

    #[test]
    fn all_errors_are_found_and_defaults_stay() {
        let (settings, wrong) = read(
            "root = \"sites/../x\"\nlegacy_rot = 1\nfast_moves = \"worm\"\nrecheck = 100\n\
             receive_buffer = \"16MB\"\nstats_every = true\n\n[log]\nlevel = \"inf\"\n\
             target = \"file\"\ncolour = 1\n",
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
