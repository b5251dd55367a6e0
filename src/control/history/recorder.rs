//! The writing end of the history, owned by the hot thread. It must not allocate, enter the kernel or
//! take a lock.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;

use super::record::{EvaluationRecord, TextPosition, WORDS};
use super::ring::RingWriter;
use super::texts::TextBuffer;
use crate::kernel::program::ExeInfo;
use crate::rules::{Rule, RuleId};
use crate::telemetry::metrics::Metrics;

/// The number of programs, and of rules, whose position is remembered. Of two with the same slot the
/// last one is; the other is written again when it is met.
const SLOTS: usize = 4096;

/// The writing end of the history.
#[derive(Debug)]
pub struct HistoryRecorder {
    records: RingWriter,
    texts: RingWriter,
    programs: Box<[ProgramSlot]>,
    rules: Box<[RuleSlot]>,
    buffer: TextBuffer,
    metrics: Arc<Metrics>,
}

/// Where a program was last written; the text itself is compared with the ring.
#[derive(Clone, Copy, Debug, Default)]
struct ProgramSlot {
    position: u64,
    hash: u64,
}

/// Where a rule was last written. A policy has a generation of its own, so a rule never changes.
#[derive(Clone, Copy, Debug)]
struct RuleSlot {
    position: u64,
    generation: u64,
    rule: RuleId,
}

impl HistoryRecorder {
    pub(super) fn new(records: RingWriter, mut texts: RingWriter, metrics: Arc<Metrics>) -> Self {
        // Position 0 means that there is no text.
        texts.append(&[0]);
        let unused = RuleSlot { position: 0, generation: u64::MAX, rule: RuleId(u32::MAX) };
        Self {
            records,
            texts,
            programs: vec![ProgramSlot { position: 0, hash: u64::MAX }; SLOTS].into(),
            rules: vec![unused; SLOTS].into(),
            buffer: TextBuffer::default(),
            metrics,
        }
    }

    /// Returns the position of a program, which is written unless it was recently.
    pub fn program(&mut self, exe: ExeInfo<'_>) -> TextPosition {
        let Self { texts, programs, buffer, metrics, .. } = self;
        let words = buffer.program(exe);
        let hash = FixedState::default().hash_one(words);
        let Some(slot) = programs.get_mut(hash as usize % SLOTS) else {
            return TextPosition::NONE;
        };
        // A user can find two paths with one hash.
        let is_known = slot.hash == hash
            && is_fresh(texts, slot.position)
            && texts.holds(slot.position, words);
        if !is_known {
            *slot = ProgramSlot { position: texts.append(words), hash };
            metrics.history_truncated.add(u64::from(buffer.is_truncated()));
        }
        compact(slot.position)
    }

    /// Returns the position of a rule of the policy `generation`, which is written unless it was recently.
    pub fn rule(&mut self, generation: u64, id: RuleId, rule: &Rule) -> TextPosition {
        let Self { texts, rules, buffer, metrics, .. } = self;
        let Some(slot) = rules.get_mut(id.0 as usize % SLOTS) else { return TextPosition::NONE };
        let is_known = (slot.generation, slot.rule) == (generation, id);
        if !is_known || !is_fresh(texts, slot.position) {
            let position = texts.append(buffer.rule(rule));
            *slot = RuleSlot { position, generation, rule: id };
            metrics.history_truncated.add(u64::from(buffer.is_truncated()));
        }
        compact(slot.position)
    }

    /// Writes a record over the oldest one.
    pub fn record(&mut self, record: &EvaluationRecord) {
        self.records.append(&record.encode());
        let lost = self.records.next().saturating_sub(self.records.capacity());
        // A store: the other counters cost an atomic addition.
        self.metrics.history_overwritten.set(lost / WORDS as u64);
    }
}

/// Checks whether a text is in the newer half of its ring, so that records that refer to it keep it for
/// at least another half.
fn is_fresh(texts: &RingWriter, position: u64) -> bool {
    position > 0 && texts.next() - position <= texts.capacity() / 2
}

/// Returns the position as a record keeps it.
fn compact(position: u64) -> TextPosition {
    TextPosition(position as u32)
}

/// Returns the position of a text from that in a record, before `end`. Less than 2^32 words lie between
/// the two: an evaluation writes at most two programs and a rule, 286 words, and the greatest history
/// has 6.3 million records.
pub(super) fn expanded(TextPosition(position): TextPosition, end: u64) -> Option<u64> {
    end.checked_sub(u64::from((end as u32).wrapping_sub(position)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::history::ring;
    use crate::rules::ExeFacts;

    fn exe(path: &[u8]) -> ExeInfo<'_> {
        let exe = ExeFacts { path, on_host: true };
        ExeInfo { raw: path, exe, invoked: None, is_unsure: false }
    }

    #[test]
    fn a_program_is_written_once_and_again_before_it_is_overwritten() {
        let (records, _) = ring::open(4);
        let (texts, _) = ring::open(300);
        let mut recorder = HistoryRecorder::new(records, texts, Arc::default());
        let first = recorder.program(exe(b"/bin/make"));
        assert_eq!(recorder.program(exe(b"/bin/make")), first);
        assert_ne!(recorder.program(exe(b"/bin/cc")), first);
        assert_eq!(recorder.program(exe(b"/bin/make")), first);
        let before = recorder.texts.next();
        for number in 0..60 {
            recorder.program(exe(format!("/bin/{number}").as_bytes()));
        }
        assert!(recorder.texts.next() - before > 150);
        assert_ne!(recorder.program(exe(b"/bin/make")), first);
    }

    #[test]
    fn positions_are_found_beyond_32_bits() {
        let end = (1 << 32) + 10;
        for position in [end - 1, end - 100, 1 << 31] {
            assert_eq!(expanded(compact(position), end), Some(position));
        }
        assert_eq!(expanded(TextPosition(20), 10), None);
    }
}
