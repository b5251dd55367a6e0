//! Cgroup paths with `%` specifiers: parses a path once and renders it for a process. A value must
//! never change the shape of the path.
//!
//! Users choose the values of specifiers, so [`Destination::render`] escapes them: every component
//! of the text remains exactly one component, and none is `.`, `..` or the name of an interface
//! file.

use std::fmt;
use std::ops::Range;

use super::base_name;
use super::component::{Component, NAME_MAX, is_cgroup_file, write_or};
use super::context::TextTest;
use super::glob::Glob;
use crate::event::{Gid, Pid, Uid};

/// The maximum length of a path in bytes (`PATH_MAX` without its NUL byte).
const PATH_MAX: usize = 4095;

/// Returns the paths of the cgroups from the first to the last of a path, each without `/` at
/// either end.
pub fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let path = path.trim_matches('/');
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.map(|end| &path[..end]).filter(|prefix| !prefix.is_empty())
}

/// A cgroup path relative to its base, possibly with specifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    text: Box<str>,
    /// `None` if the path is `text` itself, without `/` at either end.
    pieces: Option<Box<[DestinationPart]>>,
}

/// A part of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DestinationPart {
    /// Literal text, including `/`.
    Literal(String),
    /// A value that differs between processes.
    Field(Specifier),
}

/// A `%` specifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Specifier {
    /// `%u`: the name of the user, or the UID if there is none.
    UserName,
    /// `%U`: the numeric UID.
    UserId,
    /// `%g`: the name of the group, or the GID if there is none.
    GroupName,
    /// `%G`: the numeric GID.
    GroupId,
    /// `%p`: the base name of the executable, or the PID if it was not read.
    Program,
    /// `%P`: the PID.
    ProcessId,
}

impl Specifier {
    /// Returns the specifier with this letter.
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

/// The values that replace specifiers.
#[derive(Clone, Copy, Debug)]
pub struct SpecifierValues<'a> {
    /// The effective user ID.
    pub uid: Uid,
    /// The name of the effective user, if it has one.
    pub user: Option<&'a str>,
    /// The effective group ID.
    pub gid: Gid,
    /// The name of the effective group, if it has one.
    pub group: Option<&'a str>,
    /// The PID of the process.
    pub pid: Pid,
    /// The path or base name of the executable, if it was read.
    pub program: Option<&'a [u8]>,
}

/// A syntax error in a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DestinationError {
    /// The number of bytes before the invalid part.
    pub offset: usize,
    /// The length of that part in bytes; 0 if something is missing.
    pub len: usize,
    /// The reason, without the position.
    pub message: String,
    /// The correction to suggest.
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
    /// Parses a path with specifiers. One `/` at each end is accepted and dropped; `/` alone is the
    /// base itself.
    ///
    /// # Errors
    /// Returns the first part that cannot name a cgroup, or an unknown specifier.
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
        Ok(Self::from_pieces(text, pieces))
    }

    /// Creates a destination from the parts of another syntax. `text` is the original spelling. The
    /// parts are not checked; values of specifiers are escaped nevertheless.
    pub fn from_pieces(text: &str, pieces: Vec<DestinationPart>) -> Self {
        let is_plain = match &*pieces {
            [] => text.trim_matches('/').is_empty(),
            [DestinationPart::Literal(path)] => path == text.trim_matches('/'),
            _ => false,
        };
        let pieces = (!is_plain).then(|| pieces.into());
        Self { text: text.into(), pieces }
    }

    /// Returns the destination as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the parts in order.
    pub fn pieces(&self) -> Vec<DestinationPart> {
        match (&self.pieces, self.text.trim_matches('/')) {
            (Some(pieces), _) => pieces.to_vec(),
            (None, "") => Vec::new(),
            (None, path) => vec![DestinationPart::Literal(path.to_owned())],
        }
    }

    /// Checks whether the path differs between processes.
    pub fn has_fields(&self) -> bool {
        self.fields().next().is_some()
    }

    /// Returns the specifiers in order, with repetitions.
    pub fn fields(&self) -> impl Iterator<Item = Specifier> + '_ {
        self.pieces.iter().flatten().filter_map(|piece| match piece {
            DestinationPart::Field(field) => Some(*field),
            DestinationPart::Literal(_) => None,
        })
    }

    /// Returns a test that accepts the path for each process, below `root`, a path without a slash at
    /// its end. A value that had to be shortened is not accepted.
    pub fn test(&self, root: &str) -> TextTest {
        if !self.has_fields() {
            let path = self.text.trim_matches('/');
            let slash = if path.is_empty() && !root.is_empty() { "" } else { "/" };
            return TextTest::Is(format!("{root}{slash}{path}").into_bytes().into());
        }
        // The name of a component that begins like a file of the kernel gets an underscore.
        let mut name = String::new();
        let mut parts = vec![Some(format!("{root}/"))];
        let mut start = parts.len();
        for piece in self.pieces() {
            match piece {
                DestinationPart::Field(_) => {
                    name.push('x');
                    parts.push(None);
                }
                DestinationPart::Literal(text) => {
                    for (n, part) in text.split('/').enumerate() {
                        if n > 0 {
                            mark_escaped(&name, start, &mut parts);
                            parts.push(Some("/".to_owned()));
                            (name, start) = (String::new(), parts.len());
                        }
                        name.push_str(part);
                        parts.push(Some(part.to_owned()));
                    }
                }
            }
        }
        mark_escaped(&name, start, &mut parts);
        TextTest::Matches(Glob::with_gaps(parts.iter().map(Option::as_deref)))
    }

    /// Appends the path for `who` to `out`, without `/` at either end.
    pub fn render(&self, who: &SpecifierValues<'_>, out: &mut String) {
        let Some(pieces) = &self.pieces else {
            return out.push_str(self.text.trim_matches('/'));
        };
        let mut component = Component::at(out.len());
        for piece in pieces {
            match piece {
                DestinationPart::Field(field) => {
                    component.has_field = true;
                    field.write(who, out);
                }
                DestinationPart::Literal(text) => {
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

/// Puts an underscore before the parts from `start` if they are rendered with one: see
/// [`Component::finish`].
fn mark_escaped(name: &str, start: usize, parts: &mut Vec<Option<String>>) {
    if parts[start..].contains(&None) && is_cgroup_file(name.trim_start_matches('_')) {
        parts.insert(start, Some("_".to_owned()));
    }
}

/// Returns the range of the path in `text`, without one `/` at either end.
fn trim(text: &str) -> Result<Range<usize>, DestinationError> {
    if text == "/" {
        return Ok(0..0);
    }
    let start = usize::from(text.starts_with('/'));
    let end = text.len() - usize::from(text.ends_with('/'));
    if start >= end {
        let help = "`/` is the base of the hierarchy".to_owned();
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
            "a cgroup name cannot contain control characters",
        )),
    }
}

/// Appends the parts of the component at `range`.
fn parse_component(
    text: &str,
    range: Range<usize>,
    pieces: &mut Vec<DestinationPart>,
) -> Result<(), DestinationError> {
    let component = &text[range.clone()];
    let mut literal = String::new();
    let mut has_field = false;
    let mut characters = component.char_indices();
    while let Some((at, character)) = characters.next() {
        let read = match character {
            '%' => field(characters.next().map(|(_, letter)| letter), range.start + at)?,
            other => ParsedPart::Literal(other),
        };
        match read {
            ParsedPart::Literal(character) => {
                literal.push(character);
                push_literal(pieces, character);
            }
            ParsedPart::Field(field) => {
                has_field = true;
                pieces.push(DestinationPart::Field(field));
            }
        }
    }
    check_component(range, &literal, has_field)
}

enum ParsedPart {
    Literal(char),
    Field(Specifier),
}

/// Interprets a `%` at `at` followed by `letter`.
fn field(letter: Option<char>, at: usize) -> Result<ParsedPart, DestinationError> {
    let wrong = match letter {
        Some('%') => return Ok(ParsedPart::Literal('%')),
        Some(letter) => {
            if let Some(specifier) = Specifier::from_letter(letter) {
                return Ok(ParsedPart::Field(specifier));
            }
            error(at..at + 1 + letter.len_utf8(), &format!("unknown specifier `%{letter}`"))
        }
        None => error(at..at + 1, "incomplete specifier: `%` without a letter"),
    };
    let help = "specifiers are %u %U user, %g %G group, %p %P process; %% is a percent sign";
    Err(wrong.with_help(help.to_owned()))
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
        "." | ".." => Err(error(range, &format!("`{literal}` is not allowed in a cgroup path"))),
        name if is_cgroup_file(name) => {
            Err(error(range, &format!("`{name}` is the name of a cgroup interface file")))
        }
        _ => Ok(()),
    }
}

fn push_literal(pieces: &mut Vec<DestinationPart>, character: char) {
    match pieces.last_mut() {
        Some(DestinationPart::Literal(text)) => text.push(character),
        Some(DestinationPart::Field(_)) | None => {
            pieces.push(DestinationPart::Literal(character.to_string()));
        }
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

impl Specifier {
    /// Appends the escaped value. Never appends nothing.
    fn write(self, who: &SpecifierValues<'_>, out: &mut String) {
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

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const WHO: SpecifierValues<'static> = SpecifierValues {
        uid: Uid(1001),
        user: Some("alice"),
        gid: Gid(100),
        group: None,
        pid: match Pid::new(42) {
            Some(pid) => pid,
            None => unreachable!(),
        },
        program: Some(b"/usr/bin/vim"),
    };

    fn render(text: &str, who: &SpecifierValues<'_>) -> String {
        let mut out = String::new();
        Destination::parse(text).unwrap().render(who, &mut out);
        out
    }

    #[test]
    fn fields_are_filled() {
        assert_eq!(render("sites/%u", &WHO), "sites/alice");
        assert_eq!(render("/%U-%g-%G/%p.%P/", &WHO), "1001-100-100/vim.42");
        assert_eq!(render("100%%/a b", &WHO), "100%/a b");
        assert_eq!(render("%u%p", &SpecifierValues { user: None, program: None, ..WHO }), "100142");
        assert_eq!(
            render("%u%p", &SpecifierValues { user: Some(""), program: Some(b"/"), ..WHO }),
            "100142"
        );
        assert_eq!(render("/", &WHO), "");
    }

    #[test]
    fn the_text_is_kept() {
        let destination = Destination::parse("/a/%u%%/").unwrap();
        assert_eq!(destination.to_string(), "/a/%u%%/");
        assert_eq!(destination.fields().collect::<Vec<_>>(), [Specifier::UserName]);
        assert!(destination.has_fields());
        assert!(!Destination::parse("a%%u").unwrap().has_fields());
    }

    #[test]
    fn values_cannot_leave_their_component() {
        for (text, user, expected) in [
            ("s/%u", "..", "s/\\x2e\\x2e"),
            ("s/.%u", ".", "s/\\x2e\\x2e"),
            ("s/%u", "a/../b\n", "s/a\\x2f..\\x2fb\\x0a"),
            ("s/%u", "\\x2e", "s/\\x5cx2e"),
            ("s/%u", "tasks", "s/_tasks"),
            ("s/%u", "_tasks", "s/__tasks"),
            ("s/cpu.%u", "max", "s/_cpu.max"),
        ] {
            assert_eq!(render(text, &SpecifierValues { user: Some(user), ..WHO }), expected);
        }
        assert_eq!(
            render("s/%p", &SpecifierValues { program: Some(b"a\xffb"), ..WHO }),
            "s/a\\xffb"
        );
    }

    #[test]
    fn the_test_of_a_destination_accepts_what_is_rendered() {
        for text in ["/", "a/b", "s/%u", "s/cpu.%u", "s/cpu.%u/x", "%p/cgroup.%U", "a-%g"] {
            for root in ["", "/pool"] {
                let rendered = render(text, &WHO);
                let path = match rendered.as_str() {
                    "" if !root.is_empty() => root.to_owned(),
                    _ => format!("{root}/{rendered}"),
                };
                let test = Destination::parse(text).unwrap().test(root);
                assert!(test.accepts(path.as_bytes()), "{text} {path}");
                assert!(!test.accepts(format!("{path}/x").as_bytes()), "{text} {path}");
            }
        }
    }

    #[test]
    fn only_a_component_of_its_own_length_is_cut() {
        let of_length = |length: usize| {
            let user = "a".repeat(length);
            render("long/%u", &SpecifierValues { user: Some(&user), ..WHO })
        };
        assert_eq!(of_length(255), format!("long/{}", "a".repeat(255)));
        assert!(of_length(256).contains('~'));
    }

    #[test]
    fn a_path_has_at_most_4095_bytes() {
        let component = "a".repeat(255);
        let path = [component.as_str(); 16].join("/");
        assert_eq!(path.len(), PATH_MAX);
        assert!(Destination::parse(&path).is_ok());
        assert!(Destination::parse(&format!("/{path}")).is_err());
    }

    #[test]
    fn long_values_are_cut_and_stay_apart() {
        let [a, again, b] = ["a", "a", "b"].map(|last| {
            render("%u", &SpecifierValues { user: Some(&("ü".repeat(200) + last)), ..WHO })
        });
        assert!(a.len() <= 255 && a.contains('~'));
        assert_eq!(a, again);
        assert_ne!(a, b);
    }

    #[test]
    fn errors_say_where() {
        fn at(text: &str) -> (usize, usize) {
            let error = Destination::parse(text).unwrap_err();
            (error.offset, error.len)
        }
        assert_eq!(at(""), (0, 0));
        assert_eq!(at("//"), (0, 2));
        assert_eq!(at("//a"), (1, 0));
        assert_eq!(at("a//b"), (2, 0));
        assert_eq!(at("a/../b"), (2, 2));
        assert_eq!(at("/."), (1, 1));
        assert_eq!(at("a/%x"), (2, 2));
        assert_eq!(at("ä/%ü"), (3, 3));
        assert_eq!(at("a/b%"), (3, 1));
        assert_eq!(at("a\tb"), (1, 1));
        assert_eq!(at("a/cgroup.procs"), (2, 12));
        assert_eq!(at("memory.high"), (0, 11));
        assert_eq!(at("tasks/a"), (0, 5));
        assert_eq!(at(&format!("a/{}", "b".repeat(256))), (2, 256));
        assert_eq!(at(&"a/".repeat(2048)), (0, 4096));
        assert!(Destination::parse("php.fpm/memory/...").is_ok());
    }

    #[test]
    fn pieces_of_another_syntax_are_taken_as_they_are() {
        let pieces = vec![
            DestinationPart::Literal("/a/../b//".to_owned()),
            DestinationPart::Field(Specifier::UserName),
        ];
        let destination = Destination::from_pieces("/a/../b//%u", pieces);
        let mut out = String::new();
        destination.render(&WHO, &mut out);
        assert_eq!(out, "/a/../b//alice");
    }

    /// Generates values from parts that could change the shape of a path.
    fn hostile() -> impl Strategy<Value = String> {
        let part = select(vec![
            ".",
            "..",
            "/",
            "\\",
            "\n",
            "\0",
            "\u{85}",
            "cgroup.",
            "procs",
            "cpu",
            "tasks",
            "_",
            "a",
            "ü",
            "\u{2028}",
            "%u",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        ]);
        vec(part, 0..12).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

        #[test]
        fn no_value_changes_the_shape_of_a_path(
            user in hostile(),
            group in prop_oneof![hostile(), any::<String>()],
            program in prop_oneof![hostile().prop_map(String::into_bytes), any::<Vec<u8>>()],
            parts in vec(select(vec!["%u", "%g", "%p", "%U", ".", "a", "cpu.", "/"]), 1..8),
        ) {
            let Ok(destination) = Destination::parse(&parts.concat()) else { return Ok(()) };
            let who = SpecifierValues {
                user: Some(&user),
                group: Some(&group),
                program: Some(&program),
                ..WHO
            };
            let (mut plain, mut out) = (String::new(), String::new());
            destination.render(&WHO, &mut plain);
            destination.render(&who, &mut out);
            prop_assert_eq!(out.split('/').count(), plain.split('/').count());
            if !plain.is_empty() {
                for component in out.split('/') {
                    prop_assert!(!["", ".", ".."].contains(&component));
                    prop_assert!(!component.chars().any(char::is_control));
                    prop_assert!(component.len() <= 255 && !is_cgroup_file(component));
                }
            }
        }

        #[test]
        fn any_text_is_a_destination_or_an_error_within_it(text in hostile()) {
            if let Err(error) = Destination::parse(&text) {
                prop_assert!(text.get(error.offset..error.offset + error.len).is_some());
            }
        }
    }
}
