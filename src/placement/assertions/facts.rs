//! Facts about the process of a test, and about the host on which it would run: one with systemd and
//! cgroup v2. Must not decide anything.

use std::sync::Arc;

use super::TestSubject;
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
        Arc::default()
    }

    fn login(&mut self) -> Option<Uid> {
        self.subject.login.as_ref().map(|(uid, _)| *uid)
    }

    fn arguments(&mut self) -> Result<Option<&[u8]>, Missing> {
        Ok(self.subject.arguments.as_deref())
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
        Ok(Containment::Host)
    }

    fn is_in_namespace_of_root(&mut self) -> bool {
        false
    }

    fn accountable(&self, uid: Uid) -> Uid {
        uid
    }

    fn user_name(&mut self, _: Uid) -> Result<Option<String>, Missing> {
        Ok(self.subject.login.as_ref().and_then(|(_, name)| name.clone()))
    }

    fn container_name(&mut self, _: ContainerKey) -> Result<Option<String>, Missing> {
        Ok(None)
    }
}

/// Facts for the decision whether a process stays where it is.
pub(super) struct TestStays<'a> {
    pub(super) hierarchies: &'a Hierarchies,
    /// True if the test gives an executable.
    pub(super) has_exe: bool,
}

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
        Some(self.has_exe)
    }

    fn is_alone_in(&self, _: &str) -> bool {
        false
    }

    fn group_owner(&self, _: usize, _: &[u8]) -> Option<Uid> {
        None
    }
}

impl ContainerFacts for TestStays<'_> {
    fn hierarchies(&self) -> &Hierarchies {
        self.hierarchies
    }

    fn sole_owner(&self, _: usize, _: &[u8]) -> Option<Uid> {
        Some(Uid(0))
    }

    fn containment(&mut self) -> Result<Containment, Missing> {
        Ok(Containment::Host)
    }

    fn is_in_namespace_of_root(&mut self) -> bool {
        false
    }

    fn accountable(&self, uid: Uid) -> Uid {
        uid
    }

    fn user_name(&mut self, _: Uid) -> Result<Option<String>, Missing> {
        Ok(None)
    }

    fn container_name(&mut self, _: ContainerKey) -> Result<Option<String>, Missing> {
        Ok(None)
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
