//! Where a rule sends a process: a cgroup path with `%`-fields, parsed once. Pure.
#![allow(missing_docs)]

/// A cgroup path relative to its beginning, possibly with fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    text: String,
}
impl Destination {
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self { text: text.to_owned() })
    }
    pub fn as_str(&self) -> &str {
        &self.text
    }
}
