//! A ring of words with one writer and any number of readers, none of which waits for another.
//!
//! The writer announces the words that it is about to overwrite, writes them, and then publishes them.
//! A reader copies words first and checks afterwards that none of them was announced meanwhile, as with a
//! seqlock. On x86 a word costs the writer one plain store, and so do announcement and publication.
//!
//! Positions count words since the start and never wrap.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};

/// The value of a word before the first write. Not 0: the allocator would take zeroed pages from the
/// kernel without touching them.
const UNWRITTEN: u64 = u64::MAX;

#[derive(Debug)]
struct Words {
    words: Box<[AtomicU64]>,
    /// Words before this position are written or being written.
    announced: AtomicU64,
    /// Words before this position are written.
    published: AtomicU64,
}

/// The writing end of a ring.
#[derive(Debug)]
pub(super) struct RingWriter {
    words: Arc<Words>,
    next: u64,
    /// The place of `next`, to save a division.
    index: usize,
}

/// The reading end of a ring.
#[derive(Clone, Debug)]
pub(super) struct RingReader(Arc<Words>);

/// Allocates a ring of this many words, at least one, and writes all of them.
pub(super) fn open(words: usize) -> (RingWriter, RingReader) {
    let words = (0..words.max(1)).map(|_| AtomicU64::new(UNWRITTEN)).collect();
    let words =
        Arc::new(Words { words, announced: AtomicU64::new(0), published: AtomicU64::new(0) });
    (RingWriter { words: Arc::clone(&words), next: 0, index: 0 }, RingReader(words))
}

impl RingWriter {
    /// Appends words, over the oldest ones. Returns the position of the first.
    pub(super) fn append(&mut self, words: &[u64]) -> u64 {
        let Words { words: ring, announced, published } = &*self.words;
        let first = self.next;
        self.next += words.len() as u64;
        announced.store(self.next, Relaxed);
        // A reader that sees one of the words below sees the announcement too.
        fence(Release);
        for &word in words {
            if let Some(place) = ring.get(self.index) {
                place.store(word, Relaxed);
            }
            self.index = if self.index + 1 == ring.len() { 0 } else { self.index + 1 };
        }
        published.store(self.next, Release);
        first
    }

    /// Returns the position of the next word.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Returns the number of words that fit.
    pub(super) fn capacity(&self) -> u64 {
        self.words.words.len() as u64
    }

    /// Checks whether the words at `position` are these.
    pub(super) fn holds(&self, position: u64, words: &[u64]) -> bool {
        let ring = &self.words.words;
        position + words.len() as u64 <= self.next
            && self.next - position <= self.capacity()
            && words.iter().enumerate().all(|(offset, word)| {
                ring.get(place(position, offset, ring.len()))
                    .is_some_and(|own| own.load(Relaxed) == *word)
            })
    }
}

impl RingReader {
    /// Returns the position after the last word that can be read.
    pub(super) fn end(&self) -> u64 {
        self.0.published.load(Acquire)
    }

    /// Returns the position of the first word that is not overwritten.
    pub(super) fn begin(&self) -> u64 {
        self.0.announced.load(Relaxed).saturating_sub(self.capacity())
    }

    /// Returns the number of words that fit.
    pub(super) fn capacity(&self) -> u64 {
        self.0.words.len() as u64
    }

    /// Copies words from `position`. Returns `false` if they were not written yet or were overwritten; then
    /// what was copied means nothing.
    #[must_use]
    pub(super) fn copy(&self, position: u64, into: &mut [u64]) -> bool {
        if position + into.len() as u64 > self.end() {
            return false;
        }
        let ring = &self.0.words;
        for (offset, word) in into.iter_mut().enumerate() {
            let own = ring.get(place(position, offset, ring.len()));
            *word = own.map_or(UNWRITTEN, |own| own.load(Relaxed));
        }
        // Pairs with the fence of the writer.
        fence(Acquire);
        position >= self.begin()
    }
}

fn place(position: u64, offset: usize, length: usize) -> usize {
    // The remainder is less than a length in memory.
    ((position + offset as u64) % length as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn nothing_is_read_before_it_is_written() {
        let (mut writer, reader) = open(4);
        let mut words = [0; 2];
        assert!(!reader.copy(0, &mut words));
        assert_eq!(writer.append(&[1]), 0);
        assert!(!reader.copy(0, &mut words));
        assert_eq!(writer.append(&[2, 3]), 1);
        assert!(reader.copy(0, &mut words) && words == [1, 2]);
        assert!(writer.holds(1, &[2, 3]) && !writer.holds(1, &[2, 4]) && !writer.holds(2, &[3, 4]));
    }

    /// A reader that copies while the writer wraps around must not return a mixture of two entries.
    #[test]
    fn a_torn_copy_is_noticed() {
        const ENTRY: u64 = 4;
        let (mut writer, reader) = open(64);
        let stops = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stops);
        let thread = std::thread::spawn(move || {
            let mut entries = 0u64;
            while !ended.load(Relaxed) || entries < 100_000 {
                writer.append(&[entries; ENTRY as usize]);
                entries += 1;
            }
        });
        let (mut whole, mut lost) = (0, 0);
        while whole < 10_000 {
            let position = reader.begin().next_multiple_of(ENTRY);
            let mut words = [0; ENTRY as usize];
            if reader.copy(position, &mut words) {
                assert_eq!(words, [position / ENTRY; ENTRY as usize]);
                whole += 1;
            } else {
                lost += 1;
            }
            if thread.is_finished() {
                break;
            }
        }
        stops.store(true, Relaxed);
        thread.join().unwrap();
        println!("{whole} copies whole, {lost} overwritten");
        assert!(whole > 0);
    }

    proptest! {
        /// Compares the ring with a list of everything that was ever written.
        #[test]
        fn the_last_words_are_kept_and_no_others(
            capacity in 1usize..40,
            entries in prop::collection::vec(prop::collection::vec(any::<u64>(), 1..6), 0..60),
        ) {
            let (mut writer, reader) = open(capacity);
            let mut all: Vec<u64> = Vec::new();
            for entry in entries.iter().filter(|entry| entry.len() <= capacity) {
                prop_assert_eq!(writer.append(entry), all.len() as u64);
                all.extend(entry);
                prop_assert_eq!(writer.next(), all.len() as u64);
                prop_assert_eq!(reader.end(), all.len() as u64);
                let kept = all.len().min(capacity);
                prop_assert_eq!(reader.begin(), (all.len() - kept) as u64);
                let mut words = vec![0; kept];
                prop_assert!(reader.copy(reader.begin(), &mut words));
                prop_assert_eq!(&words[..], &all[all.len() - kept..]);
                prop_assert!(writer.holds(reader.begin(), &words));
                if reader.begin() > 0 {
                    prop_assert!(!reader.copy(reader.begin() - 1, &mut words[..1]));
                    prop_assert!(!writer.holds(reader.begin() - 1, &all[..0]) );
                }
            }
        }
    }
}
