//! Translates any key and value for either interface or reports an error, and both interfaces agree
//! on whether the value is invalid.
#![no_main]

use cgruled::cgroup::mounts::Version;
use cgruled::cgroup::settings::{SettingError, check, files};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some((key, value)) = text.split_once('=') else { return };
    let siblings = |_: &str| Some(value.to_owned());
    for version in [Version::V1, Version::V2] {
        match files(key, value, version, &siblings) {
            Ok(writes) => assert!(
                writes.writes.iter().all(|write| !write.file.contains('/') || key.contains('/'))
            ),
            Err(SettingError::Value(_)) => assert!(check(key, value).is_err()),
            Err(SettingError::NoCounterpart(_)) => assert!(check(key, value).is_ok()),
        }
    }
});
