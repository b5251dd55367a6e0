//! What the daemon reports about itself: log output and counters.

pub mod log;
pub mod metrics;
