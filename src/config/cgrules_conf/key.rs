//! Parses the first field of a rule, `user[:program]`; it resolves no names.

use std::ops::Range;

use super::line::{LineField, Shape};
use crate::config::criteria::{NameKind, NameRef};
use crate::rules::glob::Glob;
use crate::rules::{Criteria, ExeTest, GroupTest, UserTest};

/// The maximum length of a user name in bytes that cgrulesengd keeps.
const USER_MAX: usize = 255;

/// The criteria of a rule from its first field.
#[derive(Debug)]
pub(super) struct CgrulesKey {
    pub(super) criteria: Criteria,
    /// The name that is not yet resolved.
    pub(super) mention: Option<NameRef>,
    pub(super) program: KeyProgram,
}

/// The validity of the program part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyProgram {
    Right,
    /// A `*` before the end, which is not a wildcard.
    InnerStar,
    /// A relative path, which no program has.
    Relative,
}

/// Splits the field into user and program part, as ranges of the file.
pub(super) fn split(field: &LineField, text: &str) -> (Range<usize>, Option<Range<usize>>) {
    let whole = match field.shape {
        Shape::Quoted => field.span.start + 1..field.span.end - 1,
        Shape::Plain | Shape::QuotedProgram | Shape::OpenQuote => field.span.clone(),
    };
    let Some(colon) = text[whole.clone()].find(':') else { return (whole, None) };
    let colon = whole.start + colon;
    let quote = usize::from(field.shape == Shape::QuotedProgram);
    (whole.start..colon, Some(colon + 1 + quote..whole.end - quote))
}

/// Parses the field. Returns `None` if the user part is empty.
pub(super) fn read(field: &LineField, text: &str) -> Option<CgrulesKey> {
    let (user, program) = split(field, text);
    let mut criteria = Criteria::default();
    let mut mention = None;
    if text[user.clone()].starts_with('@') {
        let span = user.start + 1..user.end;
        let name = shortened(&text[span.clone()]);
        criteria.groups = vec![GroupTest::Name(name.clone())];
        mention = Some(NameRef { kind: NameKind::Group, name, span });
    } else if !text[user.clone()].starts_with('*') {
        let name = shortened(&text[user.clone()]);
        criteria.users = vec![UserTest::Name(name.clone())];
        mention = Some(NameRef { kind: NameKind::User, name, span: user });
    }
    if mention.as_ref().is_some_and(|mention| mention.name.is_empty()) {
        return None;
    }
    let program = program.map_or("", |span| &text[span]);
    criteria.exes = exe(program).into_iter().collect();
    Some(CgrulesKey { criteria, mention, program: warning(program) })
}

/// Cuts a name as cgrulesengd does, but not within a character.
fn shortened(name: &str) -> String {
    let end = (0..=name.len().min(USER_MAX)).rev().find(|&end| name.is_char_boundary(end));
    name[..end.unwrap_or(0)].to_owned()
}

/// Returns the test for a program. A star at the end matches anything, including `/`, after a
/// prefix of the whole path; a star alone and an empty program match every program.
fn exe(program: &str) -> Option<ExeTest> {
    Some(match program.strip_suffix('*') {
        Some("") => return None,
        Some(prefix) => ExeTest::PathGlob(Glob::starting_with(prefix.as_bytes())),
        None if program.is_empty() => return None,
        None if program.contains('/') => ExeTest::Path(program.into()),
        None => ExeTest::Base(program.into()),
    })
}

fn warning(program: &str) -> KeyProgram {
    let text = program.strip_suffix('*').unwrap_or(program);
    if text.contains('*') {
        KeyProgram::InnerStar
    } else if !program.starts_with('/') && (program.contains('/') || text.len() < program.len()) {
        if text.is_empty() { KeyProgram::Right } else { KeyProgram::Relative }
    } else {
        KeyProgram::Right
    }
}
