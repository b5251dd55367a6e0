//! The history of evaluations: two rings of fixed size that the hot thread writes and other threads
//! read on demand. It must not make the hot thread wait, allocate or enter the kernel, and it must not
//! contain arguments of programs, which may be secrets.
//!
//! A record has 32 bytes ([`record`]). What has a variable length, the program and the rule, stands once
//! in a second ring (`texts.rs`) and is referred to by its position. No queue and no thread lies between:
//! the hot thread is the only writer, and a reader finds out afterwards what was overwritten while it
//! read (`ring.rs`). [`recorder`] writes, [`reader`] reads, [`message`] is the reply to a client and
//! [`replay`] decides recorded evaluations by other rules.

pub mod message;
pub mod reader;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod record;
pub mod recorder;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod replay;
mod ring;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
mod texts;

use std::sync::Arc;

use crate::telemetry::metrics::Metrics;
use reader::HistoryReader;
use recorder::HistoryRecorder;

/// The size of a word of the rings in bytes.
const WORD: usize = 8;

/// Allocates a history of about `bytes` and writes each of its pages once, so that the hot thread causes
/// no page fault. A quarter is for texts: a program of 40 bytes takes 56, so 2 MiB hold 37,000 of them.
pub fn open(bytes: usize, metrics: Arc<Metrics>) -> (HistoryRecorder, HistoryReader) {
    let texts = bytes / 4 / WORD;
    let records = (bytes / WORD).saturating_sub(texts) / record::WORDS * record::WORDS;
    let (records, read_records) = ring::open(records.max(record::WORDS));
    let (texts, read_texts) = ring::open(texts.max(2 * texts::LONGEST_WORDS));
    let recorder = HistoryRecorder::new(records, texts, metrics);
    (recorder, HistoryReader::new(read_records, read_texts))
}
