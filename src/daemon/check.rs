//! Configuration that a daemon would use, determined without starting one.

use std::io::ErrorKind;
use std::sync::Arc;
use std::{fs, path};

use super::options::{DaemonOptions, builder, settings};
use crate::cgroup::host::Host;
use crate::cgroup::mounts::Hierarchies;
use crate::cgroup::tree;
use crate::config::diagnostic::{Diagnostic, Severity};
use crate::policy::Policy;
use crate::policy::load::Loaded;
use crate::policy::rebuild::{self, LoadedConfig};

/// Reads the configuration and returns all diagnostics about it.
pub fn check(invocation: &DaemonOptions) -> Vec<Diagnostic> {
    let mut diagnostics = survey(invocation, None).loaded.diagnostics;
    diagnostics.extend(missing(invocation));
    diagnostics
}

/// Returns an error for each file and directory named on the command line that does not exist. Must
/// not be used by the daemon itself, which may be started before its files exist.
pub fn missing(invocation: &DaemonOptions) -> Vec<Diagnostic> {
    let settings =
        Some(&invocation.config).filter(|path| **path != DaemonOptions::default().config);
    absent(settings.into_iter().chain(&invocation.rules))
}

/// Returns an error for each directory of rules named on the command line that does not exist.
pub fn missing_rules(invocation: &DaemonOptions) -> Vec<Diagnostic> {
    absent(invocation.rules.iter())
}

fn absent<'p>(named: impl Iterator<Item = &'p path::PathBuf>) -> Vec<Diagnostic> {
    let absent = named.filter_map(|path| {
        let error = fs::metadata(path).err()?;
        let is_absent = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
        is_absent.then(|| path::absolute(path).unwrap_or_else(|_| path.clone()))
    });
    let said = absent.map(|path| {
        Diagnostic::about(&Arc::from(path), Severity::Error, "does not exist")
            .with_help("named on the command line: correct the path or create it")
    });
    said.collect()
}

/// Returns the configuration that a daemon started with these options would load. `loaded`, if
/// given, replaces the content of the rule files, and then only diagnostics about these files are
/// returned.
pub fn survey(invocation: &DaemonOptions, loaded: Option<Loaded>) -> LoadedConfig {
    let (settings, mut diagnostics) = settings(invocation);
    let hierarchies = Arc::new(tree::discover().unwrap_or_default());
    let roots = Host::default().roots(&settings, &hierarchies);
    let builder = builder(invocation, &settings, roots, &hierarchies);
    let Some(loaded) = loaded else {
        let mut survey = builder.survey();
        diagnostics.append(&mut survey.loaded.diagnostics);
        survey.loaded.diagnostics = diagnostics;
        return survey;
    };
    let mut survey = builder.with_candidate(loaded).survey();
    if !Host::default().runs_systemd() {
        // The files may be intended for another host, so the warning is given without systemd as
        // well.
        survey.loaded.diagnostics.extend(rebuild::warn_overbroad(&survey.loaded.rules));
    }
    let files = &survey.loaded.files;
    survey.loaded.diagnostics.retain(|own| files.iter().any(|file| file.path == own.file));
    survey
}

/// Returns the policy that a daemon started with these options would use, and all diagnostics about
/// the files. Invalid rules are left out.
pub fn policy(
    invocation: &DaemonOptions,
    hierarchies: &Arc<Hierarchies>,
) -> (Box<Policy>, Vec<Diagnostic>) {
    let (settings, mut diagnostics) = settings(invocation);
    let roots = Host::default().roots(&settings, hierarchies);
    let mut builder = builder(invocation, &settings, roots, hierarchies);
    let policy = builder.first();
    diagnostics.extend_from_slice(builder.diagnostics());
    (policy, diagnostics)
}
