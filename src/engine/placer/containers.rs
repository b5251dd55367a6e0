//! Processes that keep their current cgroup: those in containers created by root, and jobs of other
//! users below a user's service manager. Must not trust what a user can change.

use ::log::Level;
use foldhash::fast::FixedState;
use hashbrown::HashSet;

use super::labels::{ProcessLabel, RuleLabel};
use super::{Missing, PlacedProcess, Placement, Placer};
use crate::cgroup::mounts::{HierarchySet, Version};
use crate::cgroup::tree::CurrentCgroup;
use crate::cgroup::unit::{Unit, manager_uid, may_hold_container};
use crate::control::failures::PlacementFailure;
use crate::engine::kernel::Kernel;
use crate::event::Pid;
use crate::kernel::container::Containment;
use crate::kernel::process::path_in;
use crate::policy::Policy;
use crate::rules::{Rule, Target};
use crate::telemetry::log::field;

/// Maximum number of cgroups remembered as logged. When it is reached all are dropped.
const MAX_NAMED: usize = 1024;
/// Maximum number of children examined to detect that a process of root is the monitor of a
/// container.
const MAX_CHILDREN: usize = 16;

/// State of the detection of containers.
#[derive(Debug, Default)]
pub(super) struct Containers {
    /// Cgroups that were already logged.
    named: HashSet<String, FixedState>,
    /// First components of destinations at the root of a hierarchy.
    destinations: HashSet<String, FixedState>,
}

impl Containers {
    /// Updates the destinations for another policy.
    pub(super) fn adopt(&mut self, policy: &Policy) {
        let targets = policy.matcher.rules().iter().flat_map(|rule| rule.action.targets());
        let at_top = targets.filter(|target| policy.beginning(target.below).is_empty());
        let first = |target: &Target| {
            let text = target.destination.as_str().trim_start_matches('/');
            text.split('/').next().unwrap_or_default().to_owned()
        };
        self.destinations = at_top.map(first).collect();
    }
}

impl Placer {
    /// Returns the outcome for a process that stays in a container created by root, or below the
    /// service manager of another user. `None` for any other process.
    ///
    /// # Errors
    /// Its namespaces must be read, or the name service asked for the owner of the service manager, first.
    pub(super) fn stays_in_cgroup(
        &mut self,
        now: CurrentCgroup<'_>,
        policy: &Policy,
        kernel: &mut impl Kernel,
        (span, rule): (HierarchySet, &Rule),
        subject: &PlacedProcess<'_>,
    ) -> Result<Option<Placement>, Missing> {
        let tree = span.indexes().next().and_then(|index| kernel.hierarchies().get(index));
        let listed = tree.map_or("", |tree| tree.listed.as_str());
        let text = now.text.unwrap_or_default();
        let place = path_in(text, listed.as_bytes()).unwrap_or_default();
        let place = String::from_utf8_lossy(place).into_owned();
        let roots = policy.roots();
        if let Unit::OfUser(name) = Unit::of(&place, &roots) {
            let stays = kernel.runs_systemd() && is_job_of_another(name, policy, subject)?;
            return Ok(stays.then(|| {
                self.leave_in_cgroup(Placement::OthersJob, &place, rule, subject, kernel)
            }));
        }
        if rule.moves_containers || !self.may_hold_container(text, policy, span, subject, kernel) {
            return Ok(None);
        }
        let stays = match containment(kernel, subject)? {
            Containment::Container => true,
            // A user can make the namespaces unreadable, so the decision uses data that can always
            // be read.
            Containment::Unknown => kernel.is_in_namespace_of_root(subject.evaluation.pid),
            Containment::Host => subject.handle.uid.0 == 0 && is_monitor(kernel, subject),
        };
        Ok(stays
            .then(|| self.leave_in_cgroup(Placement::InContainer, &place, rule, subject, kernel)))
    }

    /// Checks whether the process is in a cgroup that users' processes cannot enter by themselves,
    /// in the hierarchy of the rule or one of systemd's.
    fn may_hold_container(
        &self,
        text: &[u8],
        policy: &Policy,
        span: HierarchySet,
        subject: &PlacedProcess<'_>,
        kernel: &impl Kernel,
    ) -> bool {
        let roots = &policy.roots();
        let trees = kernel.hierarchies();
        let of_systemd = trees
            .iter()
            .enumerate()
            .filter(|(_, tree)| tree.version == Version::V2 || tree.is_systemds());
        let all = of_systemd.fold(span, |all, (index, _)| all.with(index));
        // At the hierarchy root the cgroups of rules have no managed root of their own.
        let of_rules = |text: &str| {
            let first = text.split('/').find(|part| !part.is_empty()).unwrap_or_default();
            self.containers.destinations.contains(first)
        };
        let places = self.places_elsewhere(text, all, kernel);
        let has_own = places.iter().any(|place| {
            let text = place.text();
            !of_rules(&text) && may_hold_container(&text, roots)
        });
        let user = policy.accountable(subject.handle.uid);
        has_own
            && places.iter().all(|place| {
                let text = place.text();
                let is_neutral =
                    text.split('/').all(|part| part.is_empty() || part.ends_with(".slice"));
                let is_users_own = place
                    .owner(kernel)
                    .is_none_or(|owner| owner.0 != 0 && policy.accountable(owner) == user);
                (is_neutral || may_hold_container(&text, roots)) && !is_users_own
            })
    }

    fn leave_in_cgroup(
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
        if self.containers.named.len() >= MAX_NAMED {
            self.containers.named.clear();
        }
        let is_new = self.containers.named.insert(place.to_owned());
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

/// Returns the relation of the process to containers, which is read at most once.
fn containment(kernel: &impl Kernel, subject: &PlacedProcess<'_>) -> Result<Containment, Missing> {
    let found = subject.containment.or_else(|| kernel.containment(subject.handle));
    found.ok_or(Missing::Namespaces)
}

/// Checks whether the process belongs to another user than the service manager above it, and no
/// rule moves processes of the manager's user.
fn is_job_of_another(
    manager: &str,
    policy: &Policy,
    subject: &PlacedProcess<'_>,
) -> Result<bool, Missing> {
    let Some(owner) = manager_uid(manager) else { return Ok(false) };
    if owner == policy.accountable(subject.handle.uid) {
        return Ok(false);
    }
    policy.can_move(owner).map(|can_move| !can_move).ok_or(Missing::Owner(owner))
}

/// Checks whether a process of root is the parent of the first process of a container.
fn is_monitor(kernel: &mut impl Kernel, subject: &PlacedProcess<'_>) -> bool {
    let mut children = Vec::new();
    kernel.children(subject.evaluation.pid, |child| {
        if children.len() < MAX_CHILDREN {
            children.push(child);
        }
    });
    children
        .into_iter()
        .any(|child| kernel.status(child).is_some_and(|status| status.inner_pid == Pid::new(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Cause, Gid, Nanos, Pid, Uid};
    use crate::kernel::process::ProcessHandle;
    use crate::placement::KnownExe;
    use crate::policy::test_policy;
    use crate::rules::names::UserIdentity;
    use crate::tracking::queue::EvaluationRequest;

    #[test]
    fn a_job_of_another_waits_until_the_owner_of_the_service_manager_is_known() {
        let rules =
            "[[rule]]\nuser = \"7\"\ncgroup = \"a\"\n[[rule]]\ngroup = \"50\"\ncgroup = \"b\"\n";
        let handle = ProcessHandle {
            uid: Uid(7),
            gid: Gid(7),
            unified: None,
            reference: None,
            thread: None,
        };
        let evaluation = EvaluationRequest::at_once(Pid::new(40).unwrap(), Cause::EXEC, Nanos(0));
        let subject = PlacedProcess {
            evaluation,
            handle: &handle,
            user: None,
            exe: KnownExe::Unread,
            containment: None,
        };
        let of = |users: Vec<UserIdentity>| {
            is_job_of_another("user@5.service", &test_policy(rules, users), &subject)
        };
        let owner = |gid| UserIdentity {
            name: Some("flux".to_owned()),
            login_group: Some(Gid(gid)),
            ..UserIdentity::nameless(Uid(5))
        };
        assert_eq!(of(Vec::new()), Err(Missing::Owner(Uid(5))));
        assert_eq!(of(vec![owner(49)]), Ok(true));
        assert_eq!(of(vec![owner(50)]), Ok(false), "a rule moves processes of the owner");
        let own = is_job_of_another("user@7.service", &test_policy(rules, Vec::new()), &subject);
        assert_eq!(own, Ok(false));
    }
}
