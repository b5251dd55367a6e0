//! Many short lists in one vector: takes 8 bytes per list instead of an allocation.

/// The position of a list in its pool.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PoolRange {
    at: u32,
    len: u32,
}

impl PoolRange {
    /// Appends `items` to `pool` and returns their position.
    pub(super) fn push<T: Copy>(pool: &mut Vec<T>, items: &[T]) -> Self {
        let at = to_u32(pool.len());
        pool.extend_from_slice(items);
        Self { at, len: to_u32(items.len()) }
    }

    /// Returns the list from its pool.
    #[inline]
    pub(super) fn of<T>(self, pool: &[T]) -> &[T] {
        let at = self.at as usize;
        pool.get(at..at + self.len as usize).unwrap_or_default()
    }
}

/// Converts a size or position. Rule files are limited to 1 MiB, so none reaches 2^32.
pub(super) fn to_u32(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}
