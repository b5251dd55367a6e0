//! A time limit for reads that the owner of a process can make hang.

use std::sync::mpsc;
use std::time::Duration;

/// Time limit for a read.
const PATIENCE: Duration = Duration::from_secs(2);

/// Returns the result of work that can hang, on a thread that is left behind after the time limit.
pub(super) fn patiently<T: Send + 'static>(
    work: impl FnOnce() -> Option<T> + Send + 'static,
) -> Option<T> {
    let (answer, answered) = mpsc::channel();
    std::thread::spawn(move || {
        // Sending fails after the time limit, when the receiver is gone.
        let _ = answer.send(work());
    });
    answered.recv_timeout(PATIENCE).ok().flatten()
}
