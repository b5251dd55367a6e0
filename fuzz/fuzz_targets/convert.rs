//! Converts any file of another program (the first byte selects the syntax) to rules: each diagnostic can be shown,
//! and the result is a valid rule file.
#![no_main]

use std::path::Path;
use std::sync::Arc;

use cgruled::compat::convert::{HostFacts, SourceFile, SourceSyntax, convert};
use cgruled::config::diagnostic::Severity;
use cgruled::config::rules_toml;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let (name, syntax) = match first {
        b'a' => ("/etc/ananicy.d/a.rules", SourceSyntax::Ananicy),
        b'c' => ("/etc/cgrules.conf", SourceSyntax::Cgrules),
        _ => ("/etc/cgconfig.conf", SourceSyntax::Cgconfig),
    };
    let text = String::from_utf8_lossy(rest).into_owned();
    let sources = [SourceFile { file: Path::new(name).into(), syntax, text }];
    let host = HostFacts { controllers: vec!["cpu".to_owned()], cpus: 2, knows: &|_, _| true };
    let converted = convert(&sources, &host);
    for diagnostic in &converted.diagnostics {
        let _shown = diagnostic.to_string();
    }
    let file = Arc::from(Path::new("/rules.d/50-converted.toml"));
    let parsed = rules_toml::parse_bytes(&file, converted.text.as_bytes());
    let error = parsed.diagnostics.iter().find(|found| found.severity == Severity::Error);
    assert!(error.is_none(), "{error:?}\n{}", converted.text);
});
