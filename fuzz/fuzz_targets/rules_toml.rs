//! Parses any file to rules, tests and diagnostics; every diagnostic can be shown, and has a
//! position inside of the file. Each test has a verdict.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use cgruled::config::diagnostic::Severity;
use cgruled::config::rules_toml;
use cgruled::config::test_table::MAX_TESTS;
use cgruled::placement::assertions;
use cgruled::policy::load::TestedFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = Arc::from(Path::new("/rules.d/50-fuzz.toml"));
    let lines = bytes.iter().filter(|&&byte| byte == b'\n').count() + 1;
    let parsed = rules_toml::parse_bytes(&file, bytes);
    for diagnostic in &parsed.diagnostics {
        let _shown = diagnostic.to_string();
        assert!(diagnostic.place.as_ref().is_none_or(|place| place.line as usize <= lines));
    }
    for written in &parsed.rules {
        assert!(written.rule.origin.line as usize <= lines);
        assert!(!written.rule.when.is_empty() || !written.rule.not.is_empty());
    }
    assert!(parsed.tests.len() <= MAX_TESTS);
    let tested = TestedFile { rules: parsed.rules, tests: parsed.tests };
    for failure in assertions::report(&[tested], Severity::Error) {
        let _shown = failure.to_string();
        assert!(failure.place.is_none_or(|place| place.line as usize <= lines));
    }
});
