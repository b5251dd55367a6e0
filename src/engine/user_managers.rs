//! The service managers of users (`systemd --user`) and their `(sd-pam)`: the only processes of a
//! user that must stay in `user@UID.service`, because a moved manager cannot start units any more.
//! Must not trust anything that a user can forge, and must not block the hot thread.
//!
//! A user can run any code under any path, for example by LD_PRELOAD or in a mount namespace, and
//! owns the cgroups below `user@UID.service`, and the manager is the parent of every process that
//! is orphaned below it. So the executable, the cgroup and the parent only select candidates.
//! Protected processes are
//!
//! - the process that PID 1 reports as MainPID of `user@UID.service`, if PID 1 is its parent, and
//! - its oldest child, if that is named `(sd-pam)`: it is forked before the manager's own exec.
//!
//! Both are looked up on another thread ([`crate::kernel::user_manager`]) when the first candidate of a user is
//! evaluated. Until the reply arrives the candidate stays where it is. A reply is valid as long as
//! its manager lives.
//!
//! The remaining gap: a user may trace their own manager and may kill the `(sd-pam)`. So two
//! processes that run the user's code stay outside of the cgroup of their rule, with as many
//! threads as `TasksMax=` of `user-UID.slice` allows.

mod starting;

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};

use crate::engine::kernel::Kernel;
use crate::event::{Nanos, Pid, Uid};
use crate::kernel::user_manager::{LookupError, LookupReply, ManagerProcesses};
use crate::telemetry::log::limit::LogLimiter;
use crate::telemetry::metrics::Metrics;
use crate::tracking::queue::EvaluationRequest;
use starting::StartingChildren;

/// Maximum number of waiting candidates per user. The manager and its `(sd-pam)` are two.
const MAX_WAITING: usize = 64;
/// Maximum number of users with a stored result; 200 bytes each.
const MAX_USERS: usize = 4096;
/// Minimum interval between two lookups for one user.
const LOOKUP_INTERVAL_NS: u64 = 1_000_000_000;
/// Delay after a failed lookup.
const RETRY_NS: u64 = 5_000_000_000;

/// Maximum number of lookups for one manager without a known `(sd-pam)`. The first result can lack
/// an existing one, as observed with systemd 257: probably the lookup was made before the fork of
/// the `(sd-pam)`.
const MAX_LOOKUPS_WITHOUT_PAM: u8 = 5;

/// Process that runs a program of systemd in the cgroup of a user's service manager.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ManagerCandidate {
    /// The evaluation, which is repeated when a reply arrives.
    pub evaluation: EvaluationRequest,
    /// Effective user ID of the process.
    pub uid: Uid,
    /// Parent process, if it is known.
    pub parent: Option<Pid>,
    /// True if its name is `(sd-pam)`, which any process can set.
    pub is_named_pam: bool,
}

/// Decision whether a candidate may be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ManagerVerdict {
    /// The process is the manager or its `(sd-pam)`.
    Protected,
    /// The process is neither of them.
    Movable,
    /// The manager is unknown yet: [`UserManagers::take_due`] returns the candidate later.
    Pending,
}

/// What the replies so far show about a candidate.
#[derive(Clone, Copy, Debug)]
enum Known {
    Verdict(ManagerVerdict),
    /// A child of the manager, which may be about to become a unit.
    Child,
    Nothing,
}

/// Known state of one user's manager.
#[derive(Debug, Default)]
struct UserState {
    /// Last result, and the time at which it was requested.
    answer: Option<(Nanos, ManagerProcesses)>,
    /// True while a lookup is running or postponed.
    is_asked: bool,
    /// Earliest time of the next lookup.
    next_lookup: Nanos,
    /// Time of the last lookup.
    asked: Nanos,
    waiting: Vec<EvaluationRequest>,
    /// Number of consecutive results with the same manager and without an `(sd-pam)`.
    without_pam: u8,
}

/// Interface of the hot thread: results by user, and candidates that wait for one.
#[derive(Debug)]
pub(crate) struct UserManagers {
    users: HashMap<Uid, UserState, FixedState>,
    /// Managers and `(sd-pam)` processes of all results.
    protected: HashSet<Pid, FixedState>,
    starting: StartingChildren,
    /// Lookups to be repeated, each with its time.
    retries: VecDeque<(Nanos, Uid)>,
    /// Candidates to be evaluated again now.
    due: VecDeque<EvaluationRequest>,
    metrics: Arc<Metrics>,
    limiter: LogLimiter,
}

impl UserManagers {
    /// Creates a cache without results.
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            users: HashMap::default(),
            protected: HashSet::default(),
            starting: StartingChildren::default(),
            retries: VecDeque::new(),
            due: VecDeque::new(),
            limiter: LogLimiter::new(Arc::clone(&metrics)),
            metrics,
        }
    }

    /// Checks whether this is a manager or an `(sd-pam)`: their children must be evaluated at each
    /// fork. An exited process may still be listed.
    pub(crate) fn is_protected_parent(&self, pid: Pid) -> bool {
        // A user can trace their own manager and make it fork without an exec. With `CLONE_PARENT`
        // the manager's parent, process 1, is the parent of such a child.
        self.protected.contains(&pid) || pid.get() == 1 && !self.protected.is_empty()
    }

    /// Returns the time since which a process has waited for a reply.
    pub(crate) fn waits_since(&self, pid: Pid) -> Option<Nanos> {
        let mut waiting = self.users.values().flat_map(|user| &user.waiting);
        waiting.find(|evaluation| evaluation.pid == pid).map(|evaluation| evaluation.since)
    }

    /// Decides whether a candidate may be moved, as far as that is known now. Requests what is not.
    pub(crate) fn check(
        &mut self,
        candidate: ManagerCandidate,
        kernel: &mut impl Kernel,
        now: Nanos,
    ) -> ManagerVerdict {
        let ManagerCandidate { evaluation, uid, .. } = candidate;
        match self.find(candidate, kernel) {
            Known::Verdict(verdict) => verdict,
            Known::Child => self.starting.admit(evaluation, uid, now),
            Known::Nothing => self.wait(evaluation, uid, kernel, now),
        }
    }

    /// Returns the same as [`Self::check`] would, without an effect.
    pub(crate) fn known(
        &self,
        candidate: ManagerCandidate,
        kernel: &mut impl Kernel,
        now: Nanos,
    ) -> ManagerVerdict {
        match self.find(candidate, kernel) {
            Known::Verdict(verdict) => verdict,
            Known::Child if self.starting.is_over(candidate.evaluation.pid, now) => {
                ManagerVerdict::Movable
            }
            Known::Child | Known::Nothing => ManagerVerdict::Pending,
        }
    }

    fn find(&self, candidate: ManagerCandidate, kernel: &mut impl Kernel) -> Known {
        let ManagerCandidate { evaluation, uid, parent, is_named_pam } = candidate;
        let user = self.users.get(&uid);
        let may_be_pam = is_named_pam && user.is_some_and(UserState::may_find_pam);
        let Some((asked, found)) = user.and_then(|user| user.answer.as_ref()) else {
            return Known::Nothing;
        };
        let own = found.find(evaluation.pid);
        if own.is_some_and(|own| kernel.is_same(own.pid, &own.reference)) {
            return Known::Verdict(ManagerVerdict::Protected);
        }
        let manager = found.manager.as_ref();
        let manager = manager.filter(|one| kernel.is_same(one.pid, &one.reference));
        match manager {
            Some(manager) if parent == Some(manager.pid) && may_be_pam => Known::Nothing,
            Some(manager) if parent == Some(manager.pid) => Known::Child,
            // A unit has one main process, and the `(sd-pam)` is a child of that.
            Some(_) => Known::Verdict(ManagerVerdict::Movable),
            // PID 1 replied when this process already existed.
            None if evaluation.since < *asked => Known::Verdict(ManagerVerdict::Movable),
            None => Known::Nothing,
        }
    }

    fn wait(
        &mut self,
        evaluation: EvaluationRequest,
        uid: Uid,
        kernel: &mut impl Kernel,
        now: Nanos,
    ) -> ManagerVerdict {
        if !self.users.contains_key(&uid) && self.users.len() >= MAX_USERS {
            self.evict();
        }
        let user = self.users.entry(uid).or_default();
        if user.waiting.len() >= MAX_WAITING {
            return ManagerVerdict::Movable;
        }
        if user.waiting.iter().all(|waiting| waiting.pid != evaluation.pid) {
            user.waiting.push(evaluation);
        }
        if !user.is_asked {
            self.ask(uid, kernel, now);
        }
        ManagerVerdict::Pending
    }

    /// Removes the users without waiting candidates: their managers can be looked up again.
    fn evict(&mut self) {
        let protected = &mut self.protected;
        self.users.retain(|_, user| {
            let stays = user.is_asked || !user.waiting.is_empty();
            if !stays {
                user.forget(protected);
            }
            stays
        });
    }

    /// Requests the manager of a user, or postpones that until the interval is over.
    fn ask(&mut self, uid: Uid, kernel: &mut impl Kernel, now: Nanos) {
        let Some(user) = self.users.get_mut(&uid) else { return };
        user.is_asked = true;
        if now < user.next_lookup {
            let at = self.retries.iter().position(|&(due, _)| due > user.next_lookup);
            self.retries.insert(at.unwrap_or(self.retries.len()), (user.next_lookup, uid));
            return;
        }
        user.asked = now;
        user.next_lookup = now.plus(LOOKUP_INTERVAL_NS);
        self.metrics.manager_lookups.increment();
        if let Err(error) = kernel.find_manager(uid) {
            let error = LookupError::Run("cannot start a thread", error);
            self.take(LookupReply { uid, result: Err(error) }, kernel, now);
        }
    }

    /// Stores a reply, after which the waiting candidates are evaluated again. After a failure they
    /// continue to wait: moving a manager does more harm than leaving [`MAX_WAITING`] processes
    /// where they are.
    pub(crate) fn take(
        &mut self,
        LookupReply { uid, result }: LookupReply,
        kernel: &mut impl Kernel,
        now: Nanos,
    ) {
        let Some(user) = self.users.get_mut(&uid) else { return };
        user.is_asked = false;
        match result {
            Ok(found) => {
                ::log::debug!("the main process of user@{uid}.service: {found}");
                user.count_without_pam(&found);
                user.forget(&mut self.protected);
                self.protected.extend(found.pids());
                user.answer = Some((user.asked, found));
                self.due.extend(user.waiting.drain(..));
            }
            Err(error) => {
                self.metrics.failed_manager_lookups.increment();
                user.next_lookup = now.plus(RETRY_NS);
                if let Some(left_out) = self.limiter.admit(&"lookup", now) {
                    ::log::warn!(
                        "cannot look up the main PID of user@{uid}.service: {error}; processes of systemd \
                         in it stay where they are until that succeeds{left_out}"
                    );
                }
                self.ask(uid, kernel, now);
            }
        }
    }

    /// Returns a candidate that must be evaluated again now.
    pub(crate) fn take_due(
        &mut self,
        kernel: &mut impl Kernel,
        now: Nanos,
    ) -> Option<EvaluationRequest> {
        while self.retries.front().is_some_and(|&(due, _)| due <= now) {
            let Some((_, uid)) = self.retries.pop_front() else { break };
            let is_needed = self.users.get_mut(&uid).is_some_and(|user| !user.stops_asking());
            if is_needed {
                self.ask(uid, kernel, now);
            }
        }
        self.due.pop_front().or_else(|| self.starting.take_due(kernel, now))
    }

    /// Checks whether there ever was a candidate. Without one no evaluation becomes due.
    pub(crate) fn is_used(&self) -> bool {
        !self.users.is_empty()
    }

    /// Returns the time at which [`Self::take_due`] must be called even without a reply.
    pub(crate) fn next_due(&self) -> Option<Nanos> {
        let retry = self.retries.front().map(|&(due, _)| due);
        let now = (!self.due.is_empty()).then_some(Nanos(0));
        [now, retry, self.starting.next_due()].into_iter().flatten().min()
    }
}

impl UserState {
    /// Checks whether another lookup may find the `(sd-pam)`.
    fn may_find_pam(&self) -> bool {
        (1..MAX_LOOKUPS_WITHOUT_PAM).contains(&self.without_pam)
    }

    fn count_without_pam(&mut self, found: &ManagerProcesses) {
        let is_same = self.answer.as_ref().is_some_and(|(_, last)| last.has_manager_of(found));
        self.without_pam = match &found.pam {
            None if is_same => self.without_pam.saturating_add(1),
            None => 1,
            Some(_) => 0,
        };
    }

    /// Cancels a postponed lookup if no candidate waits for it any more.
    fn stops_asking(&mut self) -> bool {
        self.is_asked = !self.waiting.is_empty();
        !self.is_asked
    }

    fn forget(&mut self, protected: &mut HashSet<Pid, FixedState>) {
        if let Some((_, found)) = self.answer.take() {
            found.pids().for_each(|pid| {
                protected.remove(&pid);
            });
        }
    }
}

#[cfg(test)]
#[path = "user_managers_tests.rs"]
mod tests;
