//! The settings that cgruled wrote to existing cgroups, in memory and in the journal. It changes no
//! cgroup.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::journal::{CgroupRecord, Journal, RecordedSetting};
use super::walk::inode;
use crate::cgroup::apply::WrittenSetting;
use crate::cgroup::settings::SettingSlot;

/// The settings by cgroup.
#[derive(Debug, Default)]
pub(super) struct AppliedSettings {
    cgroups: BTreeMap<PathBuf, CgroupRecord>,
    /// `None` without a file: then settings of an earlier run are not known.
    journal: Option<Journal>,
    /// True after a failed write, which is reported once.
    has_failed: bool,
}

impl RecordedSetting {
    pub(super) fn slot(&self) -> SettingSlot {
        SettingSlot { file: self.file.clone(), line: self.line.clone() }
    }
}

impl AppliedSettings {
    /// Reads the settings of an earlier run from the file.
    pub(super) fn open(path: Option<&Path>) -> Self {
        let Some(path) = path else { return Self::default() };
        match Journal::open(path) {
            Ok((journal, records)) => {
                let cgroups = records.into_iter().map(|own| (own.directory.clone(), own)).collect();
                Self { cgroups, journal: Some(journal), has_failed: false }
            }
            Err(error) => {
                ::log::warn!(
                    "{}: {error}: settings that a table no longer contains are not reverted after a \
                     restart",
                    path.display()
                );
                Self::default()
            }
        }
    }

    /// Returns the cgroups with recorded settings.
    pub(super) fn cgroups(&self) -> impl Iterator<Item = &CgroupRecord> {
        self.cgroups.values()
    }

    /// Records settings that were written. `is_ours` checks whether cgruled created a cgroup: only
    /// there can it have written a value that it found.
    pub(super) fn record(&mut self, written: Vec<WrittenSetting>, is_ours: impl Fn(&Path) -> bool) {
        let mut changed = HashSet::new();
        for WrittenSetting { directory, text, slot, was_set } in written {
            let Some(inode) = inode(&directory) else { continue };
            let known = self.cgroups.get(&directory).filter(|own| own.inode == inode);
            let is_known = known.is_some_and(|own| own.settings.iter().any(|s| s.slot() == slot));
            if was_set && !is_known && !is_ours(&directory) {
                continue;
            }
            let Ok(content) = fs::read_to_string(directory.join(&*slot.file)) else { continue };
            // Read back, because the kernel changes the format: 1G becomes bytes in whole pages.
            let Some(value) = slot.value_in(&content).map(Box::from) else { continue };
            let table = text.clone();
            let own = self.cgroups.entry(directory.clone()).or_insert_with(|| CgroupRecord {
                directory: directory.clone(),
                inode,
                table,
                settings: Vec::new(),
            });
            if own.inode != inode {
                (own.inode, own.settings) = (inode, Vec::new());
            }
            if own.set(text, slot, value) {
                changed.insert(directory);
            }
        }
        for directory in changed {
            self.save(&directory);
        }
    }

    /// Forgets settings of a cgroup that were reverted or that others have changed.
    pub(super) fn forget_settings(&mut self, directory: &Path, slots: &[SettingSlot]) {
        let Some(own) = self.cgroups.get_mut(directory) else { return };
        let before = own.settings.len();
        own.settings.retain(|setting| !slots.contains(&setting.slot()));
        if own.settings.len() == before {
            return;
        }
        self.save(directory);
        if self.cgroups.get(directory).is_some_and(|own| own.settings.is_empty()) {
            self.cgroups.remove(directory);
        }
    }

    /// Forgets a removed cgroup.
    pub(super) fn forget(&mut self, directory: &Path) {
        // The journal needs no line: a later cgroup of this name has another inode.
        self.cgroups.remove(directory);
    }

    /// Forgets the cgroups that no longer exist.
    pub(super) fn forget_removed(&mut self) {
        self.cgroups.retain(|directory, own| inode(directory) == Some(own.inode));
        self.compact();
    }

    /// Writes the settings of a cgroup to the journal.
    fn save(&mut self, directory: &Path) {
        let Some(own) = self.cgroups.get(directory) else { return };
        let Some(journal) = &mut self.journal else { return };
        let result = journal.append(own);
        self.report(result);
        self.compact();
    }

    fn compact(&mut self) {
        let count = self.cgroups.len();
        let Some(journal) = self.journal.as_mut().filter(|own| own.is_outdated(count)) else {
            return;
        };
        let result = journal.replace(self.cgroups.values());
        self.report(result);
    }

    fn report(&mut self, result: io::Result<()>) {
        let Err(error) = result else { return };
        if !std::mem::replace(&mut self.has_failed, true) {
            ::log::warn!(
                "cannot record the settings of cgroups: {error}: they are not reverted after a restart"
            );
        }
    }
}

impl CgroupRecord {
    /// Records a setting of a table. Returns whether that is new.
    fn set(&mut self, table: String, slot: SettingSlot, value: Box<str>) -> bool {
        let is_same_table = self.table == table;
        self.table = table;
        let SettingSlot { file, line } = slot;
        let setting = RecordedSetting { file, line, value };
        if self.settings.contains(&setting) {
            return !is_same_table;
        }
        self.settings.retain(|own| own.file != setting.file || own.line != setting.line);
        self.settings.push(setting);
        true
    }
}
