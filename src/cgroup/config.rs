//! Resolves the configuration of cgroups for this host: the tables of rule files and the sections
//! of cgconfig.conf. Pure.
//!
//! Nothing is stored per rule. The configuration of a destination is looked up when one of its
//! cgroups is opened, which takes a hundred times as long; an open cgroup costs nothing more.

mod resolve;
mod spec;
mod user_slice;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::mounts::{Hierarchies, HierarchySet, Version};
use super::settings::{self, SettingMessage, Write};
use crate::config::diagnostic::TextPosition;
use crate::event::{Gid, Uid};
use crate::rules::{Origin, PathBase, Target};
pub use spec::{GroupSpec, GroupSpecs, SpecSetting, UnitSpec};
pub use user_slice::{UserSliceSpec, ask_names, keeping_table, select, user_of_slice};

/// Owner and mode. Parts that are `None` stay as the kernel creates them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileOwnership {
    /// The user ID of the owner.
    pub uid: Option<Uid>,
    /// The group ID of the owner.
    pub gid: Option<Gid>,
    /// The permission bits, including set-id and sticky.
    pub mode: Option<u32>,
}

/// The owners and modes in a new cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupPermissions {
    /// The ownership of the directory.
    pub directory: FileOwnership,
    /// The ownership of the files that accept processes: `tasks` of v1, `cgroup.procs` and
    /// `cgroup.threads` of v2.
    pub task: FileOwnership,
    /// The ownership of `cgroup.procs` on v1, which cgconfigparser treats like the settings.
    pub v1_procs: FileOwnership,
    /// The ownership of `cgroup.subtree_control`.
    pub subtree: FileOwnership,
    /// The ownership of the other files. A mode only removes bits; read-only files stay read-only.
    pub files: FileOwnership,
}

impl GroupPermissions {
    /// Returns the ownership of the file `name` of a cgroup.
    pub fn of_file(&self, name: &str, version: Version) -> &FileOwnership {
        match (version, name) {
            (Version::V1, "tasks") | (Version::V2, "cgroup.procs" | "cgroup.threads") => &self.task,
            (Version::V1, "cgroup.procs") => &self.v1_procs,
            (Version::V2, "cgroup.subtree_control") => &self.subtree,
            (Version::V1 | Version::V2, _) => &self.files,
        }
    }
}

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
        let mut kits = |specs: &[GroupSpec], key: fn(&str) -> &str| {
            let mut kits: HashMap<Box<str>, Arc<ResolvedSpec>> = HashMap::new();
            for spec in specs {
                // The first section for a path is used.
                let resolved = spec.on(hierarchies, &mut warnings);
                kits.entry(key(&spec.text).into()).or_insert_with(|| Arc::new(resolved));
            }
            kits
        };
        let tables = kits(&specs.tables, |text| text.trim_matches('/'));
        let templates = kits(&specs.templates, |text| text.trim_end_matches('/'));
        let groups = kits(&specs.groups, |text| text.trim_matches('/'));
        let is_v2 = |tree: &(usize, &super::mounts::Hierarchy)| tree.1.version == Version::V2;
        let unified = hierarchies.iter().enumerate().find(is_v2);
        let unified = unified.map(|(index, tree)| (index, tree.controllers.clone()));
        let units = specs.units.clone();
        let user_slices = specs.user_slices.clone();
        said_once(&mut warnings);
        (Self { tables, templates, groups, units, user_slices, unified }, warnings)
    }

    /// Returns the configuration along a target, `None` for most targets of legacy rules.
    pub fn of(&self, target: &Target) -> Option<Arc<PathConfig>> {
        let config = match target.below {
            // Needed even without a table: it carries the destination text for the owner tag.
            PathBase::Root => return Some(Arc::new(self.of_rule(target))),
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
        let table = |prefix: &str| self.tables.get(prefix.trim_matches('/')).map(Arc::clone);
        let ours = |level| PathLevel { is_for_old: true, ..level };
        let root = table("").map(|resolved| ours(PathLevel::of("", Some(resolved))));
        let levels = levels(text, table).map(ours).collect();
        PathConfig { root, levels, ..PathConfig::default() }
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
            true => (&self.templates, |text| text.trim_end_matches('/')),
            false => (&self.groups, |text| text.trim_matches('/')),
        };
        let named =
            |resolved: &Arc<ResolvedSpec>| Arc::new(resolved.of_controllers(&target.controllers));
        let levels = levels(text, |prefix| kits.get(trim(prefix)).map(named));
        let levels = levels.map(|level| PathLevel { is_template: has_fields, ..level }).collect();
        let creates = match kits.get(trim(text)) {
            Some(resolved) if !has_fields => resolved.span,
            Some(_) | None => HierarchySet::default(),
        };
        // A literal path without a section is not created.
        let needs = has_fields || !creates.is_empty();
        let controllers = self.on_unified(target).filter(|_| needs).collect();
        PathConfig { root: None, levels, controllers, creates }
    }

    /// Returns the controllers of a target that the v2 hierarchy has.
    fn on_unified<'s>(&'s self, target: &'s Target) -> impl Iterator<Item = String> + 's {
        let names = self.unified.iter().flat_map(|(_, names)| names);
        let is_meant = |name: &&String| target.controllers.iter().any(|own| own == *name);
        names.filter(move |name| is_meant(name)).cloned()
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

    fn kits(&self) -> impl Iterator<Item = &ResolvedSpec> {
        self.root.iter().chain(&self.levels).filter_map(|level| level.resolved.as_deref())
    }
}

impl ResolvedSpec {
    /// Returns the part for these controllers; `*` stands for all.
    fn of_controllers(&self, names: &[String]) -> Self {
        let is_meant = |write: &&HostWrite| {
            names.iter().any(|name| name == "*" || **name == *write.controller)
        };
        Self { writes: self.writes.iter().filter(is_meant).cloned().collect(), ..self.clone() }
    }

    /// Returns the controllers that must be enabled for it in the v2 hierarchy.
    pub fn needs(&self, hierarchy: usize) -> impl Iterator<Item = &str> {
        let own = self.writes.iter().filter(move |write| write.hierarchy == hierarchy);
        own.map(|write| &*write.controller).filter(|name| !name.is_empty())
    }
}

/// Removes repetitions of the warning that concerns the host and not the table.
fn said_once(warnings: &mut Vec<ConfigWarning>) {
    let general = settings::v1_limitation("memory.high", "0", Version::V1);
    let mut is_said = false;
    warnings.retain(|warning| {
        general.as_ref() != Some(&warning.diagnostic) || !std::mem::replace(&mut is_said, true)
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
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
