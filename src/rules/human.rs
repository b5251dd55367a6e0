//! The UIDs of human users, which the value `@human` selects. It must not read anything: the caller
//! supplies the first UID and the subordinate ranges of the host.

use std::sync::Arc;

use crate::event::Uid;

/// The value of `user` and `users` that selects human users.
pub const HUMAN: &str = "@human";

/// UIDs that systemd gives to services with `DynamicUser=`.
const DYNAMIC: (u32, u32) = (61_184, 65_519);
/// The user nobody, and the 16-bit form of the invalid ID.
const NOBODY: (u32, u32) = (65_534, 65_535);
/// The last UID: 4294967295 is the invalid ID.
const LAST: u32 = u32::MAX - 1;

/// The UIDs of human users of a host, as disjoint ranges in ascending order. Without any range
/// until names are resolved ([`super::names::resolve`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HumanUids(Arc<[(Uid, Uid)]>);

impl HumanUids {
    /// Creates the UIDs from `first` on, without those of nobody, of services with `DynamicUser=`,
    /// and of these subordinate ranges.
    pub fn new(first: Uid, subordinate: impl IntoIterator<Item = (Uid, Uid)>) -> Self {
        let subordinate = subordinate.into_iter().map(|(first, last)| (first.0, last.0));
        let mut others: Vec<(u32, u32)> = subordinate.chain([DYNAMIC, NOBODY]).collect();
        others.sort_unstable();
        let mut ranges = Vec::new();
        let mut next = first.0;
        for (from, to) in others {
            if next < from {
                ranges.push((Uid(next), Uid((from - 1).min(LAST))));
            }
            next = next.max(to.saturating_add(1));
        }
        if next <= LAST {
            ranges.push((Uid(next), Uid(LAST)));
        }
        Self(ranges.into())
    }

    /// Checks whether this is the UID of a human user.
    pub fn contains(&self, uid: Uid) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= uid);
        let range = after.checked_sub(1).and_then(|index| self.0.get(index));
        range.is_some_and(|&(_, last)| uid <= last)
    }

    /// Returns the ranges, each with its first and last UID.
    pub fn ranges(&self) -> &[(Uid, Uid)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn human(first: u32, subordinate: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let ranges = subordinate.iter().map(|&(first, last)| (Uid(first), Uid(last)));
        let human = HumanUids::new(Uid(first), ranges);
        human.ranges().iter().map(|&(first, last)| (first.0, last.0)).collect()
    }

    #[test]
    fn users_that_are_not_human_are_left_out() {
        let middle = (65_520, 65_533);
        assert_eq!(human(1000, &[]), [(1000, 61_183), middle, (65_536, LAST)]);
        let all = HumanUids::new(Uid(1000), []);
        let contained = [999, 1000, 61_183, 61_184].map(|uid| all.contains(Uid(uid)));
        assert_eq!(contained, [false, true, true, false]);
        let two = [(165_536, 231_071), (100_000, 165_535)];
        let expected = [(1000, 61_183), middle, (65_536, 99_999), (231_072, LAST)];
        assert_eq!(human(1000, &two), expected);
        assert_eq!(human(500, &[(0, 999), (2000, 2000)])[..2], [(1000, 1999), (2001, 61_183)]);
        assert_eq!(human(70_000, &[(70_000, u32::MAX)]), []);
        assert_eq!(human(u32::MAX, &[]), []);
        assert_eq!(human(u32::MAX - 1, &[]), [(LAST, LAST)]);
    }

    proptest::proptest! {
        #[test]
        fn a_uid_is_contained_if_no_other_range_has_it(
            first in 0..70_000u32,
            other in proptest::collection::vec((0..70_000u32, 0..9_000u32), 0..6),
            uid in proptest::prelude::any::<u32>(),
            is_small in proptest::prelude::any::<bool>(),
        ) {
            let uid = if is_small { uid % 80_000 } else { uid };
            let ranges: Vec<_> = other.iter().map(|&(from, more)| (from, from + more)).collect();
            let spanned = ranges.iter().map(|&(from, to)| (Uid(from), Uid(to)));
            let human = HumanUids::new(Uid(first), spanned);
            let others = ranges.iter().chain([&DYNAMIC, &NOBODY, &(u32::MAX, u32::MAX)]);
            let is_other = others.into_iter().any(|&(from, to)| (from..=to).contains(&uid));
            proptest::prop_assert_eq!(human.contains(Uid(uid)), uid >= first && !is_other);
        }
    }
}
