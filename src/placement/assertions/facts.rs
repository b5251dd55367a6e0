//! Facts about the process of a test, and about the host on which it would run: one with systemd and
//! cgroup v2. Must not decide anything.

use std::sync::Arc;

use super::{SubjectContainer, TestAccounts, TestSubject};
use crate::cgroup::mounts::Hierarchies;
use crate::event::{Pid, Uid};
use crate::kernel::container::Containment;
use crate::kernel::process::ProcessStatus;
use crate::placement::Missing;
use crate::placement::conditions::ConditionFacts;
use crate::placement::container::ContainerFacts;
use crate::placement::stay::{StayFacts, StayReason};
use crate::rules::RuleId;
use crate::rules::ancestry::Ancestor;
use crate::rules::container::ContainerKey;

/// Facts for the conditions of rules.
pub(super) struct TestConditions<'a> {
    pub(super) hierarchies: &'a Hierarchies,
    pub(super) accounts: &'a TestAccounts,
    pub(super) subject: &'a TestSubject,
}

impl ConditionFacts for TestConditions<'_> {
    fn cgroup(&mut self) -> Option<&[u8]> {
        Some(&*self.subject.cgroup).filter(|text| !text.is_empty())
    }

    fn is_real_time(&mut self) -> bool {
        false
    }

    fn ancestors(&mut self) -> Arc<[Ancestor]> {
        Arc::clone(&self.subject.ancestors)
    }

    fn login(&mut self) -> Option<Uid> {
        self.subject.login.as_ref().map(|(uid, _)| *uid)
    }

    fn arguments(&mut self) -> Result<Option<&[u8]>, Missing> {
        Ok(Some(&self.subject.arguments))
    }

    fn placed_by(&mut self, _: usize, _: &[u8]) -> Option<RuleId> {
        None
    }
}

impl ContainerFacts for TestConditions<'_> {
    fn hierarchies(&self) -> &Hierarchies {
        self.hierarchies
    }

    // No user has changed the cgroups of a test.
    fn sole_owner(&self, _: usize, _: &[u8]) -> Option<Uid> {
        Some(Uid(0))
    }

    fn containment(&mut self) -> Result<Containment, Missing> {
        Ok(match &self.subject.container {
            None => Containment::Host,
            Some(SubjectContainer { owner: Uid(0), .. }) => Containment::Container,
            Some(own) => Containment::OfUser(own.owner),
        })
    }

    fn is_in_namespace_of_root(&mut self) -> bool {
        false
    }

    fn accountable(&self, uid: Uid) -> Uid {
        uid
    }

    fn user_name(&mut self, uid: Uid) -> Result<Option<String>, Missing> {
        let login = self.subject.login.as_ref().filter(|(own, _)| *own == uid);
        let name = login.and_then(|(_, name)| name.as_deref());
        Ok(name.or_else(|| self.accounts.name_of(uid)).map(str::to_owned))
    }

    fn container_name(&mut self, _: ContainerKey) -> Result<Option<String>, Missing> {
        Ok(self.subject.container.as_ref().map(|own| own.name.clone()))
    }
}

/// Facts for the decision whether a process stays where it is.
pub(super) struct TestStays<'a>(pub(super) TestConditions<'a>);

impl StayFacts for TestStays<'_> {
    fn runs_systemd(&self) -> bool {
        true
    }

    fn is_daemon(&self) -> bool {
        false
    }

    fn has_exited(&self) -> bool {
        false
    }

    fn status(&mut self, _: Pid) -> Option<ProcessStatus> {
        None
    }

    fn children(&mut self, _: usize) -> Vec<Pid> {
        Vec::new()
    }

    // Called for a program with the path of the service manager, in its cgroup, or for an unknown
    // program there. Process 1, which knows the manager, is not part of a test.
    fn is_user_manager(&mut self) -> Option<bool> {
        Some(!self.0.subject.exe.is_empty())
    }

    fn is_alone_in(&self, _: &str) -> bool {
        false
    }

    // Without a container the process may leave each cgroup that is not of a unit.
    fn group_owner(&self, _: usize, _: &[u8]) -> Option<Uid> {
        self.0.subject.container.as_ref().map(|own| own.owner)
    }
}

impl ContainerFacts for TestStays<'_> {
    fn hierarchies(&self) -> &Hierarchies {
        self.0.hierarchies()
    }

    fn sole_owner(&self, hierarchy: usize, path: &[u8]) -> Option<Uid> {
        self.0.sole_owner(hierarchy, path)
    }

    fn containment(&mut self) -> Result<Containment, Missing> {
        self.0.containment()
    }

    fn is_in_namespace_of_root(&mut self) -> bool {
        self.0.is_in_namespace_of_root()
    }

    fn accountable(&self, uid: Uid) -> Uid {
        self.0.accountable(uid)
    }

    fn user_name(&mut self, uid: Uid) -> Result<Option<String>, Missing> {
        self.0.user_name(uid)
    }

    fn container_name(&mut self, key: ContainerKey) -> Result<Option<String>, Missing> {
        self.0.container_name(key)
    }
}

/// Returns the words for the reason for which a process stays where it is.
pub(super) fn wording(reason: &StayReason) -> String {
    match reason {
        StayReason::InUnit(unit) => {
            format!("the rule does not allow to leave the unit {} (leave_units)", unit.name)
        }
        StayReason::Protected | StayReason::ManagerUnknown => {
            "process 1 and programs of systemd are moved only by a rule that names them in exe"
                .to_owned()
        }
        StayReason::OthersJob(path) => {
            format!("{path} is below the service manager of another user")
        }
        StayReason::InContainer(path) => format!("{path} is in a container created by root"),
        StayReason::InSlice(table) => format!("the table at {table} limits the slice of its user"),
        StayReason::Delegated => "it is below the cgroup of its rule".to_owned(),
        StayReason::Exited => "it has exited".to_owned(),
    }
}
