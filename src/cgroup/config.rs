//! Resolves the configuration of cgroups for this host: the tables of rule files and the sections
//! of cgconfig.conf. Pure.
//!
//! Nothing is stored per rule. The configuration of a destination is looked up when one of its
//! cgroups is opened, which takes a hundred times as long; an open cgroup costs nothing more.

mod changes;
mod destinations;
mod permissions;
mod resolve;
mod spec;
mod user_slice;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::mounts::{Hierarchies, HierarchySet, Version};
use super::settings::{self, SettingMessage, Write};
use crate::config::diagnostic::TextPosition;
use crate::event::Uid;
use crate::rules::{Origin, PathBase, Target};
pub use changes::{ConfigChange, ConfiguredKind, changes};
use destinations::UsedDestinations;
pub use permissions::{FileOwnership, GroupPermissions};
pub use spec::{GroupSpec, GroupSpecs, SpecSetting, UnitSpec};
pub use user_slice::{UserSliceSpec, ask_names, keeping_table, select, user_of_slice};

/// A write of a [`ResolvedSpec`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostWrite {
    /// The index of the hierarchy.
    pub hierarchy: usize,
    /// The controller as named on this host; empty for settings that every cgroup has.
    pub controller: Box<str>,
    /// The setting as in the file: `cpu.weight = 50`.
    pub written: Box<str>,
    /// The file and line of the setting.
    pub origin: Origin,
    /// The file of the kernel and the value.
    pub write: Write,
}

/// A [`GroupSpec`] resolved for this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedSpec {
    /// The writes in an order that the kernel accepts.
    pub writes: Vec<HostWrite>,
    /// The owners and modes of a new cgroup.
    pub perm: GroupPermissions,
    /// True if no process may enter before all settings are written.
    pub is_required: bool,
    /// A required setting that this host does not support.
    pub unmet: Option<Box<str>>,
    /// The time after which an empty cgroup of cgruled is removed.
    pub remove_after: Option<Duration>,
    /// The hierarchies of a section's controllers, or all of them.
    pub span: HierarchySet,
}

/// A warning about a setting on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// The file and line of the setting.
    pub origin: Origin,
    /// The place of its value, if that is known.
    pub place: Option<TextPosition>,
    /// The text of the warning.
    pub diagnostic: SettingMessage,
}

/// The configuration of all cgroups and units on this host.
#[derive(Debug, Default)]
pub struct GroupConfigs {
    tables: HashMap<Box<str>, Arc<ResolvedSpec>>,
    templates: HashMap<Box<str>, Arc<ResolvedSpec>>,
    groups: HashMap<Box<str>, Arc<ResolvedSpec>>,
    /// The settings of systemd units.
    units: Vec<UnitSpec>,
    /// The settings of user slices.
    user_slices: Vec<UserSliceSpec>,
    /// The index and the controllers of the v2 hierarchy.
    unified: Option<(usize, Vec<String>)>,
    /// The destinations of all rules, if they are known.
    destinations: Option<UsedDestinations>,
}

/// The configuration along the path of one destination.
#[derive(Debug, Default)]
pub struct PathConfig {
    /// The managed root, if it has a table.
    pub root: Option<PathLevel>,
    /// One level for each component of the destination's text.
    pub levels: Vec<PathLevel>,
    /// The controllers that the cgroup itself needs on v2.
    pub controllers: Vec<String>,
    /// The hierarchies in which it is created although its rule creates nothing.
    pub creates: HierarchySet,
    /// The user for whose process the cgroups are created, if there is one.
    pub user: Option<Uid>,
}

/// The configuration of the cgroup of one path component.
#[derive(Debug)]
pub struct PathLevel {
    /// The component as written, with its specifiers.
    pub text: Box<str>,
    /// The resolved configuration, if there is a table or section for it.
    pub resolved: Option<Arc<ResolvedSpec>>,
    /// True for tables of rule files, which configure existing cgroups too; false for sections of
    /// cgconfig.conf.
    pub is_for_old: bool,
    /// True if it applies only to paths that differ from the text.
    pub is_template: bool,
}

impl GroupConfigs {
    /// Resolves all configuration for this host. Returns it with the warnings about settings.
    pub fn new(specs: &GroupSpecs, hierarchies: &Hierarchies) -> (Self, Vec<ConfigWarning>) {
        let mut warnings = Vec::new();
        let tables = resolved(&specs.tables, path_of_table, hierarchies, &mut warnings);
        let templates = resolved(&specs.templates, path_of_template, hierarchies, &mut warnings);
        let groups = resolved(&specs.groups, path_of_table, hierarchies, &mut warnings);
        let mut trees = hierarchies.iter().enumerate();
        let unified = trees.find(|(_, tree)| tree.version == Version::V2);
        let unified = unified.map(|(index, tree)| (index, tree.controllers.clone()));
        let units = specs.units.clone();
        let user_slices = specs.user_slices.clone();
        said_once(&mut warnings);
        let destinations = None;
        (Self { tables, templates, groups, units, user_slices, unified, destinations }, warnings)
    }

    /// Adds the destinations of all rules.
    #[must_use]
    pub fn with_destinations<'t>(self, targets: impl Iterator<Item = &'t Target>) -> Self {
        Self { destinations: Some(UsedDestinations::of(targets)), ..self }
    }

    /// Checks whether a rule leads to the cgroups of this text or below them, or a table is for them.
    pub fn is_used(&self, text: &str) -> bool {
        let has_rule = self.destinations.as_ref().is_none_or(|known| known.contains(text));
        has_rule || self.table(path_of_table(text)).is_some()
    }

    /// Returns the configuration along a target, `None` for most targets of legacy rules.
    pub fn of(&self, target: &Target) -> Option<Arc<PathConfig>> {
        self.along(target, None)
    }

    /// Returns the configuration along a target whose path is rendered for a process of this user.
    pub fn of_user(&self, target: &Target, user: Uid) -> Option<Arc<PathConfig>> {
        self.along(target, Some(user))
    }

    fn along(&self, target: &Target, user: Option<Uid>) -> Option<Arc<PathConfig>> {
        let config = match target.below {
            // Needed even without a table: it carries the destination text for the owner tag.
            PathBase::Root => {
                return Some(Arc::new(PathConfig { user, ..self.of_rule(target) }));
            }
            PathBase::Top => self.of_sections(target),
        };
        let is_needed = !config.controllers.is_empty()
            || !config.creates.is_empty()
            || config.levels.iter().any(|level| level.resolved.is_some());
        is_needed.then(|| Arc::new(config))
    }

    /// Returns the tables with their paths, without `/` at either end.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &Arc<ResolvedSpec>)> {
        self.tables.iter().map(|(text, resolved)| (&**text, resolved))
    }

    /// Returns the settings of systemd units.
    pub fn units(&self) -> &[UnitSpec] {
        &self.units
    }

    /// Returns the settings of user slices, in the order in which they are matched.
    pub fn user_slices(&self) -> &[UserSliceSpec] {
        &self.user_slices
    }

    /// Returns the table for this path, if there is one.
    pub fn table(&self, text: &str) -> Option<&Arc<ResolvedSpec>> {
        self.tables.get(text)
    }

    /// Returns the configuration of the tables along a path.
    pub fn of_path(&self, text: &str) -> PathConfig {
        let root = self.table("").map(|table| PathLevel::of("", Some(Arc::clone(table))));
        let levels = levels(text, |prefix| self.table(path_of_table(prefix)).map(Arc::clone));
        PathConfig {
            root: root.map(PathLevel::for_existing),
            levels: levels.map(PathLevel::for_existing).collect(),
            ..PathConfig::default()
        }
    }

    fn of_rule(&self, target: &Target) -> PathConfig {
        let config = self.of_path(target.destination.as_str());
        // The controllers of a table are derived from its writes.
        let kits = config.levels.iter().filter_map(|level| level.resolved.as_ref());
        let of_tables: Vec<&str> = kits
            .flat_map(|resolved| resolved.writes.iter().map(|write| &*write.controller))
            .collect();
        let controllers = self.on_unified(target);
        let controllers = controllers.filter(|name| !of_tables.contains(&name.as_str()));
        PathConfig { controllers: controllers.collect(), ..config }
    }

    fn of_sections(&self, target: &Target) -> PathConfig {
        let text = target.destination.as_str();
        let has_fields = target.creates;
        let (kits, trim): (_, fn(&str) -> &str) = match has_fields {
            true => (&self.templates, path_of_template),
            false => (&self.groups, path_of_table),
        };
        let levels = levels(text, |prefix| {
            let resolved = kits.get(trim(prefix))?;
            Some(Arc::new(resolved.of_controllers(&target.controllers)))
        });
        let levels = levels.map(|level| PathLevel { is_template: has_fields, ..level }).collect();
        let creates = match kits.get(trim(text)) {
            Some(resolved) if !has_fields => resolved.span,
            Some(_) | None => HierarchySet::default(),
        };
        // A literal path without a section is not created.
        let needs = has_fields || !creates.is_empty();
        let controllers = self.on_unified(target).filter(|_| needs).collect();
        PathConfig { root: None, levels, controllers, creates, user: None }
    }

    /// Returns the controllers of a target that the v2 hierarchy has.
    fn on_unified<'s>(&'s self, target: &'s Target) -> impl Iterator<Item = String> + 's {
        let names = self.unified.iter().flat_map(|(_, names)| names);
        names.filter(|name| target.controllers.contains(name)).cloned()
    }
}

impl PathConfig {
    /// Checks whether it applies to existing cgroups: it has tables or controllers for cgroups of
    /// rule files.
    pub fn applies_to_existing(&self) -> bool {
        let is_ours = self.levels.iter().any(|level| level.is_for_old);
        is_ours && (!self.controllers.is_empty() || self.kits().next().is_some())
    }

    /// Checks whether no process may enter before a part of it is written.
    pub fn is_required(&self) -> bool {
        self.kits().any(|resolved| resolved.is_required)
    }

    /// Returns a required setting that this host does not support, so that no process can enter.
    pub fn unmet(&self) -> Option<&str> {
        self.kits().find_map(|resolved| resolved.unmet.as_deref())
    }

    /// Returns the levels up to the component number `depth` of a path with `components`
    /// components; number 0 is the hierarchy root. The levels are the last components, the managed
    /// root is the one before them.
    pub(super) fn levels_at(&self, depth: usize, components: usize) -> &[PathLevel] {
        match components.checked_sub(self.levels.len()) {
            Some(before) if depth == before => self.root.as_slice(),
            Some(before) if depth > before => &self.levels[..depth - before],
            Some(_) | None => &[],
        }
    }

    fn kits(&self) -> impl Iterator<Item = &ResolvedSpec> {
        self.root.iter().chain(&self.levels).filter_map(|level| level.resolved.as_deref())
    }
}

impl ResolvedSpec {
    /// Returns the part for these controllers; `*` stands for all.
    fn of_controllers(&self, names: &[String]) -> Self {
        let mut part = self.clone();
        part.writes
            .retain(|write| names.iter().any(|name| name == "*" || **name == *write.controller));
        part
    }

    /// Returns the controllers that must be enabled for it in the v2 hierarchy.
    pub fn needs(&self, hierarchy: usize) -> impl Iterator<Item = &str> {
        let own = self.writes.iter().filter(move |write| write.hierarchy == hierarchy);
        own.map(|write| &*write.controller).filter(|name| !name.is_empty())
    }
}

/// Resolves tables or sections of one kind. Returns them by the `key` of their path.
fn resolved(
    specs: &[GroupSpec],
    key: fn(&str) -> &str,
    hierarchies: &Hierarchies,
    warnings: &mut Vec<ConfigWarning>,
) -> HashMap<Box<str>, Arc<ResolvedSpec>> {
    let mut kits: HashMap<Box<str>, Arc<ResolvedSpec>> = HashMap::new();
    for spec in specs {
        // The sections for a path are merged before.
        let resolved = spec.on(hierarchies, warnings);
        kits.entry(key(&spec.text).into()).or_insert_with(|| Arc::new(resolved));
    }
    kits
}

/// Returns the path by which a table, or a section for a literal path, is found.
fn path_of_table(text: &str) -> &str {
    text.trim_matches('/')
}

/// Returns the path by which a template is found. A slash at its beginning is a part of it.
fn path_of_template(text: &str) -> &str {
    text.trim_end_matches('/')
}

/// Removes repetitions of the warnings that concern the host and not the table.
fn said_once(warnings: &mut Vec<ConfigWarning>) {
    let general = [
        settings::limitation("memory.high", "0", Version::V1),
        settings::limitation("memory.soft_limit_in_bytes", "0", Version::V2),
    ];
    let mut said = [false; 2];
    warnings.retain(|warning| {
        let index = general.iter().position(|own| own.as_ref() == Some(&warning.diagnostic));
        index.is_none_or(|index| !std::mem::replace(&mut said[index], true))
    });
}

/// Splits the text of a destination into levels, with the result of `find` for the text up to each.
fn levels<'t>(
    text: &'t str,
    find: impl Fn(&'t str) -> Option<Arc<ResolvedSpec>> + 't,
) -> impl Iterator<Item = PathLevel> + 't {
    let mut start = 0;
    let components = text.split('/').map(move |component| {
        let end = start + component.len();
        start = end + 1;
        (component, &text[..end])
    });
    components
        .filter(|(component, _)| !component.is_empty())
        .map(move |(component, prefix)| PathLevel::of(component, find(prefix)))
}

impl PathLevel {
    fn of(text: &str, resolved: Option<Arc<ResolvedSpec>>) -> Self {
        Self { text: text.into(), resolved, is_for_old: false, is_template: false }
    }

    fn for_existing(self) -> Self {
        Self { is_for_old: true, ..self }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
