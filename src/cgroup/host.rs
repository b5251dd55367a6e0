//! Properties of the host that determine the root for the cgroups of rules, read once at startup.
//! Must not create anything.
//!
//! With systemd on cgroup v2, systemd owns the cgroup tree: other programs may create cgroups only
//! below a unit with `Delegate=yes`. The package installs such a unit, `cgruled-pool.service`,
//! which has no process that could exit. systemd removes its empty directory, so the daemon creates
//! it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cgroup::mounts::{Hierarchies, Version};
use crate::config::daemon_toml::{LegacyRoot, Root, Settings};
use crate::rules::PathBase;

/// The unit below which cgroups are created.
pub const POOL: &str = "cgruled-pool.service";
/// Path of its cgroup from the top of the hierarchy.
pub const POOL_PATH: &str = "/cgruled.slice/cgruled-pool.service";
/// Directories of unit files, the most important one first.
const UNIT_DIRECTORIES: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// A host, with `/` as its file system except in tests.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

/// Roots of the paths of rules in each hierarchy. Without a trailing slash; empty for the hierarchy
/// root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagedRoots {
    /// Root for the paths of TOML rules.
    pub rules: String,
    /// Root for the paths of legacy rules.
    pub legacy: String,
    /// True if systemd owns the tree and `rules` is a delegated part of it: every cgroup above
    /// belongs to systemd.
    pub is_delegated: bool,
    /// Bases of paths without a usable root: rules with such a destination create no cgroups.
    pub groundless: Vec<PathBase>,
    /// Conditions that the administrator should know about.
    pub warnings: Vec<HostWarning>,
}

/// Condition concerning the root of the cgroups of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostWarning {
    /// `root = "auto"`, systemd owns the tree, and no unit delegates a part of it. Nothing is
    /// created at the hierarchy root, because the administrator did not select it.
    NoPool,
    /// `root = "auto"` selects the hierarchy root, and systemd runs.
    AutoIsTop,
    /// Root in a slice, where only systemd may create cgroups.
    RootIsSlice,
    /// systemd owns the tree, and no root for legacy rules is configured.
    LegacyAtTop,
}

impl Default for Host {
    fn default() -> Self {
        Self::at("/")
    }
}

impl Host {
    /// Creates a host with its file system below `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Checks whether systemd is the running init system, like sd_booted(3).
    pub fn runs_systemd(&self) -> bool {
        self.root.join("run/systemd/system").is_dir()
    }

    /// Determines the roots of the cgroups of rules with these settings.
    pub fn roots(&self, settings: &Settings, hierarchies: &Hierarchies) -> ManagedRoots {
        let is_systemds = self.runs_systemd() && is_unified(hierarchies);
        let mut warnings = Vec::new();
        let mut groundless = Vec::new();
        let rules = match &settings.root {
            Root::Path(path) => path.to_string_lossy().trim_end_matches('/').to_owned(),
            Root::Auto if !is_systemds => {
                warnings.extend(self.runs_systemd().then_some(HostWarning::AutoIsTop));
                String::new()
            }
            Root::Auto if self.knows(POOL) => POOL_PATH.to_owned(),
            Root::Auto => {
                warnings.push(HostWarning::NoPool);
                groundless.push(PathBase::Root);
                String::new()
            }
        };
        if is_systemds && rules.ends_with(".slice") {
            warnings.push(HostWarning::RootIsSlice);
        }
        let legacy = match settings.legacy_root {
            LegacyRoot::Pool => {
                let is_missing = groundless.contains(&PathBase::Root);
                groundless.extend(is_missing.then_some(PathBase::Top));
                rules.clone()
            }
            LegacyRoot::Top => String::new(),
            LegacyRoot::Unsaid => {
                warnings.extend(is_systemds.then_some(HostWarning::LegacyAtTop));
                String::new()
            }
        };
        let is_delegated = is_systemds && is_in_unit(&rules);
        ManagedRoots { rules, legacy, is_delegated, groundless, warnings }
    }

    /// Checks whether systemd has a unit of this name. The first file decides: a link to
    /// `/dev/null` or an empty file masks the unit.
    pub fn knows(&self, unit: &str) -> bool {
        let files = UNIT_DIRECTORIES.map(|directory| self.root.join(directory).join(unit));
        let found = files.iter().find_map(|file| Some((file, fs::symlink_metadata(file).ok()?)));
        found.is_some_and(|(file, metadata)| match metadata.is_symlink() {
            true => fs::read_link(file).is_ok_and(|target| target != Path::new("/dev/null")),
            false => metadata.len() > 0,
        })
    }
}

/// Checks whether the tree that systemd owns is cgroup v2. On hybrid hosts it also has a v1
/// hierarchy.
fn is_unified(hierarchies: &Hierarchies) -> bool {
    hierarchies.iter().any(|tree| tree.version == Version::V2)
        && hierarchies.iter().all(|tree| !tree.is_systemds())
}

fn is_in_unit(path: &str) -> bool {
    let first = path.split('/').find(|name| !name.is_empty()).unwrap_or_default();
    [".slice", ".service", ".scope"].iter().any(|ending| first.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::mounts::Hierarchy;

    fn trees(listed: &[&str]) -> Hierarchies {
        let trees = listed.iter().map(|listed| {
            let version = if listed.is_empty() { Version::V2 } else { Version::V1 };
            Hierarchy::for_test(version, "/sys/fs/cgroup", (*listed).to_owned(), Vec::new())
        });
        Hierarchies::new(trees.collect())
    }

    /// Creates a directory that represents a host with these files. A name that ends in a slash is
    /// a directory, one with `>` a symbolic link.
    fn host(files: &[&str]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let (name, target) = file.split_once('>').unwrap_or((file, ""));
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match target {
                "" if name.ends_with('/') => fs::create_dir_all(path).unwrap(),
                "" => fs::write(path, "[Service]\n").unwrap(),
                target => std::os::unix::fs::symlink(target, path).unwrap(),
            }
        }
        let host = Host::at(root.path());
        (root, host)
    }

    const BOOTED: &str = "run/systemd/system/";
    const UNIT: &str = "usr/lib/systemd/system/cgruled-pool.service";

    fn auto(files: &[&str], listed: &[&str]) -> (String, bool, Vec<HostWarning>) {
        let (_root, host) = host(files);
        let found = host.roots(&Settings::default(), &trees(listed));
        assert_eq!(found.legacy, "");
        (found.rules, found.is_delegated, found.warnings)
    }

    #[test]
    fn the_pool_is_the_ground_where_systemd_owns_v2_and_knows_the_unit() {
        let pool = (POOL_PATH.to_owned(), true, vec![HostWarning::LegacyAtTop]);
        assert_eq!(auto(&[BOOTED, UNIT], &[""]), pool);
        assert_eq!(auto(&[BOOTED, "etc/systemd/system/cgruled-pool.service"], &[""]), pool);
        assert_eq!(auto(&[BOOTED, "lib/systemd/system/cgruled-pool.service"], &[""]), pool);
        let linked = "etc/systemd/system/cgruled-pool.service>/opt/cgruled/pool";
        assert_eq!(auto(&[BOOTED, linked], &[""]), pool);
        // An additional v1 hierarchy that a user mounted.
        assert_eq!(auto(&[BOOTED, UNIT], &["", "net_cls"]), pool);
    }

    #[test]
    fn else_groups_begin_at_the_top() {
        fn top(warnings: &[HostWarning]) -> (String, bool, Vec<HostWarning>) {
            (String::new(), false, warnings.to_vec())
        }
        assert_eq!(auto(&[UNIT], &[""]), top(&[]));
        let said = top(&[HostWarning::AutoIsTop]);
        assert_eq!(auto(&[BOOTED, UNIT], &["name=systemd", "cpu", ""]), said);
        assert_eq!(auto(&[BOOTED, UNIT], &["name=systemd", "cpu"]), said);
        assert_eq!(auto(&[BOOTED, UNIT], &["cpu"]), said);
        let missing = top(&[HostWarning::NoPool, HostWarning::LegacyAtTop]);
        assert_eq!(auto(&[BOOTED], &[""]), missing);
        let masked = "etc/systemd/system/cgruled-pool.service>/dev/null";
        assert_eq!(auto(&[BOOTED, UNIT, masked], &[""]), missing);
    }

    #[test]
    fn without_a_pool_nothing_is_made_that_nobody_chose_a_place_for() {
        let (_root, host) = host(&[BOOTED]);
        for (root, legacy_root, groundless) in [
            (Root::Auto, LegacyRoot::Unsaid, &[PathBase::Root][..]),
            (Root::Auto, LegacyRoot::Top, &[PathBase::Root]),
            (Root::Auto, LegacyRoot::Pool, &[PathBase::Root, PathBase::Top]),
            (Root::Path("/".into()), LegacyRoot::Pool, &[]),
        ] {
            let settings = Settings { root, legacy_root, ..Settings::default() };
            assert_eq!(host.roots(&settings, &trees(&[""])).groundless, groundless, "{settings:?}");
        }
    }

    #[test]
    fn settings_choose_where_rules_begin() {
        fn roots(root: &str, legacy_root: LegacyRoot) -> ManagedRoots {
            let (_root, host) = host(&[BOOTED, UNIT]);
            let root = match root {
                "auto" => Root::Auto,
                path => Root::Path(path.into()),
            };
            let settings = Settings { root, legacy_root, ..Settings::default() };
            host.roots(&settings, &trees(&[""]))
        }
        let found = roots("auto", LegacyRoot::Pool);
        assert_eq!((&*found.legacy, &*found.warnings), (POOL_PATH, &[][..]));
        assert_eq!(roots("auto", LegacyRoot::Top).legacy, "");
        let found = roots("/sites/", LegacyRoot::Pool);
        assert_eq!(
            (&*found.rules, &*found.legacy, found.is_delegated),
            ("/sites", "/sites", false)
        );
        let found = roots("/own.slice/own.service/a", LegacyRoot::Top);
        assert!(found.is_delegated && found.warnings.is_empty());
        let found = roots("/own.slice", LegacyRoot::Top);
        assert_eq!(found.warnings, [HostWarning::RootIsSlice]);
        assert_eq!(roots("/", LegacyRoot::Top).rules, "");
    }
}
