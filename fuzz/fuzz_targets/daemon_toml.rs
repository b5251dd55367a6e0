//! Parses any file to settings and diagnostics that can be shown.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use cgruled::config::daemon_toml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = Arc::from(Path::new("/cgruled.toml"));
    let (_settings, diagnostics) = daemon_toml::parse_bytes(&file, bytes);
    diagnostics.iter().for_each(|diagnostic| drop(diagnostic.to_string()));
});
