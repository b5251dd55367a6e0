//! Tests of a text, such as the name of a unit. It must not read anything.

use super::glob::Glob;

/// A test of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextTest {
    /// The whole text, compared literally.
    Is(Box<[u8]>),
    /// A pattern for the whole text. `*` and `?` stop at `/`, `**` does not.
    Matches(Glob),
}

impl TextTest {
    /// Checks whether the test accepts the text.
    pub fn accepts(&self, text: &[u8]) -> bool {
        match self {
            Self::Is(own) => **own == *text,
            Self::Matches(glob) => glob.matches(text),
        }
    }

    /// Returns the text or pattern as written.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Is(text) => text,
            Self::Matches(glob) => glob.as_bytes(),
        }
    }
}
