//! Parses any bytes, however they are split, to a request or an error that can be shown; an answer
//! of any daemon is parsed or rejected.
#![no_main]

use cgruled::control::protocol::{About, Incoming, KeptTexts, Reloaded, Watched};
use cgruled::control::status::{Rules, Status};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let mut incoming = Incoming::default();
    for part in bytes.chunks(usize::from(size).max(1)) {
        if let Some(request) = incoming.push(part) {
            drop(request.map(|request| serde_json::to_vec(&request)));
            break;
        }
    }
    drop(serde_json::from_slice::<Status>(bytes));
    drop(serde_json::from_slice::<Rules>(bytes));
    drop(serde_json::from_slice::<About>(bytes));
    drop(serde_json::from_slice::<Watched>(bytes));
    drop(serde_json::from_slice::<Reloaded>(bytes));
    drop(serde_json::from_slice::<KeptTexts>(bytes));
});
