//! Shell patterns over bytes. Pure.

/// A pattern: `?` one byte but `/`, `*` any bytes but `/`, `**` any bytes, `[a-c]` and `[!a-c]` one
/// byte but `/`, `\` the next byte itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Glob {
    text: Vec<u8>,
}

impl Glob {
    /// Whether `text` has a byte that makes it a pattern.
    pub fn is_glob(text: &[u8]) -> bool {
        text.iter().any(|byte| b"*?[\\".contains(byte))
    }

    /// The pattern as written.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }

    /// Whether the pattern matches the whole of `subject`.
    pub fn matches(&self, _subject: &[u8]) -> bool {
        false
    }
}
