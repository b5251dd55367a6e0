//! Resolves the settings of one table for the hierarchies of this host. Pure.

use super::spec::{GroupSpec, SpecSetting};
use super::{ConfigWarning, HostWrite, ResolvedSpec};
use crate::cgroup::mounts::{Hierarchies, HierarchySet};
use crate::cgroup::settings::{self, SettingError, SettingMessage};

impl GroupSpec {
    /// Resolves the configuration for a host.
    pub(super) fn on(
        &self,
        hierarchies: &Hierarchies,
        warnings: &mut Vec<ConfigWarning>,
    ) -> ResolvedSpec {
        let mut settings: Vec<&SpecSetting> = self.settings.iter().collect();
        settings.sort_by_key(|setting| settings::rank(&setting.key));
        let siblings = |key: &str| {
            let found = self.settings.iter().find(|setting| setting.key == key)?;
            Some(found.value.clone())
        };
        let Self { perm, is_required, remove_after, .. } = *self;
        let mut resolved =
            ResolvedSpec { perm, is_required, remove_after, ..ResolvedSpec::default() };
        for setting in settings {
            match setting.on(hierarchies, &siblings) {
                Ok((writes, note)) => {
                    let version = writes.first().map(|write| hierarchies[write.hierarchy].version);
                    let weaker = version.and_then(|version| {
                        settings::v1_limitation(&setting.key, &setting.value, version)
                    });
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
        let all = (0..hierarchies.len()).fold(HierarchySet::default(), HierarchySet::with);
        let homes = self.controllers.iter().filter_map(|name| hierarchies.locate(name));
        resolved.span = match self.controllers.is_empty() {
            true => all,
            false => homes.fold(HierarchySet::default(), |span, (index, _)| span.with(index)),
        };
        resolved
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
