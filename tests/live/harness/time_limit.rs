//! Ends a test program whose test does not end: a hanging test would keep all others waiting.

use std::fs;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Ten times as long as any test takes on a machine with two slow CPUs.
const LIMIT: Duration = Duration::from_secs(600);

/// Kills the daemon and the actors, which would disturb the tests of another run.
fn kill_children() {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return };
    for thread in threads.flatten() {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            // It may have exited.
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
    }
}

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
                kill_children();
                std::process::abort();
            }
        });
        Self { _is_over: is_over }
    }
}
