//! The active policy, shared with other threads. The lock must not be taken by the hot thread, only
//! by the rule thread and the threads that serve clients.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::retained::RetainedFiles;
use crate::config::diagnostic::Diagnostic;
use crate::rules::matcher::Matcher;

/// Active rules with their files and diagnostics.
#[derive(Debug)]
pub struct ActivePolicy {
    /// Generation of these rules, as in [`crate::policy::Policy`].
    pub generation: u64,
    /// Time at which the rules were read.
    pub since: SystemTime,
    /// Compiled rules in their order.
    pub matcher: Arc<Matcher>,
    /// Files that contain the rules.
    pub files: Vec<Arc<Path>>,
    /// Diagnostics about the active versions of the files.
    pub diagnostics: Vec<Diagnostic>,
    /// Number of errors among them that are new.
    pub new_errors: usize,
    /// Files with new errors, used in their last valid version.
    pub keeping: RetainedFiles,
    /// Root of the cgroups of TOML rules in each hierarchy, without a trailing slash.
    pub root: String,
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
