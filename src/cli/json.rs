//! JSON output that is safe on a terminal: characters that could control it or hide text must be written as
//! escapes such as `\u009b`, which parsers read as the same text.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use crate::config::escape::is_unsafe;

/// Writes a value as indented JSON.
pub(super) fn write(value: &impl Serialize, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", safe(&serde_json::to_string_pretty(value)?))
}

/// Returns a value as one line of JSON, without its end.
pub(super) fn line(value: &impl Serialize) -> io::Result<String> {
    Ok(safe(&serde_json::to_string(value)?))
}

fn safe(plain: &str) -> String {
    let mut safe = String::with_capacity(plain.len());
    for character in plain.chars() {
        // Line ends occur only between values: those in text are escaped already.
        if character == '\n' || !is_unsafe(character) {
            safe.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            let _ = write!(safe, "\\u{unit:04x}");
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_is_the_same_text_and_safe() {
        let hostile = vec!["a\n\u{1b}[2J\u{7f}\u{9b}31m\u{202e}\u{e0001}é"];
        let mut out = Vec::new();
        write(&hostile, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.chars().all(|own| own == '\n' || !is_unsafe(own)), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), hostile);
        let line = line(&hostile).unwrap();
        assert!(!line.chars().any(is_unsafe), "{line}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&line).unwrap(), hostile);
    }
}
