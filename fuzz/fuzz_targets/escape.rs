//! Escapes any bytes for one line of a terminal: no unsafe character is left, and safe text is unchanged.
#![no_main]

use cgruled::config::escape::{EscapedBytes, is_unsafe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let escaped = EscapedBytes(bytes).to_string();
    assert!(!escaped.chars().any(is_unsafe));
    assert!(escaped.len() >= bytes.len());
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert_eq!(escaped == text, !text.chars().any(is_unsafe));
    }
});
