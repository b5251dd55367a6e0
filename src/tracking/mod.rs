//! Which processes must be evaluated: [`queue`] has one entry per process that changed,
//! [`fork_tracker`] finds forked children that may be misplaced, and [`coalescer`] pauses in storms.
//! Pure.

pub mod coalescer;
pub mod fork_tracker;
pub mod queue;
mod windows;
