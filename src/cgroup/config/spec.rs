//! The configuration of cgroups and units as written, before it is resolved for a host. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::settings::SettingMessage;
use super::{GroupPermissions, UserSliceSpec, settings};
use crate::config::diagnostic::{Diagnostic, Severity, TextPosition};
use crate::rules::destination::prefixes;
use crate::rules::{Origin, PathBase, Rule};

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

/// The time after which a cgroup is removed whose name a user chooses: as long as one job waits for the
/// next.
const CHOSEN_REMOVED_AFTER: Duration = Duration::from_secs(60);

impl GroupSpecs {
    /// Lets cgroups with a PID or the name of a program in their path be removed when they are empty, unless
    /// their table says when: a user would create any number of them.
    pub fn remove_chosen(&mut self, rules: &[Rule]) {
        let targets = rules.iter().flat_map(|rule| {
            rule.action.targets().iter().map(move |target| (target, &rule.origin))
        });
        let mut chosen: BTreeMap<String, Origin> = BTreeMap::new();
        for (target, origin) in targets.filter(|(target, _)| target.below == PathBase::Root) {
            for text in chosen_levels(target.destination.as_str()) {
                chosen.entry(text.to_owned()).or_insert_with(|| origin.clone());
            }
        }
        for table in &mut self.tables {
            if chosen.remove(table.text.trim_matches('/')).is_some() {
                table.remove_after.get_or_insert(CHOSEN_REMOVED_AFTER);
            }
        }
        self.tables.extend(chosen.into_iter().map(|(text, origin)| GroupSpec {
            text,
            controllers: Vec::new(),
            settings: Vec::new(),
            perm: GroupPermissions::default(),
            is_required: false,
            remove_after: Some(CHOSEN_REMOVED_AFTER),
            origin,
        }));
    }
}

/// Returns the levels of a destination, from the first that contains a PID or a program.
fn chosen_levels(text: &str) -> impl Iterator<Item = &str> {
    prefixes(text).filter(|level| {
        // `%%p` is a percent sign and a letter.
        let level = level.replace("%%", "");
        level.contains("%p") || level.contains("%P")
    })
}

impl SpecSetting {
    /// Returns a diagnostic at the place of the value.
    pub fn diagnostic(&self, severity: Severity, about: SettingMessage) -> Diagnostic {
        let SettingMessage { message, help } = about;
        let Origin { file, line } = &self.origin;
        let about = Diagnostic::at_line(file, *line, severity, message).with_help(help);
        Diagnostic { place: self.place.clone().or(about.place), ..about }
    }
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
        let known: HashSet<String> =
            self.settings.iter().map(|setting| setting.key.clone()).collect();
        let lacking = other.settings.iter().filter(|setting| !known.contains(&setting.key));
        self.settings.extend(lacking.cloned());
        self.is_required |= other.is_required;
        self.remove_after = self.remove_after.or(other.remove_after);
        if self.perm == GroupPermissions::default() {
            self.perm = other.perm;
        }
    }

    /// Adds another section of cgconfig.conf for the same path, whose settings are written later.
    fn append(&mut self, later: Self) {
        let names = later.controllers.into_iter();
        let mut new: Vec<String> = names.filter(|name| !self.controllers.contains(name)).collect();
        self.controllers.append(&mut new);
        let written: HashSet<&str> = later.settings.iter().map(|setting| &*setting.key).collect();
        self.settings.retain(|setting| {
            !written.contains(&*setting.key) || settings::takes_several(&setting.key)
        });
        self.settings.extend(later.settings);
        if later.perm != GroupPermissions::default() {
            self.perm = later.perm;
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
        let without_slashes = |text: &str| text.trim_matches('/').to_owned();
        join_by(&mut self.tables, without_slashes, |known, table| known.join(&table));
    }

    /// Merges the sections of each path. If two have the same setting the later one is used, because
    /// cgrulesengd and cgconfigparser apply them one after the other. cgsnapshot writes a section for
    /// each hierarchy.
    pub fn join_sections(&mut self) {
        let without_slashes = |text: &str| text.trim_matches('/').to_owned();
        join_by(&mut self.groups, without_slashes, GroupSpec::append);
        // A slash at the beginning of a template is significant.
        let without_last = |text: &str| text.trim_end_matches('/').to_owned();
        join_by(&mut self.templates, without_last, GroupSpec::append);
    }
}

/// Merges the specs with the same path into the first of them.
fn join_by(
    specs: &mut Vec<GroupSpec>,
    path: impl Fn(&str) -> String,
    join: impl Fn(&mut GroupSpec, GroupSpec),
) {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut joined: Vec<GroupSpec> = Vec::new();
    for spec in std::mem::take(specs) {
        let place = *places.entry(path(&spec.text)).or_insert(joined.len());
        match joined.get_mut(place) {
            Some(known) => join(known, spec),
            None => joined.push(spec),
        }
    }
    *specs = joined;
}
