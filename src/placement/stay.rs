//! The decision whether a process leaves its current cgroups for those of its rule. The engine and
//! `cgrulectl explain` use the same function and differ only in how they read the facts. Must not trust
//! what a user can change.

use super::container::{ContainerFacts, ContainerPlace, accepts};
use super::{KnownExe, Missing, Protection, path_user, protection};
use crate::cgroup::config::{UserSliceSpec, keeping_table};
use crate::cgroup::mounts::{Hierarchies, HierarchySet, Version};
use crate::cgroup::unit::{Unit, manager_uid, may_hold_container};
use crate::event::{Pid, Uid};
use crate::kernel::container::Containment;
use crate::kernel::process::{ProcessStatus, path_in};
use crate::policy::Policy;
use crate::rules::container::LeaveContainers;
use crate::rules::{LeaveUnits, Origin, PathBase, Rule, Target};

/// Maximum number of children examined to detect that a process of root is the monitor of a
/// container.
const MAX_CHILDREN: usize = 16;

/// Decision about a process in another cgroup than that of its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum MoveDecision {
    /// The process is moved. With a name, it leaves this systemd unit, whose limits then no longer
    /// apply to it.
    Move(Option<LostUnit>),
    /// The process stays where it is.
    Stay(StayReason),
}

/// Systemd unit that a move would take the process out of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostUnit {
    /// Name of the unit.
    pub name: String,
    /// True for a login session of which it is the last process.
    pub is_session: bool,
}

/// Reason for which a process stays in its current cgroups although a rule names others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StayReason {
    /// It is below the cgroup of its rule, whose owner may move it there.
    Delegated,
    /// It is the daemon, process 1, a kernel thread, or a process of systemd that the rule does not
    /// name.
    Protected,
    /// Its user's service manager is being looked up.
    ManagerUnknown,
    /// It has exited.
    Exited,
    /// It is in the slice of its user, which the table at this position limits.
    InSlice(Origin),
    /// It is a job below the service manager of another user, in this cgroup.
    OthersJob(String),
    /// It is in a container created by root, in this cgroup.
    InContainer(String),
    /// Its rule does not allow to leave this unit.
    InUnit(LostUnit),
}

/// Cgroup that a rule names, in some hierarchies.
#[derive(Clone, Copy, Debug)]
pub struct StayTarget<'t> {
    /// Rule that matches the process.
    pub rule: &'t Rule,
    /// Hierarchies that the rule concerns.
    pub span: HierarchySet,
    /// Destination of the rule.
    pub target: &'t Target,
    /// Path of the destination from the top of the hierarchies.
    pub path: &'t str,
}

/// Process about which is decided.
#[derive(Clone, Copy, Debug)]
pub struct StaySubject<'s> {
    /// PID of the thread-group leader.
    pub pid: Pid,
    /// Effective user.
    pub uid: Uid,
    /// Name of the user, if it has one.
    pub user: Option<&'s str>,
    /// Executable, as far as it was read.
    pub exe: KnownExe<'s>,
    /// True if a thread of it was moved alone.
    pub is_moved_thread: bool,
    /// Text of `/proc/PID/cgroup`.
    pub cgroup: &'s [u8],
}

/// Facts about the process and its cgroups. Each is read only if the decision depends on it.
pub trait StayFacts: ContainerFacts {
    /// Checks whether systemd is the init system of the host.
    fn runs_systemd(&self) -> bool;

    /// Checks whether the process is the daemon.
    fn is_daemon(&self) -> bool;

    /// Checks whether all threads of the process have exited.
    fn has_exited(&self) -> bool;

    /// Returns the status of the process or of one of its children.
    fn status(&mut self, pid: Pid) -> Option<ProcessStatus>;

    /// Returns up to `bound` children of the process.
    fn children(&mut self, bound: usize) -> Vec<Pid>;

    /// Checks whether the process is its user's service manager or the `(sd-pam)` of that. `None`
    /// while that is unknown.
    fn is_user_manager(&mut self) -> Option<bool>;

    /// Checks whether a cgroup of the v2 hierarchy contains the process and no other.
    fn is_alone_in(&self, path: &str) -> bool;

    /// Returns the owner of a cgroup in the hierarchy with this index. `None` if it does not exist.
    fn group_owner(&self, hierarchy: usize, path: &[u8]) -> Option<Uid>;
}

/// Returns whether a process in other cgroups than those of its rule is moved.
///
/// # Errors
/// Data about the process that must be read first.
pub fn decide_move(
    policy: &Policy,
    target: &StayTarget<'_>,
    subject: &StaySubject<'_>,
    facts: &mut impl StayFacts,
) -> Result<MoveDecision, Missing> {
    if is_delegated(policy, target, subject, facts.hierarchies()) {
        return Ok(MoveDecision::Stay(StayReason::Delegated));
    }
    if let Some(reason) = protecting_reason(target.rule, subject, facts)? {
        return Ok(MoveDecision::Stay(reason));
    }
    if let Some(table) = limit_of_slice(policy, target.rule, subject) {
        return Ok(MoveDecision::Stay(StayReason::InSlice(table.origin.clone())));
    }
    if let Some(reason) = foreign_group(policy, target, subject, facts)? {
        return Ok(MoveDecision::Stay(reason));
    }
    let lost = lost_unit(policy, target, subject, facts);
    Ok(match lost {
        Some(unit) if target.rule.leave_units != LeaveUnits::AsTheOriginal => {
            MoveDecision::Stay(StayReason::InUnit(unit))
        }
        lost => MoveDecision::Move(lost),
    })
}

/// Checks whether the process is below the cgroup of the rule, and the owner that its table names may
/// move it there; or a thread was moved alone to a cgroup below it, whose limits include those of the
/// cgroup of the rule.
fn is_delegated(
    policy: &Policy,
    target: &StayTarget<'_>,
    subject: &StaySubject<'_>,
    trees: &Hierarchies,
) -> bool {
    let text = target.target.destination.as_str().trim_matches('/');
    let is_below_root = target.target.below == PathBase::Root;
    let table = policy.configs.table(text).filter(|_| is_below_root);
    let has_owner = table.is_some_and(|table| table.perm.has_owner());
    (has_owner || subject.is_moved_thread)
        && target.span.indexes().all(|index| {
            trees.get(index).is_some_and(|tree| tree.holds_below(target.path, subject.cgroup))
        })
}

/// Returns the reason for a process that only a rule with its executable may move, or that has
/// exited.
fn protecting_reason(
    rule: &Rule,
    subject: &StaySubject<'_>,
    facts: &mut impl StayFacts,
) -> Result<Option<StayReason>, Missing> {
    if facts.is_daemon() {
        return Ok(Some(StayReason::Protected));
    }
    // A zombie: the kernel would accept the write without effect. Its children matter.
    if facts.has_exited() {
        return Ok(Some(StayReason::Exited));
    }
    let is_root = subject.uid.0 == 0;
    if !is_root && !facts.runs_systemd() {
        return Ok(None);
    }
    let path = subject.exe.raw();
    // Only a name without a slash, or no link at all, can be that of a kernel thread.
    let is_kernel_thread = is_root
        && !matches!(subject.exe, KnownExe::Unread)
        && !path.is_some_and(|path| path.starts_with(b"/"))
        && facts.status(subject.pid).is_some_and(|status| status.is_kernel_thread);
    let ids = (subject.pid, subject.uid);
    Ok(match protection(rule, ids, subject.exe, is_kernel_thread, || Some(subject.cgroup))? {
        Protection::No => None,
        Protection::Yes => Some(StayReason::Protected),
        Protection::UserManager => match facts.is_user_manager() {
            Some(true) => Some(StayReason::Protected),
            Some(false) => None,
            None => Some(StayReason::ManagerUnknown),
        },
    })
}

/// Returns the table that keeps the process in the slice of its user, because it limits that.
fn limit_of_slice<'p>(
    policy: &'p Policy,
    rule: &Rule,
    subject: &StaySubject<'_>,
) -> Option<&'p UserSliceSpec> {
    let tables = policy.configs.user_slices();
    if tables.is_empty() {
        return None;
    }
    let path = path_in(subject.cgroup, b"").unwrap_or_default();
    let (uid, name) = path_user(&policy.subordinates, subject.uid, subject.user);
    keeping_table(tables, rule, path, uid, name)
}

/// Returns the reason for a process that stays in a container created by root, or below the service
/// manager of another user.
fn foreign_group(
    policy: &Policy,
    target: &StayTarget<'_>,
    subject: &StaySubject<'_>,
    facts: &mut impl StayFacts,
) -> Result<Option<StayReason>, Missing> {
    let tree = target.span.indexes().next().and_then(|index| facts.hierarchies().get(index));
    let place = tree.and_then(|tree| path_in(subject.cgroup, tree.listed.as_bytes()));
    let place = String::from_utf8_lossy(place.unwrap_or_default());
    if let Unit::OfUser(manager) = Unit::of(&place, &policy.roots()) {
        let is_job = facts.runs_systemd() && is_job_of_another(manager, policy, subject)?;
        return Ok(is_job.then(|| StayReason::OthersJob(place.into_owned())));
    }
    let leaves = &target.rule.leave_containers;
    if *leaves == LeaveContainers::Yes || !is_in_foreign_group(policy, target, subject, facts) {
        return Ok(None);
    }
    let stays = match facts.containment()? {
        Containment::Container => true,
        // A user can make the namespaces unreadable, so the decision uses data that can always be
        // read.
        Containment::Unknown => facts.is_in_namespace_of_root(),
        Containment::Host | Containment::OfUser(_) => subject.uid.0 == 0 && is_monitor(facts),
    };
    let stays = stays && !may_leave(policy, leaves, subject, facts)?;
    Ok(stays.then(|| StayReason::InContainer(place.into_owned())))
}

/// Checks whether the rule names the container of the process as one that processes may leave.
fn may_leave(
    policy: &Policy,
    leaves: &LeaveContainers,
    subject: &StaySubject<'_>,
    facts: &mut impl StayFacts,
) -> Result<bool, Missing> {
    let tests = match leaves {
        LeaveContainers::No => return Ok(false),
        LeaveContainers::Yes => return Ok(true),
        LeaveContainers::Of(tests) => tests,
    };
    let Some((hierarchy, tree)) = policy.context.hierarchy(facts.hierarchies()) else {
        return Ok(false);
    };
    let top = tree.top.trim_end_matches('/').len();
    let Some(path) = path_in(subject.cgroup, tree.listed.as_bytes()) else { return Ok(false) };
    accepts(tests, &policy.context, ContainerPlace { hierarchy, path, top }, facts)
}

/// Checks whether the process belongs to another user than the service manager above it, and no
/// rule moves processes of the manager's user.
fn is_job_of_another(
    manager: &str,
    policy: &Policy,
    subject: &StaySubject<'_>,
) -> Result<bool, Missing> {
    let Some(owner) = manager_uid(manager) else { return Ok(false) };
    if owner == policy.accountable(subject.uid) {
        return Ok(false);
    }
    policy.can_move(owner).map(|can_move| !can_move).ok_or(Missing::User(owner))
}

/// Checks whether the process is in a cgroup that users' processes cannot enter by themselves, in the
/// hierarchy of the rule or one of systemd's.
fn is_in_foreign_group(
    policy: &Policy,
    target: &StayTarget<'_>,
    subject: &StaySubject<'_>,
    facts: &impl StayFacts,
) -> bool {
    let trees = facts.hierarchies();
    let span = trees.of_systemd().union(target.span);
    let places = elsewhere(trees, span, target.path, subject.cgroup);
    let roots = policy.roots();
    let has_foreign = places.iter().any(|(_, path)| {
        let text = String::from_utf8_lossy(path);
        // At the hierarchy root the cgroups of rules have no managed root of their own.
        let first = text.split('/').find(|part| !part.is_empty()).unwrap_or_default();
        may_hold_container(&text, &roots) && !policy.is_top_level(first)
    });
    let user = policy.accountable(subject.uid);
    has_foreign
        && places.iter().all(|&(hierarchy, path)| {
            let text = String::from_utf8_lossy(path);
            let is_neutral =
                text.split('/').all(|part| part.is_empty() || part.ends_with(".slice"));
            let is_users_own = facts
                .group_owner(hierarchy, path)
                .is_none_or(|owner| owner.0 != 0 && policy.accountable(owner) == user);
            (is_neutral || may_hold_container(&text, &roots)) && !is_users_own
        })
}

/// Returns the cgroups of a process with this text of `/proc/PID/cgroup`, in those hierarchies in
/// which it is not in the cgroup `path`.
pub fn elsewhere<'t>(
    trees: &Hierarchies,
    span: HierarchySet,
    path: &str,
    text: &'t [u8],
) -> Vec<(usize, &'t [u8])> {
    let found = span.indexes().filter_map(|hierarchy| {
        let tree = trees.get(hierarchy)?;
        let current = path_in(text, tree.listed.as_bytes())?;
        (!tree.holds(path, text)).then_some((hierarchy, current))
    });
    found.collect()
}

/// Checks whether a process of root is the parent of the first process of a container.
fn is_monitor(facts: &mut impl StayFacts) -> bool {
    let children = facts.children(MAX_CHILDREN);
    children
        .into_iter()
        .any(|child| facts.status(child).is_some_and(|status| status.inner_pid == Pid::new(1)))
}

/// Returns the systemd unit that a move would take the process out of, if its rule has to allow
/// that.
fn lost_unit(
    policy: &Policy,
    target: &StayTarget<'_>,
    subject: &StaySubject<'_>,
    facts: &mut impl StayFacts,
) -> Option<LostUnit> {
    let leaves = &target.rule.leave_units;
    if !facts.runs_systemd() || *leaves == LeaveUnits::Yes {
        return None;
    }
    let trees = facts.hierarchies();
    // systemd manages its units in the v2 hierarchy, on hybrid hosts as well.
    let mut concerned = target.span.indexes().filter_map(|index| trees.get(index));
    if !concerned.any(|tree| tree.version == Version::V2) {
        return None;
    }
    let path = path_in(subject.cgroup, b"").unwrap_or_default();
    let unit = Unit::of_bytes(path, &policy.roots());
    if unit.name().is_some_and(|name| leaves.allows(name)) {
        return None;
    }
    let pid = subject.pid;
    let is_lost = unit.loses(
        facts,
        |facts, group| facts.is_alone_in(group),
        |facts| facts.status(pid).is_some_and(|status| is_service(&status)),
    );
    let is_session = matches!(unit, Unit::Session(..));
    unit.name().filter(|_| is_lost).map(|name| LostUnit { name: name.to_owned(), is_session })
}

/// Checks whether a process in the unit of a service that runs jobs of users is that service, not a
/// job. The real UID decides: the effective one of atd is that of the user daemon, and a program
/// with the set-user-ID bit that a user started has the effective UID of root.
fn is_service(status: &ProcessStatus) -> bool {
    status.real == Uid(0) && status.parent == Pid::new(1)
}

#[cfg(test)]
#[path = "stay_tests.rs"]
mod tests;
