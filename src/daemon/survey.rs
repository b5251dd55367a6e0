//! What a daemon would read and where it would place, without one.

use std::sync::Arc;

use super::{Invocation, rebuilder, settings};
use crate::cgroup::mounts::Hierarchies;
use crate::cgroup::tree;
use crate::config::diagnostic::Diagnostic;
use crate::host::Host;
use crate::load::Loaded;
use crate::policy::Policy;
use crate::rebuild::Survey;

/// Reads the configuration and returns all complaints about it.
pub fn check(invocation: &Invocation) -> Vec<Diagnostic> {
    survey(invocation, None).loaded.diagnostics
}

/// What a daemon that is called so would have in force. `loaded` is taken for what the rule files say, if
/// it is there, and then only its files are complained of.
pub fn survey(invocation: &Invocation, loaded: Option<Loaded>) -> Survey {
    let (settings, mut diagnostics) = settings(invocation);
    let hierarchies = Arc::new(tree::discover().unwrap_or_default());
    let grounds = Host::default().grounds(&settings, &hierarchies);
    let rebuilder = rebuilder(invocation, grounds, &hierarchies);
    let Some(loaded) = loaded else {
        let mut survey = rebuilder.survey();
        diagnostics.append(&mut survey.loaded.diagnostics);
        survey.loaded.diagnostics = diagnostics;
        return survey;
    };
    let mut survey = rebuilder.having(loaded).survey();
    let files = &survey.loaded.files;
    survey.loaded.diagnostics.retain(|own| files.iter().any(|file| file.path == own.file));
    survey
}

/// What a daemon that is called so would decide by. What is wrong with the files is left out.
pub fn policy(invocation: &Invocation, hierarchies: &Arc<Hierarchies>) -> Box<Policy> {
    let grounds = Host::default().grounds(&settings(invocation).0, hierarchies);
    rebuilder(invocation, grounds, hierarchies).first()
}
