//! Evaluations that wait for the name service, and the replies of other threads.

use super::Engine;
use super::evaluation::Job;
use super::rescan::Urgency;
use crate::control::memory::Trouble;
use crate::event::batch::Look;
use crate::event::{Gid, Uid};
use crate::placer::Outcome;
use crate::sys;
use crate::worker::Answer;

/// Maximum number of evaluations that wait for one name; beyond it a scan is requested.
const MOST_WAITING: usize = 1024;
/// Time after which a wait for another thread is recorded for `explain`.
const SLOW_ANSWER_NS: u64 = 500_000_000;

/// Name lookup that evaluations wait for.
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
            self.rescan.want(Urgency::Limited);
        }
        self.metrics.waited_for_names.increment();
        Outcome::Waiting
    }

    /// Continues the evaluations that waited for this lookup.
    fn resume(&mut self, asked: Asked) {
        for look in self.waiting.remove(&asked).unwrap_or_default() {
            self.remember_wait(look);
            self.answered.push_back(Job::new(look));
        }
    }

    /// Handles a reply of another thread.
    pub(super) fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Policy(policy) => {
                self.adopt(policy);
                self.errands.reload_answered();
            }
            Answer::User { generation, user } if generation == self.policy.generation => {
                let asked = Asked::User(user.identity.uid);
                if self.policy.meet(user) {
                    self.rescan.want(Urgency::Now);
                }
                self.resume(asked);
            }
            Answer::Group { generation, gid, name } if generation == self.policy.generation => {
                self.policy.groups.insert(gid, name);
                self.resume(Asked::Group(gid));
            }
            // Requested under an earlier policy: the scan since then evaluates the processes that
            // waited.
            Answer::User { .. } | Answer::Group { .. } => {}
            Answer::Examined { pid, number, examined } => {
                self.take_examined(pid, number, examined);
            }
            Answer::Readable(pid) => self.take_readable(pid),
        }
    }

    /// Records a long wait of an evaluation.
    pub(super) fn remember_wait(&mut self, look: Look) {
        let at = sys::monotonic();
        let waited = at.since(look.since);
        if waited > SLOW_ANSWER_NS {
            self.remember_trouble(look.pid, Trouble::Waited(waited), at);
        }
    }
}
