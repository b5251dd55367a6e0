//! Evaluations that wait for the name service, and the replies of other threads.

use super::Engine;
use super::job::Evaluation;
use super::rescan::Urgency;
use crate::control::failures::PlacementFailure;
use crate::engine::kernel::Kernel;
use crate::engine::placer::Placement;
use crate::event::{Gid, Uid};
use crate::policy::Policy;
use crate::policy::worker::WorkerReply;
use crate::rules::container::ContainerKey;
use crate::tracking::queue::EvaluationRequest;

/// Maximum number of evaluations that wait for one name; beyond it a scan is requested.
const MOST_WAITING: usize = 1024;
/// Time after which a wait for another thread is recorded for `explain`.
const SLOW_ANSWER_NS: u64 = 500_000_000;

/// Name lookup that evaluations wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum PendingName {
    User(Uid),
    Group(Gid),
    Container(ContainerKey),
}

impl<K: Kernel> Engine<K> {
    pub(super) fn wait(&mut self, asked: PendingName, evaluation: EvaluationRequest) -> Placement {
        let waiting = self.waiting.entry(asked).or_default();
        if waiting.is_empty() {
            ask(asked, &self.policy, &mut self.kernel);
        }
        if waiting.len() < MOST_WAITING {
            waiting.push(evaluation);
        } else {
            self.rescan.want(Urgency::Limited);
        }
        self.metrics.name_lookups.increment();
        Placement::Waiting
    }

    /// Repeats a lookup that was answered for another policy: an earlier one, after which a scan evaluates the
    /// processes that waited, or that of a plan, which may have replaced the request for the active one.
    fn ask_again(&mut self, asked: PendingName) {
        if self.waiting.contains_key(&asked) {
            ask(asked, &self.policy, &mut self.kernel);
        }
    }

    /// Continues the evaluations that waited for this lookup.
    fn resume(&mut self, asked: PendingName) {
        self.resume_plan(asked);
        for evaluation in self.waiting.remove(&asked).unwrap_or_default() {
            self.remember_wait(evaluation);
            self.answered.push_back(Evaluation::new(evaluation));
        }
    }

    /// Handles a reply of another thread.
    pub(super) fn answer(&mut self, answer: WorkerReply) {
        match answer {
            WorkerReply::Policy(policy) => {
                self.adopt(policy);
                self.commands.reload_answered();
            }
            WorkerReply::Planned(found) => self.take_planned(*found),
            WorkerReply::User { generation, user } if generation == self.policy.generation => {
                let asked = PendingName::User(user.identity.uid);
                // If no rule needs it, the user was only looked up because a name is missing.
                if self.policy.needs_identities() && self.policy.meet(user) {
                    self.rescan.want(Urgency::Now);
                }
                self.resume(asked);
            }
            WorkerReply::Group { generation, gid, name }
                if generation == self.policy.generation =>
            {
                self.policy.groups.insert(gid, name);
                self.resume(PendingName::Group(gid));
            }
            WorkerReply::Container { generation, key, name }
                if generation == self.policy.generation =>
            {
                let now = self.kernel.now();
                self.policy.containers.add(key, name, now);
                self.resume(PendingName::Container(key));
            }
            WorkerReply::User { generation, user } => {
                let asked = PendingName::User(user.identity.uid);
                if let Some(policy) = self.plan_for(generation) {
                    policy.meet(user);
                    self.resume_plan(asked);
                }
                self.ask_again(asked);
            }
            WorkerReply::Group { generation, gid, name } => {
                let asked = PendingName::Group(gid);
                if let Some(policy) = self.plan_for(generation) {
                    policy.groups.insert(gid, name);
                    self.resume_plan(asked);
                }
                self.ask_again(asked);
            }
            WorkerReply::Container { generation, key, name } => {
                let (asked, now) = (PendingName::Container(key), self.kernel.now());
                if let Some(policy) = self.plan_for(generation) {
                    policy.containers.add(key, name, now);
                    self.resume_plan(asked);
                }
                self.ask_again(asked);
            }
            WorkerReply::Examined { pid, number, examined } => {
                self.take_examined(pid, number, examined);
            }
            WorkerReply::Readable(pid) => self.take_readable(pid),
            WorkerReply::Manager(reply) => {
                let now = self.kernel.now();
                self.placer.managers().take(reply, &mut self.kernel, now);
            }
            WorkerReply::NamesAppeared => self.commands.names_appeared(),
        }
    }

    /// Records a long wait of an evaluation.
    pub(super) fn remember_wait(&mut self, evaluation: EvaluationRequest) {
        let at = self.kernel.now();
        let waited = at.since(evaluation.since);
        if waited > SLOW_ANSWER_NS {
            self.remember_failure(evaluation.pid, PlacementFailure::Waited(waited), at);
        }
    }
}

/// Requests the lookup of a name for the rules of a policy.
pub(super) fn ask(asked: PendingName, policy: &Policy, kernel: &mut impl Kernel) {
    match asked {
        PendingName::User(uid) => kernel.identify(policy, uid),
        PendingName::Group(gid) => kernel.name_group(policy, gid),
        PendingName::Container(key) => kernel.name_container(policy, key),
    }
}
