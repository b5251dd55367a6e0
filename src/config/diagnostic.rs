//! What is wrong with a file, where, and what to do. Pure.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Works, but probably not as meant.
    Warning,
    /// Something was not loaded.
    Error,
}

/// One complaint. Prints as `path:line:col: error: message`, the source line and a caret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Absolute path of the file or directory.
    pub file: Arc<Path>,
    /// `None` when the file as a whole is meant.
    pub place: Option<Place>,
    /// What is wrong, one line.
    pub message: String,
    /// What to do, one line.
    pub help: Option<String>,
}

/// A place in a text file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// Number of characters meant; at least 1.
    pub width: u32,
    /// The whole line, without its end.
    pub source: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.message)
    }
}
