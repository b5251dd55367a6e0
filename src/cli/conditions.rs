//! What the conditions of rules test of a process that a command inspects, living or hypothetical. Must not
//! decide about them: [`crate::placement::conditions`] does.

use std::sync::Arc;

use crate::cgroup::group_files;
use crate::cgroup::mounts::Hierarchies;
use crate::event::{Pid, Uid};
use crate::kernel::process::ProcFs;
use crate::placement::Missing;
use crate::placement::conditions::ConditionFacts;
use crate::policy::load::NameService;
use crate::rules::RuleId;
use crate::rules::ancestry::Ancestor;

/// Facts about a process for the conditions of rules.
pub(super) struct InspectedConditions<'a> {
    pub(super) hierarchies: &'a Hierarchies,
    pub(super) names: &'a NameService,
    /// Text of its `/proc/PID/cgroup`, or that of a hypothetical process.
    pub(super) cgroup: &'a [u8],
    /// What its ancestors run.
    pub(super) ancestors: &'a [Ancestor],
    /// Its login UID, if it is set.
    pub(super) login: Option<Uid>,
    /// Its PID; `None` for a hypothetical process.
    pub(super) pid: Option<Pid>,
    pub(super) proc: Option<&'a ProcFs>,
    /// The text of its `/proc/PID/cmdline`, or that of a hypothetical process.
    pub(super) arguments: Option<&'a [u8]>,
}

impl ConditionFacts for InspectedConditions<'_> {
    fn hierarchies(&self) -> &Hierarchies {
        self.hierarchies
    }

    fn cgroup(&mut self) -> Option<&[u8]> {
        (!self.cgroup.is_empty()).then_some(self.cgroup)
    }

    fn is_real_time(&mut self) -> bool {
        self.pid.zip(self.proc).is_some_and(|(pid, proc)| proc.is_real_time(pid))
    }

    fn ancestors(&mut self) -> Arc<[Ancestor]> {
        self.ancestors.into()
    }

    fn login(&mut self) -> Option<Uid> {
        self.login
    }

    fn user_name(&mut self, uid: Uid) -> Result<Option<String>, Missing> {
        let found = self.names.identify(uid);
        Ok(found.ok().and_then(|identity| identity.name))
    }

    fn arguments(&mut self) -> Result<Option<&[u8]>, Missing> {
        Ok(self.arguments)
    }

    fn is_of_root(&self, hierarchy: usize, path: &[u8]) -> bool {
        let directory = self.hierarchies.get(hierarchy).and_then(|tree| tree.directory(path));
        directory.is_some_and(|directory| {
            group_files::owner(&directory) == Some(Uid(0))
                && !group_files::is_writable_by_users(&directory)
        })
    }

    // Only the daemon knows.
    fn placed_by(&mut self, _: usize, _: &[u8]) -> Option<RuleId> {
        None
    }
}
