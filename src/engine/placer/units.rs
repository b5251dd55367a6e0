//! Reports about processes that stay in their systemd unit or leave it.

use ::log::Level;

use super::labels::{ProcessLabel, RuleLabel};
use super::{PlacedProcess, Placement, Placer};
use crate::control::failures::PlacementFailure;
use crate::engine::kernel::Kernel;
use crate::event::{Cause, Nanos};
use crate::placement::stay::LostUnit;
use crate::rules::Rule;
use crate::telemetry::log::field;

/// Checks whether a process that stays in its unit is evaluated once more before that is counted and
/// logged. A service such as sshd takes the effective IDs of a user for an instant, and has its own
/// again at the second evaluation.
pub fn is_momentary(cause: Cause) -> bool {
    const SECOND: Cause = Cause::RETRY.or(Cause::SCAN);
    cause.intersects(Cause::UID | Cause::GID) && !cause.intersects(Cause::EXEC.or(SECOND))
}

impl Placer {
    /// Counts, records and logs that the process stays in its unit.
    pub(super) fn stays_in_unit(
        &mut self,
        unit: &LostUnit,
        rule: &Rule,
        subject: &PlacedProcess<'_>,
        kernel: &impl Kernel,
    ) -> Placement {
        if is_momentary(subject.evaluation.cause) {
            return Placement::InUnit;
        }
        self.metrics.kept_in_unit.increment();
        self.failures.push((PlacementFailure::InUnit(unit.name.clone()), self.path.clone()));
        self.log_unit(unit, true, rule, subject, kernel.now());
        Placement::InUnit
    }

    /// Logs that a process stays in its unit, or leaves it.
    pub(super) fn log_unit(
        &mut self,
        unit: &LostUnit,
        stays: bool,
        rule: &Rule,
        subject: &PlacedProcess<'_>,
        now: Nanos,
    ) {
        if !self.logged.add(&(stays, &*unit.name, &rule.name)) {
            return;
        }
        let Some(left_out) = self.limiter.admit(&(&*unit.name, &rule.name), now) else {
            return;
        };
        let name = unit.name.escape_debug();
        let why = if unit.is_session {
            "it is the last process of the session, and systemd closes an empty session"
        } else {
            "outside the unit its limits would not apply and stopping it would not kill the process"
        };
        let who = ProcessLabel(subject);
        let by = RuleLabel(rule);
        let decided = self.decided(field::UNIT, rule, subject);
        if stays {
            decided.say(
                Level::Warn,
                format_args!(
                    "{who} stays in {name}: {why}; set leave_units = true in {by} to allow it{left_out}"
                ),
            );
        } else {
            decided.say(
                Level::Warn,
                format_args!("{who} leaves {name}, as with cgrulesengd: {why}; {by}{left_out}"),
            );
        }
    }
}
