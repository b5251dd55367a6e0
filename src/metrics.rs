//! Counters and the latency histogram. Written with relaxed stores, most by the hot thread alone, and
//! readable from anywhere at any time.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Everything that is counted since the start.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $name: Counter,)+
            /// From the kernel's time stamp of the first event of a look to the end of the move.
            pub latency: Histogram,
            /// Moves that the kernel refused, by errno.
            pub refusals: Refusals,
        }

        impl Metrics {
            /// Name and value of each counter, in order of declaration.
            pub fn counters(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)+]
            }
        }

        /// Name and meaning of each counter, in the same order.
        pub const MEANINGS: &[(&str, &str)] = &[$((stringify!($name), concat!($($doc),+)),)+];
    };
}

counters! {
    /// Exec, uid and gid events that were heard.
    events,
    /// Forks that were read, to follow the children of processes being placed.
    forks,
    /// Datagrams that did not come from the kernel, or made no sense.
    refused_datagrams,
    /// Events that the kernel dropped because a socket was full.
    lost_events,
    /// Forks that did not fit into the ring.
    lost_forks,
    /// Scans of all processes: at start, on reload, after a loss.
    scans,
    /// Processes looked at, for whatever reason.
    looks,
    /// Looks at forked children of processes that were looked at meanwhile, and at processes born in another cgroup
    /// than that of their creator.
    trail_looks,
    /// Looks that waited for the name service.
    waited_for_names,
    /// Looks that waited for the name of a script, or for a path in another mount namespace.
    waited_for_program,
    /// Reads of an executable that blocked the hot thread for 5 ms, so that another one went on without it.
    blocked_reads,
    /// Executables that could not be read: only rules without `exe`, or by path alone, decided.
    unreadable_executables,
    /// Examinations of executables refused because too many of the same user waited.
    refused_examinations,
    /// Looks that waited because their user had had his share.
    deferred,
    /// Processes that were gone when looked at.
    gone,
    /// Looks that matched no rule.
    no_rule,
    /// Looks that matched an `ignore` rule.
    ignored,
    /// Evaluations that matched a rule which cannot be applied on this host.
    inapplicable,
    /// Processes never moved by a rule that does not name them: kernel threads, pid 1, systemd.
    protected,
    /// Looks at processes that asked to stay where they are.
    sticky,
    /// Processes that a client of the socket asked to leave where they are.
    sticky_registered,
    /// Children that inherited such a wish.
    sticky_inherited,
    /// Wishes taken back by a client.
    sticky_cancelled,
    /// Wishes refused: no such process, somebody else's, or no room.
    sticky_refused,
    /// Those of them, children included, for which there was no room: a user has room for 4,096 processes.
    sticky_over_limit,
    /// Connections to the socket that ended without a whole request: garbage, silence, too many.
    sticky_dropped,
    /// Processes found where they belong.
    in_place,
    /// Processes moved.
    placed,
    /// Processes that would have been moved, with `--dry-run`.
    would_place,
    /// Second looks that found the process where we had put it.
    held,
    /// Processes found outside the cgroup of their rule because another process had moved them.
    taken_back,
    /// Those that were left there.
    given_up,
    /// Moves of any process by others that the kernel traced.
    traced_moves,
    /// Traced moves that were lost; a scan follows.
    lost_moves,
    /// Pins that ended because another than the client moved the process.
    broken_pins,
    /// Moves that the kernel refused.
    refused,
    /// Looks at processes that were left in a unit of systemd, because their rule does not take them out.
    left_in_unit,
    /// Evaluations of processes that were left in a container that root created.
    left_in_container,
    /// Evaluations of processes that were left below the service manager of another user, whom no rule moves.
    left_in_job,
    /// Evaluations of processes that stay in the slice of their user, since a table limits it.
    kept_in_slice,
    /// Groups made by rules of ours.
    made_groups,
    /// Groups of ours removed because they were empty as long as their tables say.
    removed_groups,
    /// Units of systemd that were given their settings.
    set_units,
    /// Units that systemd did not give their settings.
    refused_units,
    /// Units of systemd whose settings were taken back, since no table has them any more.
    released_units,
    /// Lookups of the main PID of a user's service manager.
    manager_lookups,
    /// Lookups of the main PID of a user's service manager that systemd did not answer.
    failed_manager_lookups,
    /// Numbers that changed hands between look and move; looked at again.
    reused_pids,
    /// Rule sets put into force, the first included.
    reloads,
    /// Those in which a file with new errors stayed as it was.
    refused_reloads,
    /// Log records dropped because the log could not keep up.
    dropped_log_records,
    /// Log records left out by the limit on repetitions.
    suppressed_log_records,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `by`.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A count for each errno.
#[derive(Debug)]
pub struct Refusals(Box<[Counter]>);

/// Above all that Linux has (`EHWPOISON` is 133).
const ERRNOS: usize = 134;

impl Default for Refusals {
    fn default() -> Self {
        Self((0..ERRNOS).map(|_| Counter::default()).collect())
    }
}

impl Refusals {
    /// Counts one. What is no errno counts as 0.
    pub fn increment(&self, errno: i32) {
        let index = usize::try_from(errno).ok().filter(|&index| index < ERRNOS).unwrap_or(0);
        if let Some(counter) = self.0.get(index) {
            counter.increment();
        }
    }

    /// Those that occurred: errno and count.
    pub fn counted(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        (0..).zip(&*self.0).map(|(errno, counter)| (errno, counter.get())).filter(|one| one.1 > 0)
    }
}

/// Buckets for each power of two: a value is known to 1/8.
const STEPS: usize = 8;
const BUCKETS: usize = 64 * STEPS;

/// Log-linear histogram of nanoseconds. 4 KiB, no allocation when recording.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[AtomicU64]>,
    greatest: AtomicU64,
    sum: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = (0..BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, greatest: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }
}

impl Histogram {
    /// Adds a value in nanoseconds.
    pub fn record(&self, ns: u64) {
        if let Some(bucket) = self.buckets.get(bucket_of(ns)) {
            bucket.fetch_add(1, Relaxed);
        }
        self.greatest.fetch_max(ns, Relaxed);
        self.sum.fetch_add(ns, Relaxed);
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// The sum of all values, exactly.
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }

    /// The greatest value, exactly.
    pub fn greatest(&self) -> u64 {
        self.greatest.load(Relaxed)
    }

    /// The value that `per_mille` thousandths of all values do not exceed, rounded up to the end of
    /// its bucket. 0 when there is none.
    pub fn quantile(&self, per_mille: u64) -> u64 {
        let wanted = (self.count() * per_mille).div_ceil(1000).max(1);
        let mut seen = 0;
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen += bucket.load(Relaxed);
            if seen >= wanted {
                return end_of(index).min(self.greatest());
            }
        }
        0
    }

    /// Buckets that hold something: the greatest value of the bucket in nanoseconds, and the count.
    pub fn filled(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets
            .iter()
            .enumerate()
            .map(|(index, bucket)| (end_of(index), bucket.load(Relaxed)))
            .filter(|&(_, count)| count > 0)
    }

    /// The values by powers of two: an upper bound in microseconds, and the count; ascending. Those
    /// between two powers that hold something are there with 0.
    pub fn octaves(&self) -> Vec<(u64, u64)> {
        let mut octaves: Vec<(u64, u64)> = Vec::new();
        for (end, count) in self.filled() {
            let upper = end.div_ceil(1000).next_power_of_two();
            while octaves.last().is_some_and(|&(last, _)| last < upper / 2) {
                octaves.extend(octaves.last().map(|&(last, _)| (last * 2, 0)));
            }
            match octaves.last_mut() {
                Some((last, total)) if *last == upper => *total += count,
                _ => octaves.push((upper, count)),
            }
        }
        octaves
    }
}

/// Values below 8 have a bucket each; then eight for each power of two.
fn bucket_of(ns: u64) -> usize {
    let Some(power) = ns.checked_ilog2().filter(|&power| power >= 3) else {
        return ns as usize;
    };
    let step = (ns >> (power - 3)) as usize & (STEPS - 1);
    (power as usize - 2) * STEPS + step
}

/// The greatest value of a bucket.
fn end_of(index: usize) -> u64 {
    if index < STEPS {
        return index as u64;
    }
    let (power, step) = (index / STEPS + 2, (index % STEPS) as u64);
    let width = 1u64.checked_shl((power - 3) as u32).unwrap_or(0);
    (8 + step).saturating_mul(width).saturating_add(width.saturating_sub(1))
}

impl fmt::Display for Metrics {
    /// `name value` lines, one for each counter, then the latency in microseconds. The alternate form
    /// (`{:#}`) ends with the histogram: `latency_us_le_64 12` says that 12 moves took more than 32
    /// and at most 64 microseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.counters() {
            writeln!(f, "{name} {value}")?;
        }
        let microseconds = |ns: u64| ns as f64 / 1000.0;
        for (name, per_mille) in [("p50", 500), ("p90", 900), ("p99", 990)] {
            let value = microseconds(self.latency.quantile(per_mille));
            writeln!(f, "latency_{name}_us {value:.1}")?;
        }
        writeln!(f, "latency_max_us {:.1}", microseconds(self.latency.greatest()))?;
        if f.alternate() {
            for (upper, count) in self.latency.octaves() {
                writeln!(f, "latency_us_le_{upper} {count}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_of_known_values() {
        let histogram = Histogram::default();
        (1..=1000).for_each(|value| histogram.record(value * 1000));
        assert_eq!((histogram.count(), histogram.greatest()), (1000, 1_000_000));
        let p50 = histogram.quantile(500);
        assert!((500_000..=500_000 * 9 / 8).contains(&p50), "{p50}");
        assert_eq!(histogram.quantile(1000), 1_000_000);
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(Histogram::default().quantile(500), 0);
    }

    #[test]
    fn refusals_are_counted_by_errno() {
        let refusals = Refusals::default();
        [16, 28, 16, -5, i32::MAX].into_iter().for_each(|errno| refusals.increment(errno));
        assert_eq!(refusals.counted().collect::<Vec<_>>(), [(0, 2), (16, 2), (28, 1)]);
    }

    #[test]
    fn every_counter_is_listed_once() {
        let metrics = Metrics::default();
        metrics.placed.add(3);
        let counters = metrics.counters();
        assert_eq!(counters.iter().filter(|&&entry| entry == ("placed", 3)).count(), 1);
        assert!(counters.iter().map(|counter| counter.0).eq(MEANINGS.iter().map(|one| one.0)));
        assert!(metrics.to_string().contains("latency_p50_us 0.0"));
    }

    #[test]
    fn the_alternate_form_ends_with_the_histogram() {
        let metrics = Metrics::default();
        [9_000, 10_000, 50_000].iter().for_each(|&ns| metrics.latency.record(ns));
        assert_eq!(metrics.latency.octaves(), [(16, 2), (32, 0), (64, 1)]);
        assert!(
            format!("{metrics:#}").ends_with("_le_16 2\nlatency_us_le_32 0\nlatency_us_le_64 1\n")
        );
        assert!(!metrics.to_string().contains("_le_"));
    }

    proptest! {
        #[test]
        fn a_bucket_ends_at_most_an_eighth_above_its_values(ns: u64) {
            let end = end_of(bucket_of(ns));
            prop_assert!(end >= ns && end - ns <= ns / 8);
        }
    }
}
