//! Waits for conditions. The only clock of the tests; deadlines are generous, because the machine
//! may be busy with other work.

use std::time::{Duration, Instant};

/// Limit for operations that take microseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Limit after the last event until every process must be in its cgroup.
pub(crate) const REST: Duration = Duration::from_secs(3);

/// Returns the time until `condition` is true; `None` if this takes longer than `limit`.
pub(crate) fn within(limit: Duration, condition: impl FnMut() -> bool) -> Option<Duration> {
    let begin = Instant::now();
    eventually(limit, condition).then(|| begin.elapsed())
}

/// Repeats `condition`; returns whether it became true before the deadline.
pub(crate) fn eventually(deadline: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + deadline;
    let mut pause = Duration::from_millis(1);
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(100));
    }
}
