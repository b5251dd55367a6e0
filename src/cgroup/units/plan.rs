//! Computes which units are set and which are reverted, from the tables, the existing user slices
//! and the applied settings. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::cgroup::config::{GroupConfigs, UnitSpec, UserSliceSpec, select, user_of_slice};
use crate::event::Uid;

/// The tables for units in the active rule files.
#[derive(Clone, Debug, Default)]
pub(super) struct UnitTables {
    /// Tables for single units.
    pub(super) units: Vec<UnitSpec>,
    /// Tables for user slices. The first that selects a user is used.
    pub(super) user_slices: Vec<UserSliceSpec>,
}

impl From<&GroupConfigs> for UnitTables {
    fn from(configs: &GroupConfigs) -> Self {
        let units = configs.units().to_vec();
        let user_slices = configs.user_slices().to_vec();
        Self { units, user_slices }
    }
}

/// A drop-in that systemd wrote for cgruled, distinguishable from a later one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DropIn {
    /// The file name within the directory.
    pub(super) file: String,
    /// The inode number of the file.
    pub(super) inode: u64,
    /// The modification time in seconds and nanoseconds.
    pub(super) modified: (i64, i64),
}

/// The settings that cgruled applied to a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AppliedUnit {
    /// The `Property=value` assignments; empty if it is unknown which of them took effect.
    pub(super) properties: Vec<String>,
    /// The drop-ins that contain them.
    pub(super) drop_ins: Vec<DropIn>,
}

/// All units with settings from cgruled, by name.
pub(super) type AppliedUnits = BTreeMap<String, AppliedUnit>;

/// The units that have to be changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct UnitPlan {
    /// The units to revert, which is done first.
    pub(super) release: Vec<String>,
    /// The units to set, with their settings.
    pub(super) set: Vec<UnitSpec>,
}

/// The state of the host that determines the plan.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostState<'s> {
    /// The users of the existing slices.
    pub(super) present: &'s BTreeSet<Uid>,
    /// The units with settings from cgruled.
    pub(super) applied: &'s AppliedUnits,
    /// The applied units with drop-ins that others changed or removed.
    pub(super) damaged: &'s BTreeSet<String>,
    /// The units of [`UnitTables::units`] not yet set since the tables became active.
    pub(super) due: &'s BTreeSet<String>,
    /// The units that systemd refused since then. They are tried again after the next reload.
    pub(super) refused: &'s BTreeSet<String>,
    /// The units with settings that could not be reverted since then.
    pub(super) stuck: &'s BTreeSet<String>,
}

impl UnitPlan {
    /// Compares the tables with the situation. `name_of` returns the name of a user. If it fails,
    /// the slice of that user is not changed.
    pub(super) fn new<E>(
        tables: &UnitTables,
        now: &HostState<'_>,
        mut name_of: impl FnMut(Uid) -> Result<Option<String>, E>,
    ) -> Self {
        let mut plan = Self::default();
        for (name, applied) in now.applied {
            let table = tables.units.iter().find(|unit| unit.name == *name);
            let is_kept = table.is_some_and(|unit| !unit.properties().is_empty())
                || user_of_slice(name).is_some_and(|uid| {
                    match wanted(tables, uid, &mut name_of) {
                        // Without a process in the slice, the next login applies the new settings.
                        Ok(Some(unit)) => {
                            now.present.contains(&uid) || unit.properties() == applied.properties
                        }
                        Ok(None) => false,
                        Err(_) => true,
                    }
                });
            if !is_kept && !now.stuck.contains(name) {
                plan.release.push(name.clone());
            }
        }
        let due = tables.units.iter().filter(|unit| now.due.contains(&unit.name));
        plan.set.extend(due.filter(|unit| !unit.properties().is_empty()).cloned());
        for &uid in now.present {
            let Ok(Some(unit)) = wanted(tables, uid, &mut name_of) else { continue };
            let is_set = now.applied.get(&unit.name).is_some_and(|applied| {
                applied.properties == unit.properties() && !now.damaged.contains(&unit.name)
            });
            if !is_set && !now.refused.contains(&unit.name) {
                plan.set.push(unit);
            }
        }
        plan
    }
}

/// Returns the settings for the slice of a user from the first table that selects the user. A table
/// for that single slice replaces those for users.
fn wanted<E>(
    tables: &UnitTables,
    uid: Uid,
    name_of: &mut impl FnMut(Uid) -> Result<Option<String>, E>,
) -> Result<Option<UnitSpec>, E> {
    let found = select(&tables.user_slices, uid, || name_of(uid))?;
    Ok(found.map(|table| table.of_user(uid)).filter(|unit| {
        !unit.properties().is_empty() && tables.units.iter().all(|own| own.name != unit.name)
    }))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
