//! Splits a line into its fields; it does not interpret them.

use std::ops::Range;

/// A field of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LineField {
    /// The byte range in the file, including quotes.
    pub(super) span: Range<usize>,
    /// The quoting of the field.
    pub(super) shape: Shape,
}

/// The quoting of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Plain,
    Quoted,
    /// Unquoted up to a colon, then quoted: `user:"a program"`.
    QuotedProgram,
    /// An unterminated quote, or one that closes inside a word: taken literally.
    OpenQuote,
}

/// Returns the fields of a line that begins at byte `start` of the file. Quotes are interpreted in
/// the first field and in the third, unless only an unquoted reading gives a complete rule.
pub(super) fn fields(line: &str, start: usize) -> Vec<LineField> {
    let quoted = cut(line, start, [key, destination]);
    if quoted.len() >= 3 || !line.contains('"') {
        return quoted;
    }
    let plain = cut(line, start, [unquoted, unquoted]);
    if plain.len() >= 3 { plain } else { quoted }
}

/// Reads a field up to the next blank, whatever quotes it has.
fn unquoted(text: &str) -> (usize, Shape) {
    match destination(text).1 {
        Shape::Plain => (word(text), Shape::Plain),
        Shape::Quoted | Shape::QuotedProgram | Shape::OpenQuote => (word(text), Shape::OpenQuote),
    }
}

/// A function that returns length and shape of the field at the start of a text.
type Shaped = fn(&str) -> (usize, Shape);

/// Splits a line, with the given functions for its first and its third field.
fn cut(line: &str, start: usize, shaped: [Shaped; 2]) -> Vec<LineField> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(begin) = line[at..].find(|c| !is_blank(c)) {
        let begin = at + begin;
        let rest = &line[begin..];
        let (length, shape) = match found.len() {
            0 => shaped[0](rest),
            2 => shaped[1](rest),
            _ => (word(rest), Shape::Plain),
        };
        at = begin + length;
        found.push(LineField { span: start + begin..start + at, shape });
    }
    found
}

/// Checks for white space of the C locale, which separates fields in cgrulesengd's `sscanf`.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\u{b}' | '\u{c}' | '\r')
}

/// Returns the length of the word at the start of `text`.
fn word(text: &str) -> usize {
    text.find(is_blank).unwrap_or(text.len())
}

fn key(text: &str) -> (usize, Shape) {
    let colon = text[..word(text)].find(':').map(|colon| colon + 1);
    match colon.filter(|&after| text[after..].starts_with('"')) {
        Some(after) if !text.starts_with('"') => match quoted(&text[after..]) {
            Some(length) => (after + length, Shape::QuotedProgram),
            None => (word(text), Shape::OpenQuote),
        },
        Some(_) | None => destination(text),
    }
}

fn destination(text: &str) -> (usize, Shape) {
    match quoted(text) {
        Some(length) => (length, Shape::Quoted),
        None if text.starts_with('"') => (word(text), Shape::OpenQuote),
        None => (word(text), Shape::Plain),
    }
}

/// Returns the length of the quoted text at the start of `text`, including the quotes.
fn quoted(text: &str) -> Option<usize> {
    let inner = text.strip_prefix('"')?;
    let close = inner.find('"')?;
    let ends = inner[close + 1..].chars().next().is_none_or(is_blank);
    ends.then_some(close + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str) -> Vec<(&str, Shape)> {
        fields(line, 0).into_iter().map(|field| (&line[field.span], field.shape)).collect()
    }

    #[test]
    fn blanks_are_those_of_the_c_locale() {
        let words: Vec<&str> =
            shown("a\t b\u{b}c \u{c}d\r").into_iter().map(|(text, _)| text).collect();
        assert_eq!(words, ["a", "b", "c", "d"]);
        assert_eq!(shown("a\u{a0}b").len(), 1);
        assert_eq!(shown(" \r "), []);
    }

    #[test]
    fn quotes_count_around_key_program_and_destination() {
        fn plain(text: &str) -> (&str, Shape) {
            (text, Shape::Plain)
        }
        assert_eq!(
            shown(r#""a:b c" cpu "d e" f"#),
            [("\"a:b c\"", Shape::Quoted), plain("cpu"), ("\"d e\"", Shape::Quoted), plain("f")]
        );
        assert_eq!(
            shown(r#"a:"b c" "cpu" d"#)[..2],
            [("a:\"b c\"", Shape::QuotedProgram), plain("\"cpu\"")]
        );
        assert_eq!(shown(r#"a:"b cpu d"#)[0], ("a:\"b", Shape::OpenQuote));
        assert_eq!(shown(r#""a cpu d"#)[0], ("\"a", Shape::OpenQuote));
        assert_eq!(shown(r#"a"b:"c d" x y"#)[0], ("a\"b:\"c d\"", Shape::QuotedProgram));
        assert_eq!(shown(r#"a:"b cpu c"#).len(), 3);
        assert_eq!(shown(r#"a:"b cpu c""#)[2], plain("c\""));
        assert_eq!(shown(r#"a cpu "b"c"#)[2], ("\"b\"c", Shape::OpenQuote));
        assert_eq!(shown(r#"a cpu b"c d""#)[2], plain("b\"c"));
    }
}
