//! Parses any bytes, however they are split, to a request or an error that can be shown; an answer
//! of any daemon is parsed or rejected.
#![no_main]

use cgruled::control::protocol::{ProcessReport, RequestReader, LastGoodFiles, ReloadReply, WatchMessage};
use cgruled::control::status::{ActiveRules, Status};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, &[u8])| {
    let (size, bytes) = input;
    let mut incoming = RequestReader::default();
    for part in bytes.chunks(usize::from(size).max(1)) {
        if let Some(request) = incoming.push(part) {
            drop(request.map(|request| serde_json::to_vec(&request)));
            break;
        }
    }
    drop(serde_json::from_slice::<Status>(bytes));
    drop(serde_json::from_slice::<ActiveRules>(bytes));
    drop(serde_json::from_slice::<ProcessReport>(bytes));
    drop(serde_json::from_slice::<WatchMessage>(bytes));
    drop(serde_json::from_slice::<ReloadReply>(bytes));
    drop(serde_json::from_slice::<LastGoodFiles>(bytes));
});
