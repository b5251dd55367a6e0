//! Where a rule sends a process: a cgroup path with `%`-fields, parsed once. Pure.
//!
//! The values of fields are chosen by users, so what [`Destination::render`] writes is held by
//! construction: every component of the text stays exactly one component, and none is `.`, `..` or
//! the name of a file that the kernel keeps in a cgroup.

use std::fmt;
use std::ops::Range;

use super::base_name;
use super::component::{Component, NAME_MAX, is_cgroup_file, write_or};
use crate::event::{Gid, Pid, Uid};

/// Longest path, in bytes (`PATH_MAX` without its zero byte).
const PATH_MAX: usize = 4095;

/// A cgroup path relative to its beginning, possibly with fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    text: String,
    pieces: Vec<Piece>,
}

/// A part of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text as it is, `/` included.
    Literal(String),
    /// A value that differs from process to process.
    Field(Field),
}

/// What a `%` and a letter stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// `%u`: the user's name, or the number when there is none.
    UserName,
    /// `%U`: the user's number.
    UserId,
    /// `%g`: the group's name, or the number when there is none.
    GroupName,
    /// `%G`: the group's number.
    GroupId,
    /// `%p`: the base name of the program, or the process id when it has none.
    Program,
    /// `%P`: the process id.
    ProcessId,
}

impl Field {
    /// The field with this letter.
    pub fn from_letter(letter: char) -> Option<Self> {
        Some(match letter {
            'u' => Self::UserName,
            'U' => Self::UserId,
            'g' => Self::GroupName,
            'G' => Self::GroupId,
            'p' => Self::Program,
            'P' => Self::ProcessId,
            _ => return None,
        })
    }
}

/// What fields are filled with.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Effective user.
    pub uid: Uid,
    /// Its name, if it has one.
    pub user: Option<&'a str>,
    /// Effective group.
    pub gid: Gid,
    /// Its name, if it has one.
    pub group: Option<&'a str>,
    /// The process.
    pub pid: Pid,
    /// Path or base name of the executable, if it was read.
    pub program: Option<&'a [u8]>,
}

/// Why a text is not a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationError {
    /// Bytes before the part that is wrong.
    pub offset: usize,
    /// Length of that part in bytes; 0 when something is missing.
    pub len: usize,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

impl fmt::Display for DestinationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DestinationError {}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Destination {
    /// Reads a path with fields. One `/` before and one after it are accepted and dropped; `/` alone
    /// is the beginning itself.
    ///
    /// # Errors
    /// The first part that can be no cgroup, or an unknown field.
    pub fn parse(text: &str) -> Result<Self, DestinationError> {
        let path = trim(text)?;
        check_characters(text)?;
        let mut pieces = Vec::new();
        if !path.is_empty() {
            let mut start = path.start;
            for component in text[path.clone()].split('/') {
                let range = start..start + component.len();
                start = range.end + 1;
                if range.start != path.start {
                    push_literal(&mut pieces, '/');
                }
                parse_component(text, range, &mut pieces)?;
            }
        }
        Ok(Self { text: text.to_owned(), pieces })
    }

    /// A destination of another syntax, already taken apart. `text` is what was written. The pieces
    /// are not checked; the values of fields are escaped all the same.
    pub fn from_pieces(text: &str, pieces: Vec<Piece>) -> Self {
        Self { text: text.to_owned(), pieces }
    }

    /// The destination as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The parts, in order.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Whether the path differs from process to process.
    pub fn has_fields(&self) -> bool {
        self.fields().next().is_some()
    }

    /// The fields in order, with repetitions.
    pub fn fields(&self) -> impl Iterator<Item = Field> + '_ {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Field(field) => Some(*field),
            Piece::Literal(_) => None,
        })
    }

    /// Appends the path for `who` to `out`, without `/` before or after it.
    pub fn render(&self, who: &Who<'_>, out: &mut String) {
        let mut component = Component::at(out.len());
        for piece in &self.pieces {
            match piece {
                Piece::Field(field) => {
                    component.has_field = true;
                    field.write(who, out);
                }
                Piece::Literal(text) => {
                    for (n, part) in text.split('/').enumerate() {
                        if n > 0 {
                            component.finish(out);
                            out.push('/');
                            component = Component::at(out.len());
                        }
                        out.push_str(part);
                    }
                }
            }
        }
        component.finish(out);
    }
}

/// Where the path stands in `text`, without one `/` at either end.
fn trim(text: &str) -> Result<Range<usize>, DestinationError> {
    if text == "/" {
        return Ok(0..0);
    }
    let start = usize::from(text.starts_with('/'));
    let end = text.len() - usize::from(text.len() > start && text.ends_with('/'));
    if start >= end {
        let help = "`/` is the beginning of the hierarchy".to_owned();
        return Err(error(0..text.len(), "the path is empty").with_help(help));
    }
    if text.len() > PATH_MAX {
        return Err(error(0..text.len(), "the path is longer than 4095 bytes"));
    }
    Ok(start..end)
}

fn check_characters(text: &str) -> Result<(), DestinationError> {
    match text.char_indices().find(|(_, character)| character.is_control()) {
        None => Ok(()),
        Some((at, character)) => Err(error(
            at..at + character.len_utf8(),
            "control characters cannot be part of a cgroup's name",
        )),
    }
}

/// Adds the pieces of the component that stands at `range`.
fn parse_component(
    text: &str,
    range: Range<usize>,
    pieces: &mut Vec<Piece>,
) -> Result<(), DestinationError> {
    let component = &text[range.clone()];
    let mut literal = String::new();
    let mut has_field = false;
    let mut characters = component.char_indices();
    while let Some((at, character)) = characters.next() {
        let read = match character {
            '%' => field(characters.next().map(|(_, letter)| letter), range.start + at)?,
            other => Read::Literal(other),
        };
        match read {
            Read::Literal(character) => {
                literal.push(character);
                push_literal(pieces, character);
            }
            Read::Field(field) => {
                has_field = true;
                pieces.push(Piece::Field(field));
            }
        }
    }
    check_component(range, &literal, has_field)
}

enum Read {
    Literal(char),
    Field(Field),
}

/// What a `%` at `at` followed by `letter` means.
fn field(letter: Option<char>, at: usize) -> Result<Read, DestinationError> {
    let help =
        || "fields are %u %U user, %g %G group, %p %P process; %% is a percent sign".to_owned();
    match letter {
        Some('%') => Ok(Read::Literal('%')),
        Some(letter) => Field::from_letter(letter).map(Read::Field).ok_or_else(|| {
            error(at..at + 1 + letter.len_utf8(), &format!("unknown field `%{letter}`"))
                .with_help(help())
        }),
        None => Err(error(at..at + 1, "a `%` without a letter").with_help(help())),
    }
}

fn check_component(
    range: Range<usize>,
    literal: &str,
    has_field: bool,
) -> Result<(), DestinationError> {
    if literal.len() > NAME_MAX {
        return Err(error(range, "a component is longer than 255 bytes"));
    }
    if has_field {
        return Ok(());
    }
    match literal {
        "" => Err(error(range, "an empty component").with_help("write a single `/`".to_owned())),
        "." | ".." => Err(error(range, &format!("`{literal}` cannot be part of a cgroup's path"))),
        name if is_cgroup_file(name) => Err(error(
            range,
            &format!("`{name}` is the name of a file that the kernel keeps in a cgroup"),
        )),
        _ => Ok(()),
    }
}

fn push_literal(pieces: &mut Vec<Piece>, character: char) {
    match pieces.last_mut() {
        Some(Piece::Literal(text)) => text.push(character),
        Some(Piece::Field(_)) | None => pieces.push(Piece::Literal(character.to_string())),
    }
}

fn error(range: Range<usize>, message: &str) -> DestinationError {
    DestinationError {
        offset: range.start,
        len: range.len(),
        message: message.to_owned(),
        help: None,
    }
}

impl DestinationError {
    fn with_help(self, help: String) -> Self {
        Self { help: Some(help), ..self }
    }
}

impl Field {
    /// Appends the value, escaped. Never empty.
    fn write(self, who: &Who<'_>, out: &mut String) {
        match self {
            Self::UserName => write_or(out, who.user.map(str::as_bytes), who.uid.0),
            Self::UserId => write_or(out, None, who.uid.0),
            Self::GroupName => write_or(out, who.group.map(str::as_bytes), who.gid.0),
            Self::GroupId => write_or(out, None, who.gid.0),
            Self::Program => write_or(out, who.program.map(base_name), who.pid.get()),
            Self::ProcessId => write_or(out, None, who.pid.get()),
        }
    }
}
