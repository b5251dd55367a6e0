//! The drop-in files that `systemctl set-property --runtime` writes, one for each property, below
//! `/run/systemd/system.control`. Files of others must never be changed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::plan::DropIn;
use crate::config::is_unit;

/// The directories of drop-ins, by unit.
#[derive(Clone, Debug)]
pub(super) struct DropIns {
    /// `/run/systemd/system.control` except in tests.
    pub(super) control: PathBuf,
}

impl DropIns {
    /// Returns the drop-ins of a unit by name, none if its directory cannot be read.
    pub(super) fn of(&self, unit: &str) -> BTreeMap<String, DropIn> {
        let mut found = BTreeMap::new();
        let Some(directory) = self.directory(unit) else { return found };
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let Some(file) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() && is_drop_in(&file) {
                let modified = (metadata.mtime(), metadata.mtime_nsec());
                let drop_in = DropIn { file: file.clone(), inode: metadata.ino(), modified };
                found.insert(file, drop_in);
            }
        }
        found
    }

    /// Removes the files that have not changed since they were recorded, and the directory if it is
    /// empty then. Returns the number of removed files.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub(super) fn remove(&self, unit: &str, drop_ins: &[DropIn]) -> io::Result<usize> {
        let Some(directory) = self.directory(unit) else { return Ok(0) };
        let present = self.of(unit);
        let mut removed = 0;
        for drop_in in drop_ins.iter().filter(|own| present.get(&own.file) == Some(own)) {
            match fs::remove_file(directory.join(&drop_in.file)) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    let path = directory.join(&drop_in.file);
                    return Err(io::Error::new(
                        error.kind(),
                        format!("{}: {error}", path.display()),
                    ));
                }
            }
        }
        if removed > 0 {
            // Fails while the directory contains files of others.
            let _is_removed = fs::remove_dir(&directory);
        }
        Ok(removed)
    }

    /// Returns the directory of a unit, `None` for an invalid unit name: names are read from a
    /// file, and must not lead to another directory.
    fn directory(&self, unit: &str) -> Option<PathBuf> {
        is_unit(unit).then(|| self.control.join(Path::new(&format!("{unit}.d"))))
    }
}

/// Checks whether the name is one that systemd gives to the drop-in of a property.
pub(super) fn is_drop_in(file: &str) -> bool {
    let stem = file.strip_prefix("50-").and_then(|rest| rest.strip_suffix(".conf"));
    stem.is_some_and(|stem| !stem.is_empty() && stem.chars().all(|c| c.is_ascii_alphanumeric()))
}

/// Checks whether systemd writes one of these `Property=value` assignments into this file. It
/// appends the kind of the value to some names: `MemoryMaxScale` for a percentage,
/// `IODeviceLatencyTargetUSec`.
pub(super) fn is_of(file: &str, properties: &[&str]) -> bool {
    let stem = file.strip_prefix("50-").and_then(|rest| rest.strip_suffix(".conf"));
    let names = properties.iter().filter_map(|word| word.split('=').next());
    stem.is_some_and(|stem| {
        names.map(|name| name.trim_end_matches("Sec")).any(|name| {
            stem.strip_prefix(name)
                .is_some_and(|rest| matches!(rest, "" | "Scale" | "Sec" | "USec" | "PerSecUSec"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(files: &[&str]) -> (tempfile::TempDir, DropIns) {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "[Slice]\n").unwrap();
        }
        let drop_ins = DropIns { control: root.path().to_owned() };
        (root, drop_ins)
    }

    #[test]
    fn files_of_others_stay() {
        let (root, drop_ins) = control(&[
            "user-1.slice.d/50-TasksMax.conf",
            "user-1.slice.d/50-CPUWeight.conf",
            "user-1.slice.d/90-admin.conf",
        ]);
        let of = drop_ins.of("user-1.slice");
        assert_eq!(of.keys().collect::<Vec<_>>(), ["50-CPUWeight.conf", "50-TasksMax.conf"]);
        let ours: Vec<DropIn> = of.into_values().collect();
        let weight = root.path().join("user-1.slice.d/50-CPUWeight.conf");
        // systemd replaces the file with rename(2).
        fs::write(root.path().join("new"), "[Slice]\nCPUWeight=7\n").unwrap();
        fs::rename(root.path().join("new"), &weight).unwrap();
        assert_eq!(drop_ins.remove("user-1.slice", &ours).unwrap(), 1);
        assert!(weight.exists() && root.path().join("user-1.slice.d/90-admin.conf").exists());
        assert_eq!(drop_ins.remove("user-1.slice", &ours).unwrap(), 0);
    }

    #[test]
    fn an_empty_directory_goes() {
        let (root, drop_ins) = control(&["a.service.d/50-TasksMax.conf"]);
        let ours: Vec<DropIn> = drop_ins.of("a.service").into_values().collect();
        assert_eq!(drop_ins.remove("a.service", &ours).unwrap(), 1);
        assert!(!root.path().join("a.service.d").exists());
    }

    #[test]
    fn no_name_leads_elsewhere() {
        let (root, drop_ins) = control(&["x/50-TasksMax.conf", "a.service.d/50-TasksMax.conf"]);
        for unit in ["../x", "a.service.d/../a.service", "/etc/a.service", ""] {
            assert!(drop_ins.of(unit).is_empty(), "{unit}");
            let file = DropIn { file: "50-TasksMax.conf".to_owned(), inode: 1, modified: (0, 0) };
            assert_eq!(drop_ins.remove(unit, &[file]).unwrap(), 0);
        }
        assert!(root.path().join("x/50-TasksMax.conf").exists());
    }

    #[test]
    fn files_by_property() {
        let table = [
            ("50-TasksMax.conf", "TasksMax=5", true),
            ("50-MemoryMaxScale.conf", "MemoryMax=25%", true),
            ("50-CPUQuota.conf", "CPUQuota=5%", true),
            ("50-CPUQuotaPeriodSec.conf", "CPUQuotaPeriodSec=5us", true),
            (
                "50-IODeviceLatencyTargetUSec.conf",
                "IODeviceLatencyTargetSec=/dev/block/8:0 1us",
                true,
            ),
            ("50-CPUQuotaPeriodSec.conf", "CPUQuota=5%", false),
            ("50-MemoryMaxScale.conf", "MemoryMin=25%", false),
            ("90-TasksMax.conf", "TasksMax=5", false),
        ];
        for (file, word, expected) in table {
            assert_eq!(is_of(file, &[word]), expected, "{file} {word}");
        }
        for file in ["50-.conf", "50-../a.conf", "50-a/b.conf", "x", "50-a.conf~", "50-ä.conf"] {
            assert!(!is_drop_in(file), "{file}");
        }
    }
}
