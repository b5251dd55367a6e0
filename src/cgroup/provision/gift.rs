//! What groups are given, as it was written. Pure.

use std::collections::HashMap;
use std::time::Duration;

use super::{Perm, UserSliceSpec, settings};
use crate::config::diagnostic::Place;
use crate::rules::Origin;

/// A setting as it was written, its value checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// A word of [`crate::cgroup::settings`] or the name of a kernel file.
    pub key: String,
    /// The value.
    pub value: String,
    /// The controller it belongs to; `cgroup` for what every group has.
    pub controller: String,
    /// Where it was written.
    pub origin: Origin,
    /// Where its value stands, if that is known.
    pub place: Option<Place>,
}

/// What the groups of one path are given, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gift {
    /// The path as written.
    pub text: String,
    /// The controllers of a section, with settings or without; none in a table, which is for all.
    pub controllers: Vec<String>,
    /// The settings in the order of the file.
    pub settings: Vec<Setting>,
    /// Owners and modes of a new group.
    pub perm: Perm,
    /// Whether no process may enter before all is written.
    pub is_required: bool,
    /// How long a group of ours is empty before it is removed.
    pub remove_after: Option<Duration>,
    /// Where it begins.
    pub origin: Origin,
}

/// What a unit of systemd is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitGift {
    /// Its name with the suffix.
    pub name: String,
    /// The settings by their words, each as `Property=value` words.
    pub settings: Vec<(String, Vec<String>)>,
    /// Where its table begins.
    pub origin: Origin,
}

impl UnitGift {
    /// All `Property=value` words in their order.
    pub fn properties(&self) -> Vec<&str> {
        self.settings.iter().flat_map(|(_, words)| words).map(String::as_str).collect()
    }
}

/// All gifts by the kind of what described them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Gifts {
    /// Tables of rule files: for new groups, and again when rules are read.
    pub tables: Vec<Gift>,
    /// `template` sections: for new groups with fields in their paths.
    pub templates: Vec<Gift>,
    /// `group` sections: they also say that a group without fields is made.
    pub groups: Vec<Gift>,
    /// Of systemd's units.
    pub units: Vec<UnitGift>,
    /// Of the slices of users, in the order in which they are asked.
    pub user_slices: Vec<UserSliceSpec>,
}

impl Gift {
    /// The controllers of its settings, sorted, without what every group has.
    pub fn controllers_of_settings(&self) -> Vec<&str> {
        let names = self.settings.iter().map(|setting| &*setting.controller);
        let mut names: Vec<&str> = names.filter(|name| *name != "cgroup").collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Adds what another table for the same path says and this does not.
    pub(super) fn join(&mut self, other: &Self) {
        for setting in &other.settings {
            if !self.settings.iter().any(|own| own.key == setting.key) {
                self.settings.push(setting.clone());
            }
        }
        self.is_required |= other.is_required;
        self.remove_after = self.remove_after.or(other.remove_after);
        if self.perm == Perm::default() {
            self.perm = other.perm;
        }
    }
}

impl Gifts {
    /// Makes bytes of the shares of the host's memory, which has `total` bytes.
    pub fn share_out(&mut self, total: u64) {
        let gifts = self.tables.iter_mut().chain(&mut self.templates).chain(&mut self.groups);
        for setting in gifts.flat_map(|gift| &mut gift.settings) {
            if let Some(percent) = settings::share(&setting.key, &setting.value) {
                // Divided first: the product may not fit, and a page more or less is nothing.
                setting.value = (total / 100 * percent).to_string();
            }
        }
    }

    /// Makes the tables for one unit one table. Where two say the same the earlier counts.
    pub fn join_units(&mut self) {
        let mut joined: Vec<UnitGift> = Vec::new();
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

    /// Makes the tables for one path one table. Where two say the same the earlier counts.
    pub fn join_tables(&mut self) {
        let mut places: HashMap<String, usize> = HashMap::new();
        let mut joined: Vec<Gift> = Vec::new();
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
