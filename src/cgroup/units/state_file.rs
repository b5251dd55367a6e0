//! Records the units with settings from cgruled in a file, so that they survive a restart of the
//! daemon. The drop-ins are in /run as well, so both are gone after a boot.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::drop_ins::is_drop_in;
use super::plan::AppliedUnits;
use crate::config::is_unit;
use crate::sys::atomic_file;

/// The current version of the format.
const VERSION: u32 = 1;
/// The maximum size in bytes: 65,536 units of 256 bytes.
const MAX_SIZE: u64 = 16 << 20;

/// The JSON document in the file.
#[derive(Debug, Serialize, Deserialize)]
struct StateDocument {
    version: u32,
    units: AppliedUnits,
}

/// Reads the file. Returns `None` if it does not exist or cannot have been written by cgruled.
pub(super) fn read(path: &Path) -> Option<AppliedUnits> {
    let applied = match atomic_file::read_own(path, MAX_SIZE) {
        Ok(None) => return None,
        Ok(Some(bytes)) => parse(&bytes),
        Err(error) => {
            ::log::warn!(
                "cannot read {}: {error}; unit settings of an earlier run stay",
                path.display()
            );
            return None;
        }
    };
    if applied.is_none() {
        ::log::warn!("invalid state file {}; unit settings of an earlier run stay", path.display());
    }
    applied
}

/// Parses the content. An invalid unit or drop-in name makes the whole document invalid.
fn parse(bytes: &[u8]) -> Option<AppliedUnits> {
    let StateDocument { version, units } = serde_json::from_slice(bytes).ok()?;
    let mut files = units.values().flat_map(|unit| &unit.drop_ins);
    let is_valid = version == VERSION
        && units.keys().all(|name| is_unit(name))
        && files.all(|drop_in| is_drop_in(&drop_in.file));
    is_valid.then_some(units)
}

/// Replaces the file atomically.
///
/// # Errors
/// The file or its directory cannot be written.
pub(super) fn write(path: &Path, applied: &AppliedUnits) -> io::Result<()> {
    let document = StateDocument { version: VERSION, units: applied.clone() };
    let bytes = serde_json::to_vec(&document)?;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    atomic_file::replace(path, 0o600, &bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cgroup::units::plan::{AppliedUnit, DropIn};

    fn one(unit: &str, file: &str) -> AppliedUnits {
        let drop_ins = vec![DropIn { file: file.to_owned(), inode: 7, modified: (1, 2) }];
        let applied = AppliedUnit { properties: vec!["TasksMax=5".to_owned()], drop_ins };
        AppliedUnits::from([(unit.to_owned(), applied)])
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("below/units.json");
        assert_eq!(read(&path), None);
        let applied = one("user-1000.slice", "50-TasksMax.conf");
        write(&path, &applied).unwrap();
        write(&path, &applied).unwrap();
        assert_eq!(read(&path), Some(applied));
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
        assert_eq!(read(&path), None, "others could have written it");
    }

    #[test]
    fn names_that_lead_elsewhere_make_it_invalid() {
        fn bytes(applied: AppliedUnits) -> Vec<u8> {
            serde_json::to_vec(&StateDocument { version: VERSION, units: applied }).unwrap()
        }
        assert!(parse(&bytes(one("a.service", "50-TasksMax.conf"))).is_some());
        assert!(parse(&bytes(one("../a.service", "50-TasksMax.conf"))).is_none());
        assert!(parse(&bytes(one("a.service", "../50-TasksMax.conf"))).is_none());
        assert!(parse(b"{\"version\":2,\"units\":{}}").is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _applied = parse(&bytes);
        }

        #[test]
        fn any_names_are_safe(unit in "[ -~]{0,30}", file in "[ -~]{0,30}") {
            let document = StateDocument { version: VERSION, units: one(&unit, &file) };
            let bytes = serde_json::to_vec(&document).unwrap();
            if let Some(units) = parse(&bytes) {
                prop_assert!(units.keys().all(|name| !name.contains('/')));
                let mut files = units.values().flat_map(|unit| &unit.drop_ins);
                prop_assert!(files.all(|own| !own.file.contains(['/', ' '])));
            }
        }
    }
}
