//! Set of times, as closed intervals. Pure.

use crate::event::Nanos;

/// Maximum number of intervals. Beyond it intervals are merged, which only enlarges the set:
/// processes are then evaluated unnecessarily.
const MOST: usize = 4096;

/// Union of closed intervals of time.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// Disjoint, in ascending order of time.
    intervals: Vec<(Nanos, Nanos)>,
}

impl Windows {
    /// Adds an interval. Does nothing when it ends before it begins.
    pub(super) fn add(&mut self, start: Nanos, end: Nanos) {
        if start > end {
            return;
        }
        // During a burst each interval overlaps the last: no search and no memory moved.
        if let Some(last) = self.intervals.last_mut() {
            if last.0 <= start && start <= last.1 {
                last.1 = last.1.max(end);
                return;
            }
        }
        let from = self.intervals.partition_point(|interval| interval.1 < start);
        let until = self.intervals.partition_point(|interval| interval.0 <= end);
        let joined = self.intervals[from..until]
            .iter()
            .fold((start, end), |all, one| (all.0.min(one.0), all.1.max(one.1)));
        self.intervals.splice(from..until, [joined]);
        if self.intervals.len() > MOST {
            let second = self.intervals.remove(1);
            self.intervals[0].1 = second.1;
        }
    }

    /// Checks whether an interval contains `at`.
    pub(super) fn contains(&self, at: Nanos) -> bool {
        let next = self.intervals.partition_point(|interval| interval.1 < at);
        self.intervals.get(next).is_some_and(|interval| interval.0 <= at)
    }

    /// Removes the intervals that ended before `horizon`.
    pub(super) fn forget_before(&mut self, horizon: Nanos) {
        let keep_from = self.intervals.partition_point(|interval| interval.1 < horizon);
        self.intervals.drain(..keep_from);
    }

    /// Releases memory after a burst.
    pub(super) fn shrink(&mut self) {
        self.intervals.shrink_to(2 * self.intervals.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// The same as a list of all intervals.
        #[test]
        fn contains_what_was_added(
            added in proptest::collection::vec((0u64..200, 0u64..20), 0..60),
            horizon in 0u64..250,
        ) {
            let mut windows = Windows::default();
            for &(start, length) in &added {
                windows.add(Nanos(start), Nanos(start + length));
            }
            prop_assert!(windows.intervals.windows(2).all(|pair| pair[0].1 < pair[1].0));
            let expected = |at: u64| added.iter().any(|&(start, length)| (start..=start + length).contains(&at));
            for at in 0..230 {
                prop_assert_eq!(windows.contains(Nanos(at)), expected(at));
            }
            windows.forget_before(Nanos(horizon));
            prop_assert!(windows.intervals.iter().all(|interval| interval.1 >= Nanos(horizon)));
            for at in horizon..230 {
                prop_assert_eq!(windows.contains(Nanos(at)), expected(at));
            }
        }
    }

    #[test]
    fn intervals_are_merged_only_beyond_the_limit() {
        let mut windows = Windows::default();
        let add = |windows: &mut Windows, number: usize| {
            windows.add(Nanos(10 * number as u64), Nanos(10 * number as u64 + 1));
        };
        (0..MOST).for_each(|number| add(&mut windows, number));
        assert_eq!(windows.intervals.len(), MOST);
        assert!(!windows.contains(Nanos(5)));
        add(&mut windows, MOST);
        assert_eq!(windows.intervals.len(), MOST);
        assert!(windows.contains(Nanos(5)), "the first two are one");
        windows.forget_before(Nanos(10 * (MOST as u64 - 100)));
        windows.shrink();
        let kept = windows.intervals.capacity();
        assert!((101..1000).contains(&kept), "{kept}");
    }

    #[test]
    fn a_full_set_only_grows() {
        let mut windows = Windows::default();
        for number in 0..2 * MOST as u64 {
            windows.add(Nanos(10 * number), Nanos(10 * number + 1));
        }
        assert!(windows.intervals.len() <= MOST);
        assert!((0..2 * MOST as u64).all(|number| windows.contains(Nanos(10 * number + 1))));
        windows.add(Nanos(5), Nanos(4));
        assert!(windows.intervals.iter().all(|interval| interval.0 <= interval.1));
    }
}
