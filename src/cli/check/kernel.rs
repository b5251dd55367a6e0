//! Settings that the kernel of this host does not have: their files are searched for in the existing cgroups.
//! Must not create a cgroup.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup::config::{GroupSpec, GroupSpecs, SpecSetting};
use crate::cgroup::mounts::{Hierarchies, Hierarchy, Version};
use crate::cgroup::settings;
use crate::config::diagnostic::{Diagnostic, Severity};

/// Maximum of cgroups to search, for a host with thousands of them.
const GROUPS: usize = 256;

/// Returns a warning for each setting for which no existing cgroup has a file.
pub(super) fn missing(specs: &GroupSpecs, hierarchies: &Hierarchies) -> Vec<Diagnostic> {
    let mut samples = Samples { hierarchies, found: HashMap::new() };
    let all = specs.tables.iter().chain(&specs.templates).chain(&specs.groups);
    all.flat_map(|spec| {
        spec.settings.iter().filter_map(|own| samples.diagnostic(spec, own)).collect::<Vec<_>>()
    })
    .collect()
}

/// For each hierarchy and controller an existing cgroup that has all files of the controller, if there is
/// one.
struct Samples<'h> {
    hierarchies: &'h Hierarchies,
    found: HashMap<(usize, String), Option<PathBuf>>,
}

impl Samples<'_> {
    fn diagnostic(&mut self, spec: &GroupSpec, setting: &SpecSetting) -> Option<Diagnostic> {
        // A missing controller is reported elsewhere.
        let (index, controller) = self.hierarchies.locate(&setting.controller)?;
        let tree = self.hierarchies.get(index)?;
        let writes = settings::files(&setting.key, &setting.value, tree.version, &|key| {
            let other = spec.settings.iter().find(|other| other.key == key)?;
            Some(other.value.clone())
        });
        let writes = writes.ok()?;
        let sample = self.found.entry((index, controller.to_owned()));
        let sample = sample.or_insert_with(|| sample_of(tree, controller)).as_ref()?;
        let missing = writes.writes.iter().find(|write| {
            let instead =
                write.instead.as_ref().is_some_and(|(file, _)| sample.join(file).exists());
            !sample.join(&write.file).exists() && !instead
        })?;
        let message = format!("the kernel of this host has no {}", missing.file);
        let file = &setting.origin.file;
        let line = setting.origin.line;
        let about = Diagnostic::at_line(file, line, Severity::Warning, message);
        let about = about.with_help(format!("{} has no effect here", setting.key));
        Some(Diagnostic { place: setting.place.clone().or(about.place), ..about })
    }
}

/// Finds a cgroup for which the controller is enabled, below the hierarchy root, which lacks some files.
fn sample_of(tree: &Hierarchy, controller: &str) -> Option<PathBuf> {
    let mut groups = groups_in(&tree.mount_point);
    let mut next = 0;
    while let Some(group) = groups.get(next).cloned() {
        if has_controller(tree.version, &group, controller) {
            return Some(group);
        }
        if groups.len() < GROUPS {
            groups.extend(groups_in(&group));
        }
        next += 1;
    }
    None
}

fn has_controller(version: Version, group: &Path, controller: &str) -> bool {
    match version {
        Version::V1 => true,
        Version::V2 if controller.is_empty() => true,
        Version::V2 => fs::read_to_string(group.join("cgroup.controllers"))
            .is_ok_and(|text| text.split_whitespace().any(|name| name == controller)),
    }
}

fn groups_in(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let entries = entries.flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| entry.path()).take(GROUPS).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rules::Origin;

    fn spec(keys: &[&str]) -> GroupSpecs {
        let origin = Origin { file: Arc::from(Path::new("/a.toml")), line: 7 };
        let setting = |key: &&str| SpecSetting {
            key: (*key).to_owned(),
            value: "1".to_owned(),
            controller: key.split('.').next().unwrap().to_owned(),
            origin: origin.clone(),
            place: None,
        };
        let settings = keys.iter().map(setting).collect();
        let perm = crate::cgroup::config::GroupPermissions::default();
        let (text, controllers, is_required) = ("a".to_owned(), Vec::new(), false);
        let remove_after = None;
        let table =
            GroupSpec { text, controllers, settings, perm, is_required, remove_after, origin };
        GroupSpecs { tables: vec![table], ..GroupSpecs::default() }
    }

    #[test]
    fn files_are_looked_for_where_the_controller_is_enabled() {
        let root = tempfile::tempdir().unwrap();
        let outer = root.path().join("a");
        let inner = root.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        fs::write(outer.join("cgroup.controllers"), "cpu memory\n").unwrap();
        fs::write(inner.join("cgroup.controllers"), "memory pids\n").unwrap();
        fs::write(outer.join("memory.high"), "").unwrap();
        fs::write(inner.join("pids.max"), "").unwrap();
        let tree = Hierarchy::for_test(
            Version::V2,
            root.path().to_owned(),
            "",
            ["cpu", "io", "memory", "pids"].map(str::to_owned).to_vec(),
        );
        let host = Hierarchies::new(vec![tree]);
        // No cgroup has the controller io, so nothing is known about its files.
        let specs = spec(&["memory.high", "memory.peak", "pids.max", "io.weight", "hugetlb.x"]);
        let said = missing(&specs, &host);
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].message, "the kernel of this host has no memory.peak");
        assert_eq!(said[0].place.as_ref().map(|place| place.line), Some(7));
    }
}
