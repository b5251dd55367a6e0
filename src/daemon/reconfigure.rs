//! Changes of settings that take effect at a reload.

use super::options::{engine_options, levels, running, settings};
use super::{Daemon, DaemonOptions};
use crate::config::daemon_toml::ExternalMoves;
use crate::policy::SettingsUpdate;
use crate::policy::rebuild::settings::SettingsReader;
use crate::sys;

/// Returns the function that reads the settings again, for the rule thread.
pub(super) fn reader(invocation: &DaemonOptions) -> SettingsReader {
    let invocation = invocation.clone();
    Box::new(move || {
        let (settings, diagnostics) = settings(&invocation);
        (running(&invocation, settings), diagnostics)
    })
}

impl Daemon {
    /// Applies the settings that changed at a reload, if any.
    pub(super) fn take_settings(&mut self) {
        let Some(SettingsUpdate { settings, fast_moves }) = self.engine.take_settings() else {
            return;
        };
        let invocation = &self.invocation;
        self.levels.set(levels(invocation, &settings));
        let external_moves = settings.external_moves.unwrap_or(ExternalMoves::Off);
        self.engine.configure(engine_options(&settings, external_moves, invocation.dry_run));
        if self.stats.is_none_or(|(every, _)| settings.stats_every != Some(every)) {
            self.stats = settings.stats_every.map(|every| (every, sys::monotonic()));
        }
        self.controlled.write_metrics_to(settings.metrics_textfile.as_ref());
        let kernel = self.engine.kernel_mut();
        if let Some(guard) = fast_moves {
            kernel.set_fast_moves(guard);
        }
        if let Err(error) = kernel.set_receive_buffer(settings.receive_buffer as usize) {
            ::log::error!("cannot change receive_buffer: {error}");
        }
    }
}
