//! Looks that wait for the name service.

use super::Engine;
use crate::event::batch::Look;
use crate::event::{Gid, Uid};
use crate::placer::Outcome;

/// Looks that wait for the name of one user at most; for more a scan is due.
const MOST_WAITING: usize = 1024;
/// An answer that took longer than this may have missed children, which only a scan finds.
pub(super) const SLOW_ANSWER_NS: u64 = 500_000_000;

/// What the name service was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    User(Uid),
    Group(Gid),
}

impl Engine {
    pub(super) fn wait(&mut self, asked: Asked, look: Look) -> Outcome {
        let waiting = self.waiting.entry(asked).or_default();
        if waiting.is_empty() {
            match asked {
                Asked::User(uid) => self.desk.identify(&self.policy, uid),
                Asked::Group(gid) => self.desk.name_group(&self.policy, gid),
            }
        }
        if waiting.len() < MOST_WAITING {
            waiting.push(look);
        } else {
            self.scan_is_due = true;
        }
        self.metrics.waited_for_names.increment();
        Outcome::Waiting
    }

    /// The name service answered: looks at those who waited for it.
    pub(super) fn resume(&mut self, asked: Asked) {
        for look in self.waiting.remove(&asked).unwrap_or_default() {
            self.note_slowness(look);
            self.look(look, None);
        }
    }
}
