//! Reports about processes that keep their current cgroup: those in containers created by root, and
//! jobs of other users below a user's service manager.

use std::hash::{BuildHasher, Hash};

use ::log::Level;
use foldhash::fast::FixedState;
use hashbrown::HashSet;

use super::labels::{ProcessLabel, RuleLabel};
use super::{PlacedProcess, Placement, Placer};
use crate::control::failures::PlacementFailure;
use crate::engine::kernel::Kernel;
use crate::rules::Rule;
use crate::telemetry::log::field;

/// Maximum number of cgroups and units remembered as logged. When it is reached all are dropped.
const MAX_LOGGED: usize = 1024;

/// Hashes of the cgroups and units in which processes stay, or which they leave, that were already logged.
/// A service whose processes exec would be logged for ever.
#[derive(Debug, Default)]
pub(super) struct LoggedStays(HashSet<u64, FixedState>);

impl LoggedStays {
    /// Adds what was logged. Returns whether it is new.
    pub(super) fn add(&mut self, what: &impl Hash) -> bool {
        if self.0.len() >= MAX_LOGGED {
            self.0.clear();
        }
        self.0.insert(FixedState::default().hash_one(what))
    }

    /// Forgets everything, because the rules changed.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Placer {
    /// Counts, records and logs that the process keeps its current cgroup.
    pub(super) fn leave_in_cgroup(
        &mut self,
        outcome: Placement,
        place: &str,
        rule: &Rule,
        subject: &PlacedProcess<'_>,
        kernel: &impl Kernel,
    ) -> Placement {
        let (failure, why) = if outcome == Placement::InContainer {
            self.metrics.kept_in_container.increment();
            let why = "a container created by root, whose limits and device filter do not apply \
                       outside; set containers = true in the rule to move it";
            (PlacementFailure::InContainer(place.to_owned()), why)
        } else {
            self.metrics.kept_in_job.increment();
            let why = "a job below the service manager of a user whose processes no rule moves";
            (PlacementFailure::OthersJob(place.to_owned()), why)
        };
        self.failures.push((failure, self.path.clone()));
        let is_new = self.logged.add(&(outcome.word(), place));
        let left_out =
            is_new.then(|| self.limiter.admit(&(outcome.word(), &rule.name), kernel.now()));
        if let Some(left_out) = left_out.flatten() {
            let who = ProcessLabel(subject);
            let by = RuleLabel(rule);
            let place = place.escape_debug();
            self.decided(field::UNIT, rule, subject)
                .say(Level::Info, format_args!("{who} stays in {place}: {why}; {by}{left_out}"));
        }
        outcome
    }
}
