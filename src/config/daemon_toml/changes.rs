//! The differences between two versions of the settings, and which of them take effect at a reload.
//! Pure.

use std::path::Path;
use std::time::Duration;

use super::choices::word_of;
use super::{ExternalMoves, FastMoves, LegacyRoot, LogTarget, Root, Scheduling, Settings};

/// The time at which a changed setting takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// At the next reload.
    Reload,
    /// At the next reload, unless the old or the new value is `"off"`: the trace is opened at
    /// startup.
    ReloadUnlessOff,
    /// At the next start of the daemon.
    Restart,
}

/// A setting with its name and the functions that show and copy its value.
pub struct SettingRow {
    /// The name, with the table: `log.level`.
    pub key: &'static str,
    /// The time at which a changed value takes effect.
    pub effect: Effect,
    text: fn(&Settings) -> String,
    copy: fn(&mut Settings, &Settings),
}

/// A setting that was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    /// The name, with the table.
    pub key: &'static str,
    /// The value with which the daemon runs.
    pub old: String,
    /// The value in the file.
    pub new: String,
}

/// The changes of one reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettingChanges {
    /// The changes that take effect now.
    pub applied: Vec<SettingChange>,
    /// The changes that take effect after a restart.
    pub pending: Vec<SettingChange>,
}

/// All settings. The key `version` has a single valid value.
pub const ROWS: [SettingRow; 15] = [
    SettingRow {
        key: "root",
        effect: Effect::Restart,
        text: |settings| match &settings.root {
            Root::Auto => "auto".to_owned(),
            Root::Path(path) => path.display().to_string(),
        },
        copy: |to, from| to.root.clone_from(&from.root),
    },
    SettingRow {
        key: "legacy_root",
        effect: Effect::Restart,
        text: |settings| word_of(&LegacyRoot::WORDS, settings.legacy_root).to_owned(),
        copy: |to, from| to.legacy_root = from.legacy_root,
    },
    SettingRow {
        key: "fast_moves",
        effect: Effect::Reload,
        text: |settings| word_of(&FastMoves::WORDS, settings.fast_moves).to_owned(),
        copy: |to, from| to.fast_moves = from.fast_moves,
    },
    SettingRow {
        key: "scheduling",
        effect: Effect::Restart,
        text: |settings| word_of(&Scheduling::WORDS, settings.scheduling).to_owned(),
        copy: |to, from| to.scheduling = from.scheduling,
    },
    SettingRow {
        key: "recheck",
        effect: Effect::Reload,
        text: |settings| time(settings.recheck),
        copy: |to, from| to.recheck = from.recheck,
    },
    SettingRow {
        key: "external_moves",
        effect: Effect::ReloadUnlessOff,
        text: |settings| settings.external_moves.map_or("unset", ExternalMoves::word).to_owned(),
        copy: |to, from| to.external_moves = from.external_moves,
    },
    SettingRow {
        key: "receive_buffer",
        effect: Effect::Reload,
        text: |settings| settings.receive_buffer.to_string(),
        copy: |to, from| to.receive_buffer = from.receive_buffer,
    },
    SettingRow {
        key: "stats_every",
        effect: Effect::Reload,
        text: |settings| time(settings.stats_every),
        copy: |to, from| to.stats_every = from.stats_every,
    },
    SettingRow {
        key: "control_socket",
        effect: Effect::Restart,
        text: |settings| path(settings.control_socket.as_deref()),
        copy: |to, from| to.control_socket.clone_from(&from.control_socket),
    },
    SettingRow {
        key: "metrics_textfile",
        effect: Effect::Reload,
        text: |settings| path(settings.metrics_textfile.as_deref()),
        copy: |to, from| to.metrics_textfile.clone_from(&from.metrics_textfile),
    },
    SettingRow {
        key: "strict_tests",
        effect: Effect::Reload,
        text: |settings| settings.strict_tests.to_string(),
        copy: |to, from| to.strict_tests = from.strict_tests,
    },
    SettingRow {
        key: "history.size",
        effect: Effect::Restart,
        text: |settings| settings.history_size.to_string(),
        copy: |to, from| to.history_size = from.history_size,
    },
    SettingRow {
        key: "log.level",
        effect: Effect::Reload,
        text: |settings| settings.log.level.as_str().to_ascii_lowercase(),
        copy: |to, from| to.log.level = from.log.level,
    },
    SettingRow {
        key: "log.target",
        effect: Effect::Restart,
        text: |settings| {
            let word = match settings.log.target {
                LogTarget::Auto => "auto",
                LogTarget::Stderr => "stderr",
                LogTarget::Journal => "journal",
                LogTarget::File(_) => "file",
            };
            word.to_owned()
        },
        copy: |to, from| to.log.target.clone_from(&from.log.target),
    },
    SettingRow {
        key: "log.file",
        effect: Effect::Restart,
        text: |settings| match &settings.log.target {
            LogTarget::File(path) => path.display().to_string(),
            LogTarget::Auto | LogTarget::Stderr | LogTarget::Journal => "unset".to_owned(),
        },
        copy: |to, from| to.log.target.clone_from(&from.log.target),
    },
];

impl Settings {
    /// Takes the values of `new` that take effect at a reload. Returns all changes.
    pub fn take_changes(&mut self, new: &Self) -> SettingChanges {
        let mut changes = SettingChanges::default();
        for row in &ROWS {
            let (old, value) = ((row.text)(self), (row.text)(new));
            if old == value {
                continue;
            }
            let is_off =
                [self, new].iter().any(|own| own.external_moves == Some(ExternalMoves::Off));
            let takes_effect = match row.effect {
                Effect::Reload => true,
                Effect::ReloadUnlessOff => !is_off,
                Effect::Restart => false,
            };
            let change = SettingChange { key: row.key, old, new: value };
            if takes_effect {
                (row.copy)(self, new);
                changes.applied.push(change);
            } else {
                changes.pending.push(change);
            }
        }
        changes
    }
}

fn time(time: Option<Duration>) -> String {
    time.map_or("off".to_owned(), |time| format!("{time:?}"))
}

fn path(path: Option<&Path>) -> String {
    path.map_or("off".to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::daemon_toml::{HISTORY_KEYS, KEYS, LOG_KEYS, parse};

    fn settings(text: &str) -> Settings {
        let (settings, wrong) = parse(&Arc::from(Path::new("/c.toml")), text);
        assert!(wrong.is_empty(), "{wrong:?}");
        settings
    }

    /// A new key must state when it takes effect.
    #[test]
    fn every_key_has_a_row() {
        let plain = KEYS.iter().filter(|key| !["version", "log", "history"].contains(key));
        let mut keys: Vec<String> = plain.map(|key| (*key).to_owned()).collect();
        keys.extend(LOG_KEYS.iter().map(|key| format!("log.{key}")));
        keys.extend(HISTORY_KEYS.iter().map(|key| format!("history.{key}")));
        keys.sort();
        let mut rows: Vec<&str> = ROWS.iter().map(|row| row.key).collect();
        rows.sort_unstable();
        assert_eq!(keys, rows);
    }

    /// A value that a row does not show could not be seen to change.
    #[test]
    fn every_row_shows_and_copies_its_value() {
        let other = settings(
            "root = \"/a\"\nlegacy_root = \"pool\"\nfast_moves = \"off\"\nscheduling = \"normal\"\nrecheck = \"5s\"\n\
             external_moves = \"report\"\nreceive_buffer = \"8M\"\nstats_every = \"5m\"\n\
             control_socket = \"off\"\nmetrics_textfile = \"/a.prom\"\nstrict_tests = true\n\
             log = { level = \"debug\", file = \"/a.log\" }\nhistory.size = \"1M\"\n",
        );
        let mut running = Settings::default();
        let changes = running.take_changes(&other);
        assert_eq!(changes.applied.len() + changes.pending.len(), ROWS.len());
        let pending = ROWS.iter().filter(|row| row.effect == Effect::Restart);
        assert_eq!(changes.pending.len(), pending.count());
        assert_eq!(running.take_changes(&other).applied, [], "they were copied");
        ROWS.iter().for_each(|row| (row.copy)(&mut running, &other));
        assert_eq!(running, other);
    }

    #[test]
    fn a_change_from_off_needs_a_restart() {
        let mut running = settings("external_moves = \"off\"");
        let changes = running.take_changes(&settings("external_moves = \"report\""));
        let change = SettingChange {
            key: "external_moves",
            old: "off".to_owned(),
            new: "report".to_owned(),
        };
        assert_eq!(changes, SettingChanges { applied: vec![], pending: vec![change] });
        assert_eq!(running, settings("external_moves = \"off\""));
    }
}
