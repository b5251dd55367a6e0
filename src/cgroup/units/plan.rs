//! Which units get which settings, and whose settings are taken back: from the tables, the slices of users that
//! exist and what was applied before. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::cgroup::provision::{Provisions, UnitGift, UserSliceSpec, select, user_of_slice};
use crate::event::Uid;

/// The tables for units of the active rule files.
#[derive(Clone, Debug, Default)]
pub(super) struct UnitTables {
    /// For single units.
    pub(super) units: Vec<UnitGift>,
    /// For the slices of users, the first that selects a user decides.
    pub(super) user_slices: Vec<UserSliceSpec>,
}

impl From<&Provisions> for UnitTables {
    fn from(provisions: &Provisions) -> Self {
        let (units, user_slices) = (provisions.units().to_vec(), provisions.user_slices().to_vec());
        Self { units, user_slices }
    }
}

/// A drop-in file that systemd wrote for us, told from a later one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DropIn {
    /// The name of the file.
    pub(super) file: String,
    /// Its inode.
    pub(super) inode: u64,
    /// The seconds and nanoseconds of its last change.
    pub(super) modified: (i64, i64),
}

/// The settings that a unit has from us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct AppliedUnit {
    /// The `Property=value` words; none if it is not known which of them took effect.
    pub(super) properties: Vec<String>,
    /// The files.
    pub(super) drop_ins: Vec<DropIn>,
}

/// All units with settings from us, by name.
pub(super) type Applied = BTreeMap<String, AppliedUnit>;

/// What has to be done.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Units whose settings are taken back, which comes first.
    pub(super) release: Vec<String>,
    /// Units that get these settings.
    pub(super) set: Vec<UnitGift>,
}

/// The state of the host as far as the plan depends on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Situation<'s> {
    /// The users whose slices exist.
    pub(super) present: &'s BTreeSet<Uid>,
    /// The units with settings from us.
    pub(super) applied: &'s Applied,
    /// Those of them whose files somebody has changed or removed since.
    pub(super) damaged: &'s BTreeSet<String>,
    /// Units of [`UnitTables::units`] that were not set since the tables are active.
    pub(super) due: &'s BTreeSet<String>,
    /// Units that systemd refused since then: they are tried again at the next reload.
    pub(super) refused: &'s BTreeSet<String>,
    /// Units whose settings could not be taken back since then.
    pub(super) stuck: &'s BTreeSet<String>,
}

impl Plan {
    /// Compares what the tables say with the situation. `name_of` says the name of a user, and fails if the name
    /// service does: then the slice of that user stays as it is.
    pub(super) fn new<E>(
        tables: &UnitTables,
        now: &Situation<'_>,
        mut name_of: impl FnMut(Uid) -> Result<Option<String>, E>,
    ) -> Self {
        let by_name = |name: &str| tables.units.iter().find(|unit| unit.name == name);
        let mut plan = Self::default();
        for (name, applied) in now.applied {
            let is_kept = by_name(name).is_some_and(|unit| !unit.properties().is_empty())
                || user_of_slice(name).is_some_and(|uid| {
                    match wanted(tables, uid, &mut name_of) {
                        // Without a process there the next login applies the new settings.
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

/// The settings for the slice of a user by the first table that selects the user. A table for that slice alone
/// replaces those for users.
fn wanted<E>(
    tables: &UnitTables,
    uid: Uid,
    name_of: &mut impl FnMut(Uid) -> Result<Option<String>, E>,
) -> Result<Option<UnitGift>, E> {
    let found = select(&tables.user_slices, uid, || name_of(uid))?;
    let unit = found.map(|table| table.of_user(uid));
    let is_meant = |unit: &UnitGift| {
        !unit.properties().is_empty() && tables.units.iter().all(|own| own.name != unit.name)
    };
    Ok(unit.filter(is_meant))
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
