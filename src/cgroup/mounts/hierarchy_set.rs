//! Sets of hierarchies. Pure.

use super::Hierarchies;

/// A set of hierarchies as bits, by index in [`Hierarchies`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HierarchySet(u32);

impl HierarchySet {
    /// Creates the set of these indexes.
    pub fn of(indexes: &[usize]) -> Self {
        let mut span = Self::default();
        indexes.iter().for_each(|&index| span.add(index));
        span
    }

    /// Returns the set with one more index.
    #[must_use]
    pub fn with(mut self, index: usize) -> Self {
        self.add(index);
        self
    }

    /// Returns the set of the indexes in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Checks whether the set contains the index.
    pub fn has(self, index: usize) -> bool {
        self.0 & 1 << index != 0
    }

    pub(super) fn add(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    /// Checks whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Returns the indexes in ascending order.
    pub fn indexes(self) -> impl Iterator<Item = usize> {
        (0..Hierarchies::MOST).filter(move |&index| self.has(index))
    }
}
