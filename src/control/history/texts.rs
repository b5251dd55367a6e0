//! Texts of programs and rules as words, for the second ring. Pure.
//!
//! An entry is a header of two words and up to three parts. Each part is cut after [`LONGEST_PART`]
//! bytes, so that the cost of an entry has a bound; the entry then has a flag.

use crate::kernel::program::ExeInfo;
use crate::rules::{Action, Rule};

/// The greatest length of a part in bytes. Of the 2,140 executables of a Debian host the path has 33
/// on average and at most 115.
const LONGEST_PART: usize = 320;
const PARTS: usize = 3;
const HEADER: usize = 16;
const LONGEST: usize = HEADER + PARTS * LONGEST_PART;
/// The greatest length of an entry in words.
pub(super) const LONGEST_WORDS: usize = LONGEST / 8;
/// The length of the header in words.
pub(super) const HEADER_WORDS: usize = HEADER / 8;

const TRUNCATED: u8 = 1;
const ON_HOST: u8 = 2;
const UNSURE: u8 = 4;
const DELETED: u8 = 8;
const IGNORES: u8 = 16;
const INAPPLICABLE: u8 = 32;

/// The program of a recorded evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordedProgram {
    /// The path of the executable, or the name of a kernel thread.
    pub path: Vec<u8>,
    /// The script or link that was invoked, if known.
    pub invoked: Option<Vec<u8>>,
    /// Whether the path refers to the same file on the host.
    pub on_host: bool,
    /// Whether the executable was not examined, so that a script may have been invoked.
    pub is_unsure: bool,
    /// Whether the file was deleted.
    pub is_deleted: bool,
    /// Whether a path is cut.
    pub is_truncated: bool,
}

/// The rule of a recorded evaluation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordedRule {
    /// The name of the rule, or its file and line.
    pub name: Vec<u8>,
    /// The file that contains it.
    pub file: Vec<u8>,
    /// The line of its first key, from 1.
    pub line: u32,
    /// What it does with a process.
    pub action: RecordedAction,
    /// Whether a text is cut.
    pub is_truncated: bool,
}

/// The action of a recorded rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum RecordedAction {
    /// It ignores the process.
    #[default]
    Ignore,
    /// It cannot be applied on this host.
    Inapplicable,
    /// It moves the process to these cgroups, as written.
    Place(Vec<Vec<u8>>),
}

/// An entry that is built in place, for a writer that must not allocate.
#[derive(Debug)]
pub(super) struct TextBuffer {
    bytes: [u8; LONGEST],
    words: [u64; LONGEST_WORDS],
    length: usize,
    part: usize,
    part_begins: usize,
}

impl Default for TextBuffer {
    fn default() -> Self {
        Self {
            bytes: [0; LONGEST],
            words: [0; LONGEST_WORDS],
            length: HEADER,
            part: 0,
            part_begins: HEADER,
        }
    }
}

impl TextBuffer {
    /// Builds the entry of a program.
    pub(super) fn program(&mut self, exe: ExeInfo<'_>) -> &[u64] {
        let path = exe.exe.path;
        let flags = [
            (exe.exe.on_host, ON_HOST),
            (exe.is_unsure, UNSURE),
            (exe.raw.len() != path.len(), DELETED),
        ];
        self.begin(
            flags.iter().filter(|(is_set, _)| *is_set).fold(0, |all, (_, bit)| all | bit),
            0,
        );
        self.add(path);
        self.end_part();
        self.add(exe.invoked.unwrap_or_default());
        self.end_part();
        self.finish()
    }

    /// Builds the entry of a rule. Several destinations are separated by NUL bytes.
    pub(super) fn rule(&mut self, rule: &Rule) -> &[u64] {
        let flags = match &rule.action {
            // A rule that observes decides no evaluation.
            Action::Ignore(_) | Action::Observe(_) => IGNORES,
            Action::Inapplicable(_) => INAPPLICABLE,
            Action::Place(_) => 0,
        };
        self.begin(flags, rule.origin.line);
        self.add(rule.name.as_bytes());
        self.end_part();
        self.add(rule.origin.file.as_os_str().as_encoded_bytes());
        self.end_part();
        for (index, target) in rule.action.targets().iter().enumerate() {
            self.add(if index > 0 { b"\0" } else { b"" });
            self.add(target.destination.as_str().as_bytes());
        }
        self.end_part();
        self.finish()
    }

    /// Returns whether a part of the entry was cut.
    pub(super) const fn is_truncated(&self) -> bool {
        self.bytes[0] & TRUNCATED != 0
    }

    fn begin(&mut self, flags: u8, line: u32) {
        self.bytes[..HEADER].fill(0);
        self.bytes[0] = flags;
        self.bytes[8..12].copy_from_slice(&line.to_ne_bytes());
        self.length = HEADER;
        self.part = 0;
        self.part_begins = HEADER;
    }

    /// Appends to the current part.
    fn add(&mut self, text: &[u8]) {
        let room = self.part_begins + LONGEST_PART - self.length;
        let count = text.len().min(room);
        if count < text.len() {
            self.bytes[0] |= TRUNCATED;
        }
        self.bytes[self.length..][..count].copy_from_slice(&text[..count]);
        self.length += count;
    }

    fn end_part(&mut self) {
        // At most LONGEST_PART.
        let length = (self.length - self.part_begins) as u16;
        let at = 2 + 2 * self.part;
        self.bytes[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self.part += 1;
        self.part_begins = self.length;
    }

    fn finish(&mut self) -> &[u64] {
        let end = self.length.next_multiple_of(8);
        self.bytes[self.length..end].fill(0);
        for (word, bytes) in self.words.iter_mut().zip(self.bytes[..end].chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap_or_default());
        }
        &self.words[..end / 8]
    }
}

/// Returns the number of words of the entry with this header; `None` for words that are no header.
pub(super) fn length(header: [u64; HEADER_WORDS]) -> Option<usize> {
    let lengths = Header::of(header)?.lengths;
    Some((HEADER + lengths.iter().sum::<usize>()).div_ceil(8))
}

struct Header {
    flags: u8,
    lengths: [usize; PARTS],
    line: u32,
}

impl Header {
    fn of([first, second]: [u64; HEADER_WORDS]) -> Option<Self> {
        let [flags, _, a, b, c, d, e, f] = first.to_ne_bytes();
        let lengths =
            [[a, b], [c, d], [e, f]].map(|length| usize::from(u16::from_ne_bytes(length)));
        let [a, b, c, d, ..] = second.to_ne_bytes();
        let line = u32::from_ne_bytes([a, b, c, d]);
        lengths.iter().all(|length| *length <= LONGEST_PART).then_some(Self {
            flags,
            lengths,
            line,
        })
    }
}

/// An entry that was copied from the ring.
struct Entry {
    header: Header,
    parts: [Vec<u8>; PARTS],
}

impl Entry {
    fn decode(words: &[u64]) -> Option<Self> {
        let (header, rest) = words.split_first_chunk()?;
        let header = Header::of(*header)?;
        let bytes: Vec<u8> = rest.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut bytes = &bytes[..];
        let mut parts = [const { Vec::new() }; PARTS];
        for (part, length) in parts.iter_mut().zip(header.lengths) {
            let (own, others) = bytes.split_at_checked(length)?;
            *part = own.to_vec();
            bytes = others;
        }
        Some(Self { header, parts })
    }

    fn has(&self, flag: u8) -> bool {
        self.header.flags & flag != 0
    }
}

/// Returns the program with these words; `None` for words that are none.
pub(super) fn program(words: &[u64]) -> Option<RecordedProgram> {
    let entry = Entry::decode(words)?;
    let (on_host, is_unsure) = (entry.has(ON_HOST), entry.has(UNSURE));
    let (is_deleted, is_truncated) = (entry.has(DELETED), entry.has(TRUNCATED));
    let [path, invoked, _] = entry.parts;
    let invoked = Some(invoked).filter(|invoked| !invoked.is_empty());
    Some(RecordedProgram { path, invoked, on_host, is_unsure, is_deleted, is_truncated })
}

/// Returns the rule with these words; `None` for words that are none.
pub(super) fn rule(words: &[u64]) -> Option<RecordedRule> {
    let entry = Entry::decode(words)?;
    let line = entry.header.line;
    let is_truncated = entry.has(TRUNCATED);
    let (ignores, inapplicable) = (entry.has(IGNORES), entry.has(INAPPLICABLE));
    let [name, file, destinations] = entry.parts;
    let action = if ignores {
        RecordedAction::Ignore
    } else if inapplicable {
        RecordedAction::Inapplicable
    } else {
        RecordedAction::Place(destinations.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect())
    };
    Some(RecordedRule { name, file, line, action, is_truncated })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::test_policy;
    use crate::rules::ExeFacts;
    use proptest::prelude::*;

    fn coded(exe: ExeInfo<'_>) -> RecordedProgram {
        let mut buffer = TextBuffer::default();
        let words = buffer.program(exe);
        assert_eq!(length(*words.first_chunk().unwrap()), Some(words.len()));
        program(words).unwrap()
    }

    fn rule_of(text: &str) -> RecordedRule {
        let policy = test_policy(text, Vec::new());
        let mut buffer = TextBuffer::default();
        rule(buffer.rule(&policy.matcher.rules()[0])).unwrap()
    }

    #[test]
    fn rules_keep_what_they_do() {
        let own = rule_of("[[rule]]\nname = \"people\"\nuser = \"5\"\ncgroup = \"people/%u\"\n");
        assert_eq!((&own.name[..], &own.file[..], own.line), (&b"people"[..], &b"/a.toml"[..], 3));
        assert_eq!(own.action, RecordedAction::Place(vec![b"people/%u".to_vec()]));
        let own = rule_of("[[rule]]\nuser = \"5\"\nignore = true\n");
        assert_eq!((&own.name[..], own.action), (&b"a.toml:3"[..], RecordedAction::Ignore));
    }

    #[test]
    fn a_long_path_is_cut_and_says_so() {
        let path = [b"/".to_vec(), vec![b'a'; 4000]].concat();
        let exe = ExeFacts { path: &path, on_host: true };
        let own = coded(ExeInfo { raw: &path, exe, invoked: Some(b"/b"), is_unsure: false });
        assert_eq!((own.path, own.is_truncated), (path[..LONGEST_PART].to_vec(), true));
        assert_eq!((own.invoked, own.is_deleted), (Some(b"/b".to_vec()), false));
    }

    proptest! {
        #[test]
        fn programs_are_read_as_they_were_written(
            path in prop::collection::vec(any::<u8>(), 0..LONGEST_PART),
            invoked in prop::option::of(prop::collection::vec(any::<u8>(), 1..LONGEST_PART)),
            on_host: bool, is_unsure: bool, is_deleted: bool,
        ) {
            let ending: &[u8] = if is_deleted { b" (deleted)" } else { b"" };
            let raw = [&path[..], ending].concat();
            let exe = ExeFacts { path: &path, on_host };
            let own = coded(ExeInfo { raw: &raw, exe, invoked: invoked.as_deref(), is_unsure });
            let is_truncated = false;
            let expected =
                RecordedProgram { path, invoked, on_host, is_unsure, is_deleted, is_truncated };
            prop_assert_eq!(own, expected);
        }

        #[test]
        fn any_words_are_a_text_or_none(words in prop::collection::vec(any::<u64>(), 0..200)) {
            let _ = program(&words);
            let _ = rule(&words);
            if let Some(header) = words.first_chunk() {
                prop_assert!(length(*header).is_none_or(|length| length <= LONGEST_WORDS));
            }
        }

        /// What an entry left behind must not be part of the next one.
        #[test]
        fn a_buffer_is_used_again(paths in prop::collection::vec("[a-z/]{0,400}", 1..6)) {
            let mut buffer = TextBuffer::default();
            for path in &paths {
                let path = path.as_bytes();
                let exe = ExeFacts { path, on_host: false };
                let exe = ExeInfo { raw: path, exe, invoked: None, is_unsure: false };
                let own = buffer.program(exe).to_vec();
                let mut fresh = TextBuffer::default();
                prop_assert_eq!(&own[..], fresh.program(exe));
                prop_assert_eq!(buffer.is_truncated(), path.len() > LONGEST_PART);
            }
        }
    }
}
