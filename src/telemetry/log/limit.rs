//! Rate limit for repeated log records: one per cause and interval, with the number of suppressed
//! ones.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::event::Nanos;
use crate::telemetry::metrics::Metrics;

/// Minimum interval between two records of one cause.
const INTERVAL_NS: u64 = 10_000_000_000;
/// Maximum number of causes in one interval; records of further ones are suppressed. Parts of a cause can
/// be chosen by users.
const CAUSES: usize = 1024;

/// Time of the last record of each cause.
#[derive(Debug)]
pub struct LogLimiter {
    said: HashMap<u64, (Nanos, u64), FixedState>,
    metrics: Arc<Metrics>,
    is_closed: bool,
}

/// Number of records of a cause that were suppressed before this one. Zero is formatted as an empty
/// string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftOut(u64);

impl LogLimiter {
    /// Creates a limiter that counts suppressed records in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { said: HashMap::default(), metrics, is_closed: false }
    }

    /// Creates a limiter that admits no record: for decisions that are not carried out.
    pub fn closed() -> Self {
        let metrics = Arc::default();
        Self { said: HashMap::default(), metrics, is_closed: true }
    }

    /// Checks whether a record of this cause may be written now. Returns `None` if it is
    /// suppressed.
    pub fn admit(&mut self, cause: &impl Hash, now: Nanos) -> Option<LeftOut> {
        if self.is_closed {
            return None;
        }
        let key = FixedState::default().hash_one(cause);
        if self.said.len() >= CAUSES && !self.said.contains_key(&key) {
            self.said.retain(|_, (last, _)| now.since(*last) < INTERVAL_NS);
            if self.said.len() >= CAUSES {
                self.metrics.suppressed_log_records.increment();
                return None;
            }
        }
        let Some((last, left_out)) = self.said.get_mut(&key) else {
            self.said.insert(key, (now, 0));
            return Some(LeftOut(0));
        };
        if now.since(*last) < INTERVAL_NS {
            *left_out += 1;
            self.metrics.suppressed_log_records.increment();
            return None;
        }
        *last = now;
        Some(LeftOut(std::mem::take(left_out)))
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({count} similar suppressed)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_an_interval_with_the_number_left_out() {
        let metrics = Arc::new(Metrics::default());
        let mut limiter = LogLimiter::new(Arc::clone(&metrics));
        assert_eq!(limiter.admit(&"a", Nanos(0)), Some(LeftOut(0)));
        assert_eq!(limiter.admit(&"a", Nanos(1)), None);
        assert_eq!(limiter.admit(&"b", Nanos(1)), Some(LeftOut(0)));
        let later = limiter.admit(&"a", Nanos(INTERVAL_NS)).unwrap();
        assert_eq!(later.to_string(), " (1 similar suppressed)");
        assert_eq!(metrics.suppressed_log_records.get(), 1);
    }

    #[test]
    fn a_closed_limiter_admits_nothing() {
        assert_eq!(LogLimiter::closed().admit(&"a", Nanos(0)), None);
    }

    #[test]
    fn causes_in_an_interval_are_bounded() {
        let metrics = Arc::new(Metrics::default());
        let mut limiter = LogLimiter::new(Arc::clone(&metrics));
        let admitted =
            (0..5000u32).filter(|cause| limiter.admit(cause, Nanos(1)).is_some()).count();
        assert_eq!(admitted, CAUSES);
        assert_eq!(metrics.suppressed_log_records.get(), 5000 - CAUSES as u64);
        assert!(limiter.admit(&9999, Nanos(1 + INTERVAL_NS)).is_some());
    }
}
