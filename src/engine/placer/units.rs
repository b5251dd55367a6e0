//! Decides whether a process may leave its systemd unit.

use ::log::Level;

use super::labels::{ProcessLabel, RuleLabel};
use super::{PlacedProcess, Placer};
use crate::cgroup::config;
use crate::cgroup::mounts::{HierarchySet, Version};
use crate::cgroup::tree::CurrentCgroup;
use crate::cgroup::unit::Unit;
use crate::control::failures::PlacementFailure;
use crate::engine::kernel::Kernel;
use crate::event::{Nanos, Pid};
use crate::kernel::process::path_in;
use crate::policy::Policy;
use crate::rules::{LeaveUnits, Rule};
use crate::telemetry::log::field;

/// Checks whether the process stays in the slice of its user, which a table limits. Called only for
/// processes that are about to be moved.
pub(super) fn stays_in_slice(
    now: CurrentCgroup<'_>,
    policy: &Policy,
    rule: &Rule,
    subject: &PlacedProcess<'_>,
) -> bool {
    let tables = policy.configs.user_slices();
    if tables.is_empty() {
        return false;
    }
    let path = now.text.and_then(|text| path_in(text, b"")).unwrap_or_default();
    config::keeping_table(tables, rule, path, policy.accountable(subject.handle.uid), subject.user)
        .is_some()
}

impl Placer {
    /// Checks whether the process stays in its systemd unit, because its rule does not allow to
    /// leave it.
    pub(super) fn stays_in_unit(
        &mut self,
        now: CurrentCgroup<'_>,
        policy: &Policy,
        kernel: &mut impl Kernel,
        (span, rule): (HierarchySet, &Rule),
        subject: &PlacedProcess<'_>,
    ) -> bool {
        // Called only for processes that are about to be moved: those in place need no check.
        if !kernel.runs_systemd()
            || rule.leave_units == LeaveUnits::Yes
            || !concerns_units(span, kernel)
        {
            return false;
        }
        // Copied into a reused buffer, which is taken out while it is borrowed.
        let mut place = std::mem::take(&mut self.place);
        place.clear();
        let path = now.text.and_then(|text| path_in(text, b"")).unwrap_or_default();
        // Names of units are valid UTF-8; names of cgroups that a unit creates below its own need
        // not be.
        place.extend(path.utf8_chunks().next().map(|chunk| chunk.valid()));
        let roots = policy.roots();
        let stays = self.stays_in(Unit::of(&place, &roots), kernel, rule, subject);
        self.place = place;
        stays
    }

    fn stays_in(
        &mut self,
        unit: Unit<'_>,
        kernel: &mut impl Kernel,
        rule: &Rule,
        subject: &PlacedProcess<'_>,
    ) -> bool {
        let pid = subject.evaluation.pid;
        let is_root = subject.handle.uid.0 == 0;
        let loses = unit.loses(
            &mut *kernel,
            |kernel, group| kernel.is_alone(group, pid),
            |kernel| {
                is_root && kernel.status(pid).is_some_and(|status| status.parent == Pid::new(1))
            },
        );
        if !loses {
            return false;
        }
        let stays = rule.leave_units == LeaveUnits::No;
        if stays {
            self.metrics.kept_in_unit.increment();
            let name = unit.name().unwrap_or_default().to_owned();
            self.failures.push((PlacementFailure::InUnit(name), self.path.clone()));
        }
        self.say_unit(unit, stays, rule, subject, kernel.now());
        stays
    }

    fn say_unit(
        &mut self,
        unit: Unit<'_>,
        stays: bool,
        rule: &Rule,
        subject: &PlacedProcess<'_>,
        now: Nanos,
    ) {
        let name = unit.name().unwrap_or_default();
        let Some(left_out) = self.limiter.admit(&(name, &rule.name), now) else {
            return;
        };
        let name = name.escape_debug();
        let why = match unit {
            Unit::Session(..) => {
                "it is the last process of the session, and systemd closes an empty session"
            }
            Unit::None | Unit::OfUser(_) | Unit::ForOthers(_) | Unit::Other(_) => {
                "outside the unit its limits would not apply and stopping it would not kill the \
                 process"
            }
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
            let why =
                format_args!("{who} leaves {name}, as with cgrulesengd: {why}; {by}{left_out}");
            decided.say(Level::Warn, why);
        }
    }
}

/// Checks for the v2 hierarchy, in which systemd manages its units, on hybrid hosts as well.
fn concerns_units(span: HierarchySet, kernel: &impl Kernel) -> bool {
    let trees = kernel.hierarchies();
    span.indexes().any(|index| trees.get(index).is_some_and(|tree| tree.version == Version::V2))
}
