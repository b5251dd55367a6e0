//! Reads the first UID of human users from `/etc/login.defs`; see login.defs(5).

use std::path::Path;

use super::text_file;
use crate::event::Uid;

/// The value without the file or the setting, as in useradd(8) and in systemd.
const DEFAULT: Uid = Uid(1000);
/// The bytes of the file that are read; the usual file has 12 kB.
const MAX_BYTES: u64 = 1 << 20;

/// Returns `UID_MIN`.
pub(super) fn first_uid(path: &Path) -> Uid {
    text_file::read(path, MAX_BYTES).and_then(|text| parse(&text)).unwrap_or(DEFAULT)
}

fn parse(text: &str) -> Option<Uid> {
    let mut values = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "UID_MIN").then(|| words.next())?
    });
    number(values.next()?.trim_matches('"')).map(Uid)
}

/// Parses a number as strtol(3) does with base 0: decimal, octal with `0`, hexadecimal with `0x`.
fn number(text: &str) -> Option<u32> {
    match (text.strip_prefix("0x"), text.strip_prefix('0')) {
        (Some(digits), _) => u32::from_str_radix(digits, 16).ok(),
        (None, Some(digits)) if !digits.is_empty() => u32::from_str_radix(digits, 8).ok(),
        (None, Some(_) | None) => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_uid_of_human_users() {
        for (text, uid) in [
            ("#UID_MIN 5\nUID_MIN\t\t 500\nUID_MAX 60000\n", Some(500)),
            ("SYS_UID_MIN 101\nUID_MIN 0x200 # hexadecimal\n", Some(512)),
            ("UID_MIN 01000", Some(512)),
            ("UID_MIN 0", Some(0)),
            ("UID_MIN -1", None),
            ("UID_MIN", None),
            ("", None),
        ] {
            assert_eq!(parse(text), uid.map(Uid), "{text}");
        }
        assert_eq!(first_uid(Path::new("/nonexistent")), DEFAULT);
    }
}
