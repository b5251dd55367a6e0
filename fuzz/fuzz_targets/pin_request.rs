//! Parses any bytes on the socket of cgrulesengd, in pieces of any size, to a request: it is complete after
//! exactly 8 bytes, and its PID is valid.
#![no_main]

use cgruled::control::request::PinRequestReader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, mut rest) = input;
    let mut reader = PinRequestReader::default();
    let mut read = 0;
    while !rest.is_empty() {
        let room = reader.missing();
        let count = room.len().min(rest.len()).min(usize::from(size).max(1));
        room[..count].copy_from_slice(&rest[..count]);
        rest = &rest[count..];
        read += count;
        let request = reader.filled(count);
        assert_eq!(request.is_some(), read == 8);
        if let Some(request) = request {
            assert!(request.pid.is_none_or(|pid| i32::try_from(pid.get()).is_ok_and(|pid| pid > 0)));
            return;
        }
    }
});
