//! Any datagram ends in messages or errors, and there are never more messages than bytes.
#![no_main]

use cgruled::event::wire;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    assert!(wire::messages(bytes).count() <= bytes.len());
});
