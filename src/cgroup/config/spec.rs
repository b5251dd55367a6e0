//! The configuration of cgroups and units as written, before it is resolved for a host. Pure.

use std::collections::HashMap;
use std::time::Duration;

use super::{GroupPermissions, UserSliceSpec, settings};
use crate::config::diagnostic::TextPosition;
use crate::rules::Origin;

/// A setting as written, with a checked value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecSetting {
    /// A key of [`crate::cgroup::settings`] or the name of a kernel file.
    pub key: String,
    /// The value as written.
    pub value: String,
    /// The controller it belongs to; `cgroup` for settings that every cgroup has.
    pub controller: String,
    /// The file and line of the setting.
    pub origin: Origin,
    /// The place of its value, if that is known.
    pub place: Option<TextPosition>,
}

/// The configuration of one path as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// The destination path as written.
    pub text: String,
    /// The controllers of a section, with settings or without; empty in a table, which is for all.
    pub controllers: Vec<String>,
    /// The settings in the order of the file.
    pub settings: Vec<SpecSetting>,
    /// The owners and modes of a new cgroup.
    pub perm: GroupPermissions,
    /// True if no process may enter before all settings are written.
    pub is_required: bool,
    /// The time after which an empty cgroup of cgruled is removed.
    pub remove_after: Option<Duration>,
    /// The file and line of its first line.
    pub origin: Origin,
}

/// The settings of a systemd unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitSpec {
    /// The name of the unit with its suffix.
    pub name: String,
    /// The settings by key, each as `Property=value` assignments.
    pub settings: Vec<(String, Vec<String>)>,
    /// The file and line of its table.
    pub origin: Origin,
}

impl UnitSpec {
    /// Returns all `Property=value` assignments in their order.
    pub fn properties(&self) -> Vec<&str> {
        self.settings.iter().flat_map(|(_, words)| words).map(String::as_str).collect()
    }
}

/// All configuration as written, by its source.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupSpecs {
    /// Tables of rule files: for new cgroups, and for existing ones after a reload.
    pub tables: Vec<GroupSpec>,
    /// `template` sections: for new cgroups with specifiers in their paths.
    pub templates: Vec<GroupSpec>,
    /// `group` sections: a literal cgroup is created if it has one.
    pub groups: Vec<GroupSpec>,
    /// Tables of single systemd units.
    pub units: Vec<UnitSpec>,
    /// Tables of user slices, in the order in which they are matched.
    pub user_slices: Vec<UserSliceSpec>,
}

impl GroupSpec {
    /// Returns the controllers of its settings, sorted, without `cgroup`.
    pub fn controllers_of_settings(&self) -> Vec<&str> {
        let names = self.settings.iter().map(|setting| &*setting.controller);
        let mut names: Vec<&str> = names.filter(|name| *name != "cgroup").collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Adds the settings of another table for the same path that this one lacks.
    pub(super) fn join(&mut self, other: &Self) {
        for setting in &other.settings {
            if !self.settings.iter().any(|own| own.key == setting.key) {
                self.settings.push(setting.clone());
            }
        }
        self.is_required |= other.is_required;
        self.remove_after = self.remove_after.or(other.remove_after);
        if self.perm == GroupPermissions::default() {
            self.perm = other.perm;
        }
    }
}

impl GroupSpecs {
    /// Replaces percentages of memory by bytes. The host has `total` bytes.
    pub fn share_out(&mut self, total: u64) {
        let specs = self.tables.iter_mut().chain(&mut self.templates).chain(&mut self.groups);
        for setting in specs.flat_map(|spec| &mut spec.settings) {
            if let Some(percent) = settings::share(&setting.key, &setting.value) {
                // Divided first: the product can overflow, and the error is less than a page.
                setting.value = (total / 100 * percent).to_string();
            }
        }
    }

    /// Merges the tables of each unit. If two have the same setting the earlier one is used.
    pub fn join_units(&mut self) {
        let mut joined: Vec<UnitSpec> = Vec::new();
        for unit in std::mem::take(&mut self.units) {
            let Some(known) = joined.iter_mut().find(|known| known.name == unit.name) else {
                joined.push(unit);
                continue;
            };
            for (key, words) in unit.settings {
                if !known.settings.iter().any(|(own, _)| *own == key) {
                    known.settings.push((key, words));
                }
            }
        }
        self.units = joined;
    }

    /// Merges the tables of each path. If two have the same setting the earlier one is used.
    pub fn join_tables(&mut self) {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut joined: Vec<GroupSpec> = Vec::new();
        for table in std::mem::take(&mut self.tables) {
            let path = table.text.trim_matches('/').to_owned();
            let place = *places.entry(path).or_insert(joined.len());
            match joined.get_mut(place) {
                Some(known) => known.join(&table),
                None => joined.push(table),
            }
        }
        self.tables = joined;
    }
}
