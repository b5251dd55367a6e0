//! What groups are given when they are made: tables of rule files and sections of cgconfig.conf, for
//! this host. Pure.
//!
//! Nothing of this is kept for a rule. What the levels of a destination get is looked up when one of
//! its groups is opened, which takes a hundred times as long; a group that is open costs nothing more.

use std::collections::HashMap;
use std::sync::Arc;

use super::mounts::{Hierarchies, Span, Version};
use super::settings::{self, Complaint, Fault, Write};
use crate::config::diagnostic::Place;
use crate::event::{Gid, Uid};
use crate::rules::{Below, Origin, Target};

/// Owner and mode; what is `None` stays as the kernel makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// The user.
    pub uid: Option<Uid>,
    /// The group.
    pub gid: Option<Gid>,
    /// The mode.
    pub mode: Option<u32>,
}

/// Owners and modes in a new group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Perm {
    /// Of the directory.
    pub directory: Ownership,
    /// Of the files that take processes: `cgroup.procs`, `cgroup.threads`, `tasks`.
    pub task: Ownership,
    /// Of `cgroup.subtree_control`.
    pub subtree: Ownership,
    /// Of the other files. A mode takes bits away only: a file that nobody can write stays so.
    pub files: Ownership,
}

/// A setting as it was written, its value checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// A word of [`settings`] or the name of a kernel file.
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
    /// Where it begins.
    pub origin: Origin,
}

/// All gifts by the kind of what described them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gifts {
    /// Tables of rule files: for new groups, and again when rules are read.
    pub tables: Vec<Gift>,
    /// `template` sections: for new groups with fields in their paths.
    pub templates: Vec<Gift>,
    /// `group` sections: they also say that a group without fields is made.
    pub groups: Vec<Gift>,
}

/// A write of a [`Kit`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostWrite {
    /// Its hierarchy.
    pub hierarchy: usize,
    /// The controller as this host names it; empty for what every group has.
    pub controller: Box<str>,
    /// The setting as it was written: `cpu.weight = 50`.
    pub written: Box<str>,
    /// The file and what to write.
    pub write: Write,
}

/// A [`Gift`] for this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kit {
    /// The writes in an order that the kernel accepts.
    pub writes: Vec<HostWrite>,
    /// Owners and modes of a new group.
    pub perm: Perm,
    /// Whether no process may enter before all is written.
    pub is_required: bool,
    /// The hierarchies of a section's controllers, or all of them.
    pub span: Span,
}

/// Something to be said of a setting on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// Where the setting was written.
    pub origin: Origin,
    /// Where its value stands, if that is known.
    pub place: Option<Place>,
    /// What is to be said.
    pub complaint: Complaint,
}

/// Every [`Kit`] of this host.
#[derive(Debug, Default)]
pub struct Provisions {
    tables: HashMap<Box<str>, Arc<Kit>>,
    templates: HashMap<Box<str>, Arc<Kit>>,
    groups: HashMap<Box<str>, Arc<Kit>>,
    /// The controllers of the v2 tree.
    unified: Option<(usize, Vec<String>)>,
}

/// What the groups along one destination get.
#[derive(Debug, Default)]
pub struct Provision {
    /// One for each component of the destination's text.
    pub levels: Vec<Level>,
    /// The controllers that the group itself needs on v2.
    pub controllers: Vec<String>,
    /// The hierarchies in which it is made although its rule makes none.
    pub creates: Span,
}

/// What the group of one component gets.
#[derive(Debug)]
pub struct Level {
    /// The component as written.
    pub text: Box<str>,
    /// What it gets.
    pub kit: Option<Arc<Kit>>,
    /// Whether an old group gets it too.
    pub is_for_old: bool,
    /// Whether it is for groups alone whose path differs from the text.
    pub is_template: bool,
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
    fn join(&mut self, other: &Self) {
        for setting in &other.settings {
            if !self.settings.iter().any(|own| own.key == setting.key) {
                self.settings.push(setting.clone());
            }
        }
        self.is_required |= other.is_required;
        if self.perm == Perm::default() {
            self.perm = other.perm;
        }
    }

    /// Translates it for a host.
    fn on(&self, hierarchies: &Hierarchies, remarks: &mut Vec<Remark>) -> Kit {
        let mut settings: Vec<&Setting> = self.settings.iter().collect();
        settings.sort_by_key(|setting| settings::rank(&setting.key));
        let beside = |key: &str| {
            let found = self.settings.iter().find(|setting| setting.key == key)?;
            Some(found.value.clone())
        };
        let mut kit = Kit { perm: self.perm, is_required: self.is_required, ..Kit::default() };
        for setting in settings {
            match setting.on(hierarchies, &beside) {
                Ok((writes, note)) => {
                    kit.writes.extend(writes);
                    let help = "the ratio to other groups is not what their settings say";
                    let note = note.map(|note| Complaint { message: note, help: help.to_owned() });
                    remarks.extend(note.map(|complaint| setting.remark(complaint)));
                }
                Err(complaint) => remarks.push(setting.remark(complaint)),
            }
        }
        let all = (0..hierarchies.len()).fold(Span::default(), Span::with);
        let homes = self.controllers.iter().filter_map(|name| hierarchies.home(name));
        kit.span = match self.controllers.is_empty() {
            true => all,
            false => homes.fold(Span::default(), |span, (index, _)| span.with(index)),
        };
        kit
    }
}

impl Gifts {
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

impl Setting {
    fn remark(&self, complaint: Complaint) -> Remark {
        Remark { origin: self.origin.clone(), place: self.place.clone(), complaint }
    }

    fn on(
        &self,
        hierarchies: &Hierarchies,
        beside: &settings::Beside<'_>,
    ) -> Result<(Vec<HostWrite>, Option<String>), Complaint> {
        let Some((hierarchy, controller)) = hierarchies.home(&self.controller) else {
            let message =
                format!("no cgroup hierarchy of this host has the controller of {}", self.key);
            return Err(Complaint { message, help: "it is left out".to_owned() });
        };
        let version = hierarchies[hierarchy].version;
        let writes = match settings::files(&self.key, &self.value, version, beside) {
            Ok(writes) => writes,
            Err(Fault::Value(complaint) | Fault::NoCounterpart(complaint)) => {
                return Err(complaint);
            }
        };
        let written: Box<str> = format!("{} = {}", self.key, self.value).into();
        let host_write = |write| HostWrite {
            hierarchy,
            controller: controller.into(),
            written: written.clone(),
            write,
        };
        Ok((writes.writes.into_iter().map(host_write).collect(), writes.note))
    }
}

impl Provisions {
    /// What this host gives, and what is to be said about it.
    pub fn new(gifts: &Gifts, hierarchies: &Hierarchies) -> (Self, Vec<Remark>) {
        let mut remarks = Vec::new();
        let mut kits = |gifts: &[Gift], key: fn(&str) -> &str| {
            let mut kits: HashMap<Box<str>, Arc<Kit>> = HashMap::new();
            for gift in gifts {
                // The first that describes a path counts.
                let kit = gift.on(hierarchies, &mut remarks);
                kits.entry(key(&gift.text).into()).or_insert_with(|| Arc::new(kit));
            }
            kits
        };
        let tables = kits(&gifts.tables, |text| text.trim_matches('/'));
        let templates = kits(&gifts.templates, |text| text.trim_end_matches('/'));
        let groups = kits(&gifts.groups, |text| text.trim_matches('/'));
        let is_v2 = |tree: &(usize, &super::mounts::Hierarchy)| tree.1.version == Version::V2;
        let unified = hierarchies.iter().enumerate().find(is_v2);
        let unified = unified.map(|(index, tree)| (index, tree.controllers.clone()));
        (Self { tables, templates, groups, unified }, remarks)
    }

    /// What the groups of a target get; `None` for most: nothing.
    pub fn of(&self, target: &Target) -> Option<Arc<Provision>> {
        let provision = match target.below {
            Below::Root => self.of_table(target),
            Below::Top => self.of_sections(target),
        };
        let is_needed = !provision.controllers.is_empty()
            || !provision.creates.is_empty()
            || provision.levels.iter().any(|level| level.kit.is_some());
        is_needed.then(|| Arc::new(provision))
    }

    fn of_table(&self, target: &Target) -> Provision {
        let levels = levels(target.destination.as_str(), |prefix| {
            self.tables.get(prefix.trim_matches('/')).map(Arc::clone)
        });
        let levels: Vec<Level> = levels.map(|level| Level { is_for_old: true, ..level }).collect();
        // What a table needs is known from its writes.
        let kits = levels.iter().filter_map(|level| level.kit.as_ref());
        let of_tables: Vec<&str> =
            kits.flat_map(|kit| kit.writes.iter().map(|write| &*write.controller)).collect();
        let controllers = self.on_unified(target);
        let controllers = controllers.filter(|name| !of_tables.contains(&name.as_str()));
        Provision { controllers: controllers.collect(), levels, creates: Span::default() }
    }

    fn of_sections(&self, target: &Target) -> Provision {
        let text = target.destination.as_str();
        let has_fields = target.creates;
        let (kits, trim): (_, fn(&str) -> &str) = match has_fields {
            true => (&self.templates, |text| text.trim_end_matches('/')),
            false => (&self.groups, |text| text.trim_matches('/')),
        };
        let named = |kit: &Arc<Kit>| Arc::new(kit.of_controllers(&target.controllers));
        let levels = levels(text, |prefix| kits.get(trim(prefix)).map(named));
        let levels = levels.map(|level| Level { is_template: has_fields, ..level }).collect();
        let creates = match kits.get(trim(text)) {
            Some(kit) if !has_fields => kit.span,
            Some(_) | None => Span::default(),
        };
        // A plain group that is missing stays so unless a section describes it.
        let needs = has_fields || !creates.is_empty();
        let controllers = self.on_unified(target).filter(|_| needs).collect();
        Provision { levels, controllers, creates }
    }

    /// The controllers of a target that the v2 tree has.
    fn on_unified<'s>(&'s self, target: &'s Target) -> impl Iterator<Item = String> + 's {
        let names = self.unified.iter().flat_map(|(_, names)| names);
        let is_meant = |name: &&String| target.controllers.iter().any(|own| own == *name);
        names.filter(move |name| is_meant(name)).cloned()
    }
}

impl Kit {
    /// The part of it for these controllers; `*` means all.
    fn of_controllers(&self, names: &[String]) -> Self {
        let is_meant = |write: &&HostWrite| {
            names.iter().any(|name| name == "*" || **name == *write.controller)
        };
        Self { writes: self.writes.iter().filter(is_meant).cloned().collect(), ..self.clone() }
    }

    /// The controllers that must be enabled for it in the v2 tree `hierarchy`.
    pub fn needs(&self, hierarchy: usize) -> impl Iterator<Item = &str> {
        let own = self.writes.iter().filter(move |write| write.hierarchy == hierarchy);
        own.map(|write| &*write.controller).filter(|name| !name.is_empty())
    }
}

/// The components of a destination's text with what `find` has for the text up to each.
fn levels<'t>(
    text: &'t str,
    find: impl Fn(&'t str) -> Option<Arc<Kit>> + 't,
) -> impl Iterator<Item = Level> + 't {
    let mut start = 0;
    let components = text.split('/').map(move |component| {
        let end = start + component.len();
        start = end + 1;
        (component, &text[..end])
    });
    components.filter(|(component, _)| !component.is_empty()).map(move |(component, prefix)| {
        Level { text: component.into(), kit: find(prefix), is_for_old: false, is_template: false }
    })
}

#[cfg(test)]
#[path = "provision_tests.rs"]
mod tests;
