//! The differences between the settings of two sets of rule files. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{GroupConfigs, GroupPermissions, ResolvedSpec};
use crate::rules::UserTest;

/// What a setting is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfiguredKind {
    /// The cgroups of a table of a rule file.
    Cgroup,
    /// The cgroups of a `template` section of cgconfig.conf.
    Template,
    /// The cgroup of a `group` section of cgconfig.conf.
    Section,
    /// A systemd unit.
    Unit,
    /// The slices of users that a table selects.
    UserSlice,
}

/// A setting that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigChange {
    /// What the setting is for.
    pub kind: ConfiguredKind,
    /// The path of the cgroup as written, or the name of the unit.
    pub name: String,
    /// The name of the setting.
    pub key: String,
    /// The value in the first set; absent if it does not have the setting.
    pub old: Option<String>,
    /// The value in the second set.
    pub new: Option<String>,
}

type Values = BTreeMap<(ConfiguredKind, String, String), Vec<String>>;

/// Returns the settings that differ, in the order of their cgroups and units.
pub fn changes(old: &GroupConfigs, new: &GroupConfigs) -> Vec<ConfigChange> {
    let [old, new] = [values(old), values(new)];
    let all: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let differing = all.into_iter().filter(|key| old.get(*key) != new.get(*key));
    let text = |values: &Values, key| values.get(key).map(|values: &Vec<String>| values.join(", "));
    let changes = differing.map(|full| {
        let (kind, name, key) = full.clone();
        ConfigChange { kind, name, key, old: text(&old, full), new: text(&new, full) }
    });
    changes.collect()
}

fn values(configs: &GroupConfigs) -> Values {
    let mut values = Values::new();
    let GroupConfigs { tables, templates, groups, units, user_slices, .. } = configs;
    let kinds = [
        (ConfiguredKind::Cgroup, tables),
        (ConfiguredKind::Template, templates),
        (ConfiguredKind::Section, groups),
    ];
    for (kind, specs) in kinds {
        for (path, resolved) in specs {
            for (key, value) in of_resolved(resolved) {
                values.entry((kind, path.to_string(), key)).or_default().push(value);
            }
        }
    }
    let of_units =
        units.iter().map(|unit| (ConfiguredKind::Unit, unit.name.clone(), &unit.settings));
    let of_slices = user_slices.iter().map(|table| {
        let users: Vec<String> = table.users.iter().map(users_of).collect();
        let name = format!("user-%U.slice of {}", users.join(", "));
        (ConfiguredKind::UserSlice, name, &table.settings)
    });
    for (kind, name, settings) in of_units.chain(of_slices) {
        for (key, words) in settings {
            let value = words.join(" ");
            values.entry((kind, name.clone(), key.clone())).or_default().push(value);
        }
    }
    values
}

fn users_of(test: &UserTest) -> String {
    match test {
        UserTest::Name(name) | UserTest::NameOrId(name, _) => name.clone(),
        UserTest::Human(_) => "@human".to_owned(),
        UserTest::Glob(glob) => String::from_utf8_lossy(glob.as_bytes()).into_owned(),
        UserTest::Ids(first, last) if first == last => first.to_string(),
        UserTest::Ids(first, last) => format!("{first}-{last}"),
    }
}

/// Returns the settings of a cgroup with their values as written, each once.
fn of_resolved(resolved: &ResolvedSpec) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for write in &resolved.writes {
        let written = write.written.split_once(" = ").unwrap_or((&write.written, ""));
        let written = (written.0.to_owned(), written.1.to_owned());
        if !found.contains(&written) {
            found.push(written);
        }
    }
    let after = resolved.remove_after;
    found.extend(after.map(|after| ("remove_when_empty".to_owned(), format!("{after:?}"))));
    if resolved.is_required {
        found.push(("required".to_owned(), "true".to_owned()));
    }
    if resolved.perm != GroupPermissions::default() {
        found.push(("owner and modes".to_owned(), permissions(&resolved.perm)));
    }
    found
}

/// Formats owners and modes: `1000:50 755, files 0:0`.
fn permissions(perm: &GroupPermissions) -> String {
    let GroupPermissions { is_of_user, directory, task, v1_procs, subtree, files } = perm;
    let parts = [
        ("", directory),
        ("processes ", task),
        ("v1 cgroup.procs ", v1_procs),
        ("subtree_control ", subtree),
        ("files ", files),
    ];
    let of_user = is_of_user.then(|| "the user of the process".to_owned());
    let texts = parts.into_iter().filter_map(|(name, own)| {
        let owner = own.uid.map(|uid| uid.0.to_string());
        let group = own.gid.map(|gid| format!(":{}", gid.0));
        let mode = own.mode.map(|mode| format!(" {mode:o}"));
        let text: String = [owner, group, mode].into_iter().flatten().collect();
        (!text.is_empty()).then(|| format!("{name}{}", text.trim()))
    });
    of_user.into_iter().chain(texts).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cgroup::config::{GroupSpec, GroupSpecs, SpecSetting, UnitSpec};
    use crate::cgroup::mounts::{Hierarchies, Hierarchy, Version};
    use crate::rules::Origin;

    fn origin() -> Origin {
        Origin { file: std::path::Path::new("/a").into(), line: 1 }
    }

    fn table(path: &str, settings: &[(&str, &str)]) -> GroupSpec {
        let settings = settings.iter().map(|&(key, value)| SpecSetting {
            key: key.to_owned(),
            value: value.to_owned(),
            controller: key.split_once('.').unwrap().0.to_owned(),
            origin: origin(),
            place: None,
        });
        GroupSpec {
            text: path.to_owned(),
            controllers: Vec::new(),
            settings: settings.collect(),
            perm: GroupPermissions::default(),
            is_required: false,
            remove_after: None,
            origin: origin(),
        }
    }

    fn configs(specs: &GroupSpecs) -> GroupConfigs {
        let controllers = ["cpu", "memory"].map(str::to_owned).to_vec();
        let unified = Hierarchy::for_test(Version::V2, "/cg", "", controllers);
        GroupConfigs::new(specs, &Hierarchies::new(vec![unified])).0
    }

    #[test]
    fn added_changed_and_removed_settings_differ() {
        let unit = |value: &str| UnitSpec {
            name: "web.service".to_owned(),
            settings: vec![("cpu.weight".to_owned(), vec![format!("CPUWeight={value}")])],
            origin: origin(),
        };
        let old = configs(&GroupSpecs {
            tables: vec![table("web", &[("cpu.weight", "50"), ("memory.max", "1G")])],
            units: vec![unit("50")],
            ..GroupSpecs::default()
        });
        let removed = Some(Duration::from_secs(60));
        let new = configs(&GroupSpecs {
            tables: vec![
                GroupSpec { remove_after: removed, ..table("web", &[("cpu.weight", "70")]) },
                table("mail", &[]),
            ],
            units: vec![unit("60")],
            ..GroupSpecs::default()
        });
        assert_eq!(changes(&old, &old), []);
        let found = changes(&old, &new).into_iter().map(|one| {
            let [old, new] = [one.old, one.new].map(|value| value.unwrap_or("-".to_owned()));
            format!("{:?} {} {}: {old} to {new}", one.kind, one.name, one.key)
        });
        let expected = [
            "Cgroup web cpu.weight: 50 to 70",
            "Cgroup web memory.max: 1G to -",
            "Cgroup web remove_when_empty: - to 60s",
            "Unit web.service cpu.weight: CPUWeight=50 to CPUWeight=60",
        ];
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }
}
