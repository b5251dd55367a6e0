//! The active policy, shared with other threads. The lock must not be taken by the hot thread, only
//! by the rule thread and the threads that serve clients.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::retained::RetainedFiles;
use crate::config::daemon_toml::ExternalMoves;
use crate::config::diagnostic::Diagnostic;
use crate::event::Nanos;
use crate::policy::load::{FileContents, Sources, Subordinates};
use crate::policy::rule_hits::RuleHitTable;
use crate::rules::matcher::Matcher;

/// Active rules with their files and diagnostics.
#[derive(Debug)]
pub struct ActivePolicy {
    /// Generation of these rules, as in [`crate::policy::Policy`].
    pub generation: u64,
    /// Time since boot at which the rules were read; the wall clock can be changed meanwhile.
    pub since: Nanos,
    /// Compiled rules in their order.
    pub matcher: Arc<Matcher>,
    /// Counters of the rules.
    pub hits: RuleHitTable,
    /// Files that contain the rules.
    pub files: Vec<Arc<Path>>,
    /// Diagnostics about the active versions of the files.
    pub diagnostics: Vec<Diagnostic>,
    /// Number of errors among them that are new.
    pub new_errors: usize,
    /// Files with new errors, used in their last valid version.
    pub keeping: RetainedFiles,
    /// Diagnostics about the settings of the daemon at the last reload.
    pub settings_diagnostics: Vec<Diagnostic>,
    /// Running reaction to external moves, if it is known here.
    pub external_moves: Option<ExternalMoves>,
    /// Contents of all active files.
    pub contents: FileContents,
    /// Places of the files.
    pub sources: Sources,
    /// Owners of subordinate UIDs.
    pub subordinates: Subordinates,
    /// Root of the cgroups of TOML rules in each hierarchy, without a trailing slash.
    pub root: String,
    /// The same for legacy rules, if there are any.
    pub legacy_root: Option<String>,
}

/// Cell with the active rules, shared by several threads.
#[derive(Clone, Debug, Default)]
pub struct PolicyCell(Arc<Mutex<Option<Arc<ActivePolicy>>>>);

impl PolicyCell {
    /// Returns the active rules; `None` before the first ones.
    pub fn read(&self) -> Option<Arc<ActivePolicy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn stored(&self, in_force: ActivePolicy) {
        let in_force = Some(Arc::new(in_force));
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *place, in_force);
        // Dropped only after the lock is released.
        drop(place);
        drop(old);
    }
}
