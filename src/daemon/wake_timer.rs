//! Timer that wakes the main loop at the next due time.
//!
//! A timeout of epoll_wait(2) starts and cancels a kernel timer with every wait: 0.9 us of the 11 us
//! of a wait for one datagram (measured, virtual machine). This timer is set only when the due time
//! is earlier than the time for which it is set, or when it would soon expire without need: at most
//! 100 times a second under a load of events.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::epoll::EpollTimeout;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::event::Nanos;

/// Remaining time at which an unnecessary expiration is postponed.
const SOON_NS: u64 = 10_000_000;
/// Due time of a timer that is not set.
const NEVER: Nanos = Nanos(u64::MAX);

pub(super) struct WakeTimer {
    timer: TimerFd,
    /// Time for which it is set.
    due: Nanos,
}

impl AsFd for WakeTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

impl WakeTimer {
    /// Creates a timer that is not set.
    ///
    /// # Errors
    /// As timerfd_create(2).
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self { timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?, due: NEVER })
    }

    /// Returns the timeout of a wait that must end at `due` at the latest, and sets the timer if
    /// necessary. The wait may end earlier.
    pub(super) fn timeout(&mut self, due: Nanos, now: Nanos) -> EpollTimeout {
        let left = due.since(now);
        if left == 0 {
            return EpollTimeout::ZERO;
        }
        let expires_early = self.due < due && self.due.since(now) < SOON_NS;
        if due < self.due || expires_early {
            let expiration = Expiration::OneShot(Duration::from_nanos(left).into());
            if self.timer.set(expiration, TimerSetTimeFlags::empty()).is_err() {
                return EpollTimeout::try_from(left.div_ceil(1_000_000))
                    .unwrap_or(EpollTimeout::ZERO);
            }
            self.due = due;
        }
        EpollTimeout::NONE
    }

    /// Records that the timer has expired.
    pub(super) fn expired(&mut self) {
        // Setting it later clears the expiration too, so an error of the read costs one more turn.
        let _expired = self.timer.wait();
        self.due = NEVER;
    }
}

#[cfg(test)]
mod tests {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;
    use crate::sys::monotonic;

    fn has_expired(timer: &WakeTimer, within_ms: u16) -> bool {
        let mut fds = [PollFd::new(timer.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(within_ms)).unwrap() == 1
    }

    #[test]
    fn it_expires_at_the_earliest_due_time() {
        let mut timer = WakeTimer::new().unwrap();
        let now = monotonic();
        assert_eq!(timer.timeout(now.plus(3_600_000_000_000), now), EpollTimeout::NONE);
        assert!(!has_expired(&timer, 20));
        let now = monotonic();
        assert_eq!(timer.timeout(now.plus(10_000_000), now), EpollTimeout::NONE);
        // A later due time leaves it as it is.
        assert_eq!(timer.timeout(now.plus(3_600_000_000_000), now), EpollTimeout::NONE);
        assert!(has_expired(&timer, 10_000));
        timer.expired();
        assert!(!has_expired(&timer, 0));
        let now = monotonic();
        assert_eq!(timer.timeout(now.plus(1), now), EpollTimeout::NONE);
        assert!(has_expired(&timer, 10_000));
    }

    #[test]
    fn it_is_postponed_instead_of_waking_without_need() {
        let mut timer = WakeTimer::new().unwrap();
        let now = monotonic();
        assert_eq!(timer.timeout(now.plus(SOON_NS / 2), now), EpollTimeout::NONE);
        assert_eq!(timer.timeout(now.plus(3_600_000_000_000), now), EpollTimeout::NONE);
        assert!(!has_expired(&timer, 50));
    }

    #[test]
    fn a_due_time_that_has_passed_ends_the_wait_at_once() {
        let mut timer = WakeTimer::new().unwrap();
        assert_eq!(timer.timeout(Nanos(5), Nanos(5)), EpollTimeout::ZERO);
        assert_eq!(timer.timeout(Nanos(4), Nanos(5)), EpollTimeout::ZERO);
        assert!(!has_expired(&timer, 0));
    }
}
