//! Matches a pattern with a subject, which are separated by the first zero byte: matching
//! terminates, agrees with the literal ends of the pattern, and `**` matches everything.
#![no_main]

use cgruled::rules::glob::Glob;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let middle = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let (pattern, subject) = (&bytes[..middle], bytes.get(middle + 1..).unwrap_or_default());
    assert!(Glob::parse(b"**").is_ok_and(|any| any.matches(subject)));
    let Ok(glob) = Glob::parse(pattern) else { return };
    if glob.matches(subject) {
        assert!(subject.starts_with(&glob.literal_prefix()));
        assert!(subject.ends_with(&glob.literal_suffix()));
    }
});
