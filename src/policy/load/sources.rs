//! The places of rule files. It reads none.

use std::path::{Path, PathBuf};

use crate::event::Uid;

/// The directories of rule files. A file in an earlier one overrides that of the same name in a
/// later one, and its rules come first.
pub const STANDARD_DIRECTORIES: [&str; 4] = [
    "/etc/cgruled/rules.d",
    "/run/cgruled/rules.d",
    "/usr/local/lib/cgruled/rules.d",
    "/usr/lib/cgruled/rules.d",
];

/// The files and directories that rules are loaded from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// Directories of TOML files, in order of precedence.
    pub directories: Vec<PathBuf>,
    /// True if the legacy files are loaded before them.
    pub legacy: bool,
    /// The legacy rule file of cgrulesengd.
    pub cgrules_conf: PathBuf,
    /// The directory of further legacy rule files.
    pub cgrules_d: PathBuf,
    /// The legacy file that configures cgroups.
    pub cgconfig_conf: PathBuf,
    /// The directory of further such files.
    pub cgconfig_d: PathBuf,
    /// The required owner of files and directories: root, except in tests.
    pub owner: Uid,
}

impl Sources {
    /// Returns all directories in which files are read, those of the legacy files included.
    pub fn all_directories(&self) -> Vec<PathBuf> {
        let files = [&self.cgrules_conf, &self.cgconfig_conf].into_iter();
        let parents = files.filter_map(|file| file.parent().map(Path::to_owned));
        let legacy = parents.chain([self.cgrules_d.clone(), self.cgconfig_d.clone()]);
        let legacy = legacy.filter(|_| self.legacy);
        self.directories.iter().cloned().chain(legacy).collect()
    }
}

impl Default for Sources {
    fn default() -> Self {
        Self {
            directories: STANDARD_DIRECTORIES.map(PathBuf::from).to_vec(),
            legacy: true,
            cgrules_conf: PathBuf::from("/etc/cgrules.conf"),
            cgrules_d: PathBuf::from("/etc/cgrules.d"),
            cgconfig_conf: PathBuf::from("/etc/cgconfig.conf"),
            cgconfig_d: PathBuf::from("/etc/cgconfig.d"),
            owner: Uid(0),
        }
    }
}
