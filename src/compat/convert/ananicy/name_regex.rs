//! Converts the regular expressions of `name_regex` to tests of the name of an executable. It must not convert one
//! whose meaning a pattern cannot have.

use crate::rules::ExeTest;
use crate::rules::glob::Glob;

/// A part of an expression.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// One character (`.`).
    One,
    /// Any characters (`.*`).
    Any,
}

/// Returns tests that accept the same names as a regular expression (PCRE2), found anywhere in the name.
///
/// # Errors
/// Returns the part that a pattern cannot express.
pub(super) fn tests(expression: &str) -> Result<Vec<ExeTest>, String> {
    let mut tests = Vec::new();
    let mut rest = expression.chars().peekable();
    let mut alternative = Alternative::default();
    while let Some(character) = rest.next() {
        let is_last = matches!(rest.peek(), None | Some('|'));
        match character {
            '|' => {
                tests.push(std::mem::take(&mut alternative).test()?);
                continue;
            }
            '^' if alternative.is_empty() => alternative.is_from_start = true,
            '$' if is_last => alternative.is_to_end = true,
            '.' => match rest.next_if(|&next| matches!(next, '*' | '+')) {
                Some('*') => alternative.tokens.push(Token::Any),
                Some(_) => alternative.tokens.extend([Token::One, Token::Any]),
                None => alternative.tokens.push(Token::One),
            },
            '\\' => match rest.next().filter(char::is_ascii_punctuation) {
                Some(quoted) => alternative.tokens.push(Token::Literal(quoted)),
                None => return Err(unsupported(character)),
            },
            '^' | '$' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' => {
                return Err(unsupported(character));
            }
            other => alternative.tokens.push(Token::Literal(other)),
        }
        if let Some(repetition) = rest.next_if(|next| matches!(next, '*' | '+' | '?' | '{')) {
            return Err(unsupported(repetition));
        }
    }
    tests.push(alternative.test()?);
    Ok(tests)
}

fn unsupported(character: char) -> String {
    format!("no pattern of exe can express \"{character}\" in name_regex")
}

/// One alternative of an expression.
#[derive(Default)]
struct Alternative {
    is_from_start: bool,
    is_to_end: bool,
    tokens: Vec<Token>,
}

impl Alternative {
    fn is_empty(&self) -> bool {
        !self.is_from_start && self.tokens.is_empty()
    }

    fn test(mut self) -> Result<ExeTest, String> {
        if !self.is_from_start {
            self.tokens.insert(0, Token::Any);
        }
        if !self.is_to_end {
            self.tokens.push(Token::Any);
        }
        // Two stars in a row would also match slashes.
        self.tokens.dedup_by(|a, b| (*a, *b) == (Token::Any, Token::Any));
        let literal = |token: &Token| match token {
            Token::Literal(character) => Some(*character),
            Token::One | Token::Any => None,
        };
        if let Some(text) = self.tokens.iter().map(literal).collect::<Option<String>>() {
            return Ok(ExeTest::Base(text.into_bytes()));
        }
        let pattern: String = self.tokens.iter().map(|&token| written(token)).collect();
        let glob = Glob::parse(pattern.as_bytes()).map_err(|error| error.to_string())?;
        Ok(ExeTest::BaseGlob(glob))
    }
}

/// Returns a token in the syntax of a pattern.
fn written(token: Token) -> String {
    match token {
        Token::Any => "*".to_owned(),
        Token::One => "?".to_owned(),
        Token::Literal(character @ ('*' | '?' | '[' | '\\')) => format!("\\{character}"),
        Token::Literal(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether the tests for an expression accept a name.
    fn accepts(expression: &str, name: &str) -> bool {
        let accepts = |test: &ExeTest| match test {
            ExeTest::Base(own) => own == name.as_bytes(),
            ExeTest::BaseGlob(glob) => glob.matches(name.as_bytes()),
            ExeTest::Path(_) | ExeTest::PathGlob(_) => false,
        };
        tests(expression).unwrap().iter().any(accepts)
    }

    #[test]
    fn an_expression_is_found_anywhere_unless_it_is_anchored() {
        for (expression, yes, no) in [
            ("^ghc$", "ghc", "ghc-9"),
            ("^ghc-", "ghc-9.6", "xghc-9"),
            ("ghc", "my-ghc-9", "gh"),
            ("\\.exe$", "a.exe", "aexe"),
            ("^a.c$", "abc", "ac"),
            ("^a.*c$", "ac", "acd"),
            ("^a.+c$", "abc", "ac"),
            ("^wine|^proton$", "wine64", "proton2"),
            ("^a\\*\\[$", "a*[", "ab["),
            (".*", "x", "/"),
            ("", "x", "/"),
        ] {
            assert!(accepts(expression, yes), "{expression} {yes}");
            assert!(!accepts(expression, no), "{expression} {no}");
        }
    }

    #[test]
    fn what_no_pattern_expresses_is_an_error() {
        for expression in [
            "(a|b)",
            "a*",
            "a+",
            "ab?",
            "a{2}",
            "[0-9]",
            "\\d",
            "\\",
            "(?i)a",
            "^(?=.*x).+.exe$",
            ".*?a",
            "a^b",
            "a$b",
            "a.**",
        ] {
            assert!(tests(expression).is_err(), "{expression}");
        }
    }
}
