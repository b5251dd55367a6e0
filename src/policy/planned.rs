//! The request for a policy that does not become active, and that policy: for a plan, which shows what would
//! change. Pure.

use std::path::PathBuf;

use super::Policy;
use crate::config::daemon_toml::changes::SettingChanges;
use crate::config::diagnostic::Diagnostic;

/// The files of a plan, in place of or in addition to those of the daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanSources {
    /// Directories of rule files that replace those of the daemon, unless there are none.
    pub directories: Vec<PathBuf>,
    /// A rule file that is read as if it was in the first directory, where it replaces one of its name.
    pub file: Option<PathBuf>,
}

/// A request for the policy of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRequest {
    /// Number by which the reply is recognized.
    pub number: u64,
    /// The files to read.
    pub sources: PlanSources,
}

/// The policy of a plan, as a reload would activate it.
#[derive(Debug)]
pub struct PlannedPolicy {
    /// The number of the request.
    pub number: u64,
    /// The policy. `None` if the files have errors.
    pub policy: Option<Box<Policy>>,
    /// The diagnostics of the files.
    pub diagnostics: Vec<Diagnostic>,
    /// The settings of the daemon that would change.
    pub settings: SettingChanges,
}
