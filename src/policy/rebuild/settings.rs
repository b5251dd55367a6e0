//! The settings of the daemon at a reload: which changes take effect, and which need a restart.

use std::path::Path;
use std::sync::Arc;

use crate::cgroup::fast_moves::FastMovesGuard;
use crate::cgroup::mounts::Hierarchies;
use crate::config::daemon_toml::Settings;
use crate::config::daemon_toml::changes::{SettingChange, SettingChanges};
use crate::config::diagnostic::{Diagnostic, Severity, has_errors};
use crate::policy::SettingsUpdate;

use super::{PolicyBuilder, say};

/// Reads the settings file, with the values of the command line.
pub type SettingsReader = Box<dyn Fn() -> (Settings, Vec<Diagnostic>) + Send>;

/// The settings with which the daemon runs, and the reader of their file.
pub(super) struct ReloadedSettings {
    reader: SettingsReader,
    running: Settings,
    /// Changes that need a restart.
    pub(super) pending: Vec<SettingChange>,
    /// Diagnostics of the present file.
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl ReloadedSettings {
    pub(super) fn new(running: Settings, reader: SettingsReader) -> Self {
        Self { reader, running, pending: Vec::new(), diagnostics: Vec::new() }
    }

    /// Returns the settings with which the daemon runs.
    pub(super) const fn running(&self) -> &Settings {
        &self.running
    }

    /// Reads the file. A file with errors changes nothing.
    pub(super) fn reload(
        &mut self,
        file: &Path,
        hierarchies: &Hierarchies,
    ) -> Option<SettingsUpdate> {
        let (new, diagnostics) = (self.reader)();
        self.diagnostics = diagnostics;
        if has_errors(&self.diagnostics) {
            return None;
        }
        let SettingChanges { applied, pending } = self.running.take_changes(&new);
        let file = file.display();
        for SettingChange { key, old, new } in &applied {
            ::log::info!("{file}: {key}: {} instead of {}", new.escape_debug(), old.escape_debug());
        }
        for change in pending.iter().filter(|change| !self.pending.contains(change)) {
            ::log::warn!("{file}: {}", pending_text(change));
        }
        self.pending = pending;
        let is_changed = applied.iter().any(|change| change.key == "fast_moves");
        let mode = self.running.fast_moves;
        let fast_moves = is_changed.then(|| FastMovesGuard::engage_if_possible(mode, hierarchies));
        (!applied.is_empty()).then(|| SettingsUpdate { settings: self.running.clone(), fast_moves })
    }

    /// Returns the settings after a reload, with the changes and the diagnostics of the file. Changes nothing.
    pub(super) fn foresee(&self) -> (Settings, SettingChanges, Vec<Diagnostic>) {
        let (new, diagnostics) = (self.reader)();
        let mut running = self.running.clone();
        if has_errors(&diagnostics) {
            return (running, SettingChanges::default(), diagnostics);
        }
        let changes = running.take_changes(&new);
        (running, changes, diagnostics)
    }

    /// Returns the warnings about changes that need a restart.
    pub(super) fn warnings(&self, file: &Arc<Path>) -> Vec<Diagnostic> {
        let help = "run 'systemctl restart cgruled'; processes stay in their cgroups";
        let warnings = self.pending.iter().map(|change| {
            Diagnostic::about(file, Severity::Warning, pending_text(change)).with_help(help)
        });
        warnings.collect()
    }
}

impl PolicyBuilder {
    /// Sets the settings with which the daemon runs, and the reader of their file for a reload.
    #[must_use]
    pub fn with_reloaded_settings(self, running: Settings, reader: SettingsReader) -> Self {
        Self { settings: Some(ReloadedSettings::new(running, reader)), ..self }
    }

    /// Reads the settings. Returns those that take effect, if any have changed.
    pub(super) fn reload_settings(&mut self) -> Option<SettingsUpdate> {
        let settings = self.settings.as_mut()?;
        let update = settings.reload(&self.settings_file, &self.hierarchies);
        settings.diagnostics.iter().for_each(say);
        update
    }

    /// Returns the diagnostics about the settings at the last reload.
    pub(super) fn settings_diagnostics(&self) -> Vec<Diagnostic> {
        let Some(settings) = &self.settings else { return Vec::new() };
        let warnings = settings.warnings(&Arc::from(&*self.settings_file));
        settings.diagnostics.iter().cloned().chain(warnings).collect()
    }
}

fn pending_text(SettingChange { key, old, new }: &SettingChange) -> String {
    let (old, new) = (old.escape_debug(), new.escape_debug());
    format!("{key}: {new} instead of {old} takes effect after a restart")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::daemon_toml::parse;

    #[test]
    fn a_file_with_errors_changes_nothing() {
        let file: Arc<Path> = Arc::from(Path::new("/c.toml"));
        fn reload(
            file: &Arc<Path>,
            text: &'static str,
        ) -> (Option<Option<Duration>>, ReloadedSettings) {
            let path = Arc::clone(file);
            let reader: SettingsReader = Box::new(move || parse(&path, text));
            let mut settings = ReloadedSettings::new(Settings::default(), reader);
            let update = settings.reload(file, &Hierarchies::new(Vec::new()));
            (update.map(|update| update.settings.recheck), settings)
        }
        let (update, settings) = reload(&file, "recheck = \"5s\"\nroot = \"/a\"\n");
        assert_eq!(update, Some(Some(Duration::from_secs(5))));
        let warnings = settings.warnings(&file);
        assert_eq!(warnings[0].message, "root: /a instead of auto takes effect after a restart");
        let (update, settings) = reload(&file, "recheck = \"5s\"\nnonsense = 1\n");
        assert_eq!((update, settings.diagnostics.len()), (None, 1));
        assert_eq!(settings.running(), &Settings::default());
    }
}
