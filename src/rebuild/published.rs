//! What is in force, for whoever wants to look. Only the rule thread and those who answer questions take
//! the lock, never the hot thread.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::kept::Keeping;
use crate::config::diagnostic::Diagnostic;
use crate::rules::matcher::Matcher;

/// Rules in force.
#[derive(Debug)]
pub struct InForce {
    /// Their number: that of [`crate::policy::Policy`].
    pub generation: u64,
    /// When they were read.
    pub since: SystemTime,
    /// The rules.
    pub matcher: Arc<Matcher>,
    /// The files that they are from.
    pub files: Vec<Arc<Path>>,
    /// What is wrong with the files as they are in force.
    pub diagnostics: Vec<Diagnostic>,
    /// How many of the errors in them are new.
    pub new_errors: usize,
    /// Files with new errors that are taken at what they said before.
    pub keeping: Keeping,
    /// Where the groups of TOML rules begin in each hierarchy, without a slash at the end.
    pub root: String,
}

/// Where the rule thread puts it up.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Option<Arc<InForce>>>>);

impl Board {
    /// What is there now; `None` before the first rules.
    pub fn read(&self) -> Option<Arc<InForce>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn adopted(&self, in_force: InForce) {
        let in_force = Some(Arc::new(in_force));
        let mut place = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *place, in_force);
        // So that it goes after the lock is free.
        drop(place);
        drop(old);
    }
}
