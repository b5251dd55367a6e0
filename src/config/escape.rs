//! Escapes untrusted text for one line of a terminal, so that it cannot forge a line, control the
//! terminal or hide text; it never shortens it.

use std::fmt::{self, Write};

/// A text that is safe to print on one line.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| {
            if is_unsafe(character) {
                write!(f, "{}", character.escape_unicode())
            } else {
                f.write_char(character)
            }
        })
    }
}

/// Bytes that are safe to print on one line: invalid UTF-8 is shown as `\xff`.
#[derive(Clone, Copy, Debug)]
pub struct EscapedBytes<'a>(pub &'a [u8]);

impl fmt::Display for EscapedBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.utf8_chunks().try_for_each(|chunk| {
            Escaped(chunk.valid()).fmt(f)?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
        })
    }
}

/// Checks whether the character could forge a line, control a terminal or hide text: control
/// characters (also C1), line and paragraph separators, zero-width characters and changes of
/// direction.
pub fn is_unsafe(character: char) -> bool {
    let hidden = matches!(
        u32::from(character),
        0x00AD | 0x061C | 0x180E | 0xFEFF
            | 0x200B..=0x200F
            | 0x2028..=0x202E
            | 0x2060..=0x206F
            | 0xFFF9..=0xFFFB
            | 0xE0000..=0xE007F
    );
    hidden || character.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_drives_a_terminal_is_spelled_out() {
        assert_eq!(
            Escaped("a\n\u{1b}[2J\u{9b}\u{202e}é").to_string(),
            "a\\u{a}\\u{1b}[2J\\u{9b}\\u{202e}é"
        );
        assert_eq!(EscapedBytes(b"/a\xff\n\xc3\xa9").to_string(), "/a\\xff\\u{a}é");
    }
}
