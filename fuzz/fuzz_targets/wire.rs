//! Parses any datagram to messages or errors, and never to more messages than bytes.
#![no_main]

use cgruled::event::wire;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    assert!(wire::messages(bytes).count() <= bytes.len());
});
