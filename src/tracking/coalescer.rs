//! Coalescing of events during a storm, so that fewer wake-ups are needed. Reads no clock: the time
//! is an argument.
//!
//! A wake-up costs more than an event: 15 us of CPU for an exec that matches no rule when each
//! wakes the daemon, 4 us when ten are read at once, 2.5 us when thirty are (measured at 10,000 a
//! second). An event that wakes no thread does not slow the machine down. So during a storm without
//! placements, reading pauses for 3 ms at a time. On a machine that starts thousands of processes a
//! second, scheduling delays are of that order anyway; below the storm threshold, and as soon as a
//! process is placed, every event is read at once.

use crate::event::Nanos;

/// Time over which the rate is measured.
const WINDOW_NS: u64 = 20_000_000;
/// Number of events in a window that make a storm: 3,000 a second.
const STORM: u64 = 60;
/// Duration of one pause in a storm.
const PAUSE_NS: u64 = 3_000_000;
/// Time without pauses after a placement.
const ALERT_NS: u64 = 200_000_000;

/// Event rate and time of the last placement.
#[derive(Debug, Default)]
pub struct Coalescer {
    began: Nanos,
    events: u64,
    is_storm: bool,
    placed: Nanos,
}

impl Coalescer {
    /// Records that a process was placed.
    pub fn placed(&mut self, now: Nanos) {
        self.placed = now;
    }

    /// Returns the pause at `now` in nanoseconds, 0 for none; `events` is the number read since the
    /// start.
    pub fn pause(&mut self, events: u64, now: Nanos) -> u64 {
        if now.since(self.began) >= WINDOW_NS {
            // A window that was extended by an idle period is not a storm, however many events it
            // ends with.
            let is_short = now.since(self.began) < 2 * WINDOW_NS;
            self.is_storm = is_short && events - self.events >= STORM;
            self.began = now;
            self.events = events;
        }
        let is_alert = self.placed.0 != 0 && now.since(self.placed) < ALERT_NS;
        if self.is_storm && !is_alert { PAUSE_NS } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds one event per `gap_ns` for half a second; returns the last pause.
    fn run(pace: &mut Coalescer, gap_ns: u64) -> u64 {
        let mut pause = 0;
        for event in 1..500_000_000 / gap_ns {
            pause = pace.pause(event, Nanos(1 + event * gap_ns));
        }
        pause
    }

    #[test]
    fn a_storm_pauses_and_a_busy_hour_does_not() {
        assert_eq!(run(&mut Coalescer::default(), 100_000), PAUSE_NS);
        assert_eq!(run(&mut Coalescer::default(), 1_000_000), 0);
    }

    #[test]
    fn a_placement_ends_the_pauses_for_a_while() {
        let mut pace = Coalescer::default();
        pace.placed(Nanos(450_000_000));
        assert_eq!(run(&mut pace, 100_000), 0);
        pace.placed(Nanos(1));
        assert_eq!(
            run(&mut Coalescer { placed: Nanos(1), ..Coalescer::default() }, 100_000),
            PAUSE_NS
        );
    }

    #[test]
    fn a_storm_has_sixty_events_in_a_window_that_no_idle_period_extended() {
        for (events, window, expected) in [
            (STORM, WINDOW_NS, PAUSE_NS),
            (STORM - 1, WINDOW_NS, 0),
            (STORM, WINDOW_NS - 1, 0),
            (STORM, 2 * WINDOW_NS - 1, PAUSE_NS),
            (STORM, 2 * WINDOW_NS, 0),
        ] {
            let mut pace = Coalescer { began: Nanos(1), ..Coalescer::default() };
            assert_eq!(pace.pause(events, Nanos(1 + window)), expected, "{events} in {window} ns");
        }
    }

    #[test]
    fn the_time_without_pauses_ends() {
        let placed = Nanos(5);
        for (after, expected) in [(ALERT_NS - 1, 0), (ALERT_NS, PAUSE_NS)] {
            let now = placed.plus(after);
            let mut pace = Coalescer { began: now, is_storm: true, placed, ..Coalescer::default() };
            assert_eq!(pace.pause(0, now), expected);
        }
    }
}
