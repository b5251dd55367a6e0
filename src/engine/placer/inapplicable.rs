//! Processes with a rule that cannot be applied on this host.

use ::log::Level;

use super::labels::{ProcessLabel, RuleLabel};
use super::{PlacedProcess, Placement, Placer, PlacerMode};
use crate::engine::kernel::Kernel;
use crate::policy::observer::PlacementError;
use crate::rules::{InapplicableReason, Rule};
use crate::telemetry::log::field;

impl Placer {
    /// Leaves the process where it is because its rule cannot be applied.
    pub(super) fn leave(
        &mut self,
        rule: &Rule,
        reason: &InapplicableReason,
        subject: &PlacedProcess<'_>,
        kernel: &impl Kernel,
    ) -> Placement {
        self.obstacle = Some(obstacle(reason));
        self.path.clear();
        // The rule was reported when it was read. A dry run is read without that report, so it logs
        // the rule again, once.
        if matches!(self.mode, PlacerMode::DryRun) {
            let cause = (&*rule.origin.file, rule.origin.line);
            if let Some(left_out) = self.limiter.admit(&cause, kernel.now()) {
                let who = ProcessLabel(subject);
                let by = RuleLabel(rule);
                self.decided(field::REFUSED, rule, subject).say(
                    Level::Info,
                    format_args!(
                        "would leave {who} where it is: the rule cannot be applied on this host: {reason}; \
                         {by}{left_out}"
                    ),
                );
            }
        }
        Placement::Inapplicable
    }
}

/// Returns the corresponding reason of cgrulesengd for its log.
fn obstacle(reason: &InapplicableReason) -> PlacementError {
    match reason {
        InapplicableReason::OutsideHierarchy
        | InapplicableReason::RepeatedController
        | InapplicableReason::DelegatedRoot
        | InapplicableReason::NoDelegation => PlacementError::Nowhere,
        InapplicableReason::NoController(_) | InapplicableReason::NoHierarchy => {
            PlacementError::NoController
        }
    }
}
