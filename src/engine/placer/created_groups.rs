//! A limit on the cgroups that the processes of one user cause to be created. It creates none itself.
//!
//! With `%P`, `%p`, `%g` or `%G` in its path, a rule creates as many cgroups as a user has PIDs, names of
//! programs or groups, at 3,000 a second and 15 KiB of kernel memory each. Processes beyond the limit share
//! one cgroup for each user, with the settings of the same table, so that none is without limits.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::{PlacedProcess, Placer};
use crate::cgroup::mounts::HierarchySet;
use crate::control::failures::PlacementFailure;
use crate::engine::kernel::Kernel;
use crate::event::{Nanos, Uid};
use crate::placement;
use crate::policy::Policy;
use crate::rules::Target;
use crate::rules::destination::{Destination, DestinationPart, Specifier, SpecifierValues};

/// Cgroups of one user in one interval. A build server starts fewer jobs, and with the default of
/// `remove_when_empty` no more than twice as many exist without a process.
const MOST: u32 = 1024;
const INTERVAL_NS: u64 = 60_000_000_000;
/// Users whose cgroups are counted. Beyond it all counts begin anew.
const MOST_USERS: usize = 4096;

/// Numbers of recently created cgroups.
#[derive(Clone, Debug, Default)]
pub(super) struct CreatedGroups {
    /// Begin of the interval, and number of cgroups in it.
    by_user: HashMap<Uid, (Nanos, u32), FixedState>,
}

impl CreatedGroups {
    /// Checks whether a further cgroup may be created for `user`, and counts it.
    fn admits(&mut self, user: Uid, now: Nanos) -> bool {
        if self.by_user.len() >= MOST_USERS && !self.by_user.contains_key(&user) {
            self.by_user.clear();
        }
        let (began, count) = self.by_user.entry(user).or_insert((now, 0));
        if now.since(*began) >= INTERVAL_NS {
            (*began, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= MOST
    }
}

/// Checks whether a user can choose the value of a specifier.
const fn is_chosen(specifier: Specifier) -> bool {
    match specifier {
        Specifier::UserName | Specifier::UserId => false,
        Specifier::GroupName | Specifier::GroupId | Specifier::Program | Specifier::ProcessId => {
            true
        }
    }
}

impl Placer {
    /// Sets `self.path` to the cgroup that all further processes of a user share, if this one does not exist
    /// and the user has caused too many to be created.
    pub(super) fn limit_groups(
        &mut self,
        policy: &Policy,
        (span, target): (HierarchySet, &Target),
        subject: &PlacedProcess<'_>,
        kernel: &impl Kernel,
    ) {
        let user = policy.accountable(subject.handle.uid);
        if user == Uid(0) || !target.creates || !target.destination.fields().any(is_chosen) {
            return;
        }
        let is_open = kernel.known_group(span, &self.path).is_some();
        let exists = |hierarchy| kernel.group_id(hierarchy, self.path.as_bytes()).is_some();
        let is_foreseen = |hierarchy| self.is_foreseen(hierarchy, &self.path);
        if is_open || span.indexes().all(|index| exists(index) || is_foreseen(index)) {
            return;
        }
        let now = kernel.now();
        if self.created.admits(user, now) {
            return;
        }
        self.metrics.groups_over_limit.increment();
        let wanted = self.path.clone();
        self.render_shared(policy, target, user, subject);
        self.note(PlacementFailure::SharedGroup(wanted));
        if let Some(left_out) = self.limiter.admit(&("groups", user), now) {
            ::log::warn!(
                "more than {MOST} cgroups in a minute for processes of uid {user}: further ones share {}{left_out}",
                self.path.escape_debug()
            );
        }
    }

    /// Sets `self.path` to the path of the target with `uid-N` in place of each value that the user chooses.
    fn render_shared(
        &mut self,
        policy: &Policy,
        target: &Target,
        user: Uid,
        subject: &PlacedProcess<'_>,
    ) {
        let share = |part: DestinationPart| match part {
            DestinationPart::Field(field) if is_chosen(field) => {
                DestinationPart::Literal(format!("uid-{user}"))
            }
            part @ (DestinationPart::Field(_) | DestinationPart::Literal(_)) => part,
        };
        let parts = target.destination.pieces().into_iter().map(share).collect();
        let destination = Destination::from_pieces(target.destination.as_str(), parts);
        let handle = subject.handle;
        let (uid, name) = subject.path_user(policy);
        let values = SpecifierValues {
            uid,
            user: name,
            gid: handle.gid,
            group: None,
            pid: subject.evaluation.pid,
            program: None,
        };
        placement::render(policy.beginning(target.below), &destination, &values, &mut self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_number_of_cgroups_in_an_interval() {
        let mut created = CreatedGroups::default();
        let second = 1_000_000_000;
        assert!((0..MOST).all(|_| created.admits(Uid(1), Nanos(second))));
        assert!(!created.admits(Uid(1), Nanos(2 * second)));
        assert!(created.admits(Uid(2), Nanos(2 * second)));
        assert!(created.admits(Uid(1), Nanos(second + INTERVAL_NS)));
    }
}
