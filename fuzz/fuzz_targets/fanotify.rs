//! Parses any bytes to fanotify events or an error: each event takes bytes, and its descriptors are valid or absent.
#![no_main]

use cgruled::sys::fanotify;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((record, next))) = fanotify::parse(rest) {
        assert!(next.len() < rest.len());
        assert!(record.file.is_none_or(|fd| fd >= 0) && record.pidfd.is_none_or(|fd| fd >= 0));
        rest = next;
    }
});
