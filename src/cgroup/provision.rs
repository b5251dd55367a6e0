//! What groups are given when they are made: tables of rule files and sections of cgconfig.conf, for
//! this host. Pure.
//!
//! Nothing of this is kept for a rule. What the levels of a destination get is looked up when one of
//! its groups is opened, which takes a hundred times as long; a group that is open costs nothing more.

mod gift;
mod user_slice;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::mounts::{Hierarchies, Span, Version};
use super::settings::{self, Complaint, Fault, Write};
use crate::config::diagnostic::Place;
use crate::event::{Gid, Uid};
use crate::rules::{Below, Origin, Target};
pub use gift::{Gift, Gifts, Setting, UnitGift};
pub use user_slice::{UserSliceSpec, ask_names, keeping_table, select, user_of_slice};

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
    /// Of the files that take processes: `tasks` of v1, `cgroup.procs` and `cgroup.threads` of v2.
    pub task: Ownership,
    /// Of `cgroup.procs` on v1, which cgconfigparser leaves to whom the settings are left.
    pub v1_procs: Ownership,
    /// Of `cgroup.subtree_control`.
    pub subtree: Ownership,
    /// Of the other files. A mode takes bits away only: a file that nobody can write stays so.
    pub files: Ownership,
}

impl Perm {
    /// What the file `name` of a group is given.
    pub fn of_file(&self, name: &str, version: Version) -> &Ownership {
        match (version, name) {
            (Version::V1, "tasks") | (Version::V2, "cgroup.procs" | "cgroup.threads") => &self.task,
            (Version::V1, "cgroup.procs") => &self.v1_procs,
            (Version::V2, "cgroup.subtree_control") => &self.subtree,
            (Version::V1 | Version::V2, _) => &self.files,
        }
    }
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
    /// Where it was written.
    pub origin: Origin,
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
    /// A setting that is required and that this host does not have.
    pub unmet: Option<Box<str>>,
    /// How long a group of ours is empty before it is removed.
    pub remove_after: Option<Duration>,
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
    /// What systemd is to give its units.
    units: Vec<UnitGift>,
    /// What systemd is to give the slices of users.
    user_slices: Vec<UserSliceSpec>,
    /// The controllers of the v2 tree.
    unified: Option<(usize, Vec<String>)>,
}

/// What the groups along one destination get.
#[derive(Debug, Default)]
pub struct Provision {
    /// The managed root, if it has a table.
    pub root: Option<Level>,
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
    /// Whether its group is one of ours, not of the original's files: an old one gets it too.
    pub is_for_old: bool,
    /// Whether it is for groups alone whose path differs from the text.
    pub is_template: bool,
}

impl Gift {
    /// Translates it for a host.
    fn on(&self, hierarchies: &Hierarchies, remarks: &mut Vec<Remark>) -> Kit {
        let mut settings: Vec<&Setting> = self.settings.iter().collect();
        settings.sort_by_key(|setting| settings::rank(&setting.key));
        let beside = |key: &str| {
            let found = self.settings.iter().find(|setting| setting.key == key)?;
            Some(found.value.clone())
        };
        let Self { perm, is_required, remove_after, .. } = *self;
        let mut kit = Kit { perm, is_required, remove_after, ..Kit::default() };
        for setting in settings {
            match setting.on(hierarchies, &beside) {
                Ok((writes, note)) => {
                    let version = writes.first().map(|write| hierarchies[write.hierarchy].version);
                    let weaker = version.and_then(|version| {
                        settings::weaker(&setting.key, &setting.value, version)
                    });
                    remarks.extend(weaker.map(|complaint| setting.remark(complaint)));
                    kit.writes.extend(writes);
                    let help = "the ratio to other groups is not what their settings say";
                    let note = note.map(|note| Complaint { message: note, help: help.to_owned() });
                    remarks.extend(note.map(|complaint| setting.remark(complaint)));
                }
                Err(complaint) if is_required => {
                    kit.unmet.get_or_insert_with(|| setting.key.as_str().into());
                    let help =
                        "the table says required = true: no process enters before it is left out";
                    remarks.push(setting.remark(Complaint { help: help.to_owned(), ..complaint }));
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
            origin: self.origin.clone(),
            write,
        };
        let has_other = writes.writes.iter().any(|write| write.instead.is_some());
        let note = match has_other && !hierarchies.has_blkio_weight {
            true => writes.note_instead,
            false => writes.note,
        };
        Ok((writes.writes.into_iter().map(host_write).collect(), note))
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
        let (units, user_slices) = (gifts.units.clone(), gifts.user_slices.clone());
        said_once(&mut remarks);
        (Self { tables, templates, groups, units, user_slices, unified }, remarks)
    }

    /// What the groups of a target get; `None` for most that are the original's: nothing.
    pub fn of(&self, target: &Target) -> Option<Arc<Provision>> {
        let provision = match target.below {
            // Without a table it still says by which text a group was made.
            Below::Root => return Some(Arc::new(self.of_rule(target))),
            Below::Top => self.of_sections(target),
        };
        let is_needed = !provision.controllers.is_empty()
            || !provision.creates.is_empty()
            || provision.levels.iter().any(|level| level.kit.is_some());
        is_needed.then(|| Arc::new(provision))
    }

    /// The tables by their paths, without `/` at either end.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &Arc<Kit>)> {
        self.tables.iter().map(|(text, kit)| (&**text, kit))
    }

    /// What systemd is to give its units.
    pub fn units(&self) -> &[UnitGift] {
        &self.units
    }

    /// What systemd is to give the slices of users, in the order in which tables are asked.
    pub fn user_slices(&self) -> &[UserSliceSpec] {
        &self.user_slices
    }

    /// The table for this path, if there is one.
    pub fn table(&self, text: &str) -> Option<&Arc<Kit>> {
        self.tables.get(text)
    }

    /// What tables give the groups along a path.
    pub fn of_path(&self, text: &str) -> Provision {
        let table = |prefix: &str| self.tables.get(prefix.trim_matches('/')).map(Arc::clone);
        let ours = |level| Level { is_for_old: true, ..level };
        let root = table("").map(|kit| ours(Level::of("", Some(kit))));
        let levels = levels(text, table).map(ours).collect();
        Provision { root, levels, ..Provision::default() }
    }

    fn of_rule(&self, target: &Target) -> Provision {
        let provision = self.of_path(target.destination.as_str());
        // What a table needs is known from its writes.
        let kits = provision.levels.iter().filter_map(|level| level.kit.as_ref());
        let of_tables: Vec<&str> =
            kits.flat_map(|kit| kit.writes.iter().map(|write| &*write.controller)).collect();
        let controllers = self.on_unified(target);
        let controllers = controllers.filter(|name| !of_tables.contains(&name.as_str()));
        Provision { controllers: controllers.collect(), ..provision }
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
        Provision { root: None, levels, controllers, creates }
    }

    /// The controllers of a target that the v2 tree has.
    fn on_unified<'s>(&'s self, target: &'s Target) -> impl Iterator<Item = String> + 's {
        let names = self.unified.iter().flat_map(|(_, names)| names);
        let is_meant = |name: &&String| target.controllers.iter().any(|own| own == *name);
        names.filter(move |name| is_meant(name)).cloned()
    }
}

impl Provision {
    /// Whether it has something for groups that exist already: tables or controllers for groups of ours.
    pub fn is_for_old(&self) -> bool {
        let is_ours = self.levels.iter().any(|level| level.is_for_old);
        is_ours && (!self.controllers.is_empty() || self.kits().next().is_some())
    }

    /// Whether no process may enter before something of it is written.
    pub fn is_required(&self) -> bool {
        self.kits().any(|kit| kit.is_required)
    }

    fn kits(&self) -> impl Iterator<Item = &Kit> {
        self.root.iter().chain(&self.levels).filter_map(|level| level.kit.as_deref())
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

/// Keeps one of the remarks that say the same of this host whatever the table is.
fn said_once(remarks: &mut Vec<Remark>) {
    let general = settings::weaker("memory.high", "0", Version::V1);
    let mut is_said = false;
    remarks.retain(|remark| {
        general.as_ref() != Some(&remark.complaint) || !std::mem::replace(&mut is_said, true)
    });
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
    components
        .filter(|(component, _)| !component.is_empty())
        .map(move |(component, prefix)| Level::of(component, find(prefix)))
}

impl Level {
    fn of(text: &str, kit: Option<Arc<Kit>>) -> Self {
        Self { text: text.into(), kit, is_for_old: false, is_template: false }
    }
}

#[cfg(test)]
#[path = "provision_tests.rs"]
mod tests;
