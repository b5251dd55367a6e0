//! Reaction to calls that the kernel refuses to the running daemon. An error that can pass must not
//! end the daemon: the call is repeated after a pause, and processes that may have been missed are
//! found by a scan.

use std::io;
use std::sync::Arc;

use nix::errno::Errno;

use super::Engine;
use crate::engine::kernel::Kernel;
use crate::event::Nanos;
use crate::kernel::errno::{can_pass, errno_of};
use crate::telemetry::log::limit::LogLimiter;
use crate::telemetry::metrics::Metrics;

/// Pause after a turn in which a call failed. A lasting error takes less than 1 % of one CPU, and
/// one that passes delays placements by no more than a timer interrupt does.
const PAUSE_NS: u64 = 1_000_000;

/// Errors of calls, and the pause after them.
pub(super) struct KernelErrors {
    metrics: Arc<Metrics>,
    limiter: LogLimiter,
    /// End of the pause, if a call failed in the last turn.
    pause: Option<Nanos>,
}

impl KernelErrors {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { limiter: LogLimiter::new(Arc::clone(&metrics)), metrics, pause: None }
    }

    /// Records that a turn begins, in which the failed calls are repeated.
    pub(super) fn begin_turn(&mut self) {
        self.pause = None;
    }

    /// Returns the end of the pause, if a call failed in the last turn.
    pub(super) const fn pause(&self) -> Option<Nanos> {
        self.pause
    }

    fn note(&mut self, call: &'static str, errno: Errno, now: Nanos) {
        self.metrics.retried_calls.increment();
        self.pause = Some(now.plus(PAUSE_NS));
        if let Some(left_out) = self.limiter.admit(&(call, errno as i32), now) {
            let what = errno.desc();
            ::log::warn!("{call}: {what} ({errno:?}); the call is repeated{left_out}");
        }
    }
}

impl<K: Kernel> Engine<K> {
    /// Returns the result of a call, or `None` after an error that can pass. `call` names it in the
    /// log.
    ///
    /// # Errors
    /// An error that a repetition cannot change, such as EBADF: only a restart of the daemon can.
    pub(super) fn tolerate<T>(
        &mut self,
        call: &'static str,
        result: io::Result<T>,
    ) -> io::Result<Option<T>> {
        let error = match result {
            Ok(result) => return Ok(Some(result)),
            Err(error) => error,
        };
        let errno = errno_of(&error);
        if !can_pass(errno) {
            return Err(error);
        }
        self.errors.note(call, errno, self.kernel.now());
        // The kernel frees a datagram that it cannot copy.
        if !matches!(errno, Errno::EINTR | Errno::EAGAIN) {
            self.rescan.want_after_loss();
        }
        Ok(None)
    }
}

#[cfg(test)]
#[path = "kernel_errors_tests.rs"]
mod tests;
