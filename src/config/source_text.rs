//! Maps byte ranges of one file to lines and columns and collects its diagnostics; it keeps a
//! bounded number of them.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::diagnostic::{Diagnostic, Severity, TextPosition, sort};

/// The number of diagnostics kept for each file and severity. A binary file named `.toml` could
/// cause one for each byte.
const KEPT: usize = 100;
/// The characters of a line kept before and after a place: more than are ever shown.
const KEPT_AROUND: usize = 200;

/// The text of a file with the offsets of its lines.
#[derive(Debug)]
pub struct SourceText<'t> {
    file: &'t Arc<Path>,
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> SourceText<'t> {
    /// Creates the line index for the text of `file`.
    pub fn new(file: &'t Arc<Path>, text: &'t str) -> Self {
        let ends = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        let starts = std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect();
        Self { file, text, starts }
    }

    /// Returns the path of the file.
    pub fn file(&self) -> &'t Arc<Path> {
        self.file
    }

    /// Returns the whole text of the file.
    pub fn as_str(&self) -> &'t str {
        self.text
    }

    /// Returns the number, from 1, of the line with the byte at `offset`.
    pub fn line(&self, offset: usize) -> u32 {
        u32::try_from(self.starts.partition_point(|&start| start <= offset)).unwrap_or(u32::MAX)
    }

    /// Returns the place of a byte range. A range beyond the text gives its end; a range over
    /// several lines gives the part in the first one.
    pub fn place(&self, span: Range<usize>) -> TextPosition {
        let start = floor_char(self.text, span.start);
        let line = self.line(start);
        let line_start = self.starts[line as usize - 1];
        let whole = self.text[line_start..].split('\n').next().unwrap_or_default();
        let whole = whole.strip_suffix('\r').unwrap_or(whole);
        let at = (start - line_start).min(whole.len());
        let end = floor_char(whole, span.end.saturating_sub(line_start)).max(at);
        let (skipped, source) = around(whole, at);
        TextPosition {
            line,
            column: count(&whole[..at]).saturating_add(1),
            width: count(&whole[at..end]).max(1),
            source: source.to_owned(),
            skipped,
        }
    }
}

/// Returns the part of a line that is kept for a place, after the number of characters before it.
fn around(line: &str, at: usize) -> (u32, &str) {
    let start = line[..at].char_indices().rev().nth(KEPT_AROUND - 1).map_or(0, |(index, _)| index);
    let end =
        line[at..].char_indices().nth(KEPT_AROUND).map_or(line.len(), |(index, _)| at + index);
    (count(&line[..start]), &line[start..end])
}

fn count(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

/// Returns the last character boundary that is not after `at`.
fn floor_char(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at).rev().find(|&index| text.is_char_boundary(index)).unwrap_or(0)
}

/// The diagnostics about one text, limited in number.
#[derive(Debug)]
pub struct Diagnostics<'t> {
    text: &'t SourceText<'t>,
    kept: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl<'t> Diagnostics<'t> {
    /// Creates an empty report about `text`.
    pub fn new(text: &'t SourceText<'t>) -> Self {
        Self { text, kept: Vec::new(), errors: 0, warnings: 0 }
    }

    /// Returns the text that the report is about.
    pub fn text(&self) -> &'t SourceText<'t> {
        self.text
    }

    /// Returns the number of errors so far, kept or not.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Reports an error at `span`, in bytes.
    pub fn error(&mut self, span: Range<usize>, message: impl Into<String>) {
        self.add(Severity::Error, Some(span), message.into(), None);
    }

    /// Reports an error at `span` with a suggested fix.
    pub fn error_help(
        &mut self,
        span: Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Error, Some(span), message.into(), Some(help.into()));
    }

    /// Reports a warning with a suggested fix, at `span` or about the whole file.
    pub fn warning(
        &mut self,
        span: Option<Range<usize>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.add(Severity::Warning, span, message.into(), Some(help.into()));
    }

    /// Reports a diagnostic of either severity.
    pub fn add(
        &mut self,
        severity: Severity,
        span: Option<Range<usize>>,
        message: String,
        help: Option<String>,
    ) {
        let seen = match severity {
            Severity::Warning => &mut self.warnings,
            Severity::Error => &mut self.errors,
        };
        *seen += 1;
        if *seen <= KEPT {
            let place = span.map(|span| self.text.place(span));
            let file = self.text.file().clone();
            self.kept.push(Diagnostic { severity, file, place, message, help });
        }
    }

    /// Returns the diagnostics in the order of their places, followed by the number of omitted
    /// ones.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        sort(&mut self.kept);
        let seen = [(Severity::Error, self.errors), (Severity::Warning, self.warnings)];
        for (severity, seen) in seen.into_iter().filter(|&(_, seen)| seen > KEPT) {
            let message = format!("{} more {severity}s are not shown", seen - KEPT);
            self.kept.push(Diagnostic::about(self.text.file(), severity, message));
        }
        self.kept
    }
}

/// Decodes the bytes of a file as UTF-8. A NUL byte is an error, because a text file has none.
///
/// # Errors
/// Returns the first byte that is not UTF-8, or the first NUL byte.
pub fn text_of<'b>(file: &Arc<Path>, bytes: &'b [u8]) -> Result<&'b str, Diagnostic> {
    let (text, fault) = match std::str::from_utf8(bytes) {
        Ok(text) => match text.find('\0') {
            None => return Ok(text),
            Some(at) => (text, at..at + 1),
        },
        Err(error) => {
            let at = error.valid_up_to();
            (std::str::from_utf8(&bytes[..at]).unwrap_or_default(), at..at + 1)
        }
    };
    let message = match bytes.get(fault.start) {
        Some(0) => "invalid text: contains a NUL byte".to_owned(),
        Some(byte) => format!("invalid UTF-8: byte 0x{byte:02x}"),
        None => "invalid UTF-8".to_owned(),
    };
    let place = SourceText::new(file, text).place(fault);
    Err(Diagnostic {
        place: Some(place),
        ..Diagnostic::about(file, Severity::Error, message).with_help("save the file as UTF-8 text")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Arc<Path> {
        Arc::from(Path::new("/a.toml"))
    }

    #[test]
    fn place_counts_characters_from_one() {
        let file = file();
        let text = SourceText::new(&file, "a = 1\r\nü = \"x\"\n");
        let place = text.place(12..15);
        assert_eq!((place.line, place.column, place.width), (2, 5, 3));
        assert_eq!(place.source, "ü = \"x\"");
        assert_eq!(text.place(0..30).width, 5);
        assert_eq!(text.place(5..5).source, "a = 1");
    }

    #[test]
    fn place_outside_the_text_is_its_end() {
        let file = file();
        let text = SourceText::new(&file, "ab");
        let place = text.place(70..90);
        assert_eq!((place.line, place.column, place.width), (1, 3, 1));
        let empty = SourceText::new(&file, "");
        let backwards = Range { start: 3, end: 1 };
        assert_eq!((empty.place(0..0).line, empty.place(backwards).column), (1, 1));
    }

    #[test]
    fn a_line_of_a_mebibyte_is_not_kept() {
        let file = file();
        let line = "é".repeat(1 << 19);
        let text = SourceText::new(&file, &line);
        let place = text.place(1_000_000..1_000_002);
        assert_eq!(place.column, 500_001);
        assert_eq!(place.column - place.skipped, 201);
        assert_eq!(place.source.chars().count(), 400);
        assert_eq!(text.place(0..1).source.chars().count(), 200);
    }

    #[test]
    fn complaints_are_bounded_and_errors_survive_warnings() {
        let file = file();
        let text = SourceText::new(&file, "a\nb\n");
        let mut report = Diagnostics::new(&text);
        for _ in 0..150 {
            report.warning(Some(2..3), "w", "h");
        }
        report.error(0..1, "e");
        let kept = report.finish();
        assert_eq!(kept.len(), 102);
        assert_eq!(kept[0].message, "e");
        assert_eq!(kept[101].message, "50 more warnings are not shown");
    }

    #[test]
    fn a_hundred_errors_are_shown_without_a_line_about_more() {
        let file = file();
        let text = SourceText::new(&file, "a\n");
        for (count, shown) in [(KEPT, KEPT), (KEPT + 1, KEPT + 1)] {
            let mut report = Diagnostics::new(&text);
            (0..count).for_each(|_| report.error(0..1, "e"));
            let found = report.finish();
            assert_eq!(found.len(), shown);
            let last = &found[found.len() - 1].message;
            assert_eq!(last == "1 more errors are not shown", count > KEPT, "{last}");
        }
    }
}
