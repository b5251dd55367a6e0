//! Facts about a living process for the decision whether it stays in other cgroups than those of its rule.

use super::subject::InspectedProcess;
use crate::cgroup::group_files;
use crate::cgroup::host::Host;
use crate::cgroup::mounts::Hierarchies;
use crate::cli::conditions::{container_name, containment, sole_owner};
use crate::event::{Nanos, Pid, Uid};
use crate::kernel::container::Containment;
use crate::kernel::process::{ProcFs, ProcessStatus};
use crate::kernel::user_manager::ManagerLookup;
use crate::placement::Missing;
use crate::placement::container::ContainerFacts;
use crate::placement::stay::{
    MoveDecision, StayFacts, StayReason, StaySubject, StayTarget, decide_move,
};
use crate::policy::User;
use crate::policy::rebuild::LoadedConfig;
use crate::rules::container::ContainerKey;

/// Facts read by the command.
struct ProcFacts<'p> {
    proc: &'p mut ProcFs,
    survey: &'p LoadedConfig,
    pid: Pid,
    uid: Uid,
    has_exited: bool,
}

/// Returns the reason for which the process stays where it is. `None` if the daemon would move it, or if
/// that is unknown.
pub(super) fn reason(
    survey: &LoadedConfig,
    subject: &InspectedProcess,
    target: &StayTarget<'_>,
    proc: &mut ProcFs,
) -> Option<StayReason> {
    let life = subject.life.as_ref()?;
    let mut policy = survey.policy();
    let process = StaySubject {
        pid: life.pid,
        uid: subject.who.uid,
        user: subject.who.name.as_deref(),
        exe: subject.known_exe(),
        is_moved_thread: false,
        cgroup: &life.cgroup,
    };
    let mut facts =
        ProcFacts { proc, survey, pid: life.pid, uid: subject.who.uid, has_exited: life.is_zombie };
    loop {
        match decide_move(&policy, target, &process, &mut facts) {
            Ok(MoveDecision::Stay(reason)) => return Some(reason),
            Ok(MoveDecision::Move(_)) => return None,
            Err(Missing::User(owner)) => {
                let identity = survey.names.identify(owner).ok()?;
                policy.meet(User::new(&policy.matcher, identity, Nanos(0)));
                policy.can_move(owner)?;
            }
            // The facts above need neither.
            Err(
                Missing::Exe | Missing::Namespaces | Missing::Arguments | Missing::ContainerName(_),
            ) => return None,
        }
    }
}

impl StayFacts for ProcFacts<'_> {
    fn runs_systemd(&self) -> bool {
        Host::default().runs_systemd()
    }

    // The daemon reports that.
    fn is_daemon(&self) -> bool {
        false
    }

    fn has_exited(&self) -> bool {
        self.has_exited
    }

    fn status(&mut self, pid: Pid) -> Option<ProcessStatus> {
        self.proc.status(pid)
    }

    fn children(&mut self, bound: usize) -> Vec<Pid> {
        let mut children = Vec::new();
        self.proc.children(self.pid, |child| {
            if children.len() < bound {
                children.push(child);
            }
        });
        children
    }

    fn is_user_manager(&mut self) -> Option<bool> {
        // Without an answer from systemd the daemon does not move it either.
        let found = ManagerLookup::default().find(self.uid);
        Some(found.map_or(true, |found| found.contains(self.pid, self.proc)))
    }

    // Whether it is the last process of its session changes at any time, so the daemon reports that.
    fn is_alone_in(&self, _: &str) -> bool {
        false
    }

    fn group_owner(&self, hierarchy: usize, path: &[u8]) -> Option<Uid> {
        let directory = self.survey.hierarchies.get(hierarchy)?.directory(path)?;
        group_files::owner(&directory)
    }
}

impl ContainerFacts for ProcFacts<'_> {
    fn hierarchies(&self) -> &Hierarchies {
        &self.survey.hierarchies
    }

    fn sole_owner(&self, hierarchy: usize, path: &[u8]) -> Option<Uid> {
        sole_owner(&self.survey.hierarchies, hierarchy, path)
    }

    fn containment(&mut self) -> Result<Containment, Missing> {
        Ok(containment(self.pid, self.proc))
    }

    fn is_in_namespace_of_root(&mut self) -> bool {
        self.proc.is_in_namespace_of_root(self.pid)
    }

    fn accountable(&self, uid: Uid) -> Uid {
        self.survey.subordinates().account_of(uid).unwrap_or(uid)
    }

    fn user_name(&mut self, uid: Uid) -> Result<Option<String>, Missing> {
        let found = self.survey.names.identify(uid);
        Ok(found.ok().and_then(|identity| identity.name))
    }

    fn container_name(&mut self, key: ContainerKey) -> Result<Option<String>, Missing> {
        Ok(container_name(key))
    }
}
