//! The fixed-size record of an evaluation. Pure.
//!
//! | word | bits |
//! |---|---|
//! | 0 | 47: end of the evaluation in µs of `CLOCK_MONOTONIC`, 4 years; 5: outcome; 12: causes |
//! | 1 | 32: PID; 32: UID |
//! | 2 | 32: GID; 32: position of the program |
//! | 3 | 32: position of the rule; 32: latency in µs |

use crate::control::outcome::EvaluationOutcome;
use crate::event::{Cause, Gid, Nanos, Pid, Uid};

/// The number of words of a record.
pub const WORDS: usize = 4;

const OUTCOME_BITS: u32 = 5;
const TIME_BITS: u32 = 64 - OUTCOME_BITS - Cause::BITS;
/// The UID and GID of a process whose credentials were not read; the kernel uses it for no process.
const NO_ID: u32 = u32::MAX;

/// The position of a text in its ring, in words modulo 2^32; 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TextPosition(pub u32);

impl TextPosition {
    /// The position of no text.
    pub const NONE: Self = Self(0);
}

/// An evaluation and its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvaluationRecord {
    /// The end of the evaluation. The record keeps microseconds.
    pub at: Nanos,
    /// The PID of the process.
    pub pid: Pid,
    /// The effective user ID and group ID, if they were read.
    pub ids: Option<(Uid, Gid)>,
    /// The program, if it was read.
    pub program: TextPosition,
    /// The matching rule, if there is one.
    pub rule: TextPosition,
    /// The outcome.
    pub outcome: EvaluationOutcome,
    /// The causes of the evaluation.
    pub cause: Cause,
    /// The microseconds from the first cause to the end of the evaluation.
    pub latency_us: u32,
}

impl EvaluationRecord {
    /// Returns the words of the record.
    pub fn encode(&self) -> [u64; WORDS] {
        let time = self.at.0 / 1000;
        let code = u64::from(self.outcome.code());
        let (uid, gid) = self.ids.map_or((NO_ID, NO_ID), |(uid, gid)| (uid.0, gid.0));
        [
            time << (64 - TIME_BITS) | code << Cause::BITS | u64::from(self.cause.bits()),
            pair(self.pid.get(), uid),
            pair(gid, self.program.0),
            pair(self.rule.0, self.latency_us),
        ]
    }

    /// Returns the record with these words; `None` for words that are none.
    pub fn decode([first, second, third, fourth]: [u64; WORDS]) -> Option<Self> {
        let code = (first >> Cause::BITS) & ((1 << OUTCOME_BITS) - 1);
        let (pid, uid) = halves(second);
        let (gid, program) = halves(third);
        let (rule, latency_us) = halves(fourth);
        Some(Self {
            at: Nanos((first >> (64 - TIME_BITS)).saturating_mul(1000)),
            pid: Pid::new(pid)?,
            ids: (uid != NO_ID).then_some((Uid(uid), Gid(gid))),
            program: TextPosition(program),
            rule: TextPosition(rule),
            outcome: EvaluationOutcome::from_code(u8::try_from(code).ok()?)?,
            cause: Cause::from_bits(first as u16),
            latency_us,
        })
    }
}

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn halves(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use proptest::prelude::*;

    const _: () = assert!(TIME_BITS == 47);

    pub(in crate::control::history) fn records() -> impl Strategy<Value = EvaluationRecord> {
        let outcome = prop::sample::select(EvaluationOutcome::ALL);
        let ids = prop::option::of((0..u32::MAX, any::<u32>()));
        let texts = (any::<u32>(), any::<u32>());
        let times = (0u64..1 << 47, any::<u32>());
        let cause = 0u16..1 << Cause::BITS;
        (times, 1..=i32::MAX as u32, ids, texts, outcome, cause).prop_map(
            |((us, latency_us), pid, ids, (program, rule), outcome, cause)| EvaluationRecord {
                at: Nanos(us * 1000),
                pid: Pid::new(pid).unwrap(),
                ids: ids.map(|(uid, gid)| (Uid(uid), Gid(gid))),
                program: TextPosition(program),
                rule: TextPosition(rule),
                outcome,
                cause: Cause::from_bits(cause),
                latency_us,
            },
        )
    }

    #[test]
    fn every_outcome_has_room_for_its_code() {
        assert!(EvaluationOutcome::ALL.len() <= 1 << OUTCOME_BITS);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(record in records()) {
            prop_assert_eq!(EvaluationRecord::decode(record.encode()), Some(record));
        }

        #[test]
        fn any_words_are_a_record_or_none(words: [u64; WORDS]) {
            if let Some(record) = EvaluationRecord::decode(words) {
                let again = EvaluationRecord::decode(record.encode());
                prop_assert_eq!(again.map(|again| again.pid), Some(record.pid));
            }
        }
    }
}
