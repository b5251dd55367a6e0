//! Shell patterns over bytes. Matching must stay polynomial, because any user can choose the name
//! of an executable.
//!
//! Backtracking is limited: the number of steps is bounded by pattern length times subject length.

use std::borrow::Cow;
use std::fmt;

/// A pattern: `?` is one byte except `/`, `*` any bytes except `/`, `**` any bytes, `[a-c]` and
/// `[!a-c]` one byte except `/`, and `\` quotes the next byte.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob {
    text: Vec<u8>,
}

/// A syntax error in a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlobError {
    /// The number of bytes before the invalid part.
    pub offset: usize,
    /// The reason, without the position.
    pub message: &'static str,
}

/// Appends `literal` such that it has no special meaning.
fn quote_into(text: &mut Vec<u8>, literal: &[u8]) {
    for &byte in literal {
        if b"*?[\\".contains(&byte) {
            text.push(b'\\');
        }
        text.push(byte);
    }
}

impl fmt::Display for GlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message)
    }
}

impl std::error::Error for GlobError {}

impl Glob {
    /// Checks `text` and stores it as a pattern.
    ///
    /// # Errors
    /// Returns an error for a `[` without its `]`, a reversed range, or a `\` at the end.
    pub fn parse(text: &[u8]) -> Result<Self, GlobError> {
        let mut at = 0;
        while at < text.len() {
            at = checked_token(text, at)?;
        }
        Ok(Self { text: text.to_vec() })
    }

    /// Returns a pattern for every text that begins with the literal `prefix`.
    pub fn starting_with(prefix: &[u8]) -> Self {
        let mut text = Vec::with_capacity(prefix.len() + 2);
        quote_into(&mut text, prefix);
        text.extend(b"**");
        Self { text }
    }

    /// Returns a pattern for these literal parts with anything except `/` between them.
    pub fn with_gaps<'p>(parts: impl Iterator<Item = Option<&'p str>>) -> Self {
        let mut text = Vec::new();
        for part in parts {
            match part {
                Some(literal) => quote_into(&mut text, literal.as_bytes()),
                None => text.push(b'*'),
            }
        }
        Self { text }
    }

    /// Returns the pattern in which each `*` also matches slashes.
    #[must_use]
    pub fn across_slashes(&self) -> Self {
        let mut text = Vec::with_capacity(self.text.len() + 1);
        let mut at = 0;
        while at < self.text.len() {
            let Ok(end) = checked_token(&self.text, at) else { break };
            let token = &self.text[at..end];
            text.extend_from_slice(if token == b"*" { b"**" } else { token });
            at = end;
        }
        Self { text }
    }

    /// Checks whether `text` contains a byte that makes it a pattern.
    pub fn is_glob(text: &[u8]) -> bool {
        text.iter().any(|byte| b"*?[\\".contains(byte))
    }

    /// Returns the pattern as written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Checks whether the pattern matches the whole of `subject`.
    pub fn matches(&self, subject: &[u8]) -> bool {
        GlobWalk::new(&self.text, subject).run()
    }

    /// Checks whether the pattern consists only of `*` and thus requires no particular text.
    pub fn is_any(&self) -> bool {
        !self.text.is_empty() && self.text.iter().all(|&byte| byte == b'*')
    }

    /// Returns the bytes with which every match begins.
    pub fn literal_prefix(&self) -> Cow<'_, [u8]> {
        self.split_prefix().0
    }

    /// Returns the bytes with which every match begins, and the pattern for the rest.
    pub fn split_prefix(&self) -> (Cow<'_, [u8]>, &[u8]) {
        let mut at = 0;
        let mut literal = Vec::new();
        while let Some((GlobToken::Byte(byte), next)) = token(&self.text, at) {
            literal.push(byte);
            at = next;
        }
        let (written, rest) = self.text.split_at(at);
        let prefix = if written == literal.as_slice() {
            Cow::Borrowed(written)
        } else {
            Cow::Owned(literal)
        };
        (prefix, rest)
    }

    /// Returns the bytes with which every match ends.
    pub fn literal_suffix(&self) -> Vec<u8> {
        let mut suffix = Vec::new();
        let mut at = 0;
        while let Some((token, next)) = token(&self.text, at) {
            match token {
                GlobToken::Byte(byte) => suffix.push(byte),
                GlobToken::One | GlobToken::Class(_) | GlobToken::Star | GlobToken::Deep => {
                    suffix.clear();
                }
            }
            at = next;
        }
        suffix
    }

    /// Returns the pattern of the last path component, `None` if a `**` in it can span several
    /// components.
    pub fn last_component(&self) -> Option<Self> {
        let mut at = 0;
        let mut start = 0;
        let mut deep = false;
        while let Some((token, next)) = token(&self.text, at) {
            match token {
                GlobToken::Byte(b'/') => (start, deep) = (next, false),
                GlobToken::Deep => deep = true,
                GlobToken::Byte(_) | GlobToken::One | GlobToken::Class(_) | GlobToken::Star => {}
            }
            at = next;
        }
        (!deep).then(|| Self { text: self.text[start..].to_vec() })
    }
}

/// One element of a pattern.
#[derive(Clone, Copy)]
enum GlobToken<'a> {
    Byte(u8),
    One,
    Class(&'a [u8]),
    Star,
    Deep,
}

impl GlobToken<'_> {
    /// Checks whether the token consumes exactly this byte.
    fn takes(self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => own == byte,
            Self::One => byte != b'/',
            Self::Class(body) => byte != b'/' && class_has(body, byte),
            Self::Star | Self::Deep => false,
        }
    }
}

/// Returns the token at `at` and the position of the next one; `None` at the end.
#[inline]
fn token(pattern: &[u8], at: usize) -> Option<(GlobToken<'_>, usize)> {
    let token = match *pattern.get(at)? {
        b'*' => return Some(stars(pattern, at)),
        b'?' => (GlobToken::One, at + 1),
        b'\\' => (GlobToken::Byte(*pattern.get(at + 1)?), at + 2),
        b'[' => {
            let end = class_end(pattern, at)?;
            (GlobToken::Class(&pattern[at + 1..end]), end + 1)
        }
        byte => (GlobToken::Byte(byte), at + 1),
    };
    Some(token)
}

/// Returns the token for a run of `*`: one stays within a component, more do not.
fn stars(pattern: &[u8], at: usize) -> (GlobToken<'_>, usize) {
    let run = pattern[at..].iter().take_while(|&&byte| byte == b'*').count();
    (if run == 1 { GlobToken::Star } else { GlobToken::Deep }, at + run)
}

/// Returns the position of the `]` that closes the class at `at`. A `]` in first position is a
/// member.
fn class_end(pattern: &[u8], at: usize) -> Option<usize> {
    let mut end = at + 1 + usize::from(pattern.get(at + 1) == Some(&b'!'));
    let first = end;
    loop {
        match *pattern.get(end)? {
            b']' if end > first => return Some(end),
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
}

/// Returns the members of a class body (without brackets) as ranges.
fn class_ranges(body: &[u8]) -> impl Iterator<Item = (u8, u8)> + '_ {
    let mut rest = body.strip_prefix(b"!").unwrap_or(body);
    std::iter::from_fn(move || {
        let (first, after) = class_byte(rest)?;
        rest = after;
        if let Some((b'-', tail)) = after.split_first().map(|(byte, tail)| (*byte, tail)) {
            if let Some((last, after)) = class_byte(tail) {
                rest = after;
                return Some((first, last));
            }
        }
        Some((first, first))
    })
}

/// Returns the first member of a class body, unquoted, and the rest.
fn class_byte(body: &[u8]) -> Option<(u8, &[u8])> {
    match body {
        [b'\\', byte, rest @ ..] | [byte, rest @ ..] => Some((*byte, rest)),
        [] => None,
    }
}

fn class_has(body: &[u8], byte: u8) -> bool {
    let negated = body.first() == Some(&b'!');
    class_ranges(body).any(|(first, last)| (first..=last).contains(&byte)) != negated
}

/// Returns the position after the token at `at`, if the token is valid.
fn checked_token(text: &[u8], at: usize) -> Result<usize, GlobError> {
    let Some((token, next)) = token(text, at) else {
        let message = match text[at] {
            b'[' => "`[` without a closing `]`",
            _ => "`\\` at the end of the pattern quotes nothing",
        };
        return Err(GlobError { offset: at, message });
    };
    match token {
        GlobToken::Class(body) if class_ranges(body).any(|(first, last)| first > last) => {
            Err(GlobError { offset: at, message: "reversed range in `[]`" })
        }
        GlobToken::Class(_)
        | GlobToken::Byte(_)
        | GlobToken::One
        | GlobToken::Star
        | GlobToken::Deep => Ok(next),
    }
}

/// One match of a pattern against a subject.
///
/// Only the last `*` and the last `**` are retried. Retrying an earlier one cannot help: the text
/// between two stars takes a fixed number of bytes, so its first position leaves the later star
/// every choice that another position in the same component would.
struct GlobWalk<'a> {
    pattern: &'a [u8],
    subject: &'a [u8],
    star: Option<Retry>,
    deep: Option<Deep>,
}

/// The positions at which matching continues after a star has consumed one more byte.
#[derive(Clone, Copy)]
struct Retry {
    pattern: usize,
    subject: usize,
}

#[derive(Clone, Copy)]
struct Deep {
    retry: Retry,
    /// The subject position at which the first `*` after this `**` began to consume bytes.
    first_star: Option<usize>,
}

impl<'a> GlobWalk<'a> {
    fn new(pattern: &'a [u8], subject: &'a [u8]) -> Self {
        Self { pattern, subject, star: None, deep: None }
    }

    fn run(mut self) -> bool {
        let mut here = Retry { pattern: 0, subject: 0 };
        loop {
            let Some((token, next)) = token(self.pattern, here.pattern) else {
                if here.subject == self.subject.len() {
                    return true;
                }
                match self.retry() {
                    Some(there) => here = there,
                    None => return false,
                }
                continue;
            };
            match token {
                GlobToken::Deep if next == self.pattern.len() => return true,
                GlobToken::Deep => here = self.begin_deep(next, here.subject),
                GlobToken::Star => here = self.begin_star(next, here.subject),
                GlobToken::Byte(_) | GlobToken::One | GlobToken::Class(_) => {
                    if self.subject.get(here.subject).is_some_and(|&byte| token.takes(byte)) {
                        here = Retry { pattern: next, subject: here.subject + 1 };
                    } else if let Some(there) = self.retry() {
                        here = there;
                    } else {
                        return false;
                    }
                }
            }
        }
    }

    fn begin_deep(&mut self, pattern: usize, subject: usize) -> Retry {
        let retry = Retry { pattern, subject };
        self.star = None;
        self.deep = Some(Deep { retry, first_star: None });
        retry
    }

    fn begin_star(&mut self, pattern: usize, subject: usize) -> Retry {
        let retry = Retry { pattern, subject };
        self.star = Some(retry);
        if let Some(deep) = &mut self.deep {
            deep.first_star.get_or_insert(subject);
        }
        retry
    }

    /// Returns the next positions to try after a mismatch.
    fn retry(&mut self) -> Option<Retry> {
        if let Some(star) = &mut self.star {
            if self.subject.get(star.subject).is_some_and(|&byte| byte != b'/') {
                star.subject += 1;
                return Some(*star);
            }
        }
        self.star = None;
        let deep = self.deep.as_mut()?;
        let from = &mut deep.retry.subject;
        *from = match deep.first_star.take() {
            None => *from + 1,
            // The first star after `**` failed from here to the end of its component, so it would
            // fail from any later byte of it. The fixed part before the star must end beyond that
            // `/`.
            Some(star) => {
                let slash = self.subject[star..].iter().position(|&byte| byte == b'/')? + star;
                (slash + 1 - (star - *from)).max(*from + 1)
            }
        };
        (*from <= self.subject.len()).then_some(deep.retry)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// Matches by definition, trying every choice: exponential, so only for short subjects.
    fn oracle(pattern: &[u8], subject: &[u8]) -> bool {
        match (pattern, subject) {
            ([], _) => subject.is_empty(),
            ([b'*', b'*', rest @ ..], _) => {
                (0..=subject.len()).any(|n| oracle(rest, &subject[n..]))
                    || rest.starts_with(b"*") && oracle(&pattern[1..], subject)
            }
            ([b'*', rest @ ..], _) => {
                let component = subject.iter().take_while(|&&byte| byte != b'/').count();
                (0..=component).any(|n| oracle(rest, &subject[n..]))
            }
            (_, []) => false,
            ([b'?', rest @ ..], [byte, tail @ ..]) => *byte != b'/' && oracle(rest, tail),
            ([b'\\', own, rest @ ..], [byte, tail @ ..]) => own == byte && oracle(rest, tail),
            ([b'[', b'!', b'a', b']', rest @ ..], [byte, tail @ ..]) => {
                !b"a/".contains(byte) && oracle(rest, tail)
            }
            ([b'[', b'a', b'-', b'c', b']', rest @ ..], [byte, tail @ ..]) => {
                (b'a'..=b'c').contains(byte) && oracle(rest, tail)
            }
            ([own, rest @ ..], [byte, tail @ ..]) => own == byte && oracle(rest, tail),
        }
    }

    fn pattern() -> impl Strategy<Value = Vec<u8>> {
        let part = select(vec!["a", "b", "/", "*", "*", "**", "?", "\\a", "\\*", "[!a]", "[a-c]"]);
        vec(part, 0..9).prop_map(|parts| parts.concat().into_bytes())
    }

    fn glob(text: &str) -> Glob {
        Glob::parse(text.as_bytes()).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

        #[test]
        fn matches_what_the_definition_does(
            text in pattern(),
            subject in vec(select(b"aabd/*".to_vec()), 0..10),
        ) {
            let glob = Glob::parse(&text).unwrap();
            prop_assert_eq!(glob.matches(&subject), oracle(&text, &subject));
        }

        #[test]
        fn what_matches_has_the_literal_ends(
            text in pattern(),
            subject in vec(select(b"aabd/*".to_vec()), 0..10),
        ) {
            let glob = Glob::parse(&text).unwrap();
            if glob.matches(&subject) {
                let (prefix, rest) = glob.split_prefix();
                prop_assert!(subject.starts_with(&prefix));
                prop_assert!(oracle(rest, &subject[prefix.len()..]));
                prop_assert!(subject.ends_with(&glob.literal_suffix()));
                let base = crate::rules::base_name(&subject);
                prop_assert!(glob.last_component().is_none_or(|last| last.matches(base)));
            }
        }

        #[test]
        fn any_text_is_a_pattern_or_an_error_within_it(text in vec(select(b"a[]!-\\*".to_vec()), 0..8)) {
            match Glob::parse(&text) {
                Ok(glob) => { glob.matches(b"a[]"); }
                Err(error) => prop_assert!(error.offset < text.len()),
            }
        }
    }

    #[test]
    fn errors_say_where() {
        for (text, offset) in [("/usr/[ab", 5), ("[]", 0), ("[!]", 0), ("ab\\", 2), ("x[b-a]", 1)] {
            assert_eq!(Glob::parse(text.as_bytes()).unwrap_err().offset, offset, "{text}");
        }
        assert!(Glob::parse(b"[]a-]\\[").is_ok());
    }

    #[test]
    fn classes() {
        assert!(glob("[]]").matches(b"]"));
        assert!(glob("[a-]").matches(b"-"));
        assert!(glob("[\\]x]").matches(b"]"));
        assert!(!glob("[!a]").matches(b"/"));
        assert!(!glob("[+-9]").matches(b"/"));
    }

    /// Fails by running without end if the matcher backtracks into every choice.
    #[test]
    fn hostile_subjects_end() {
        let subject = vec![b'a'; 4096];
        let components = b"a/".repeat(2048);
        for text in ["*a", "**a", "**a*", "a*?", "**/a*", "**[a-b]"] {
            let pattern = format!("{}b", text.repeat(100));
            assert!(!glob(&pattern).matches(&subject));
            assert!(!glob(&pattern).matches(&components));
        }
    }
}
