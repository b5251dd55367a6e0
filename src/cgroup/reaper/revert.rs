//! Reverts the settings of cgroups that no table contains any more to the values of a new cgroup.
//! Only values that cgruled wrote and nothing has changed since are reverted.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::journal::{CgroupRecord, RecordedSetting};
use super::{ReaperThread, walk};
use crate::cgroup::advice::advice;
use crate::cgroup::apply;
use crate::cgroup::config::{GroupConfigs, ResolvedSpec};
use crate::cgroup::mounts::{Hierarchies, Version};
use crate::cgroup::settings::{self, DefaultValue, SettingSlot, Write, write_order};
use crate::sys;

/// The tables that apply to existing cgroups, by directory.
pub(super) type Claims<'t> = HashMap<PathBuf, Vec<&'t ResolvedSpec>>;

/// The result for one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RevertResult {
    /// The setting has its default value.
    Reverted,
    /// The file or its line does not exist any more.
    Gone,
    /// The value was changed after cgruled had written it.
    Changed(String),
    /// The default value is unknown.
    NoDefault,
    /// The kernel refused the default value.
    Refused(Errno),
}

impl ReaperThread {
    /// Reverts the settings that these tables do not contain. `claims` are the tables of existing
    /// cgroups. Cgroups that are not below the managed root `root` are those of a run with another
    /// one, such as the demo.
    pub(super) fn revert_stale(&mut self, tables: &GroupConfigs, root: &str, claims: &Claims<'_>) {
        self.applied.forget_removed();
        let mut stale: Vec<(CgroupRecord, usize)> = Vec::new();
        for own in self.applied.cgroups() {
            let Some(hierarchy) = hierarchy_of(&own.directory, &self.hierarchies) else { continue };
            if !own
                .directory
                .starts_with(walk::join(&self.hierarchies[hierarchy].mount_point, root))
            {
                continue;
            }
            // A cgroup whose owner could have changed its tag has the table of its record.
            let recorded = tables.table(&own.table).map(|resolved| &**resolved);
            let listed = claims.get(&own.directory).into_iter().flatten().copied();
            let kept = slots(listed.chain(recorded), hierarchy);
            let mut own = own.clone();
            own.settings.retain(|setting| !kept.contains(&setting.slot()));
            if !own.settings.is_empty() {
                stale.push((own, hierarchy));
            }
        }
        for (own, hierarchy) in stale {
            self.revert(&own, hierarchy);
        }
    }

    /// Reverts these settings of a cgroup.
    fn revert(&mut self, own: &CgroupRecord, hierarchy: usize) {
        let is_unified = self.hierarchies[hierarchy].version == Version::V2;
        let results = revert(&own.directory, &own.settings, is_unified);
        let mut done = Vec::new();
        for (setting, result) in own.settings.iter().zip(results) {
            if self.concluded(&own.directory, hierarchy, setting, &result) {
                done.push(setting.slot());
            }
        }
        self.applied.forget_settings(&own.directory, &done);
    }

    /// Counts and reports a result. Returns whether the setting need not be tried again.
    fn concluded(
        &self,
        directory: &Path,
        hierarchy: usize,
        setting: &RecordedSetting,
        result: &RevertResult,
    ) -> bool {
        let file = directory.join(&*setting.file);
        let file = file.display();
        let (errno, reason) = match result {
            RevertResult::Reverted => {
                self.metrics.settings_reverted.increment();
                ::log::debug!("reverted {file}: no table contains it any more");
                return true;
            }
            RevertResult::Gone => return true,
            RevertResult::Changed(value) => {
                let value = value.escape_debug();
                ::log::debug!("{file} stays \"{value}\": changed since cgruled wrote it");
                return true;
            }
            RevertResult::NoDefault => {
                let reason = "its default is unknown: write it, or remove the cgroup";
                (Errno::EOPNOTSUPP, reason.to_owned())
            }
            RevertResult::Refused(errno) => {
                let advice = advice(&setting.file, *errno);
                (*errno, format!("{} ({errno:?}): {advice}", errno.desc()))
            }
        };
        self.metrics.settings_not_reverted.increment();
        let what = format!("revert {}", setting.file);
        self.done.refused(directory, (hierarchy, &what, errno), || {
            format!("cannot revert {file}, which no table contains any more: {reason}")
        });
        *result == RevertResult::NoDefault
    }
}

/// Returns the hierarchy that contains a directory.
fn hierarchy_of(directory: &Path, hierarchies: &Hierarchies) -> Option<usize> {
    let all = hierarchies.iter().enumerate();
    let found = all.filter(|(_, tree)| directory.starts_with(&tree.mount_point));
    found.max_by_key(|(_, tree)| tree.mount_point.components().count()).map(|(index, _)| index)
}

/// Returns what these tables write in a hierarchy.
fn slots<'t>(
    tables: impl Iterator<Item = &'t ResolvedSpec>,
    hierarchy: usize,
) -> HashSet<SettingSlot> {
    let writes = tables.flat_map(|resolved| &resolved.writes);
    let own = writes.filter(|write| write.hierarchy == hierarchy).map(|write| &write.write);
    own.flat_map(|Write { file, value, instead }| {
        let instead = instead.iter().map(|(file, value)| settings::slot(file, value));
        instead.chain([settings::slot(file, value)])
    })
    .collect()
}

/// Reverts settings of a cgroup. Returns the result for each.
fn revert(directory: &Path, stale: &[RecordedSetting], is_unified: bool) -> Vec<RevertResult> {
    let mut results = vec![RevertResult::Reverted; stale.len()];
    let mut writes: Vec<(usize, Write)> = Vec::new();
    let mut order: Vec<usize> = (0..stale.len()).collect();
    order.sort_by_key(|&index| settings::rank(&stale[index].file));
    for index in order {
        match default_write(directory, &stale[index], is_unified) {
            Ok(write) => writes.push((index, write)),
            Err(result) => results[index] = result,
        }
    }
    let plain: Vec<&Write> = writes.iter().map(|(_, write)| write).collect();
    let batches =
        write_order::batches(&plain, &|file| fs::read_to_string(directory.join(file)).ok());
    for batch in batches {
        let Err((_, errno)) = apply::take(directory, &batch, &plain) else { continue };
        for step in &batch {
            results[writes[step.of].0] = RevertResult::Refused(errno);
        }
    }
    results
}

/// Returns the write that reverts a setting, or the result if there is nothing to write.
fn default_write(
    directory: &Path,
    setting: &RecordedSetting,
    is_unified: bool,
) -> Result<Write, RevertResult> {
    let slot = setting.slot();
    let content = read(directory, &slot.file)?;
    let Some(value) = slot.value_in(&content) else { return Err(RevertResult::Gone) };
    if *value != *setting.value {
        return Err(RevertResult::Changed(value.to_owned()));
    }
    let value = match slot.default_value(is_unified) {
        None => return Err(RevertResult::NoDefault),
        Some(DefaultValue::Value(value)) => value,
        Some(DefaultValue::OfParent) => {
            read(directory.parent().unwrap_or(directory), &slot.file)?.trim().to_owned()
        }
    };
    Ok(Write { file: slot.file.into(), value, instead: None })
}

fn read(directory: &Path, file: &str) -> Result<String, RevertResult> {
    let content = fs::read_to_string(directory.join(file));
    content.map_err(|error| sys::errno(&error)).map_err(|errno| match errno == Errno::ENOENT {
        true => RevertResult::Gone,
        false => RevertResult::Refused(errno),
    })
}

#[cfg(test)]
#[path = "revert_tests.rs"]
mod tests;
