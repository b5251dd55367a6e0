//! Splits cgconfig.conf into tokens; it does not know the grammar.

use std::ops::Range;

/// A token of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    /// The byte range in the file; without the quotes for a quoted word.
    pub(super) span: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A name or a value without quotes.
    Word,
    /// A word in quotes, which may be any text and is never a keyword.
    Quoted,
    Open,
    Close,
    Equals,
    Semicolon,
    /// A comment after other tokens, up to the end of the line.
    LateComment,
    /// An unterminated quote, up to the end of the text.
    OpenQuote,
    /// A character without a meaning.
    Stray,
}

/// Characters between tokens that need a diagnostic.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Skipped {
    /// The first carriage return, which is white space here but not in cgrulesengd 2.0.2.
    pub(super) carriage_return: Option<usize>,
    /// A NUL byte, which ends the text.
    pub(super) nul: Option<usize>,
}

/// Returns the tokens of a text in order. Comments are lines that begin with `#` after optional
/// blanks, or with `*`.
pub(super) fn tokens(text: &str, between: &mut Skipped) -> Vec<Token> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut begins_line = true;
    while let Some(next) = text[at..].chars().next() {
        let rest = &text[at..];
        let is_comment = next == '#' || next == '*' && (at == 0 || text[..at].ends_with('\n'));
        let (kind, length) = match next {
            '\n' => (None, 1),
            ' ' | '\t' => (None, 1),
            '\r' => {
                between.carriage_return.get_or_insert(at);
                (None, 1)
            }
            '\0' => {
                between.nul = Some(at);
                break;
            }
            _ if is_comment && begins_line => (None, line(rest)),
            '#' => (Some(TokenKind::LateComment), line(rest)),
            '{' => (Some(TokenKind::Open), 1),
            '}' => (Some(TokenKind::Close), 1),
            '=' => (Some(TokenKind::Equals), 1),
            ';' => (Some(TokenKind::Semicolon), 1),
            '"' => match rest[1..].find('"') {
                Some(end) => {
                    found.push(Token { kind: TokenKind::Quoted, span: at + 1..at + 1 + end });
                    (None, end + 2)
                }
                None => (Some(TokenKind::OpenQuote), rest.len()),
            },
            c if is_word(c) => (Some(TokenKind::Word), word(rest)),
            c => (Some(TokenKind::Stray), c.len_utf8()),
        };
        found.extend(kind.map(|kind| Token { kind, span: at..at + length }));
        begins_line = next == '\n' || begins_line && matches!(next, ' ' | '\t');
        at += length;
    }
    found
}

/// Returns the length of the line at the start of `text`, without the line end.
fn line(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

fn word(text: &str) -> usize {
    text.find(|c| !is_word(c)).unwrap_or(text.len())
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_-/.,%@\\".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<(TokenKind, &str)> {
        tokens(text, &mut Skipped::default())
            .into_iter()
            .map(|token| (token.kind, &text[token.span]))
            .collect()
    }

    #[test]
    fn words_and_signs_are_told_apart() {
        assert_eq!(
            cut("group a-b/%u{\tx=\"1 2\"; }"),
            [
                (TokenKind::Word, "group"),
                (TokenKind::Word, "a-b/%u"),
                (TokenKind::Open, "{"),
                (TokenKind::Word, "x"),
                (TokenKind::Equals, "="),
                (TokenKind::Quoted, "1 2"),
                (TokenKind::Semicolon, ";"),
                (TokenKind::Close, "}"),
            ]
        );
        assert_eq!(cut("a\r\n\"b"), [(TokenKind::Word, "a"), (TokenKind::OpenQuote, "\"b")]);
        assert_eq!(cut("é"), [(TokenKind::Stray, "é")]);
    }

    #[test]
    fn returns_between_tokens_are_noticed() {
        let mut between = Skipped::default();
        tokens("# a\r\nb \"\r\" \r\n\r", &mut between);
        assert_eq!(between.carriage_return, Some(11));
    }

    #[test]
    fn a_nul_between_tokens_is_the_end() {
        let mut between = Skipped::default();
        let found = tokens("# \0\na \"\0\" b\0 {", &mut between);
        assert_eq!((found.len(), between.nul), (3, Some(11)));
    }

    #[test]
    fn comments_have_lines_of_their_own() {
        assert_eq!(cut("# { \n \t# }\n* x\n"), []);
        assert_eq!(
            cut("a # b\nc"),
            [(TokenKind::Word, "a"), (TokenKind::LateComment, "# b"), (TokenKind::Word, "c")]
        );
        assert_eq!(cut(" *"), [(TokenKind::Stray, "*")]);
    }
}
