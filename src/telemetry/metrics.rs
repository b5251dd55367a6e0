//! Counters and the latency histogram. Updated with relaxed atomics, mostly by the hot thread, and
//! readable from any thread.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// Counters since the start of the daemon.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $($(#[doc = $doc])+ pub $name: Counter,)+
            /// Time from the kernel's time stamp of the first event of an evaluation to the end of
            /// the move.
            pub latency: Histogram,
            /// Moves refused by the kernel, by errno.
            pub refusals: Refusals,
        }

        impl Metrics {
            /// Returns name and value of each counter, in order of declaration.
            pub fn counters(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)+]
            }
        }

        /// Name and help text of each counter, in order of declaration.
        pub const MEANINGS: &[(&str, &str)] = &[$((stringify!($name), concat!($($doc),+)),)+];
    };
}

counters! {
    /// Exec, UID and GID events received.
    events,
    /// Forks read, to track children of processes being placed.
    forks,
    /// Datagrams that did not come from the kernel or were malformed.
    refused_datagrams,
    /// Events that the kernel dropped because a socket was full.
    lost_events,
    /// Calls that failed with an error that can pass, such as a lack of memory, and are repeated.
    retried_calls,
    /// Forks that did not fit into the fork tracker.
    lost_forks,
    /// Scans of all processes: at start, on reload, after a loss.
    scans,
    /// Evaluations of processes, for any cause.
    evaluations,
    /// Looks at forked children of processes that were looked at meanwhile, and at processes born
    /// in another cgroup than that of their creator.
    fork_checks,
    /// Evaluations that waited for the name service, or for the name of a container.
    name_lookups,
    /// Evaluations that waited for the name of a script, or for a path in another mount namespace.
    examinations,
    /// Reads of an executable that blocked the hot thread for 5 ms, so that another thread took
    /// over.
    blocked_reads,
    /// Executables that could not be read: only rules without `exe`, or by path alone, were
    /// applied.
    unreadable_executables,
    /// Examinations of executables refused because too many of the same user were queued.
    refused_examinations,
    /// Evaluations deferred because their user had used up its budget.
    deferred,
    /// Processes that had exited before their evaluation.
    gone,
    /// Evaluations that matched no rule.
    no_rule,
    /// Matches of rules that only observe.
    would_match,
    /// Evaluations that counted no rules that observe, because what only these need could not be read in time.
    not_observed,
    /// Evaluations that matched an `ignore` rule.
    ignored,
    /// Evaluations that matched a rule which cannot be applied on this host.
    inapplicable,
    /// Evaluations of processes moved only by a rule that names them: kernel threads, PID 1,
    /// systemd.
    protected,
    /// Evaluations of sticky processes, which stay in their cgroup.
    sticky,
    /// Processes that a client of the socket registered as sticky.
    sticky_registered,
    /// Children that inherited the sticky state.
    sticky_inherited,
    /// Sticky registrations cancelled by a client.
    sticky_cancelled,
    /// Sticky registrations refused: no such process, process of another user, or table full.
    sticky_refused,
    /// Those of them, children included, for which there was no room: a user has room for 4,096 processes.
    sticky_over_limit,
    /// Processes whose ancestors could not be recorded, because 262,144 others are.
    lost_ancestors,
    /// Processes that did not get the rule of their origin, because 262,144 others have one.
    lost_origins,
    /// Connections to the socket that ended without a complete request: invalid data, timeout, too
    /// many.
    sticky_dropped,
    /// Connections to the control socket refused because too many were open.
    control_refused,
    /// Processes found in the cgroup of their rule.
    in_place,
    /// Processes moved to the cgroup of their rule.
    placed,
    /// Processes that would have been moved, with `--dry-run`.
    would_place,
    /// Rechecks that found the process in the cgroup of its rule.
    confirmed,
    /// Processes found outside the cgroup of their rule because another process had moved them.
    external_moves_found,
    /// Processes left where another process had moved them.
    abandoned,
    /// Moves of any process by others that the kernel traced.
    traced_moves,
    /// Traced moves that were lost; a scan follows.
    lost_moves,
    /// Pins that ended because another process than the client moved the pinned one.
    broken_pins,
    /// Moves refused by the kernel.
    refused,
    /// Evaluations of processes left in their systemd unit, because their rule has no
    /// `leave_units`.
    kept_in_unit,
    /// Evaluations of processes left in a container that root created.
    kept_in_container,
    /// Evaluations of processes left below the service manager of another user that no rule moves.
    kept_in_job,
    /// Evaluations of processes left in the slice of their user, since a table limits it.
    kept_in_slice,
    /// Cgroups created as the target of a rule.
    groups_created,
    /// Processes placed in a cgroup that they share, because too many cgroups were created for their user.
    groups_over_limit,
    /// Cgroups removed because they were empty for the time set in their tables.
    groups_removed,
    /// Settings of cgroups that were reverted, since no table contains them any more.
    settings_reverted,
    /// Settings of cgroups that no table contains any more and that could not be reverted.
    settings_not_reverted,
    /// Systemd units that received the settings of their table.
    units_configured,
    /// Systemd units that could not be configured.
    units_refused,
    /// Systemd units with settings reverted, since no table contains them any more.
    units_released,
    /// Lookups of the main PID of a user's service manager.
    manager_lookups,
    /// Lookups of the main PID of a user's service manager that systemd did not answer.
    failed_manager_lookups,
    /// Executions of files of gated rules that waited for the placement.
    gate_waits,
    /// Those of them whose process was moved before the program began.
    gated,
    /// Those that went on without a placement, because their rule was not certain without a wait.
    gate_skipped,
    /// Those that went on without a placement, because they had waited for 10 ms.
    gate_late,
    /// Times at which the gate was opened, because no execution was answered for a minute.
    gate_opened,
    /// Processes returned to their cgroup, because the execution that the gate had placed them for failed.
    gate_returned,
    /// Processes placed by a gated rule after their execution, because it went on before or did not wait.
    ungated,
    /// PIDs reused between evaluation and move; the process was evaluated again.
    reused_pids,
    /// Policies activated, including the first.
    reloads,
    /// Policies activated with a file kept at its last valid version because of new errors.
    refused_reloads,
    /// Evaluations in the history that later ones have overwritten.
    history_overwritten,
    /// Programs and rules of which the history has only the first 320 bytes of a text.
    history_truncated,
    /// Log records dropped because the log could not keep up, or could not be written.
    dropped_log_records,
    /// Log records suppressed by the limit on repetitions.
    suppressed_log_records,
}

/// Monotonic counter since the start of the daemon.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one to the counter, without ordering guarantees.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `by` to the counter, without ordering guarantees.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Relaxed);
    }

    /// Sets a counter that has a single writer, which costs less than [`Self::add`].
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Returns the current value of the counter.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One counter for each errno value.
#[derive(Debug)]
pub struct Refusals(Box<[Counter]>);

/// Number of counters: above the highest errno of Linux (`EHWPOISON` is 133).
const ERRNOS: usize = 134;

impl Default for Refusals {
    fn default() -> Self {
        Self((0..ERRNOS).map(|_| Counter::default()).collect())
    }
}

impl Refusals {
    /// Increments the counter of `errno`. Values outside the range count as 0.
    pub fn increment(&self, errno: i32) {
        let index = usize::try_from(errno).ok().filter(|&index| index < ERRNOS).unwrap_or(0);
        if let Some(counter) = self.0.get(index) {
            counter.increment();
        }
    }

    /// Returns each errno that occurred, with its count.
    pub fn counted(&self) -> impl Iterator<Item = (i32, u64)> + '_ {
        (0..).zip(&*self.0).map(|(errno, counter)| (errno, counter.get())).filter(|one| one.1 > 0)
    }
}

/// Buckets for each power of two: values have a resolution of 1/8.
const STEPS: usize = 8;
const BUCKETS: usize = 64 * STEPS;

/// Log-linear histogram of nanoseconds. Takes 4 KiB and does not allocate when recording.
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

    /// Returns the number of recorded values.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Returns the exact sum of all values.
    pub fn sum(&self) -> u64 {
        self.sum.load(Relaxed)
    }

    /// Returns the exact maximum of all values.
    pub fn greatest(&self) -> u64 {
        self.greatest.load(Relaxed)
    }

    /// Returns the value that `per_mille` thousandths of all values do not exceed, rounded up to
    /// the end of its bucket. 0 when there are no values.
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

    /// Returns the non-empty buckets: the greatest value of the bucket in nanoseconds, and the
    /// count.
    pub fn filled(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets
            .iter()
            .enumerate()
            .map(|(index, bucket)| (end_of(index), bucket.load(Relaxed)))
            .filter(|&(_, count)| count > 0)
    }

    /// Returns the values by powers of two, ascending: an upper bound in microseconds, and the
    /// count. Empty octaves between non-empty ones are included.
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

/// Returns the bucket of a value: values below 8 have a bucket each; then eight for each power of
/// two.
fn bucket_of(ns: u64) -> usize {
    let Some(power) = ns.checked_ilog2().filter(|&power| power >= 3) else {
        return ns as usize;
    };
    let step = (ns >> (power - 3)) as usize & (STEPS - 1);
    (power as usize - 2) * STEPS + step
}

/// Returns the greatest value of a bucket.
fn end_of(index: usize) -> u64 {
    if index < STEPS {
        return index as u64;
    }
    let power = index / STEPS + 2;
    let step = (index % STEPS) as u64;
    let width = 1u64.checked_shl((power - 3) as u32).unwrap_or(0);
    (8 + step).saturating_mul(width).saturating_add(width.saturating_sub(1))
}

impl fmt::Display for Metrics {
    /// Writes one line `name value` for each counter, then the latency in microseconds. The
    /// alternate form (`{:#}`) ends with the histogram: `latency_us_le_64 12` means that 12 moves
    /// took more than 32 and at most 64 microseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in self.counters() {
            writeln!(f, "{name} {value}")?;
        }
        for (name, per_mille) in [("p50", 500), ("p90", 900), ("p99", 990)] {
            let value = self.latency.quantile(per_mille) as f64 / 1000.0;
            writeln!(f, "latency_{name}_us {value:.1}")?;
        }
        writeln!(f, "latency_max_us {:.1}", self.latency.greatest() as f64 / 1000.0)?;
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
