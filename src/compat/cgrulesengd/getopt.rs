//! Command-line parser with the semantics of getopt_long(3). Pure.
//!
//! clap, which `cgruled` uses, reads `-f=log` as the file `log`, where cgrulesengd reads `=log`,
//! and it does not accept abbreviations.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Kind of argument that an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ArgumentKind {
    Nothing,
    /// Attached to the option, or the next word.
    Argument,
    /// Attached to the option, or absent.
    Attached,
}

/// Description of one option of the command line.
#[derive(Clone, Copy, Debug)]
pub(super) struct OptionSpec<F> {
    pub(super) flag: F,
    /// `None` for an option that cgrulesengd does not have: it has no letter, and its name cannot
    /// be abbreviated, so that all abbreviations accepted by cgrulesengd keep their meaning.
    pub(super) letter: Option<u8>,
    pub(super) name: &'static str,
    pub(super) takes: ArgumentKind,
}

/// Iterator over the options of a command line. Words that are not options are skipped.
pub(super) struct OptionParser<'s, F> {
    specs: &'s [OptionSpec<F>],
    words: VecDeque<OsString>,
    /// Letters of the current word that are not read yet.
    letters: VecDeque<u8>,
}

impl<'s, F: Copy> OptionParser<'s, F> {
    pub(super) fn new(
        specs: &'s [OptionSpec<F>],
        words: impl IntoIterator<Item = OsString>,
    ) -> Self {
        Self { specs, words: words.into_iter().collect(), letters: VecDeque::new() }
    }

    /// Returns the next option with its argument, or the error message for an invalid option.
    pub(super) fn next_option(&mut self) -> Option<Result<(F, Option<OsString>), String>> {
        if let Some(letter) = self.letters.pop_front() {
            return Some(self.letter(letter));
        }
        while let Some(word) = self.words.pop_front() {
            match word.as_bytes() {
                b"--" => return None,
                [b'-', b'-', name @ ..] => return Some(self.name(name)),
                [b'-', letters @ ..] if !letters.is_empty() => {
                    self.letters = letters.iter().copied().collect();
                    return self.next_option();
                }
                _ => {}
            }
        }
        None
    }

    fn letter(&mut self, letter: u8) -> Result<(F, Option<OsString>), String> {
        let Some(spec) = self.specs.iter().find(|spec| spec.letter == Some(letter)) else {
            return Err(format!("unknown option -{}", letter.escape_ascii()));
        };
        if spec.takes == ArgumentKind::Nothing {
            return Ok((spec.flag, None));
        }
        let rest = Vec::from(std::mem::take(&mut self.letters));
        let attached = (!rest.is_empty()).then(|| OsString::from_vec(rest));
        self.argument(*spec, attached)
    }

    fn name(&mut self, word: &[u8]) -> Result<(F, Option<OsString>), String> {
        let equals = word.iter().position(|&byte| byte == b'=');
        let (name, attached) = match equals {
            Some(at) => (&word[..at], Some(OsStr::from_bytes(&word[at + 1..]).to_owned())),
            None => (word, None),
        };
        let spec = self.named(name)?;
        if spec.takes == ArgumentKind::Nothing && attached.is_some() {
            return Err(format!("option --{} takes no argument", spec.name));
        }
        self.argument(spec, attached)
    }

    fn named(&self, name: &[u8]) -> Result<OptionSpec<F>, String> {
        if let Some(spec) = self.specs.iter().find(|spec| spec.name.as_bytes() == name) {
            return Ok(*spec);
        }
        let begins =
            |spec: &&OptionSpec<F>| spec.letter.is_some() && spec.name.as_bytes().starts_with(name);
        let found: Vec<&OptionSpec<F>> = self.specs.iter().filter(begins).collect();
        match *found {
            [spec] => Ok(*spec),
            [] => Err(format!("unknown option --{}", name.escape_ascii())),
            _ => Err(format!("ambiguous option --{}", name.escape_ascii())),
        }
    }

    fn argument(
        &mut self,
        spec: OptionSpec<F>,
        attached: Option<OsString>,
    ) -> Result<(F, Option<OsString>), String> {
        if spec.takes != ArgumentKind::Argument || attached.is_some() {
            return Ok((spec.flag, attached));
        }
        match self.words.pop_front() {
            Some(word) => Ok((spec.flag, Some(word))),
            None => Err(format!("option --{} requires an argument", spec.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECS: [OptionSpec<char>; 6] = [
        OptionSpec { flag: 'v', letter: Some(b'v'), name: "verbose", takes: ArgumentKind::Nothing },
        OptionSpec {
            flag: 'f',
            letter: Some(b'f'),
            name: "logfile",
            takes: ArgumentKind::Argument,
        },
        OptionSpec { flag: 's', letter: Some(b's'), name: "syslog", takes: ArgumentKind::Attached },
        OptionSpec {
            flag: 'u',
            letter: Some(b'u'),
            name: "socket-user",
            takes: ArgumentKind::Argument,
        },
        OptionSpec {
            flag: 'g',
            letter: Some(b'g'),
            name: "socket-group",
            takes: ArgumentKind::Argument,
        },
        OptionSpec { flag: '!', letter: None, name: "strict", takes: ArgumentKind::Nothing },
    ];

    /// Formats the options as `v f=x s !`, with `?` for each error.
    fn read(line: &str) -> String {
        let words = line.split_whitespace().map(OsString::from);
        let mut words = OptionParser::new(&SPECS, words);
        let mut read = Vec::new();
        while let Some(option) = words.next_option() {
            read.push(match option {
                Ok((flag, None)) => flag.to_string(),
                Ok((flag, Some(argument))) => format!("{flag}={}", argument.to_string_lossy()),
                Err(_) => "?".to_owned(),
            });
        }
        read.join(" ")
    }

    #[test]
    fn letters_stand_together_and_the_last_has_the_argument() {
        assert_eq!(read("-vvf- -v"), "v v f=- v");
        assert_eq!(read("-f=x -f -v"), "f==x f=-v");
        assert_eq!(read("-s3 -s 3 -sv"), "s=3 s s=v");
        assert_eq!(read("-vxv"), "v ? v");
        assert_eq!(read("-f"), "?");
    }

    #[test]
    fn names_may_be_cut_short_while_they_are_clear() {
        assert_eq!(read("--v --log x --sy=3 --syslog 3"), "v f=x s=3 s");
        assert_eq!(read("--s --socket- --socket-u=a --=x"), "? ? u=a ?");
        assert_eq!(read("--verbose=1 --logfile= --logfile"), "? f= ?");
    }

    #[test]
    fn an_option_of_ours_steals_no_abbreviation() {
        assert_eq!(read("--strict --stric --st --s"), "! ? ? ?");
    }

    #[test]
    fn other_words_are_passed_over() {
        assert_eq!(read("a -v - b -v -- -v"), "v v");
        assert_eq!(read("-f -- -v"), "f=-- v");
    }
}
