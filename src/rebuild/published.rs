//! What is in force, for whoever wants to look. Only the rule thread and those who answer questions take
//! the lock, never the hot thread.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

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
    /// What is wrong with the files.
    pub diagnostics: Vec<Diagnostic>,
    /// Where the groups of TOML rules begin in each hierarchy, without a slash at the end.
    pub root: String,
}

/// Files with new errors, because of which other rules stay in force.
#[derive(Clone, Debug)]
pub struct RefusedFiles {
    /// When they were read.
    pub at: SystemTime,
    /// The new errors.
    pub errors: Vec<Diagnostic>,
}

/// What came of the last reading of all files.
#[derive(Clone, Debug, Default)]
pub struct Bulletin {
    /// The rules in force; `None` before the first.
    pub in_force: Option<Arc<InForce>>,
    /// Set when the last files were refused.
    pub refused: Option<RefusedFiles>,
}

/// Where the rule thread puts it up.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Bulletin>>);

impl Board {
    /// What is there now.
    pub fn read(&self) -> Bulletin {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn adopted(&self, in_force: InForce) {
        self.put(Bulletin { in_force: Some(Arc::new(in_force)), refused: None });
    }

    pub(super) fn refused(&self, errors: Vec<Diagnostic>) {
        let refused = Some(RefusedFiles { at: SystemTime::now(), errors });
        self.put(Bulletin { refused, ..self.read() });
    }

    fn put(&self, bulletin: Bulletin) {
        let old = std::mem::replace(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
            bulletin,
        );
        // After the lock is free.
        drop(old);
    }
}
