//! Parses a destination in the syntax of cgrules.conf; it does not access the file system.
//!
//! cgrulesengd expands specifiers and escapes and passes the rest to the file system, which
//! interprets `//`, `.` and `..`. They are interpreted here once, because a cgroup hierarchy has no
//! symbolic links that could change their meaning.

use crate::rules::destination::{Destination, DestinationPart, Specifier};

/// A destination and whether cgrulesengd treats it as a template.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ParsedDestination {
    pub(super) destination: Destination,
    /// True if the text differs from the path that it stands for. Only such cgroups are created.
    pub(super) is_template: bool,
}

/// Parses a destination. Returns `None` if it leads out of the hierarchy.
pub(super) fn read(text: &str) -> Option<ParsedDestination> {
    let mut path = PathBuilder::default();
    let mut is_template = false;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, characters.clone().next()) {
            ('%', Some(letter)) => {
                characters.next();
                match Specifier::from_letter(letter) {
                    Some(field) => {
                        is_template = true;
                        path.push(DestinationPart::Field(field));
                    }
                    None => [character, letter].into_iter().for_each(|c| path.literal(c)),
                }
            }
            ('\\', meant) => {
                characters.next();
                is_template = true;
                meant.into_iter().for_each(|meant| path.literal(meant));
            }
            (other, _) => path.literal(other),
        }
    }
    let pieces = path.finish()?;
    Some(ParsedDestination { destination: Destination::from_pieces(text, pieces), is_template })
}

/// The components parsed so far.
#[derive(Default)]
struct PathBuilder {
    done: Vec<Vec<DestinationPart>>,
    last: Vec<DestinationPart>,
    is_outside: bool,
}

impl PathBuilder {
    fn push(&mut self, piece: DestinationPart) {
        self.last.push(piece);
    }

    fn literal(&mut self, character: char) {
        if character == '/' {
            return self.end_component();
        }
        match self.last.last_mut() {
            Some(DestinationPart::Literal(text)) => text.push(character),
            Some(DestinationPart::Field(_)) | None => {
                self.push(DestinationPart::Literal(character.to_string()));
            }
        }
    }

    fn end_component(&mut self) {
        let component = std::mem::take(&mut self.last);
        match &*component {
            [DestinationPart::Literal(text)] if text == ".." => {
                self.is_outside |= self.done.pop().is_none();
            }
            [DestinationPart::Literal(text)] if text == "." => {}
            [] => {}
            [..] => self.done.push(component),
        }
    }

    fn finish(mut self) -> Option<Vec<DestinationPart>> {
        self.end_component();
        let mut pieces: Vec<DestinationPart> = Vec::new();
        for (n, component) in self.done.into_iter().enumerate() {
            let slash = (n > 0).then(|| DestinationPart::Literal("/".to_owned()));
            for piece in slash.into_iter().chain(component) {
                match (pieces.last_mut(), piece) {
                    (Some(DestinationPart::Literal(text)), DestinationPart::Literal(more)) => {
                        text.push_str(&more);
                    }
                    (_, piece) => pieces.push(piece),
                }
            }
        }
        (!self.is_outside).then_some(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the pieces, with specifiers as `{Specifier}`, and whether it is a template.
    fn shown(text: &str) -> Option<(String, bool)> {
        let read = read(text)?;
        assert_eq!(read.destination.as_str(), text);
        let pieces = read.destination.pieces().into_iter().map(|piece| match piece {
            DestinationPart::Literal(text) => text,
            DestinationPart::Field(field) => format!("{{{field:?}}}"),
        });
        Some((pieces.collect(), read.is_template))
    }

    fn is(text: &str, path: &str, is_template: bool) {
        assert_eq!(shown(text), Some((path.to_owned(), is_template)), "{text}");
    }

    #[test]
    fn fields_and_escapes_make_a_template() {
        is("ct/%u/%U-%g%G", "ct/{UserName}/{UserId}-{GroupName}{GroupId}", true);
        is("%p.%P", "{Program}.{ProcessId}", true);
        is(r"ct/\%u", "ct/%u", true);
        is(r"ct/a\\b", r"ct/a\b", true);
        is(r"ct\/a", "ct/a", true);
        is(r"ct/a\", "ct/a", true);
    }

    #[test]
    fn what_is_no_field_stays_two_characters() {
        is("ct/a%%b", "ct/a%%b", false);
        is("a%%u", "a%%u", false);
        is("a%x", "a%x", false);
        is("a%", "a%", false);
        is(r"%\u", r"%\u", false);
    }

    #[test]
    fn the_file_system_s_names_are_given_their_meaning() {
        is("/ct/a", "ct/a", false);
        is("ct/a/", "ct/a", false);
        is("ct//./a", "ct/a", false);
        is("ct/a/../b", "ct/b", false);
        is("ct/%u/../b", "ct/b", true);
        is("a/..", "", false);
        is("/", "", false);
        is("...", "...", false);
        is("%%/..", "", false);
        assert_eq!(shown("../a"), None);
        assert_eq!(shown("a/../../b"), None);
    }
}
