//! The policy of a plan: read and adapted as at a reload, with other files if the request names them. It must
//! not change what is active, log, or publish anything.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use super::{PolicyBuilder, compiled_apart, summary};
use crate::config::daemon_toml::changes::SettingChanges;
use crate::config::diagnostic::{Diagnostic, Severity, has_errors, sort};
use crate::policy::Policy;
use crate::policy::load::{Loaded, Overlay, Sources, load_over, read_rule_file};
use crate::policy::planned::{PlanRequest, PlanSources, PlannedPolicy};
use crate::rules::names::UnknownName;

impl PolicyBuilder {
    /// Builds the policy that a reload would activate if these files were those of the daemon.
    pub(super) fn planned(&mut self, request: &PlanRequest) -> PlannedPolicy {
        let number = request.number;
        let (is_strict, settings, mut diagnostics) = self.foreseen_settings();
        let sources = sources_of(&request.sources, &self.sources);
        let overlay = Overlay { names: self.overlay.names.clone(), ..Overlay::default() };
        let policy = match added_file(&request.sources, &sources, overlay) {
            Err(refused) => {
                diagnostics.push(refused);
                None
            }
            Ok(overlay) => {
                let loaded = load_over(&sources, &self.names, overlay);
                let mut loaded = self.tested_as(loaded, is_strict);
                let configs = self.fit(&mut loaded);
                diagnostics.append(&mut loaded.diagnostics);
                // A reload would keep files with errors at their last valid version, which depends on the past.
                (!has_errors(&diagnostics)).then(|| {
                    let mut policy = self.planned_policy(loaded);
                    policy.give(configs);
                    Box::new(policy)
                })
            }
        };
        sort(&mut diagnostics);
        PlannedPolicy { number, policy, diagnostics, settings }
    }

    /// Returns whether failing tests would be errors, the changes of settings, and the diagnostics about them.
    fn foreseen_settings(&self) -> (bool, SettingChanges, Vec<Diagnostic>) {
        match &self.settings {
            None => (self.tests.is_strict, SettingChanges::default(), Vec::new()),
            Some(own) => {
                let (settings, changes, diagnostics) = own.foresee();
                (settings.strict_tests, changes, diagnostics)
            }
        }
    }

    fn planned_policy(&mut self, loaded: Loaded) -> Policy {
        // Its own, because names are looked up for it while another policy is active.
        self.generation += 1;
        let files = loaded.files.iter().filter(|file| super::has_rules(file)).count();
        let summary = summary(loaded.rules.len(), files, &[], &[]);
        let matcher = Arc::new(compiled_apart(&loaded.rules));
        let mut policy = self.assemble(&matcher, loaded.names, self.names.subordinates());
        policy.lacks_users = loaded.missing.iter().any(UnknownName::is_user);
        policy.summary = summary;
        policy
    }
}

fn sources_of(wanted: &PlanSources, own: &Sources) -> Sources {
    match wanted.directories.is_empty() {
        true => own.clone(),
        false => Sources { directories: wanted.directories.clone(), ..own.clone() },
    }
}

/// Adds the file of the request to the first directory.
///
/// # Errors
/// A directory does not exist; the file is not one of rules, cannot be read, or users other than root may change it.
fn added_file(
    wanted: &PlanSources,
    sources: &Sources,
    mut overlay: Overlay,
) -> Result<Overlay, Diagnostic> {
    // A standard directory may be missing, one that somebody named not.
    if let Some(missing) = wanted.directories.iter().find(|directory| !directory.is_dir()) {
        let path: Arc<Path> = Arc::from(&**missing);
        let help = "the daemon reads it: it must exist in its mount namespace";
        return Err(Diagnostic::about(&path, Severity::Error, "is not a directory").with_help(help));
    }
    let (Some(file), Some(directory)) = (&wanted.file, sources.directories.first()) else {
        return Ok(overlay);
    };
    let path: Arc<Path> = Arc::from(&**file);
    if path.extension() != Some(OsStr::new("toml")) {
        let wrong = Diagnostic::about(&path, Severity::Error, "is not a rule file");
        return Err(wrong.with_help("name rule files NN-name.toml"));
    }
    let bytes = read_rule_file(&path, sources.owner)?;
    let installed: Arc<Path> = Arc::from(directory.join(path.file_name().unwrap_or_default()));
    overlay.files.insert(Arc::clone(&installed), bytes);
    overlay.added.insert(installed);
    Ok(overlay)
}

#[cfg(test)]
#[path = "planned_tests.rs"]
mod tests;
