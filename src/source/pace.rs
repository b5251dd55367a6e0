//! When to let events gather before they are read. Time is an argument.
//!
//! Being woken costs more than an event does: 15 us of CPU for an exec that matches nothing when each
//! wakes us, 4 us when ten are read at once, 2.5 us when thirty are (measured at 10,000 a second). And
//! what wakes nobody costs the machine nothing. So under a storm of events of which none leads to a
//! placement, reading pauses for three milliseconds at a time. A machine that starts thousands of
//! processes a second schedules no better than that anyway; below the storm, and as soon as something
//! is placed, every event is read at once.

use crate::event::Nanos;

/// Rates are taken over this time.
const WINDOW_NS: u64 = 20_000_000;
/// Events in a window that make a storm: 3,000 a second.
const STORM: u64 = 60;
/// The pause.
const PAUSE_NS: u64 = 3_000_000;
/// After a placement no pause is made for this long.
const ALERT_NS: u64 = 200_000_000;

/// The rate of events.
#[derive(Debug, Default)]
pub struct Pace {
    began: Nanos,
    events: u64,
    is_storm: bool,
    placed: Nanos,
}

impl Pace {
    /// A process was placed.
    pub fn placed(&mut self, now: Nanos) {
        self.placed = now;
    }

    /// How long to pause at `now`, `events` having been read since the start. 0 for not at all.
    pub fn pause(&mut self, events: u64, now: Nanos) -> u64 {
        if now.since(self.began) >= WINDOW_NS {
            // A longer window, after quiet, is no storm however many events it ends with.
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

    /// One event in each `gap_ns`, for half a second; the last pause.
    fn run(pace: &mut Pace, gap_ns: u64) -> u64 {
        let mut pause = 0;
        for event in 1..500_000_000 / gap_ns {
            pause = pace.pause(event, Nanos(1 + event * gap_ns));
        }
        pause
    }

    #[test]
    fn a_storm_pauses_and_a_busy_hour_does_not() {
        assert_eq!(run(&mut Pace::default(), 100_000), PAUSE_NS);
        assert_eq!(run(&mut Pace::default(), 1_000_000), 0);
    }

    #[test]
    fn a_placement_ends_the_pauses_for_a_while() {
        let mut pace = Pace::default();
        pace.placed(Nanos(450_000_000));
        assert_eq!(run(&mut pace, 100_000), 0);
        pace.placed(Nanos(1));
        assert_eq!(run(&mut Pace { placed: Nanos(1), ..Pace::default() }, 100_000), PAUSE_NS);
    }
}
