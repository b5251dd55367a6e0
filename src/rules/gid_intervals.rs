//! Overlapping ranges of group IDs, split into disjoint intervals with the first rule of each.

use std::collections::{BTreeMap, BTreeSet};

use super::RuleId;
use super::pool_range::to_u32;
use crate::event::Gid;

/// The number of IDs compared at each level of a search: one cache line.
const FAN: usize = 16;

/// The first rule for each group ID.
#[derive(Debug, Default)]
pub(super) struct GidIntervals {
    /// The sorted start of each interval in the last level, and every [`FAN`]th of them in the
    /// level before. A binary search would touch a cache line in almost every step.
    levels: Vec<Vec<Gid>>,
    /// The first rule of each interval.
    covers: Vec<Option<RuleId>>,
}

impl GidIntervals {
    pub(super) fn build(ranges: &[(Gid, Gid, RuleId)]) -> Self {
        let (starts, covers): (Vec<Gid>, _) = sweep(ranges).into_iter().unzip();
        let mut levels = vec![starts];
        while levels[0].len() > FAN {
            levels.insert(0, levels[0].iter().copied().step_by(FAN).collect());
        }
        Self { levels, covers }
    }

    /// Returns the first rule with `gid` in its range.
    #[inline]
    pub(super) fn first(&self, gid: Gid) -> Option<RuleId> {
        let mut at = 0;
        for level in &self.levels {
            let line = level.chunks(FAN).nth(at)?;
            let before = line.iter().filter(|start| **start <= gid).count();
            at = (at * FAN + before).checked_sub(1)?;
        }
        *self.covers.get(at)?
    }

    /// Returns the heap size in bytes.
    pub(super) fn heap(&self) -> usize {
        self.levels.iter().map(|level| level.capacity() * size_of::<Gid>()).sum::<usize>()
            + self.covers.capacity() * size_of::<Option<RuleId>>()
    }
}

/// Returns the intervals between the bounds of `ranges`, each with its first rule.
fn sweep(ranges: &[(Gid, Gid, RuleId)]) -> Vec<(Gid, Option<RuleId>)> {
    let mut edges: BTreeMap<u32, (Vec<RuleId>, Vec<RuleId>)> = BTreeMap::new();
    for &(first, last, id) in ranges {
        edges.entry(first.0).or_default().0.push(id);
        if let Some(after) = last.0.checked_add(1) {
            edges.entry(after).or_default().1.push(id);
        }
    }
    // Ranges of one rule can overlap, so each rule is counted instead of stored once.
    let mut open: BTreeSet<(RuleId, u32)> = BTreeSet::new();
    let mut stretches = Vec::with_capacity(edges.len());
    for (gid, (begin, end)) in edges {
        for id in end {
            let newest = open.range((id, 0)..=(id, u32::MAX)).next_back().copied();
            newest.map(|newest| open.remove(&newest));
        }
        for id in begin {
            let n = open.range((id, 0)..=(id, u32::MAX)).count();
            open.insert((id, to_u32(n)));
        }
        let first = open.first().map(|(id, _)| *id);
        if stretches.last().is_none_or(|(_, before)| *before != first) {
            stretches.push((Gid(gid), first));
        }
    }
    stretches
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_the_first_range(
            ends in vec((0..2000u32, 0..300u32, 0..500u32), 0..600),
            end_of_ids in any::<bool>(),
        ) {
            let mut ranges: Vec<_> = ends
                .into_iter()
                .map(|(gid, width, id)| (Gid(gid), Gid(gid + width), RuleId(id)))
                .collect();
            if end_of_ids {
                ranges.push((Gid(1500), Gid(u32::MAX), RuleId(400)));
            }
            let stretches = GidIntervals::build(&ranges);
            for gid in (0..2400).chain([u32::MAX]).map(Gid) {
                let covers = ranges.iter().filter(|(first, last, _)| (*first..=*last).contains(&gid));
                prop_assert_eq!(stretches.first(gid), covers.map(|(_, _, id)| *id).min());
            }
        }
    }

    #[test]
    fn each_level_is_counted() {
        let ranges: Vec<_> = (0..1000).map(|n| (Gid(3 * n), Gid(3 * n + 1), RuleId(n))).collect();
        let all = GidIntervals::build(&ranges);
        // A start and an end for each range, and the starts of the level before.
        let least = 2000 * (size_of::<Gid>() + size_of::<Option<RuleId>>());
        assert!(all.heap() > least, "{}", all.heap());
        assert!(GidIntervals::build(&[]).heap() < 64);
    }
}
