//! What a daemon would read and where it would place, without one.

use std::io::ErrorKind;
use std::sync::Arc;
use std::{fs, path};

use super::{Invocation, rebuilder, settings};
use crate::cgroup::mounts::Hierarchies;
use crate::cgroup::tree;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::host::Host;
use crate::load::Loaded;
use crate::policy::Policy;
use crate::rebuild::{self, Survey};

/// Reads the configuration and returns all complaints about it.
pub fn check(invocation: &Invocation) -> Vec<Diagnostic> {
    let mut diagnostics = survey(invocation, None).loaded.diagnostics;
    diagnostics.extend(missing(invocation));
    diagnostics
}

/// An error for each file and directory that the command line names and that is not there. Whoever asks what is
/// wrong wants to know of a mistyped path; a daemon may be started before its files are there.
pub fn missing(invocation: &Invocation) -> Vec<Diagnostic> {
    let settings = Some(&invocation.config).filter(|path| **path != Invocation::default().config);
    let named = settings.into_iter().chain(&invocation.rules);
    let absent = named.filter_map(|path| {
        let error = fs::metadata(path).err()?;
        let is_absent = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
        is_absent.then(|| path::absolute(path).unwrap_or_else(|_| path.clone()))
    });
    let said = absent.map(|path| {
        Diagnostic::about(&Arc::from(path), Severity::Error, "does not exist")
            .with_help("the command line names it: correct it there, or make it")
    });
    said.collect()
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
    if !Host::default().runs_systemd() {
        // They may be meant for another host.
        survey.loaded.diagnostics.extend(rebuild::too_wide(&survey.loaded.rules));
    }
    let files = &survey.loaded.files;
    survey.loaded.diagnostics.retain(|own| files.iter().any(|file| file.path == own.file));
    survey
}

/// What a daemon that is called so would decide by, and all complaints about the files: what is wrong with
/// them is left out.
pub fn policy(
    invocation: &Invocation,
    hierarchies: &Arc<Hierarchies>,
) -> (Box<Policy>, Vec<Diagnostic>) {
    let (settings, mut diagnostics) = settings(invocation);
    let grounds = Host::default().grounds(&settings, hierarchies);
    let mut rebuilder = rebuilder(invocation, grounds, hierarchies);
    let policy = rebuilder.first();
    diagnostics.extend_from_slice(rebuilder.diagnostics());
    (policy, diagnostics)
}
