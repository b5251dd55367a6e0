//! Resolves the settings of one table for the hierarchies of this host. Pure.

use super::spec::{GroupSpec, SpecSetting};
use super::{ConfigWarning, HostWrite, ResolvedSpec};
use crate::cgroup::mounts::{Hierarchies, HierarchySet, Version};
use crate::cgroup::settings::{self, SettingError, SettingMessage, Write};
use crate::event::Uid;

impl GroupSpec {
    /// Resolves the configuration for a host.
    pub(super) fn on(
        &self,
        hierarchies: &Hierarchies,
        warnings: &mut Vec<ConfigWarning>,
    ) -> ResolvedSpec {
        let mut settings: Vec<&SpecSetting> = self.settings.iter().collect();
        settings.sort_by_key(|setting| settings::rank(&setting.key));
        let Self { perm, is_required, remove_after, .. } = *self;
        let mut resolved =
            ResolvedSpec { perm, is_required, remove_after, ..ResolvedSpec::default() };
        for setting in settings {
            match setting.on(hierarchies, &|key| self.value_of(key)) {
                Ok((writes, note)) => {
                    let version = writes.first().map(|write| hierarchies[write.hierarchy].version);
                    let weaker = version.and_then(|version| {
                        settings::limitation(&setting.key, &setting.value, version)
                    });
                    // With memory.max there is a limit that always applies.
                    let weaker = weaker.filter(|_| self.value_of("memory.max").is_none());
                    warnings.extend(weaker.map(|diagnostic| setting.warning(diagnostic)));
                    resolved.writes.extend(writes);
                    let help = "the ratio to other cgroups differs from the configured weights";
                    let note =
                        note.map(|note| SettingMessage { message: note, help: help.to_owned() });
                    warnings.extend(note.map(|diagnostic| setting.warning(diagnostic)));
                }
                Err(diagnostic) if is_required => {
                    resolved.unmet.get_or_insert_with(|| setting.key.as_str().into());
                    let help =
                        "required = true: no process is moved there until the setting is removed";
                    warnings.push(
                        setting.warning(SettingMessage { help: help.to_owned(), ..diagnostic }),
                    );
                }
                Err(diagnostic) => warnings.push(setting.warning(diagnostic)),
            }
        }
        resolved.writes.extend(self.descendants(hierarchies));
        let all = (0..hierarchies.len()).fold(HierarchySet::default(), HierarchySet::with);
        let homes = self.controllers.iter().filter_map(|name| hierarchies.locate(name));
        resolved.span = match self.controllers.is_empty() {
            true => all,
            false => homes.fold(HierarchySet::default(), |span, (index, _)| span.with(index)),
        };
        resolved
    }
}

/// Cgroups that the owner of a cgroup may create in it, if its table sets no other number. Without a limit
/// a user created 102,596 in 3 s.
const DESCENDANTS: &str = "1000";

impl GroupSpec {
    /// Returns the value of a setting as written.
    pub fn value_of(&self, key: &str) -> Option<String> {
        let found = self.settings.iter().rfind(|setting| setting.key == key)?;
        Some(found.value.clone())
    }

    /// Returns the limit on the cgroups that an owner may create, where v2 is mounted; v1 has none.
    fn descendants(&self, hierarchies: &Hierarchies) -> Option<HostWrite> {
        const FILE: &str = "cgroup.max.descendants";
        let is_roots = self.perm.directory.uid == Some(Uid(0));
        if !self.perm.has_owner()
            || is_roots
            || self.settings.iter().any(|setting| setting.key == FILE)
        {
            return None;
        }
        let hierarchy = hierarchies.iter().position(|tree| tree.version == Version::V2)?;
        let write = Write { file: FILE.to_owned(), value: DESCENDANTS.to_owned(), instead: None };
        Some(HostWrite {
            hierarchy,
            controller: "".into(),
            written: format!("{FILE} = {DESCENDANTS}, the default for an owner").into(),
            origin: self.origin.clone(),
            write,
        })
    }
}

impl SpecSetting {
    fn warning(&self, diagnostic: SettingMessage) -> ConfigWarning {
        ConfigWarning { origin: self.origin.clone(), place: self.place.clone(), diagnostic }
    }

    fn on(
        &self,
        hierarchies: &Hierarchies,
        siblings: &settings::Siblings<'_>,
    ) -> Result<(Vec<HostWrite>, Option<String>), SettingMessage> {
        let Some((hierarchy, controller)) = hierarchies.locate(&self.controller) else {
            let message =
                format!("no cgroup hierarchy of this host has the controller of {}", self.key);
            return Err(SettingMessage { message, help: "the setting is ignored".to_owned() });
        };
        let version = hierarchies[hierarchy].version;
        let writes = match settings::files(&self.key, &self.value, version, siblings) {
            Ok(writes) => writes,
            Err(SettingError::Value(diagnostic) | SettingError::NoCounterpart(diagnostic)) => {
                return Err(diagnostic);
            }
        };
        let has_other = writes.writes.iter().any(|write| write.instead.is_some());
        let note = match has_other && !hierarchies.has_blkio_weight {
            true => writes.note_instead,
            false => writes.note,
        };
        let written: Box<str> = format!("{} = {}", self.key, self.value).into();
        let writes = writes.writes.into_iter().map(|write| HostWrite {
            hierarchy,
            controller: controller.into(),
            written: written.clone(),
            origin: self.origin.clone(),
            write,
        });
        Ok((writes.collect(), note))
    }
}
