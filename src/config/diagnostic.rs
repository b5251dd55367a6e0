//! Defines diagnostics about configuration files and prints them like a compiler; it decides
//! nothing and writes nowhere.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::escape::{Escaped, is_unsafe};

/// Columns of a source line that are shown: with the gutter it fits a terminal of 120 columns.
const SHOWN_COLUMNS: usize = 100;
/// Columns shown before the caret when a line is cut.
const SHOWN_BEFORE: usize = 40;
/// The replacement for a tab, four spaces.
const TAB: &str = "    ";

/// The severity of a diagnostic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration works, but probably not as intended.
    Warning,
    /// A part of the configuration was not loaded.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A diagnostic about a file. Prints as `path:line:col: error: message`, the source line and a
/// caret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The severity, error or warning.
    pub severity: Severity,
    /// Absolute path of the file or directory.
    pub file: Arc<Path>,
    /// The place in the file; `None` for the file as a whole.
    pub place: Option<TextPosition>,
    /// The error or warning, one line.
    pub message: String,
    /// The suggested fix, one line.
    pub help: Option<String>,
}

/// A place in a text file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextPosition {
    /// The number of the line, counted from 1.
    pub line: u32,
    /// The column from 1, in characters; 0 for the line as a whole, without its text.
    pub column: u32,
    /// The number of characters; at least 1 if there is a column.
    pub width: u32,
    /// The line without its end. Of a very long line only the part around the place.
    pub source: String,
    /// The number of characters of the line before `source`.
    pub skipped: u32,
}

impl Diagnostic {
    /// Creates a diagnostic about `file` as a whole.
    pub fn about(file: &Arc<Path>, severity: Severity, message: impl Into<String>) -> Self {
        Self { severity, file: file.clone(), place: None, message: message.into(), help: None }
    }

    /// Creates a diagnostic about a line of `file`, counted from 1, without the text of the line.
    pub fn at_line(
        file: &Arc<Path>,
        line: u32,
        severity: Severity,
        message: impl Into<String>,
    ) -> Self {
        let place = TextPosition { line, column: 0, width: 0, source: String::new(), skipped: 0 };
        Self { place: Some(place), ..Self::about(file, severity, message) }
    }

    /// Adds a suggested fix to the diagnostic.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Returns the location as `path:line`.
    pub fn current(&self) -> String {
        let file = Escaped(&self.file.to_string_lossy()).to_string();
        self.place.as_ref().map_or_else(|| file.clone(), |place| format!("{file}:{}", place.line))
    }

    /// Checks whether this prevented something from being loaded.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Sorts by file, then by place; diagnostics about a whole file come first.
pub fn sort(diagnostics: &mut [Diagnostic]) {
    diagnostics.sort_by_cached_key(|diagnostic| {
        let place = diagnostic.place.as_ref().map(|place| (place.line, place.column));
        (Arc::clone(&diagnostic.file), place)
    });
}

/// Checks whether at least one diagnostic is an error.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(Diagnostic::is_error)
}

/// Returns the errors in `new` that are not in `old`. Line numbers are not compared: an error that
/// only moved is not new. If one error becomes two identical ones, one of them is new.
pub fn new_errors<'n>(old: &'n [Diagnostic], new: &'n [Diagnostic]) -> Vec<&'n Diagnostic> {
    let mut known: HashMap<_, usize> = HashMap::new();
    for diagnostic in old.iter().filter(|d| d.is_error()) {
        *known.entry(identity(diagnostic)).or_default() += 1;
    }
    let errors = new.iter().filter(|diagnostic| diagnostic.is_error());
    let new = errors.filter(|diagnostic| match known.get_mut(&identity(diagnostic)) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        Some(_) | None => true,
    });
    new.collect()
}

/// Returns the parts by which two diagnostics count as the same.
fn identity(diagnostic: &Diagnostic) -> (&Path, &str, Option<&str>) {
    let source = diagnostic.place.as_ref().map(|place| place.source.as_str());
    (&diagnostic.file, &diagnostic.message, source)
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Escaped(&self.file.to_string_lossy()))?;
        match &self.place {
            Some(TextPosition { line, column: 0, .. }) => write!(f, ":{line}")?,
            Some(TextPosition { line, column, .. }) => write!(f, ":{line}:{column}")?,
            None => {}
        }
        write!(f, ": {}: {}", self.severity, Escaped(&self.message))?;
        if let Some(place) = self.place.as_ref().filter(|place| place.column > 0) {
            place.fmt_source(f)?;
        }
        match &self.help {
            Some(help) => write!(f, "\n      = help: {}", Escaped(help)),
            None => Ok(()),
        }
    }
}

impl TextPosition {
    /// Prints the source line and the caret below it, each after a line end.
    fn fmt_source(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells: Vec<ShownChar> = self.source.chars().map(ShownChar::new).collect();
        let caret = (self.column.saturating_sub(self.skipped).max(1) as usize - 1).min(cells.len());
        let (start, end) = window(&cells, caret);
        let cut_before = start > 0 || self.skipped > 0;
        write!(f, "\n{:>5} | {}", self.line, if cut_before { "…" } else { "" })?;
        cells[start..end].iter().try_for_each(|cell| f.write_str(&cell.shown))?;
        f.write_str(if end < cells.len() { "…" } else { "" })?;

        let indent = columns(&cells[start..caret]) + usize::from(cut_before);
        let meant = (caret + self.width as usize).min(end).max(caret);
        let carets = columns(&cells[caret..meant]).max(1);
        let gutter = self.line.max(10_000).to_string().len();
        write!(f, "\n{:gutter$} | {:indent$}{}", "", "", "^".repeat(carets))
    }
}

/// One character of a source line as displayed.
struct ShownChar {
    shown: String,
    columns: usize,
}

impl ShownChar {
    fn new(character: char) -> Self {
        match character {
            '\t' => Self { shown: TAB.to_owned(), columns: TAB.len() },
            other if is_unsafe(other) => {
                let shown = other.escape_unicode().to_string();
                Self { columns: shown.len(), shown }
            }
            other => Self { shown: other.to_string(), columns: char_columns(other) },
        }
    }
}

fn columns(cells: &[ShownChar]) -> usize {
    cells.iter().map(|cell| cell.columns).sum()
}

/// Returns start and end of the cells to show: all, or those around the caret.
fn window(cells: &[ShownChar], caret: usize) -> (usize, usize) {
    if columns(cells) <= SHOWN_COLUMNS {
        return (0, cells.len());
    }
    let mut before = 0;
    let mut start = caret;
    while start > 0 && before + cells[start - 1].columns <= SHOWN_BEFORE {
        start -= 1;
        before += cells[start].columns;
    }
    let mut shown = before;
    let mut end = caret;
    while end < cells.len() && shown + cells[end].columns <= SHOWN_COLUMNS {
        shown += cells[end].columns;
        end += 1;
    }
    (start, end)
}

/// Returns the terminal columns of a character: 2 for the East Asian wide blocks and emoji, 0 for
/// the common combining marks. A wrong value only moves a caret, so this short table is sufficient.
fn char_columns(character: char) -> usize {
    match u32::from(character) {
        0x0300..=0x036F | 0x20D0..=0x20FF | 0xFE00..=0xFE0F => 0,
        0x1100..=0x115F
        | 0x2E80..=0xA4CF
        | 0xAC00..=0xD7A3
        | 0xF900..=0xFAFF
        | 0xFE30..=0xFE6F
        | 0xFF00..=0xFF60
        | 0xFFE0..=0xFFE6
        | 0x1F300..=0x1FAFF
        | 0x20000..=0x3FFFD => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn diagnostic(line: u32, column: u32, width: u32, source: &str) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            file: Arc::from(Path::new("/etc/a.toml")),
            place: Some(TextPosition {
                line,
                column,
                width,
                source: source.to_owned(),
                skipped: 0,
            }),
            message: "no user is named \"alcie\"".to_owned(),
            help: None,
        }
    }

    #[test]
    fn reads_like_a_compiler() {
        let shown =
            diagnostic(7, 9, 7, r#"user = ["alcie", "bob"]"#).with_help("add it").to_string();
        let expected = "\
/etc/a.toml:7:9: error: no user is named \"alcie\"
    7 | user = [\"alcie\", \"bob\"]
      |         ^^^^^^^
      = help: add it";
        assert_eq!(shown, expected);
    }

    #[test]
    fn whole_file_has_no_place() {
        let file = Arc::from(Path::new("/etc/a.toml"));
        let shown = Diagnostic::about(&file, Severity::Warning, "is odd").to_string();
        assert_eq!(shown, "/etc/a.toml: warning: is odd");
    }

    #[test]
    fn a_line_without_its_text_is_a_place() {
        let file = Arc::from(Path::new("/etc/a.conf"));
        let shown = Diagnostic::at_line(&file, 7, Severity::Warning, "is odd").with_help("fix it");
        assert_eq!(shown.to_string(), "/etc/a.conf:7: warning: is odd\n      = help: fix it");
    }

    #[test]
    fn caret_follows_tabs_wide_and_escaped_characters() {
        let shown = diagnostic(1, 4, 1, "\t\u{6f22}\u{1b}x").to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1], "    1 |     \u{6f22}\\u{1b}x");
        assert_eq!(lines[2], format!("      | {}^", " ".repeat(4 + 2 + 6)));
    }

    #[test]
    fn hostile_text_stays_on_its_lines() {
        let source = "a\u{202e}b\r\u{9b}31m";
        let mut hostile = diagnostic(1, 1, 1, source).with_help("x\n/etc/b: error");
        hostile.message = "m\n\u{1b}[2J".to_owned();
        hostile.file = Arc::from(Path::new("/etc/a\n.toml"));
        let shown = hostile.to_string();
        assert_eq!(shown.lines().count(), 4);
        assert!(shown.chars().all(|c| c == '\n' || !is_unsafe(c)));
    }

    #[test]
    fn long_line_is_cut_around_the_caret() {
        let line = format!("{}BAD{}", "a".repeat(300), "b".repeat(300));
        let shown = diagnostic(1, 301, 3, &line).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].chars().count() <= SHOWN_COLUMNS + 12, "{shown}");
        let at = lines[2].find('^').unwrap();
        assert_eq!(lines[1].chars().skip(at).take(3).collect::<String>(), "BAD");
        assert_eq!(lines[2].matches('^').count(), 3);
    }

    #[test]
    fn a_line_of_100_columns_is_shown_whole() {
        for (length, is_cut) in [(SHOWN_COLUMNS, false), (SHOWN_COLUMNS + 1, true)] {
            let shown = diagnostic(1, 1, 1, &"a".repeat(length)).to_string();
            assert_eq!(shown.contains('…'), is_cut, "{length}");
        }
    }

    /// As many characters as fit into 40 columns: the one next to them has two.
    #[test]
    fn what_is_shown_before_the_caret_depends_on_the_width_of_that() {
        let line = format!("{}{}{}", "\u{6f22}".repeat(100), "a".repeat(39), "b".repeat(100));
        let shown = diagnostic(1, 140, 1, &line).to_string();
        let expected = format!("    1 | …{}b", "a".repeat(39));
        assert!(shown.lines().nth(1).unwrap().starts_with(&expected), "{shown}");
        let shown = diagnostic(1, 139, 1, &line).to_string();
        let expected = format!("    1 | …\u{6f22}{}ab", "a".repeat(38));
        assert!(shown.lines().nth(1).unwrap().starts_with(&expected), "{shown}");
    }

    #[test]
    fn caret_may_stand_behind_the_line() {
        let shown = diagnostic(123_456, 4, 1, "abc").to_string();
        assert!(shown.ends_with("\n123456 | abc\n       |    ^"), "{shown}");
    }

    #[test]
    fn moved_errors_are_not_new() {
        let old = [diagnostic(7, 9, 7, "user = 1")];
        let moved = diagnostic(9, 9, 7, "user = 1");
        let new = [moved.clone(), moved, diagnostic(10, 9, 7, "user = 2")];
        let found = new_errors(&old, &new);
        assert_eq!(found, [&new[1], &new[2]]);
        assert!(new_errors(&new, &old).is_empty());
        let file = &old[0].file;
        let [old, moved] =
            [3, 12].map(|line| [Diagnostic::at_line(file, line, Severity::Error, "no: such word")]);
        let other = [Diagnostic::at_line(file, 3, Severity::Error, "no: other word")];
        assert!(new_errors(&old, &moved).is_empty());
        assert_eq!(new_errors(&old, &other).len(), 1);
    }
}
