//! Parses `requires`, the version of cgruled that a rule file needs. It must not accept a file that
//! needs a later version than this program: the meaning of its rules is then unknown.

use std::fmt;

use super::table::{TomlSection, Value, shortened};

/// A version of cgruled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProgramVersion {
    major: u32,
    minor: u32,
    patch: u32,
}

/// The first version with `requires`, `[[test]]` and `observe`.
pub(super) const FIRST_WITH_TESTS: ProgramVersion = ProgramVersion { major: 0, minor: 2, patch: 0 };

impl fmt::Display for ProgramVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)?;
        if self.patch == 0 { Ok(()) } else { write!(f, ".{}", self.patch) }
    }
}

impl ProgramVersion {
    /// Returns the version of this program.
    pub(super) fn own() -> Self {
        // A pre-release reads what its release will read.
        let text = env!("CARGO_PKG_VERSION").split(['-', '+']).next().unwrap_or_default();
        Self::parse(text).unwrap_or(FIRST_WITH_TESTS)
    }

    /// Parses `MAJOR.MINOR` or `MAJOR.MINOR.PATCH`.
    fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split('.').map(|part| {
            let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| part.parse().ok()).flatten()
        });
        let (major, minor) = (numbers.next()??, numbers.next()??);
        let patch = match numbers.next() {
            Some(patch) => patch?,
            None => 0,
        };
        numbers.next().is_none().then_some(Self { major, minor, patch })
    }
}

/// Reads the version that a file requires. `None`, with an error, if it is invalid or later than
/// `own`: no part of the file may be loaded.
pub(super) fn read(
    value: &Value<'_>,
    own: ProgramVersion,
    piece: &mut TomlSection<'_, '_>,
) -> Option<ProgramVersion> {
    let help = format!("write the version that the file needs as a string: requires = \"{own}\"");
    let Some(text) = value.get_ref().as_str() else {
        let message = "no rules of this file are loaded: requires must be a string";
        piece.error_help(value.span(), message, help);
        return None;
    };
    let Some(required) = ProgramVersion::parse(text) else {
        let message = format!(
            "no rules of this file are loaded: invalid version \"{}\" in requires",
            shortened(text)
        );
        piece.error_help(value.span(), message, help);
        return None;
    };
    if required > own {
        let message = format!(
            "no rules of this file are loaded: it requires cgruled {required}, and this is cgruled {own}"
        );
        let help = format!("upgrade cgruled to {required} or later");
        piece.error_help(value.span(), message, help);
        return None;
    }
    Some(required)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_two_or_three_numbers() {
        let version = |major, minor, patch| Some(ProgramVersion { major, minor, patch });
        assert_eq!(ProgramVersion::parse("0.3"), version(0, 3, 0));
        assert_eq!(ProgramVersion::parse("1.20.3"), version(1, 20, 3));
        for text in ["", "1", "1.", ".1", "1.2.", "1.2.3.4", "+1.2", "1.-2", "1.2a", "v1.2", "1 .2"]
        {
            assert_eq!(ProgramVersion::parse(text), None, "{text}");
        }
        assert_eq!(ProgramVersion::parse("1.99999999999"), None);
        assert!(ProgramVersion::own() >= FIRST_WITH_TESTS);
        assert_eq!(version(0, 3, 0).unwrap().to_string(), "0.3");
        assert_eq!(version(0, 3, 1).unwrap().to_string(), "0.3.1");
    }
}
