//! Ends a test program whose test does not end: a hanging test would keep all others waiting.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// Ten times as long as any test takes on a machine with two slow CPUs.
const LIMIT: Duration = Duration::from_secs(600);

/// Ends the program unless it is dropped in time.
pub(super) struct TimeLimit {
    _is_over: Sender<()>,
}

impl TimeLimit {
    /// Begins with the test of this thread.
    pub(super) fn begin() -> Self {
        let name = thread::current().name().unwrap_or("a test").to_owned();
        let (is_over, ends) = channel::<()>();
        thread::spawn(move || {
            if ends.recv_timeout(LIMIT) == Err(RecvTimeoutError::Timeout) {
                eprintln!("{name} did not end within {} s", LIMIT.as_secs());
                std::process::abort();
            }
        });
        Self { _is_over: is_over }
    }
}
