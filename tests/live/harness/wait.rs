//! Waiting for what must become true. The only clock of the tests; deadlines are generous, because
//! the machine may be busy with something else.

use std::time::{Duration, Instant};

/// How long to wait for what takes microseconds on an idle machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long after the last event every process must be in its cgroup.
pub(crate) const REST: Duration = Duration::from_secs(3);

/// How long until `condition` is true; `None` when it is not before `limit`.
pub(crate) fn within(limit: Duration, condition: impl FnMut() -> bool) -> Option<Duration> {
    let begin = Instant::now();
    eventually(limit, condition).then(|| begin.elapsed())
}

/// Asks again and again; whether `condition` held before the deadline.
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
