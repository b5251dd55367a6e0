//! A map with a limit that drops the oldest entries.

use std::collections::VecDeque;
use std::hash::Hash;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Map of at most `MAX` entries.
#[derive(Debug)]
pub(super) struct BoundedMap<K, V, const MAX: usize> {
    entries: HashMap<K, V, FixedState>,
    /// Keys of the entries, oldest first. The position of a removed key is skipped later.
    oldest: VecDeque<K>,
}

impl<K, V, const MAX: usize> Default for BoundedMap<K, V, MAX> {
    fn default() -> Self {
        Self { entries: HashMap::default(), oldest: VecDeque::new() }
    }
}

impl<K: Copy + Eq + Hash, V, const MAX: usize> BoundedMap<K, V, MAX> {
    /// Returns the value of a key.
    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    /// Sets the value of a key, which keeps its age if it has a value already.
    pub(super) fn insert(&mut self, key: K, value: V) {
        if self.entries.insert(key, value).is_some() {
            return;
        }
        self.oldest.push_back(key);
        // A key that was removed and added again has two positions.
        while self.entries.len() > MAX || self.oldest.len() > 2 * MAX {
            let Some(oldest) = self.oldest.pop_front() else { break };
            self.entries.remove(&oldest);
        }
    }

    /// Removes a key.
    pub(super) fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    /// Removes all entries.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.oldest.clear();
    }

    /// Returns the number of entries and of positions in the order of ages.
    #[cfg(test)]
    pub(super) fn lengths(&self) -> (usize, usize) {
        (self.entries.len(), self.oldest.len())
    }
}
