//! The rules with criteria on the place of a process that children inherit from the process that was placed: a child that
//! was born in the cgroup of such a rule and is moved out of it before its first evaluation has no placement of its own.
//! Nothing is recorded without such rules.

use std::sync::Arc;

use crate::engine::inheritance::{Birth, Entry, Inheritance, Inherited, Limits};
use crate::engine::kernel::Kernel;
use crate::event::{Nanos, Pid};
use crate::rules::RuleId;
use crate::telemetry::metrics::Metrics;
use crate::tracking::fork_tracker::Fork;

/// All processes of a large host in cgroups of such rules, 80 bytes each: 20 MiB. A limit for each user would need its
/// UID at each fork; the number of its processes is limited by the kernel.
const LIMITS: Limits = Limits { all: 262_144, of_user: u32::MAX };

/// The rule that placed a process or the ancestor from which it has the rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct OriginRule(RuleId);

impl Inherited for OriginRule {
    fn of_child(&self) -> Option<Self> {
        Some(*self)
    }
}

/// The processes placed by rules with criteria on their place, and their descendants.
#[derive(Debug)]
pub(crate) struct InheritedOrigins {
    marks: Inheritance<OriginRule>,
    metrics: Arc<Metrics>,
}

impl InheritedOrigins {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { marks: Inheritance::new(LIMITS), metrics }
    }

    /// Forgets all: other rules are active.
    pub(super) fn clear(&mut self) {
        self.marks = Inheritance::new(LIMITS);
    }

    /// Checks whether the fork socket must be emptied before an evaluation.
    pub(crate) const fn has_heirs(&self) -> bool {
        self.marks.has_heirs()
    }

    /// Returns the rule that a process has by itself or by inheritance.
    pub(crate) fn of(&mut self, pid: Pid, kernel: &mut impl Kernel) -> Option<RuleId> {
        self.marks.get(pid, kernel).map(|entry| entry.mark.0)
    }

    /// Records by which rule with criteria on its place a process was placed, if by any.
    pub(super) fn placed(
        &mut self,
        (pid, identity): (Pid, u64),
        by: Option<RuleId>,
        kernel: &mut impl Kernel,
    ) {
        let Some(rule) = by else { return self.end(pid) };
        // Children born since it has the rule have it as well.
        if self.of(pid, kernel) == Some(rule) {
            return;
        }
        // A fork with a later time ends it: another process may have the PID before that is checked.
        let seen = kernel.now();
        if kernel.identity(pid) != Some(identity) {
            return;
        }
        let entry = Entry::own(identity, seen, OriginRule(rule));
        let is_full = !self.marks.insert(pid, entry);
        if is_full {
            self.metrics.lost_origins.increment();
        }
        self.marks.make_room(is_full, kernel);
    }

    /// Records that a process has another origin now.
    pub(crate) fn end(&mut self, pid: Pid) {
        self.marks.remove(pid);
    }

    /// Records a fork that was read from the fork socket. Returns whether that ended the mark of an earlier process
    /// with the PID of the child, for which an evaluation may have taken it.
    pub(in crate::engine) fn heard(&mut self, fork: Fork) -> Birth {
        let birth = self.marks.heard(fork);
        self.count(birth);
        birth
    }

    fn count(&self, birth: Birth) {
        if matches!(birth, Birth::NoRoom(_)) {
            self.metrics.lost_origins.increment();
        }
    }

    pub(crate) fn emptied(&mut self, kernel: &mut impl Kernel) {
        self.marks.emptied(kernel);
    }

    pub(crate) fn confirm(&mut self, now: Nanos) {
        self.marks.confirm(now);
    }

    /// Looks for descendants after the kernel dropped forks: see [`Inheritance::search`].
    pub(crate) fn search(&mut self, kernel: &mut impl Kernel) {
        let mut births = Vec::new();
        self.marks.search(kernel, |_, _, birth| births.push(birth));
        births.into_iter().for_each(|birth| self.count(birth));
    }
}
