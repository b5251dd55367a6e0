//! Provides waits that end on time and on an interrupt.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::Result;

/// The end of the demo, and the signals that end it earlier.
pub(crate) struct Clock {
    signals: SignalFd,
    end: Instant,
}

impl Clock {
    /// Starts the clock and blocks SIGINT, SIGTERM and SIGHUP, which become an error of
    /// [`Self::pause`], so that the demo cleans up.
    pub(crate) fn start(at_most: Duration) -> Result<Self> {
        let wanted = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
        let set: SigSet = wanted.into_iter().collect();
        set.thread_block()?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { signals, end: Instant::now() + at_most })
    }

    /// Sleeps for `time`, until an interrupt, or until the end of the demo.
    pub(crate) fn pause(&mut self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        loop {
            if self.signals.read_signal()?.is_some() {
                return Err("interrupted; the demo has cleaned up".into());
            }
            let now = Instant::now();
            if now > self.end {
                return Err("timeout: is the machine very busy? The demo has cleaned up".into());
            }
            if now >= until {
                return Ok(());
            }
            let mut fds = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            let left = PollTimeout::try_from(until - now).unwrap_or(PollTimeout::MAX);
            // A timeout below a millisecond is rounded to 0: then this loop is the wait. An error
            // shows at the next turn.
            let _ready = poll(&mut fds, left);
        }
    }
}
