//! Parses any cgconfig.conf to sections and diagnostics; every diagnostic can be shown, and has a
//! position inside of the file.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use cgruled::config::cgconfig_conf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = Arc::from(Path::new("/etc/cgconfig.conf"));
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let parsed = cgconfig_conf::parse(&file, &cgconfig_conf::decode(bytes));
    for diagnostic in &parsed.diagnostics {
        let _shown = diagnostic.to_string();
        assert!(diagnostic.place.as_ref().is_none_or(|place| place.line as usize <= lines));
    }
    for section in parsed.groups.iter().chain(&parsed.templates) {
        assert!(section.perm.is_some() || !section.controllers.is_empty());
    }
});
